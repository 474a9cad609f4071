"""What bytes does an aws-chunked body carry, and are its chunk signatures and its trailer right?

The format is that of Signature Version 4 for S3's streaming uploads: `size[;chunk-signature=…]`, the data, and so on,
then a chunk of size 0 and optional trailer lines. Bytes are handed on as they come; the caller makes nothing visible
before the end, so a wrong signature refuses the whole body.
"""

from __future__ import annotations

import hashlib
import hmac
import io
from typing import BinaryIO

from .http import Payload
from .protocol import Refusal

EMPTY = hashlib.sha256(b"").hexdigest()
LONGEST_LINE = 4096  # bytes; a chunk's header has a size and a signature, a trailer a name and a checksum
HEXADECIMAL = b"0123456789abcdefABCDEF"
TRAILER_LINES = 16
BUFFER = 1 << 16  # bytes read at a time while looking for a line


def _incomplete(what: str) -> Refusal:
    return Refusal("IncompleteBody", f"The request body terminated unexpectedly: {what}")


class ChunkedBody(io.RawIOBase):
    """The payload inside an aws-chunked body; `trailers` (names in lower case) are complete after the last byte."""

    def __init__(self, source: BinaryIO, payload: Payload, decoded_length: int) -> None:
        self._source, self._buffer, self._at = source, b"", 0
        self._payload = payload
        self._signed = payload.declared.startswith("STREAMING-AWS4-HMAC-SHA256-PAYLOAD")
        self._trailing = payload.declared.endswith("-TRAILER")
        self._expected, self._seen = decoded_length, 0
        self._left = 0  # bytes of this chunk that were not read yet
        self._signature = ""  # as declared for this chunk
        self._previous = payload.seed_signature
        self._hash = hashlib.sha256()
        self._first, self._done = True, False
        self.trailers: dict[str, str] = {}

    def readable(self) -> bool:
        """It is."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; Refusal when the body is malformed, too short, or wrongly signed."""
        if size < 0:
            return b"".join(iter(lambda: self.read(1 << 20), b""))
        pieces = []
        while size > 0 and not self._done:
            if self._left == 0:
                self._next_chunk()
                continue
            data = self._take(min(size, self._left))
            if not data:
                raise _incomplete("a chunk is shorter than its header says")
            self._left -= len(data)
            self._seen += len(data)
            size -= len(data)
            if self._signed:
                self._hash.update(data)
            pieces.append(data)
        return b"".join(pieces)

    def _next_chunk(self) -> None:
        if not self._first:
            self._finish_chunk()
            if self._line() != b"":
                raise _incomplete("a chunk is longer than its header says")
        self._first = False
        size, _, extension = self._line().partition(b";")
        size = size.strip()
        self._left = int(size, 16) if size and not size.strip(HEXADECIMAL) else -1
        if self._left < 0 or self._seen + self._left > self._expected:
            raise _incomplete("a chunk's size is not right")
        name, _, value = extension.partition(b"=")
        self._signature = value.strip().decode("latin-1") if name.strip() == b"chunk-signature" else ""
        self._hash = hashlib.sha256()
        if self._left == 0:
            self._finish_chunk()
            self._finish()

    def _finish_chunk(self) -> None:
        if self._signed:
            self._verify("AWS4-HMAC-SHA256-PAYLOAD", [EMPTY, self._hash.hexdigest()], self._signature)

    def _verify(self, kind: str, hashes: list[str], declared: str) -> None:
        payload = self._payload
        text = "\n".join([kind, payload.date, payload.scope, self._previous, *hashes])
        expected = hmac.new(payload.signing_key, text.encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(expected.encode(), declared.encode()):
            message = "The signature of a chunk or of the trailer of the body does not match."
            raise Refusal("SignatureDoesNotMatch", message, status=403)
        self._previous = expected

    def _finish(self) -> None:
        signed = ""
        for _ in range(TRAILER_LINES):
            line = self._line(end_is_fine=True)
            if not line:
                break
            name, _, value = line.decode("latin-1").partition(":")
            self.trailers[name.strip().lower()] = value.strip()
        signature = self.trailers.pop("x-amz-trailer-signature", "")
        if self._signed and self._trailing:
            signed = "".join(f"{name}:{value}\n" for name, value in self.trailers.items())
            self._verify("AWS4-HMAC-SHA256-TRAILER", [hashlib.sha256(signed.encode("latin-1")).hexdigest()], signature)
        if self._seen != self._expected:
            raise _incomplete(f"{self._seen} bytes came of {self._expected}")
        while self._take(1 << 16):  # to the true end, where the front door checks what it counts
            pass
        self._done = True

    def _line(self, *, end_is_fine: bool = False) -> bytes:
        while (end := self._buffer.find(b"\n", self._at)) < 0 and len(self._buffer) - self._at < LONGEST_LINE:
            more = self._source.read(BUFFER)
            if not more:
                break
            self._buffer, self._at = self._buffer[self._at :] + more, 0
        if end < 0:
            if end_is_fine and self._at == len(self._buffer):
                return b""
            raise _incomplete("a line of the aws-chunked framing is cut off or too long")
        line, self._at = self._buffer[self._at : end], end + 1
        return line.rstrip(b"\r")

    def _take(self, size: int) -> bytes:
        """Up to `size` bytes: what is buffered, else straight from the source."""
        if self._at < len(self._buffer):
            data = self._buffer[self._at : self._at + size]
            self._at += len(data)
            return data
        return self._source.read(size)
