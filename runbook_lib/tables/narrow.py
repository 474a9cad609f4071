"""Where does a range differ? Bucket by bucket, then row by row in the buckets that do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..display import plural
from ..errors import DatabaseError
from .dialect import Common, Dialect, Statement
from .finding import Findings, Found, Row, differing
from .model import Pair, Span, View
from .ranges import BUCKET, BUCKETS, modulus
from .reading import Sides

BATCH = 16_384  # row hashes fetched at a time
MORE = 4  # times the rows that a bucket should have: it is asked again with more buckets

Sizes = tuple[int, int]  # rows of the source and of the target in a bucket


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
    sizes = _unequal(here, there)
    for batch in _batches(sizes):
        rows, others = sides.unlike(number, both(pair), _rows_of(sides, span, size, batch))
        found = differing(rows, others) if pair.key else differing(_by_hash(rows), _by_hash(others))
        if all(view.steady for view in both(pair)):
            _account_for(pair, [sizes[bucket] for bucket in batch], found, sides.common)
        part.take(found)
    return part


def _account_for(pair: Pair, counted: Sequence[Sizes], found: Sequence[Found], common: Common) -> None:
    """DatabaseError where the rows of some buckets are not what the buckets were: of one moment they have to be."""
    surplus = sum(here - there for here, there in counted)
    signs = {"missing on target": 1, "extra on target": -1, "different": 0}
    told = sum(signs[one.kind] * one.times for one in found)
    if told == surplus and (found or common.portable):  # engines may print differently what is the same
        return
    raise DatabaseError(
        f"{pair.name}: counted in groups, the source has {surplus:+,} rows against the target; looked at one by one, "
        f"{told:+,}, and {plural(len(found), 'row')} that differ. Both were read of one moment, so one of the two is "
        "wrong, and nothing true can be said. Check the table's indexes on both sides (amcheck, CHECK TABLE), then "
        "compare again."
    )


def _asked(sides: Sides, number: int, pair: Pair, span: Span, size: int) -> tuple[list[Any], list[Any]]:
    return sides.ask(number, both(pair), lambda by, view: by.buckets(view, span, sides.common, size))


def _rows_of(sides: Sides, span: Span, size: int, buckets: list[int]) -> Callable[[Dialect, View], Statement]:
    return lambda by, view: by.rows(view, span, sides.common, size, buckets)


def _unequal(here: Iterable[tuple[Any, ...]], there: Iterable[tuple[Any, ...]]) -> dict[int, Sizes]:
    """Buckets that differ, with how many rows each side has in them."""
    first, second = set(here), set(there)
    source, target = ({bucket: count for bucket, count, *_ in side} for side in (first - second, second - first))
    return {bucket: (source.get(bucket, 0), target.get(bucket, 0)) for bucket in source.keys() | target.keys()}


def _batches(sizes: Mapping[int, Sizes]) -> Iterator[list[int]]:
    """Buckets, so many at a time as hold about BATCH rows."""
    batch: list[int] = []
    rows = 0
    for bucket, size in sorted(sizes.items()):
        batch.append(bucket)
        rows += sum(size)
        if rows >= BATCH:
            yield batch
            batch, rows = [], 0
    if batch:
        yield batch


def _by_hash(rows: Iterable[Row]) -> list[Row]:
    """Rows without a key are known by what they hold."""
    return [((hashed.hex(),), hashed, count) for _, hashed, count in rows]
