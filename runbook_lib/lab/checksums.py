"""What are a stream's checksums, in the algorithms S3 knows, computed in one pass?"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable
from typing import Any, Protocol

ALGORITHMS = ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256")  # the order in which S3 lists them
FULL_OBJECT, COMPOSITE = "FULL_OBJECT", "COMPOSITE"
CHUNK = 1 << 20  # bytes read at a time


class Digest(Protocol):
    """A checksum that is fed in pieces."""

    def update(self, data: bytes, /) -> None:
        """Take more bytes."""

    def digest(self) -> bytes:
        """The checksum so far, big-endian as S3 wants it before base64."""


class Crc:
    """A CRC with hashlib's interface."""

    def __init__(self, function: Callable[[bytes, int], int], width: int) -> None:
        self._function, self._width, self.value = function, width, 0

    def update(self, data: bytes) -> None:
        """Take more bytes."""
        self.value = self._function(data, self.value)

    def digest(self) -> bytes:
        """The checksum so far."""
        return self.value.to_bytes(self._width, "big")


def new(algorithm: str) -> Digest:
    """An empty checksum; `algorithm` is one of ALGORITHMS or MD5."""
    match algorithm:
        case "CRC32" | "CRC32C" | "CRC64NVME":
            return Crc(_crt(algorithm.lower()), COMBINERS[algorithm])
    return hashlib.new(algorithm.lower(), usedforsecurity=False)


def of(algorithm: str, data: bytes) -> str:
    """The base64 checksum of bytes in memory."""
    digest = new(algorithm)
    digest.update(data)
    return encode(digest.digest())


def encode(digest: bytes) -> str:
    """A digest as S3's headers carry it."""
    return base64.b64encode(digest).decode()


COMBINERS = {"CRC32": 4, "CRC32C": 4, "CRC64NVME": 8}  # what can be combined, and its bytes


def _crt(name: str) -> Any:
    # imported when the first byte is summed: a transfer worker that finds nothing to copy never needs it
    from awscrt import checksums

    return getattr(checksums, name)


def combine(algorithm: str, parts: Iterable[tuple[str, int]]) -> str:
    """The checksum of a whole object from its parts' (base64 checksum, size); CRCs only, no byte is read again."""
    function, width = _crt(f"combine_{algorithm.lower()}"), COMBINERS[algorithm]
    value = 0
    for text, size in parts:
        value = function(value, int.from_bytes(base64.b64decode(text), "big"), size)
    return encode(value.to_bytes(width, "big"))


def composite(algorithm: str, parts: list[str]) -> str:
    """S3's checksum of checksums: over the parts' raw digests, with `-N` behind it."""
    return f"{of(algorithm, b''.join(base64.b64decode(part) for part in parts))}-{len(parts)}"
