"""Which keys do two sorted inventories share? A merge of blocks; while they agree, no key is looked at alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .runs import last, up_to


@dataclass(frozen=True)
class Joined:
    """A range of keys on both sides: rows that match one to one, and those of one side only; each in order."""

    source: pa.RecordBatch
    other: pa.RecordBatch
    missing: pa.RecordBatch  # the source's only
    extra: pa.RecordBatch  # the other's only


def joined(source: Iterator[pa.RecordBatch], other: Iterator[pa.RecordBatch]) -> Iterator[Joined]:
    """Both sides by key; memory: one batch of each."""
    left, right = _next(source), _next(other)
    while left is not None and right is not None:
        rows = min(left.num_rows, right.num_rows)
        if left.column("key").slice(0, rows).equals(right.column("key").slice(0, rows)):
            ours = theirs = rows
            yield Joined(left.slice(0, rows), right.slice(0, rows), left.slice(0, 0), right.slice(0, 0))
        else:
            limit = min(last(left), last(right))
            ours, theirs = up_to(left.column("key"), limit), up_to(right.column("key"), limit)
            yield _apart(left.slice(0, ours), right.slice(0, theirs))
        left = left.slice(ours) if ours < left.num_rows else _next(source)
        right = right.slice(theirs) if theirs < right.num_rows else _next(other)
    yield from _rest(left, right, source, other)


def _rest(
    left: pa.RecordBatch | None,
    right: pa.RecordBatch | None,
    source: Iterator[pa.RecordBatch],
    other: Iterator[pa.RecordBatch],
) -> Iterator[Joined]:
    """What one side has behind the other's end; no rows of either side have the same columns."""
    while left is not None:
        yield Joined(left.slice(0, 0), left.slice(0, 0), left, left.slice(0, 0))
        left = _next(source)
    while right is not None:
        yield Joined(right.slice(0, 0), right.slice(0, 0), right.slice(0, 0), right)
        right = _next(other)


def _apart(left: pa.RecordBatch, right: pa.RecordBatch) -> Joined:
    """The same range of keys of both sides, which are not the same keys."""
    at = pc.index_in(left.column("key"), value_set=right.column("key"))
    matched = at.is_valid()
    there = at.drop_null()
    alone = np.ones(right.num_rows, dtype=bool)
    alone[there.to_numpy()] = False
    missing, extra = left.filter(pc.invert(matched)), right.filter(pa.array(alone))
    return Joined(left.filter(matched), right.take(there), missing, extra)


def _next(batches: Iterator[pa.RecordBatch]) -> pa.RecordBatch | None:
    return next((batch for batch in batches if batch.num_rows), None)
