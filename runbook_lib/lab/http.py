"""What does one HTTP request hold when it reaches a service, and what does the service answer?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO


class Headers(Mapping[str, str]):
    """Request headers; names in any case, kept in lower case, exactly as spelt otherwise (`_` is not `-`)."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._values = {name.lower(): value for name, value in pairs}

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._values


@dataclass(frozen=True)
class Payload:
    """How the body was declared, and what verifies the signatures of aws-chunked chunks (S3's SigV4 streaming)."""

    declared: str  # x-amz-content-sha256: a hex digest, UNSIGNED-PAYLOAD or STREAMING-…
    signing_key: bytes = field(repr=False)
    seed_signature: str  # the request's own signature, the first chunk's predecessor
    scope: str  # 20260102/eu-central-1/s3/aws4_request
    date: str  # 20260102T030405Z


@dataclass(frozen=True)
class HttpRequest:
    """One authenticated request. Reading `body` to its end verifies a declared SHA-256 (raises `protocol.Refusal`)."""

    method: str
    path: str  # as sent, still percent-encoded
    query: str  # as sent, without the question mark
    headers: Headers
    body: BinaryIO  # exactly the payload as sent; a connection that ends early raises ConnectionError
    content_length: int | None
    region: str
    access_key: str
    payload: Payload


@dataclass(frozen=True)
class HttpResponse:
    """What goes back. An iterable body streams: give it a Content-Length header when its size is known."""

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes | Iterable[bytes] = b""
