"""Where does a range differ? Bucket by bucket, then row by row in the buckets that do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from .dialect import Dialect, Statement
from .finding import Findings, Row, differing
from .model import Pair, Span, View
from .ranges import BUCKET, BUCKETS, modulus
from .reading import Sides

BATCH = 16_384  # row hashes fetched at a time
MORE = 4  # times the rows that a bucket should have: it is asked again with more buckets


def both(pair: Pair) -> tuple[View, View]:
    """The two sides of a pair that has both."""
    assert pair.source is not None and pair.target is not None
    return pair.source, pair.target


def narrowed(sides: Sides, number: int, pair: Pair, span: Span) -> Findings:
    """The rows of a range that are not the same, asked with one session of each side."""
    size = modulus(span)
    here, there = _asked(sides, number, pair, span, size)
    rows = max(sum(bucket[1] for bucket in side) for side in (here, there))
    if rows > MORE * size * BUCKET and not span.width and size < BUCKETS:  # far more than was expected, on one side
        size = modulus(replace(span, rows=rows))
        here, there = _asked(sides, number, pair, span, size)
    part = Findings(*(sum(bucket[1] for bucket in side) for side in (here, there)))
    for batch in _batches(_unequal(here, there)):
        rows, others = sides.unlike(number, both(pair), _rows_of(sides, span, size, batch))
        part.take(differing(rows, others) if pair.key else differing(_by_hash(rows), _by_hash(others)))
    return part


def _asked(sides: Sides, number: int, pair: Pair, span: Span, size: int) -> tuple[list[Any], list[Any]]:
    return sides.ask(number, both(pair), lambda by, view: by.buckets(view, span, sides.common, size))


def _rows_of(sides: Sides, span: Span, size: int, buckets: list[int]) -> Callable[[Dialect, View], Statement]:
    return lambda by, view: by.rows(view, span, sides.common, size, buckets)


def _unequal(here: Iterable[tuple[Any, ...]], there: Iterable[tuple[Any, ...]]) -> dict[int, int]:
    """Buckets that differ, with how many rows both sides have in them."""
    sizes: dict[int, int] = defaultdict(int)
    for bucket, count, *_ in set(here) ^ set(there):
        sizes[bucket] += count
    return sizes


def _batches(sizes: Mapping[int, int]) -> Iterator[list[int]]:
    """Buckets, so many at a time as hold about BATCH rows."""
    batch: list[int] = []
    rows = 0
    for bucket, size in sorted(sizes.items()):
        batch.append(bucket)
        rows += size
        if rows >= BATCH:
            yield batch
            batch, rows = [], 0
    if batch:
        yield batch


def _by_hash(rows: Iterable[Row]) -> list[Row]:
    """Rows without a key are known by what they hold."""
    return [((hashed.hex(),), hashed, count) for _, hashed, count in rows]
