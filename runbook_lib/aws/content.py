"""What are an object's bytes? Read and hashed, going on where a torn answer stopped."""

from __future__ import annotations

import hashlib
import zlib
from base64 import b64encode
from collections.abc import Callable
from typing import Any, Protocol

from urllib3.exceptions import HTTPError

from .object_headers import Row, archived
from .wire import ATTEMPTS, Refused, Wire

PIECE = 1 << 20  # bytes read at once


class Digest(Protocol):
    """What hashlib's objects do, and ours."""

    def update(self, data: bytes, /) -> None:
        """Take in some bytes."""

    def digest(self) -> bytes:
        """The digest so far."""


class Crc:
    """A checksum that is carried on from piece to piece."""

    def __init__(self, step: Callable[[bytes, int], int], size: int) -> None:
        self._step, self._size, self._value = step, size, 0

    def update(self, data: bytes, /) -> None:
        """Take in some bytes."""
        self._value = self._step(data, self._value)

    def digest(self) -> bytes:
        """Big-endian, as S3 writes it before base64."""
        return self._value.to_bytes(self._size, "big")


def digest_of(algorithm: str) -> Digest:
    """A fresh digest, by S3's name of the algorithm."""
    if algorithm in ("CRC64NVME", "CRC32C"):
        from awscrt import checksums  # 10 MB that listings do without

        steps: dict[str, Any] = {"CRC64NVME": checksums.crc64nvme, "CRC32C": checksums.crc32c}
        return Crc(steps[algorithm], 8 if algorithm == "CRC64NVME" else 4)
    if algorithm == "CRC32":
        return Crc(zlib.crc32, 4)
    return hashlib.new(algorithm.lower(), usedforsecurity=False)


def hashed(wire: Wire, key: str, row: Row, headers: Any, algorithm: str, beat: Callable[[int], None]) -> Row:
    """The row with the checksum of the bytes that the bucket holds, or with a `problem`; `beat` hears of each piece."""
    row = {**row, "checksum_algorithm": algorithm, "checksum_type": "FULL_OBJECT", "checksum": None}
    if why := archived(headers):
        return {**row, "problem": why}
    try:
        row["checksum"] = b64encode(
            _read(wire, key, int(headers["content-length"]), headers["etag"], algorithm, beat)
        ).decode()
    except Refused as refused:
        if refused.status in (404, 412):
            return {**row, "problem": "changed while looking"}
        if refused.code == "InvalidObjectState":
            return {**row, "problem": "unreadable: archived; restore the object first"}
        if refused.kind == "denied":
            return {**row, "problem": f"unreadable: {refused}"}
        raise
    return row


def _read(wire: Wire, key: str, size: int, etag: str, algorithm: str, beat: Callable[[int], None]) -> bytes:
    digest, at, attempt = digest_of(algorithm), 0, 0
    while at < size or not size:
        begun = at
        headers = {"if-match": etag} | ({"range": f"bytes={at}-"} if at else {})
        try:
            with wire.opened(key, headers) as body:
                while piece := body.read(PIECE):
                    digest.update(piece)
                    at += len(piece)
                    beat(len(piece))
        except HTTPError as error:
            attempt = 0 if at > begun else attempt + 1
            if attempt == ATTEMPTS:
                raise Refused(
                    f"GET of s3://{wire.door.bucket}/{key}: torn at byte {at} of {size}, {ATTEMPTS} times: {error}. "
                    "Check the network, then run it again."
                ) from error
            wire.again(attempt)
            continue
        if at >= size:
            break
        attempt += 1
        wire.again(attempt)
    return digest.digest()
