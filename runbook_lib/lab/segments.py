"""How are an object's bytes read when they lie in several files, or when only a range of them is wanted?"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from .checksums import CHUNK


@dataclass(frozen=True, slots=True)
class Segment:
    """One file of an object: a part of a multipart upload. `checksums` are base64 by algorithm."""

    path: Path
    size: int
    checksums: dict[str, str] = field(default_factory=dict)


def open_segments(segments: Sequence[Segment], start: int, end: int) -> BinaryIO:
    """The bytes [start, end) of files one after another; FileNotFoundError when the first one wanted is gone."""
    if len(segments) == 1 and start == 0 and end == segments[0].size:
        return segments[0].path.open("rb")
    return cast(BinaryIO, io.BufferedReader(SegmentReader(segments, start, end), CHUNK))


class SegmentReader(io.RawIOBase):
    """Reads pieces of files one after another; one file is open at a time, however many parts there are."""

    def __init__(self, segments: Sequence[Segment], start: int, end: int) -> None:
        self._pieces = pieces(segments, start, end)
        self._file: BinaryIO | None = None
        self._left = 0
        self._advance()

    def _advance(self) -> bool:
        if self._file is not None:
            self._file.close()
            self._file = None
        for path, skip, count in self._pieces:
            self._file, self._left = path.open("rb"), count
            self._file.seek(skip)
            return True
        return False

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        """Fill a buffer; OSError when a file is shorter than it was."""
        while self._left == 0:
            if not self._advance():
                return 0
        assert self._file is not None
        count: int = self._file.readinto(memoryview(buffer)[: min(len(buffer), self._left)])  # type: ignore[attr-defined]
        if count == 0:
            raise OSError(f"{self._file.name} ends {self._left} bytes early")
        self._left -= count
        return count

    def close(self) -> None:
        """Close the file that is open."""
        if self._file is not None:
            self._file.close()
            self._file = None
        super().close()


def pieces(segments: Sequence[Segment], start: int, end: int) -> Iterator[tuple[Path, int, int]]:
    """(file, bytes to skip, bytes to read) that make [start, end)."""
    offset = 0
    for segment in segments:
        skip, stop = max(start - offset, 0), min(end - offset, segment.size)
        if skip < stop:
            yield segment.path, skip, stop - skip
        offset += segment.size
