"""How is S3 asked a million times? Signed by botocore, over urllib3's kept connections; no answer is modelled.

For the worker processes: boto3's clients spend most of a listing's time on turning answers into objects. And not by
obstore, which is as cheap: its paths are not S3's keys. Version 0.12.1 gives `a/` as `a`, so that a folder's object
and a file of its name are one, and ends a whole LIST at one key with a newline, a tab, `//`, `./` or `../` in it.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import urllib3
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from lxml import etree
from urllib3.exceptions import HTTPError

T = TypeVar("T")
ATTEMPTS = 10
LONGEST_PAUSE = 20.0  # seconds
AGAIN = {408, 429, 500, 502, 503, 504}
AGAIN_CODES = {
    "InternalError", "RequestTimeout", "RequestTimeoutException", "ServiceUnavailable", "SlowDown", "Throttling",
    "ThrottlingException",
}  # fmt: skip
EXPIRED = {"ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidToken", "TokenRefreshRequired"}
DENIED = {"AccessDenied", "AllAccessDisabled", "Forbidden"}
MOVED = {"PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
NEEDED = {  # and kms:Decrypt for SSE-KMS
    "GET": "s3:GetObject", "HEAD": "s3:GetObject", "LIST": "s3:ListBucket", "ATTRIBUTES": "s3:GetObjectAttributes",
}  # fmt: skip
LONGEST_PAGE = 4 << 20  # bytes: ten times a page of parts; what does not know the operation sends the whole object


class Refused(Exception):
    """S3 said no, or gave no usable answer in all attempts. `kind` is denied, expired or other."""

    def __init__(self, message: str, *, kind: str = "other", status: int = 0, code: str = "") -> None:
        super().__init__(message)
        self.kind, self.status, self.code = kind, status, code


class Torn(Exception):
    """An answer that is not whole, or not right: to be asked again."""


@dataclass(frozen=True)
class Door:
    """Where a bucket is asked, and how."""

    url: str  # scheme, host and, with path-style addressing, the bucket
    bucket: str
    region: str
    ca: str | None = None  # a file of certificates
    proxy: str | None = None
    connections: int = 16
    requests_per_second: float | None = None
    timeout: float = 60.0  # seconds without a byte


class Pace:
    """At most so many a second, over all threads; None: as fast as it goes."""

    def __init__(self, rate: float | None) -> None:
        self._rate, self._next, self._lock = rate, time.monotonic(), threading.Lock()

    def wait(self) -> None:
        """Until the next one may go."""
        if self._rate:
            with self._lock:
                self._next = max(self._next, time.monotonic() - 1.0) + 1 / self._rate
                pause = self._next - time.monotonic()
            time.sleep(max(0.0, pause))


class Wire:
    """Connections to one bucket, shared by threads; `credentials` may be replaced at any time."""

    def __init__(
        self, door: Door, sleep: Callable[[float], object] | None = None, stopped: threading.Event | None = None
    ) -> None:
        """Once it is `stopped` it asks nothing more."""
        self.door = door
        self._stopped = stopped or threading.Event()
        self.credentials: ReadOnlyCredentials | None = None
        self.counts = {"LIST": 0, "HEAD": 0, "GET": 0, "ATTRIBUTES": 0, "KMS": 0, "again": 0}
        self._lock = threading.Lock()
        self._sleep = sleep or self._stopped.wait
        self._pace = Pace(door.requests_per_second)
        at = urlsplit(door.url)
        self._base, self._path = f"{at.scheme}://{at.netloc}", at.path.rstrip("/")
        options: dict[str, Any] = {
            "maxsize": door.connections, "timeout": urllib3.Timeout(connect=10, read=door.timeout), "retries": False,
        }  # fmt: skip
        if at.scheme == "https":
            options.update(ca_certs=door.ca, cert_reqs="CERT_REQUIRED")
        manager = urllib3.ProxyManager(door.proxy, **options) if door.proxy else urllib3.PoolManager(**options)
        # The pool itself, asked with a path: a manager would resolve `..` in keys.
        self._pool = manager.connection_from_url(self._base)

    def page(self, **query: str) -> bytes:
        """One page of ListObjectsV2, as it came."""
        query = {"list-type": "2", **query}
        text = urlencode(sorted(query.items()), quote_via=quote, safe="")
        return self._asked("LIST", "GET", self._path + "/", text, {})[1]

    def head(self, key: str, part: int | None = None) -> urllib3.BaseHTTPResponse | None:
        """An object's headers, checksums too; None: it is not there."""
        query = "" if part is None else f"partNumber={part}"
        try:
            return self._asked("HEAD", "HEAD", self._place(key), query, {"x-amz-checksum-mode": "ENABLED"})[0]
        except Refused as refused:
            if refused.status == 404 and refused.code != "NoSuchBucket":
                return None
            raise

    def attributes(self, key: str, after: int) -> bytes | None:
        """One page of an object's parts behind a part, as it came, up to `LONGEST_PAGE`; None: it is not there."""
        headers = {"x-amz-object-attributes": "ETag,ObjectParts", "x-amz-part-number-marker": str(after)}

        def once() -> bytes:
            answer = self._sent("ATTRIBUTES", "GET", self._place(key), "attributes", headers, stream=True)
            body = answer.read(LONGEST_PAGE)
            if len(body) == LONGEST_PAGE:
                answer.close()
            answer.release_conn()
            return body

        try:
            return self._attempts("ATTRIBUTES", once)
        except Refused as refused:
            if refused.status == 404 and refused.code != "NoSuchBucket":
                return None
            raise

    def get(self, key: str, headers: Mapping[str, str]) -> bytes:
        """The bytes of a small object, or of a range of one."""
        return self._asked("GET", "GET", self._place(key), "", headers)[1]

    @contextmanager
    def opened(self, key: str, headers: Mapping[str, str]) -> Iterator[urllib3.BaseHTTPResponse]:
        """An object's body to read from; network errors while reading are the caller's."""
        answer = self._attempts("GET", lambda: self._sent("GET", "GET", self._place(key), "", headers, stream=True))
        try:
            yield answer
        finally:
            answer.close()
            answer.release_conn()

    def again(self, attempt: int) -> None:
        """Pause before another attempt: full jitter, longer each time."""
        with self._lock:
            self.counts["again"] += 1
        self._sleep(random.uniform(0, min(LONGEST_PAUSE, 0.1 * 2**attempt)))

    def _place(self, key: str) -> str:
        return f"{self._path}/{quote(key, safe='/~')}"

    def _asked(
        self, kind: str, method: str, path: str, query: str, headers: Mapping[str, str]
    ) -> tuple[urllib3.BaseHTTPResponse, bytes]:
        def once() -> tuple[urllib3.BaseHTTPResponse, bytes]:
            answer = self._sent(kind, method, path, query, headers)
            return answer, answer.data

        return self._attempts(kind, once)

    def _attempts(self, kind: str, once: Callable[[], T]) -> T:
        return attempts(once, self.again, f"{kind} of s3://{self.door.bucket} at {self._base}")

    def _sent(
        self, kind: str, method: str, path: str, query: str, headers: Mapping[str, str], *, stream: bool = False
    ) -> urllib3.BaseHTTPResponse:
        """One attempt; `Torn` when it may be asked again, `Refused` when not."""
        self._pace.wait()
        if self._stopped.is_set():
            raise Refused(f"{kind} of s3://{self.door.bucket} was not asked: what asked for it was stopped.")
        target = f"{path}?{query}" if query else path
        request = AWSRequest(method, self._base + target, headers=dict(headers))
        S3SigV4Auth(self.credentials, "s3", self.door.region).add_auth(request)
        with self._lock:
            self.counts[kind] += 1
        answer = self._pool.urlopen(
            method, target, headers=dict(request.headers.items()), preload_content=not stream, decode_content=False,
            redirect=False, retries=False,
        )  # fmt: skip
        if asks_kms(answer.headers):
            with self._lock:
                self.counts["KMS"] += 1
        if answer.status >= 300:
            self._refuse(kind, answer, answer.read() if stream else answer.data)
        return answer

    def _refuse(self, kind: str, answer: urllib3.BaseHTTPResponse, body: bytes) -> None:
        code, said = error_of(body)
        refuse(kind, self.door, answer.status, code, said, answer.headers.get("x-amz-bucket-region", ""))


def with_kms(headers: Mapping[str, str]) -> bool:
    """Whether an object's key is one of KMS."""
    return headers.get("x-amz-server-side-encryption", "").startswith("aws:kms")


def asks_kms(headers: Mapping[str, str]) -> bool:
    """Whether S3 asked KMS for this answer: with a bucket key it hardly ever does (S3 user guide, bucket keys)."""
    return with_kms(headers) and headers.get("x-amz-server-side-encryption-bucket-key-enabled", "").lower() != "true"


def attempts(once: Callable[[], T], again: Callable[[int], None], what: str) -> T:
    """The first whole answer; what may be asked again is, with pauses, `ATTEMPTS` times."""
    for attempt in range(ATTEMPTS):
        try:
            return once()
        except (Torn, HTTPError) as error:
            last: Exception = error
            if attempt + 1 < ATTEMPTS:
                again(attempt)
    raise Refused(
        f"{what}: no usable answer in {ATTEMPTS} attempts; the last one: {last}. Check the network and the limits on "
        "requests, then run it again: what is finished is kept."
    ) from last


def error_of(body: bytes) -> tuple[str, str]:
    """Code and message of an error's body; empty when it has none."""
    try:
        root = etree.fromstring(body)
    except etree.XMLSyntaxError:
        return "", ""
    found = {etree.QName(child).localname: child.text or "" for child in root if isinstance(child.tag, str)}
    return found.get("Code", ""), found.get("Message", "")


def refuse(kind: str, door: Door, status: int, code: str, said: str, region: str = "") -> None:
    """Raise what an error means: `Torn`, ask again; `Refused`, do not."""
    what = f"{kind} of s3://{door.bucket}: {status} {code or 'without a code'}{': ' if said else ''}{said}."
    if status in AGAIN or code in AGAIN_CODES:
        raise Torn(what)
    if code in EXPIRED:
        raise Refused(
            f"{what} The credentials are not valid (any more). Sign in and run it again: what is finished is kept.",
            kind="expired", status=status, code=code,
        )  # fmt: skip
    if code == "RequestTimeTooSkewed":
        raise Refused(f"{what} Set this machine's clock, then run it again.", status=status, code=code)
    if code in MOVED or status in (301, 307):
        where = region or "another region"
        raise Refused(
            f"{what} The bucket is in {where}, it was asked in {door.region}. Correct the environment's regions.",
            status=status, code=code,
        )  # fmt: skip
    if code in DENIED or status == 403:
        raise Refused(
            f"{what} It needs {NEEDED[kind]}; `runbook doctor --iam` prints the policy.",
            kind="denied", status=status, code=code,
        )  # fmt: skip
    raise Refused(f"{what} Check the bucket's name and the environment.", status=status, code=code)
