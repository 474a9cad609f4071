"""Which shapes does a secret have that nobody told us of? One expression a rule; only its group `secret` is masked."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

MASK = "***MASKED***"

_QUOTE = r"(?:\\*[\"']|&quot;|&\#(?:x27|39|34);)"
_NAMES = (
    r"(?:aws_?)?secret_?(?:access_?)?key|(?:session|security|access|refresh|auth)_?token|pass_?word|passwd|passphrase"
    r"|pgpassword|mysql_pwd|api_?key|client_?secret"
)
_KEYS = r"\b(?:host(?:addr)?|server|user(?:name| id)?|uid|dbname|database|port|sslmode|options)"  # of a database
_REFERENCE = r"(?!\*\*\*MASKED|env:|ssm:|secretsmanager:)"  # masked already, or the name of a secret
_CODE = r"(?![A-Za-z_][\w.]*\s*[(),\]=])"  # an expression of a program: password=self.password)


@dataclass(frozen=True)
class Rule:
    """One shape. `likely` are lower-case texts of which one must occur, so that most texts cost a search."""

    name: str
    likely: tuple[str, ...]
    pattern: str

    @cached_property
    def expression(self) -> re.Pattern[str]:
        """Compiled when it is first needed: most processes have no text that is likely to hold one."""
        return re.compile(self.pattern)

    def sub(self, text: str, seen: Callable[[str], None]) -> str:
        """The text with what the rule finds masked; `seen` is told the rule's name each time."""

        def masked(match: re.Match[str]) -> str:
            if match["secret"] is None:
                return match[0]
            seen(self.name)
            begin, end = (edge - match.start() for edge in match.span("secret"))
            return match[0][:begin] + MASK + match[0][end:]

        return self.expression.sub(masked, text)


SECRETS = (
    Rule(
        "private key",
        ("private key-----",),
        r"(?P<secret>-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z))",
    ),
    Rule("access key id", ("akia", "asia"), r"\b(?P<secret>(?:AKIA|ASIA)[A-Z0-9]{16})\b"),
    Rule(
        "session token",
        ("iqojb3jpz2lu", "fwogzxivyxdz", "fqogzxivyxdz"),
        r"(?P<secret>(?:IQoJb3JpZ2lu|FwoGZXIvYXdz|FQoGZXIvYXdz)[A-Za-z0-9+/=_%-]{20,})",
    ),
    Rule(
        "connection string",
        ("://",),
        r"://(?P<secret>[^/\s:@\"'<>\[]{0,128}:(?!\d{1,5}[/?#])(?:(?!://)[^\s\"'<>]){1,256})(?=@)",  # to the last @
    ),
    Rule(
        "connection string",
        ("pass", "pwd"),
        rf"(?i)(?:(?:{_KEYS})\s*=\s*[^\s;&,\"'=]{{1,128}}[\s;&]+(?:pass(?:word|wd)?|pwd)\s*=\s*"
        rf"|\b(?:pass(?:word|wd)?|pwd)\s*=\s*(?=[^\s;&,\"'/=]{{1,256}}(?:;|&[\w.]+=|\s+(?:{_KEYS})\s*=)))"
        rf"(?P<secret>{_REFERENCE}{_CODE}[^\s;&,\"'\\)]+)",
    ),
    Rule(
        "password in SQL",
        ("identified", "password"),
        rf"(?i)\b(?:identified\s+(?:with\s+[^\s\"']{{1,64}}\s+)?by(?:\s+password)?|password)\s+(?P<quote>{_QUOTE})"
        rf"(?P<secret>{_REFERENCE}(?:(?!(?P=quote))[^\r\n]){{1,256}})(?=(?P=quote))",
    ),
    Rule(
        "JSON web token",
        ("eyj",),
        r"(?<![\w-])(?P<secret>eyJ[\w-]{8,4096}\.[\w-]{8,65536}\.[\w-]*)",
    ),
    Rule(
        "authorization",
        ("authorization",),
        rf"(?i)authorization{_QUOTE}?\s*[:=]\s*{_QUOTE}?(?=basic|bearer|digest|token|aws4)"
        r"(?P<secret>[A-Za-z0-9-]+\s+[^\r\n\"'<\\]{8,})",
    ),
    Rule("authorization", ("bearer",), r"(?i)\bbearer\s+(?P<secret>[\w.~+/-]{16,}=*)"),
    Rule(
        "signed URL",
        ("signature", "x-amz-security-token"),
        r"(?i)(?:x-amz-(?:signature|security-token)|(?<=[?&;])signature)(?:=|%3D)(?P<secret>(?!\*\*\*MASKED)[^&\s\"'<>]+)",
    ),
    Rule(
        "secret beside its name",
        ("secret", "token", "pass", "pwd", "key"),
        rf"(?i)(?:{_NAMES}){_QUOTE}?(?:\s*(?:[:=]|=>)\s*|(?:>|&gt;))"
        rf"(?:b?(?P<quote>{_QUOTE}){_REFERENCE}|{_REFERENCE}{_CODE})"
        r"(?P<secret>(?(quote)(?:(?!(?P=quote))[^\r\n])+|[^\s\"'\\,;<>&)}\]]{6,}))",
    ),
)  # fmt: skip

IDENTITIES = (  # masked only in what is shared
    Rule("ARN", ("arn:aws",), r"\b(?P<secret>arn:aws[\w-]*:[^\s\"'<>,]+)"),
    Rule("account id", (), r"\b[0-9a-f]{64}\b|(?<!\d)(?P<secret>\d{12})(?!\d)"),  # not within a hash
)
