"""How do several sorted runs of rows become one? By a merge that holds one batch of each."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .schema import KINDS, SCHEMA

Order = Sequence[tuple[str, str]]  # columns, the first of them `key`, and "ascending" of each
NULLS = 32_768
KEY: Order = [("key", "ascending")]


def conform(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with exactly the inventory's columns: what it does not have is null."""
    if batch.schema.equals(SCHEMA) and _kinds(batch.column("kind")):
        return batch.replace_schema_metadata(SCHEMA.metadata)
    columns = []
    for field in SCHEMA:
        at = batch.schema.get_field_index(field.name)
        column = nulls(batch.num_rows, field.type) if at < 0 else batch.column(at)
        if field.name == "kind":
            column = as_kinds(column)
        columns.append(column if column.type == field.type else column.cast(field.type))
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def nulls(rows: int, kind: pa.DataType) -> pa.Array:
    """A column in which nothing is known: for batches of usual size, part of one that all share."""
    return _many_nulls(kind).slice(0, rows) if rows <= NULLS else pa.nulls(rows, kind)


@cache
def _many_nulls(kind: pa.DataType) -> pa.Array:
    return pa.nulls(NULLS, kind)


def as_kinds(column: pa.Array) -> pa.Array:
    """A column of kinds over the one dictionary that all parts share."""
    if _kinds(column):
        return column
    plain = column.cast(pa.string())
    return pa.DictionaryArray.from_arrays(pc.index_in(plain, value_set=KINDS).cast(pa.int8()), KINDS)


def _kinds(column: pa.Array) -> bool:
    typed = pa.types.is_dictionary(column.type) and column.type.index_type == pa.int8()
    return bool(typed and column.dictionary.equals(KINDS))


def first(batch: pa.RecordBatch) -> str:
    """The batch's first key."""
    return str(batch.column("key")[0].as_py())


def last(batch: pa.RecordBatch) -> str:
    """The batch's last key."""
    return str(batch.column("key")[-1].as_py())


def below(keys: pa.Array, stop: str) -> int:
    """How many of the sorted keys are less than `stop`."""
    return bisect_left(range(len(keys)), stop, key=lambda at: keys[at].as_py())


def up_to(keys: pa.Array, limit: str) -> int:
    """How many of the sorted keys are `limit` or less. Python orders texts by code point: the order of UTF-8."""
    return bisect_right(range(len(keys)), limit, key=lambda at: keys[at].as_py())


def is_ascii(texts: pa.Array) -> bool:
    """Whether all letters of a column of strings are ASCII, seen at once; there are no nulls."""
    if not len(texts):
        return True
    ends = np.frombuffer(texts.buffers()[1], np.int32)
    begin, end = int(ends[texts.offset]), int(ends[texts.offset + len(texts)])
    return begin == end or texts.buffers()[2].slice(begin, end - begin).to_pybytes().isascii()


def ascending(keys: pa.Array) -> bool:
    """Whether each key is greater than the one before it."""
    return len(keys) < 2 or bool(pc.all(pc.less(keys[:-1], keys[1:])).as_py())


def by_key(batch: pa.RecordBatch, order: Order = KEY) -> pa.RecordBatch:
    """The batch in order of its keys; `order` has more columns where keys come twice."""
    return batch if ascending(batch.column("key")) else batch.take(pc.sort_indices(batch, sort_keys=order))


def one(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Several batches of the same columns as one."""
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)


def whole(run: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The rows of a sorted run, those of one key in one batch."""
    held: list[pa.RecordBatch] = []
    for batch in run:
        if batch.num_rows:
            rows = one([*held, batch])
            before = below(rows.column("key"), last(rows))
            if before:
                yield rows.slice(0, before)
            held = [rows.slice(before)]
    yield from held


def merged(runs: Sequence[Iterator[pa.RecordBatch]], order: Order = KEY) -> Iterator[pa.RecordBatch]:
    """The rows of sorted runs in one order; memory: one batch of each run. Where keys come twice, runs are `whole`."""
    heads = [(run, batch) for run in runs if (batch := _next(run)) is not None]
    while len(heads) > 1:
        limit = min(last(batch) for _, batch in heads)
        pieces, rest = [], []
        for run, batch in heads:
            taken = up_to(batch.column("key"), limit)
            if taken:
                pieces.append(batch.slice(0, taken))
            left = batch.slice(taken) if taken < batch.num_rows else _next(run)
            if left is not None:
                rest.append((run, left))
        heads = rest
        yield by_key(one(pieces), order)
    for run, batch in heads:
        yield batch
        yield from run


def gathered(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of at least so many: each costs whoever goes through them a millisecond or two."""
    waiting: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        waiting.append(batch)
        count += batch.num_rows
        if count >= rows:
            yield one(waiting)
            waiting, count = [], 0
    if waiting:
        yield one(waiting)


def ahead(batches: Iterator[pa.RecordBatch]) -> Generator[pa.RecordBatch, None, None]:
    """The same batches, each read by a thread while the one before is looked at; close it, and the thread ends."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield batch


def _next(run: Iterator[pa.RecordBatch]) -> pa.RecordBatch | None:
    return next((batch for batch in run if batch.num_rows), None)
