"""Did somebody who holds a key of this lab sign this very request, a moment ago (AWS Signature Version 4)?

Headers and presigned URLs, the S3 rules (path as sent) and the others (normalised path, the body's own hash). What is
wrong is a `Refused` with a protocol-neutral reason; `answers.py` spells it as each service does.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from urllib.parse import quote, unquote_to_bytes

from botocore.utils import normalize_url_path

from .http import Headers, Payload

ALGORITHM = "AWS4-HMAC-SHA256"
SKEW = 15 * 60  # seconds; AWS accepts requests signed up to 15 minutes away from its own clock
LONGEST_PRESIGN = 7 * 24 * 3600  # seconds
UNSIGNED = "UNSIGNED-PAYLOAD"
_CREDENTIAL = re.compile(r"([A-Za-z0-9_]{4,128})/(\d{8})/([a-z0-9-]{1,64})/([a-z0-9-]{1,64})/aws4_request")
_DATE = re.compile(r"\d{8}T\d{6}Z")


class Reason(Enum):
    """Why a request is refused."""

    MISSING = "missing"
    MALFORMED = "malformed"
    UNKNOWN_KEY = "unknown key"
    BAD_TOKEN = "bad token"
    EXPIRED_TOKEN = "expired token"
    MISMATCH = "mismatch"
    SKEWED = "skewed"
    EXPIRED = "expired"  # a presigned URL


class Refused(Exception):
    """The request is not authentic."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True)
class Secret:
    """What belongs to an access key; a session token and an end only for temporary credentials."""

    key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    expires: float | None = None  # epoch seconds


Keyring = Callable[[str], Secret | None]


@dataclass(frozen=True)
class Claim:
    """What a request says about its own signature; nothing of it is verified yet."""

    access_key: str
    day: str
    region: str
    service: str
    date: str  # 20260102T030405Z
    signed: tuple[str, ...]  # names of headers, in lower case
    signature: str
    token: str | None
    expires: int | None  # seconds; of a presigned URL, else None

    @property
    def scope(self) -> str:
        """The credential scope."""
        return f"{self.day}/{self.region}/{self.service}/aws4_request"


def read_claim(query: str, headers: Headers) -> Claim:
    """The claim in the Authorization header or in a presigned URL's query."""
    authorization = headers.get("authorization")
    if authorization is not None:
        return _header_claim(authorization, headers)
    if "X-Amz-Signature=" in query or "X-Amz-Algorithm=" in query:
        return _query_claim(query)
    raise Refused(Reason.MISSING, "Missing Authentication Token")


def _header_claim(authorization: str, headers: Headers) -> Claim:
    algorithm, _, rest = authorization.partition(" ")
    parts = dict(part.strip().partition("=")[::2] for part in rest.split(","))
    if algorithm != ALGORITHM or not {"Credential", "SignedHeaders", "Signature"} <= parts.keys():
        raise Refused(
            Reason.MALFORMED,
            f"The Authorization header must be '{ALGORITHM} Credential=…, SignedHeaders=…, Signature=…'.",
        )
    return _claim(
        parts["Credential"],
        headers.get("x-amz-date", ""),
        parts["SignedHeaders"],
        parts["Signature"],
        headers.get("x-amz-security-token"),
        None,
    )


def _query_claim(query: str) -> Claim:
    names = {name: unquote_to_bytes(value).decode("utf-8", "replace") for name, value in _pairs(query)}
    expires = names.get("X-Amz-Expires", "")
    if names.get("X-Amz-Algorithm") != ALGORITHM or not re.fullmatch(r"\d{1,6}", expires):
        raise Refused(Reason.MALFORMED, f"X-Amz-Algorithm must be {ALGORITHM} and X-Amz-Expires a number of seconds.")
    if not 0 < int(expires) <= LONGEST_PRESIGN:
        raise Refused(Reason.MALFORMED, "X-Amz-Expires must be between 1 and 604800 seconds.")
    return _claim(
        names.get("X-Amz-Credential", ""),
        names.get("X-Amz-Date", ""),
        names.get("X-Amz-SignedHeaders", ""),
        names.get("X-Amz-Signature", ""),
        names.get("X-Amz-Security-Token"),
        int(expires),
    )


def _claim(credential: str, date: str, signed: str, signature: str, token: str | None, expires: int | None) -> Claim:
    scope = _CREDENTIAL.fullmatch(credential)
    if scope is None:
        raise Refused(Reason.MALFORMED, "Credential must be <access key>/<yyyymmdd>/<region>/<service>/aws4_request.")
    if not _DATE.fullmatch(date) or not date.startswith(scope[2]):
        raise Refused(
            Reason.MALFORMED, "X-Amz-Date must be yyyymmddThhmmssZ, of the day named in the credential scope."
        )
    names = tuple(signed.split(";"))
    if "host" not in names:
        raise Refused(Reason.MALFORMED, "SignedHeaders must name host.")
    return Claim(scope[1], scope[2], scope[3], scope[4], date, names, signature, token, expires)


def verify(
    claim: Claim, *, method: str, path: str, query: str, headers: Headers, payload: str, keyring: Keyring, now: float
) -> Payload:
    """Raise `Refused` unless the claim is true. `payload` is the hash or the marker that takes its place."""
    secret = keyring(claim.access_key)
    if secret is None:
        raise Refused(Reason.UNKNOWN_KEY, "The security token included in the request is invalid.")
    _check_time(claim, now)
    signing_key = _signing_key(secret.key, claim.day, claim.region, claim.service)
    unsigned = [name for name in headers if name.startswith("x-amz-") and name not in claim.signed]
    if unsigned:
        raise Refused(Reason.MISMATCH, f"There were headers present in the request which were not signed: {unsigned}")
    canonical = _canonical_request(claim, method, path, query, headers, payload)
    text = f"{ALGORITHM}\n{claim.date}\n{claim.scope}\n{hashlib.sha256(canonical).hexdigest()}"
    expected = hmac.new(signing_key, text.encode(), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected.encode(), claim.signature.encode("utf-8", "replace")):
        raise Refused(
            Reason.MISMATCH,
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret "
            "Access Key and signing method.",
        )
    if not hmac.compare_digest((secret.token or "").encode(), (claim.token or "").encode("utf-8", "replace")):
        raise Refused(Reason.BAD_TOKEN, "The provided token is malformed or otherwise invalid.")
    if secret.expires is not None and now > secret.expires:
        raise Refused(Reason.EXPIRED_TOKEN, "The security token included in the request is expired")
    return Payload(payload, signing_key, claim.signature, claim.scope, claim.date)


def _check_time(claim: Claim, now: float) -> None:
    try:
        signed = datetime.strptime(claim.date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError as error:
        raise Refused(Reason.MALFORMED, f"X-Amz-Date {claim.date} is not a time.") from error
    if claim.expires is None:
        if abs(now - signed) > SKEW:
            ours = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
            raise Refused(Reason.SKEWED, f"Signature not current: {claim.date} is not within 15 minutes of {ours}.")
    elif signed - SKEW > now or now > signed + claim.expires:
        raise Refused(Reason.EXPIRED, "Request has expired")


@functools.lru_cache(maxsize=256)
def _signing_key(secret: str, day: str, region: str, service: str) -> bytes:
    key = b"AWS4" + secret.encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key


def _canonical_request(claim: Claim, method: str, path: str, query: str, headers: Headers, payload: str) -> bytes:
    if claim.service != "s3":  # S3 signs the path as it is sent; everybody else normalises and encodes once more
        path = quote(normalize_url_path(path), safe="/~")
    lines = [f"{name}:{' '.join(headers.get(name, '').split())}" for name in claim.signed]
    parts = [method, path, _canonical_query(query), *lines, "", ";".join(claim.signed), payload]
    return "\n".join(parts).encode("utf-8", "surrogateescape")


def _canonical_query(query: str) -> str:
    if not query:
        return ""
    pairs = sorted((_encoded(name), _encoded(value)) for name, value in _pairs(query) if name != "X-Amz-Signature")
    return "&".join(f"{name}={value}" for name, value in pairs)


def _encoded(text: str) -> str:
    return quote(unquote_to_bytes(text), safe="-_.~")


def _pairs(query: str) -> list[tuple[str, str]]:
    return [part.partition("=")[::2] for part in query.split("&") if part]
