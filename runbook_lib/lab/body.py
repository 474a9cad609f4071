"""What did the client send as the payload, and is all of it what it declared?

Streams in pieces whatever the size, asks for the body only when somebody reads it (`Expect: 100-continue`), and
raises at the end when the bytes do not have the declared SHA-256.
"""

from __future__ import annotations

import hashlib
import hmac
import io
from collections.abc import Callable
from typing import Any, Protocol

from .protocol import Refusal

DRAIN_LIMIT = 16 << 20  # bytes; a longer rest is not worth reading for the sake of keeping the connection
LINE_LIMIT = 4096  # bytes in a chunk's size line


class Source(Protocol):
    """The connection's buffered reader."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; fewer only at the end."""

    def readline(self, size: int, /) -> bytes:
        """One line of at most `size` bytes."""


class Body(io.RawIOBase):
    """The payload of one request. ConnectionError when the client leaves in the middle of it."""

    def __init__(
        self, source: Source, length: int | None, *, chunked: bool = False, ask: Callable[[], None] | None = None
    ) -> None:
        super().__init__()
        self._source = source
        self._left = 0 if chunked else (length or 0)  # of the whole, or of the present chunk
        self._chunked = chunked  # a further chunk may follow
        self._ask = ask  # sends `100 Continue`, once
        self._hash: Any = None
        self._expected = ""

    def expect(self, sha256: str) -> None:
        """Verify the payload's hash at its end."""
        self._hash, self._expected = hashlib.sha256(), sha256

    @property
    def asked_for(self) -> bool:
        """Whether a client that waits for `100 Continue` got it."""
        return self._ask is None

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """As io.RawIOBase wants it; `read` below is what is used."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read(self, size: int | None = -1) -> bytes:
        """At most `size` bytes, b"" at the end; all of the rest when negative."""
        if size is None or size < 0:
            return b"".join(iter(lambda: self.read(1 << 20), b""))
        if self._ask is not None:
            ask, self._ask = self._ask, None
            ask()
        if self._left == 0 and self._chunked:
            self._next_chunk()
        if self._left == 0:
            self._verify()
            return b""
        data = self._source.read(min(size, self._left))
        if not data and size:
            raise ConnectionError("the client left in the middle of the body")
        self._left -= len(data)
        if self._hash is not None:
            self._hash.update(data)
        if self._left == 0 and self._chunked:
            self._line()  # the line end after a chunk's data
        return data

    def drain(self) -> bool:
        """Read what nobody wanted, so that the connection can be used again; False when that is too much."""
        self._hash = None
        if self._ask is not None:
            return self._left == 0 and not self._chunked
        if self._left > DRAIN_LIMIT:  # do not wait for what may never be sent
            return False
        total = 0
        while data := self.read(1 << 16):
            total += len(data)
            if total > DRAIN_LIMIT:
                return False
        return True

    def _verify(self) -> None:
        if self._hash is None:
            return
        found, self._hash = self._hash.hexdigest(), None
        if not hmac.compare_digest(found, self._expected):
            raise Refusal(
                "XAmzContentSHA256Mismatch",
                "The provided 'x-amz-content-sha256' header does not match what was computed.",
                ClientComputedContentSHA256=self._expected,
                S3ComputedContentSHA256=found,
            )

    def _line(self) -> bytes:
        line = self._source.readline(LINE_LIMIT)
        if not line.endswith(b"\n"):
            raise ConnectionError("the client left in the middle of the body, or its chunked encoding is broken")
        return line.strip()

    def _next_chunk(self) -> None:
        """HTTP/1.1 chunked transfer coding (RFC 9112 §7.1); trailers are read and ignored."""
        text = self._line().partition(b";")[0].strip()
        if not text or len(text) > 15 or not all(byte in b"0123456789abcdefABCDEF" for byte in text):
            raise ConnectionError(f"bad chunk size {text[:40]!r}")
        self._left = int(text, 16)
        if self._left == 0:
            self._chunked = False
            while self._line():
                pass
