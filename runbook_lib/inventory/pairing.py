"""Which keys do two sorted inventories share? A merge of blocks; while they agree, no key is looked at alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .runs import last, one, up_to

LOOK = 4096  # rows of each side that are matched by hash where their keys are not the same


@dataclass(frozen=True)
class Joined:
    """A range of keys on both sides: rows that match one to one, and those of one side only; each in order."""

    source: pa.RecordBatch
    other: pa.RecordBatch
    missing: pa.RecordBatch  # the source's only
    extra: pa.RecordBatch  # the other's only


def joined(source: Iterator[pa.RecordBatch], other: Iterator[pa.RecordBatch]) -> Iterator[Joined]:
    """Both sides by key; memory: one batch of each, and what the iterators hold."""
    left, right = _next(source), _next(other)
    while left is not None and right is not None:
        parts: list[Joined] = []
        ours = theirs = 0
        while ours < left.num_rows and theirs < right.num_rows:
            part = _window(left.slice(ours), right.slice(theirs))
            parts.append(part)
            ours += part.source.num_rows + part.missing.num_rows
            theirs += part.other.num_rows + part.extra.num_rows
        yield _together(parts)
        left = left.slice(ours) if ours < left.num_rows else _next(source)
        right = right.slice(theirs) if theirs < right.num_rows else _next(other)
    yield from _rest(left, right, source, other)


def _window(left: pa.RecordBatch, right: pa.RecordBatch) -> Joined:
    """What the two begin with: the same keys, or LOOK rows of which some are on one side only."""
    same = _agreeing(left.column("key"), right.column("key"))
    if same:
        return Joined(left.slice(0, same), right.slice(0, same), left.slice(0, 0), right.slice(0, 0))
    left, right = left.slice(0, LOOK), right.slice(0, LOOK)
    limit = min(last(left), last(right))
    return _apart(left.slice(0, up_to(left.column("key"), limit)), right.slice(0, up_to(right.column("key"), limit)))


def _together(parts: list[Joined]) -> Joined:
    """Ranges that follow each other as one: what differs is looked at again range by range."""
    if len(parts) == 1:
        return parts[0]
    return Joined(*(one([getattr(part, each.name) for part in parts]) for each in fields(Joined)))


def _agreeing(ours: pa.Array, theirs: pa.Array) -> int:
    """How many keys are the same on both sides, up to the first difference, in steps of LOOK."""
    rows = min(len(ours), len(theirs))
    if ours.slice(0, rows).equals(theirs.slice(0, rows)):
        return rows
    at = 0
    while ours.slice(at, LOOK).equals(theirs.slice(at, LOOK)):
        at += LOOK
    return at


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
