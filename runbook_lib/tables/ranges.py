"""Where is a table split, so that a range is short, can be repeated, and finds what differs with little reading?

A table without differences is read once, in ranges that grow while nothing differs. Where something does, the next
ranges are small and are read in buckets at once, and so is the very first of several.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from .dialect import Sample
from .model import Key, Pair, Span

GRAIN = 32_768  # rows of the smallest range
LARGEST = 8  # grains in the largest
GENTLE_GRAIN = 8_192
BUCKET = 32  # rows
MOST = 16  # ranges of a key that is not in the index's order: each reads the whole table
SAMPLED = 128  # pages of the source, or more
CANDIDATES = 16  # keys for each range, of which one is its bound
SPLITS = 2_000  # ranges at most: of very large tables they are longer
BUCKETS = 65_536  # at most, of a range


def splittable(pair: Pair, bytes_alike: bool) -> bool:
    """Whether ranges of the key mean the same rows on both sides; text is in order of its bytes there."""
    parts = [part for view in (pair.source, pair.target) if view is not None for part in view.key]
    return bool(pair.key) and all(part.column.ordered and (bytes_alike or part.kind != "text") for part in parts)


def indexed(pair: Pair) -> bool:
    """Whether a range is found by an index: text in another order than by bytes is not."""
    views = [view for view in (pair.source, pair.target) if view is not None]
    return all(part.column.bytewise for view in views for part in view.key)


def split(pair: Pair, sample: Sample, gentle: bool = False, *, bytes_alike: bool = True) -> list[Span]:
    """Short ranges that cover every key there could be, from a sorted sample of the source's keys.

    `bytes_alike`: both sides keep text in encodings whose bytes are in the same order.
    """
    if not sample.keys or not splittable(pair, bytes_alike):
        return [Span(rows=sample.rows)]
    parts = _parts(pair, sample.rows, gentle)
    count = len(sample.keys)
    bounds = list(dict.fromkeys(sample.keys[number * count // parts] for number in range(1, parts)))
    rows = sample.rows // (len(bounds) + 1)
    spans = []
    integer = _integer(pair)
    for lower, upper in zip([None, *bounds], [*bounds, None], strict=True):
        width = _width(lower or sample.keys[0], upper or sample.keys[-1], rows) if integer else 0
        spans.append(Span(lower, upper, rows, width))
    return spans


def candidates(pair: Pair, sample: Sample, gentle: bool = False) -> list[Key]:
    """Some of the sample's keys, as many as are worth a look at whether ranges can begin with them."""
    return sample.keys[:: max(1, len(sample.keys) // (CANDIDATES * _parts(pair, sample.rows, gentle)))]


def _parts(pair: Pair, rows: int, gentle: bool) -> int:
    parts = max(1, round(rows / max(GENTLE_GRAIN if gentle else GRAIN, rows // SPLITS)))
    return parts if indexed(pair) else min(parts, MOST)


def _integer(pair: Pair) -> bool:
    """Whether the key is one integer on both sides, so that arithmetic puts it into buckets."""
    views = [view for view in (pair.source, pair.target) if view is not None]
    return all([part.kind for part in view.key] == ["integer"] for view in views)


def _width(lower: Key, upper: Key, rows: int) -> int:
    """How much of the keys holds about BUCKET rows."""
    return min(max(1, (int(upper[0]) - int(lower[0])) * BUCKET // max(1, rows)), 2**63 - 1)


def modulus(span: Span) -> int:
    """How many buckets a range has whose key is hashed: a power of two."""
    return min(BUCKETS, 1 << (max(1, span.rows // BUCKET) - 1).bit_length())


@dataclass(frozen=True)
class Task:
    """What a worker does next: some neighbouring ranges as one; in buckets at once when differences are expected."""

    first: int
    parts: tuple[Span, ...]
    expecting: bool

    @property
    def last(self) -> int:
        """The number of the last of them."""
        return self.first + len(self.parts) - 1

    @property
    def span(self) -> Span:
        """They all."""
        return Span(self.parts[0].lower, self.parts[-1].upper, sum(part.rows for part in self.parts))


class Ranges:
    """The ranges of one table that are still to be compared; shared by the workers."""

    def __init__(self, spans: Sequence[Span], finished: Sequence[tuple[int, int]] = (), largest: int = LARGEST) -> None:
        self._spans = spans
        self._done = {number for first, last in finished for number in range(first, last + 1)}
        self._next = 0
        self._largest = largest
        self._size = 1
        self._expecting = len(spans) > 1  # so that where everything differs nothing is read twice
        self._lock = threading.Lock()

    def take(self) -> Task | None:
        """The next range; None when there is none."""
        with self._lock:
            while self._next in self._done:
                self._next += 1
            first = self._next
            if first >= len(self._spans):
                return None
            last = first
            while last + 1 < len(self._spans) and last + 1 - first < self._size and last + 1 not in self._done:
                last += 1
            self._next = last + 1
            return Task(first, tuple(self._spans[first : last + 1]), self._expecting)

    def found(self, task: Task, same: bool) -> None:
        """Learn from a range: the next one is twice as large when it was the same on both sides, or else small."""
        with self._lock:
            self._expecting = not same
            self._size = min(self._largest, self._size * 2) if same else 1
