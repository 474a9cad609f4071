"""What must never be written down: secrets are masked before a record or a message is kept.

Values that are known (`register`) are found in all their usual encodings, others by their shape or by the name they
stand beside. Account ids and ARNs stay, but for what is shared (RUNBOOK_MASK=share).
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import SettingsError
from .encodings import BREAK, LINES, any_of, base64s, encodings
from .patterns import IDENTITIES, MASK, SECRETS, Rule

__all__ = [
    "KNOWN", "MASK", "forward", "found", "known", "masked", "refuse_secrets", "register", "remembered", "secret_name"
]  # fmt: skip

KNOWN = "known value"  # the rule of registered values
SHORTEST = 6  # characters: shorter values would be found everywhere; they are masked beside their names only
SECRET_NAME = re.compile(
    r"(?i)(secret|passwo?r?d|passwd|passphrase|token(?!iz)|api_?key|credential|private_?key|(?<![a-z])(pwd?|pgpass)(?![a-z]))"
)
NOT_SECRET = re.compile(
    r"(?i)^(next_?token|continuation_?token|client_?token|idempotency_?token|max_?results|.*(?:_?(?:id|arn|name|file|path))"
    r"|.*_(?:count|length|minutes|seconds|hours|days|age|ttl|expires?|expired|expiry|expiration|at|policy|encryption))$"
)
FOLDERS = ("PWD", "OLDPWD")  # where a shell is and was: names of its own, and no passwords
REFERENCE = re.compile(r"^(env|secretsmanager|ssm):\S+$|^arn:aws")
ARN = re.compile(r"arn:aws[\w-]*(?::[^\s:]*){4,}")
COLOUR = re.compile(r"(?:\x1b|\\+(?:u001b|x1b|033))\[[0-9;:?]*[A-Za-z]", re.IGNORECASE)  # as it is, or escaped
WHOLE_WORD = 12  # letters: a known value of fewer letters and nothing else is masked as a word, not within others

_known: set[str] = set()
_expression: re.Pattern[str] | None = None
_broken: re.Pattern[str] | None = None  # the same, in base64 of several lines
_listeners: list[Callable[[list[str]], None]] = []


def register(*values: str | None) -> None:
    """Mask these values from now on, wherever they stand."""
    global _expression, _broken
    new = {value for value in values if value and len(value) >= SHORTEST} - _known
    if new:
        _known.update(new)
        _expression = _broken = None
        for tell in _listeners:
            tell(sorted(new))


def forward(tell: Callable[[list[str]], None]) -> None:
    """Tell somebody else too, in memory, which values are to be masked: those known now, and each new one."""
    if tell not in _listeners:
        _listeners.append(tell)
        if _known:
            tell(sorted(_known))


def known() -> set[str]:
    """The registered values; the environment's variables whose names say so are among them."""
    named = {name: value for name, value in os.environ.items() if name not in FOLDERS and secret_name(name)}
    register(*(value for value in named.values() if not REFERENCE.match(value)))
    return set(_known)


def masked(value: Any, counted: Counter[str] | None = None, *, share: bool | None = None) -> Any:
    """A copy of JSON-like data with secrets masked; `counted` grows by one for each, by rule.

    `share` masks account ids and ARNs too; None: as RUNBOOK_MASK says.
    """
    counts = Counter[str]() if counted is None else counted
    shared = os.environ.get("RUNBOOK_MASK") == "share" if share is None else share
    return Masking(SECRETS + IDENTITIES if shared else SECRETS, _known_values(), counts)(value)


def remembered(value: Any) -> Any:
    """As `masked` for what guards side effects: a text that is an ARN stays whole, whatever values are known."""
    return Masking(SECRETS, _known_values(), Counter(), ARN)(value)


def found(text: str) -> Counter[str]:
    """Which rules find a secret in a text by its shape, and how often: the same whoever asks."""
    counted = Counter[str]()
    Masking(SECRETS, None, counted)(text)
    return counted


def refuse_secrets(parameters: dict[str, Any]) -> None:
    """Raise `SettingsError` for a parameter whose name says that it is a secret, unless it is the name of one."""
    for name, value in _leaves(parameters):
        if secret_name(name) and isinstance(value, (str, int)) and not isinstance(value, bool):
            if REFERENCE.match(str(value)):
                continue
            raise SettingsError(
                f"the parameter {name!r} looks like a secret, and parameters are kept in records. Pass the name of a "
                f"secret instead: {name}=env:VARIABLE, {name}=secretsmanager:NAME or {name}=ssm:NAME."
            )


def secret_name(name: object) -> bool:
    """Does a name say that its value is a secret?"""
    return bool(SECRET_NAME.search(str(name))) and not NOT_SECRET.match(str(name))


@dataclass(frozen=True)
class Masking:
    """One way to mask: these rules, these known values; `spared` texts stay as they are."""

    rules: tuple[Rule, ...]
    known: re.Pattern[str] | None
    counts: Counter[str]
    spared: re.Pattern[str] | None = None

    def __call__(self, value: Any) -> Any:
        """A copy of JSON-like data, masked."""
        if isinstance(value, dict):
            return {self._leaf(k): self._hidden(v) if secret_name(k) else self(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [self(item) for item in value]
        return self._leaf(value)

    def _hidden(self, value: Any) -> Any:
        """Everything below a secret's name: texts and numbers masked, but for the name of a secret."""
        if isinstance(value, dict):
            return {self._leaf(key): self._hidden(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._hidden(item) for item in value]
        if value is None or isinstance(value, bool) or value in ("", MASK) or REFERENCE.match(str(value)):
            return value
        self.counts["secret beside its name"] += 1
        return MASK

    def _leaf(self, value: Any) -> Any:
        """A text masked; anything else as it is, but where its own text has to be masked."""
        if value is None or isinstance(value, (bool, float)):
            return value
        if isinstance(value, str) and self.spared is not None and self.spared.fullmatch(value):
            return value
        text = value if isinstance(value, str) else str(value)
        shown = self._text(text)
        return value if shown == text else shown

    def _text(self, text: str) -> str:
        """A text masked; one in colours loses them when they stood in or beside a secret."""
        if len(text) < SHORTEST:
            return text
        plain = COLOUR.sub("", text) if "[" in text else text
        if plain != text:
            before = self.counts.total()
            shown = self._plain(plain)
            if self.counts.total() > before:
                return shown
        return self._plain(text)

    def _plain(self, text: str) -> str:
        if self.known is not None:
            for expression in (self.known, *([_in_lines()] if LINES.search(text) else [])):
                text, hits = expression.subn(MASK, text)
                if hits:
                    self.counts[KNOWN] += hits
        lower = text.lower()
        for rule in self.rules:
            if not rule.likely or any(word in lower for word in rule.likely):
                text = rule.sub(text, lambda name: self.counts.update((name,)))
        return text


def _known_values() -> re.Pattern[str]:
    global _expression
    if _expression is None:
        values = known()
        short = {value for value in values if value.isalpha() and len(value) < WHOLE_WORD}
        words = {word for value in values for word in encodings(value) if len(word) >= SHORTEST} - short
        _expression = any_of(words, short)
    return _expression


def _in_lines() -> re.Pattern[str]:
    """The known values in base64 that is broken into lines; made when such lines are seen, for it takes a while."""
    global _broken
    if _broken is None:
        _broken = any_of({word for value in known() for word in base64s(value) if len(word) >= SHORTEST}, glue=BREAK)
    return _broken


def _leaves(value: Any, name: str = "") -> list[tuple[str, Any]]:
    """Every scalar with the name it stands below."""
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in _leaves(item, name if secret_name(name) else str(key))]
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in _leaves(item, name)]
    return [(name, value)]
