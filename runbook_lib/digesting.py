"""Do the files have the objects' content? Checksums of the same algorithm for both ends, filled into inventories.

S3's stored checksum is taken where the files' side can compute the same; else the other side's file is read too.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from .inventory.reading import MANIFEST
from .inventory.runs import by_key, conform, one
from .inventory.schema import FILE, KINDS, SCHEMA
from .inventory.store import Inventory, Writer

ROWS = 50_000  # of a shard: what is held in memory at a time
FILLED = ("checksum_algorithm", "checksum_type", "checksum")

Wanted = tuple[str, str, tuple[int, ...]]  # key, algorithm, part sizes of a composite checksum (none: of the whole)
Beat = Callable[[int], None]  # hears of bytes that were read, of files that are not finished too
Digests = Callable[[Sequence[Wanted], Beat], Iterable[pa.RecordBatch]]
Told = Callable[[int, int], None]  # how many of the source's files are done, and the bytes read on both sides
Parts = Callable[[Sequence[str]], dict[str, tuple[int, ...]]]


@dataclass(frozen=True)
class Reading:
    """How content is read."""

    source: Digests
    other: Digests
    parts: Parts  # the part sizes of objects with a composite checksum
    computable: Collection[str]  # algorithms that the source's machine can compute
    algorithm: str  # for what is read on both sides
    sent: Callable[[], Counter[str]] = Counter  # what was asked of AWS so far, by kind; none of what costs nothing


@dataclass(frozen=True)
class Filled:
    """Rows of one side with checksums; files of it that were read because nothing stored could be compared."""

    rows: pa.RecordBatch
    read: int = 0
    read_bytes: int = 0


def digested(
    source: Inventory,
    other: Inventory,
    folder: Path,
    reading: Reading,
    keys: Sequence[str] | None = None,
    progress: Told = lambda files, size: None,
) -> tuple[Inventory, Inventory]:
    """Both inventories with the checksums of all files that both have in the same size, or of some (sorted) keys.

    Goes on with the shards that an earlier call finished in the same folder. `read` and `read_bytes` among the facts
    of each say how much of that side was read, `requests` among the other's what was asked of AWS for it, by this call
    and by earlier ones.
    """
    about = {
        "algorithm": reading.algorithm,
        "computable": sorted(reading.computable),
        "of": [source.made_of, other.made_of],
        "keys": None if keys is None else hashlib.sha256("\0".join(keys).encode()).hexdigest(),
    }
    with ExitStack() as stack:
        writers = {
            at: stack.enter_context(Writer(folder / side.side, side=side.side, root=side.root, parameters=about))
            for at, side in enumerate((source, other))
            if not (folder / side.side / MANIFEST).exists()
        }
        for number, (start, stop) in enumerate(_ranges(source, other) if writers else ()):
            waiting = {at: writer for at, writer in writers.items() if f"{number:05}" not in writer.finished}
            facts = [list(writer.shard_facts.values()) for writer in writers.values()]
            done = max(sum(fact["read"] for fact in some) for some in facts)
            size = sum(fact["read_bytes"] for some in facts for fact in some)
            progress(done, size)
            if waiting:

                def told(files: int, read: int, done: int = done, size: int = size) -> None:
                    progress(done + files, size + read)

                before = Counter(reading.sent())
                filled = read_again(_rows(source, start, stop), _rows(other, start, stop), reading, keys, told)
            for at, writer in waiting.items():
                with writer.shard(f"{number:05}", number) as shard:
                    shard.write(filled[at].rows)
                    requests = reading.sent() - before if at else Counter()
                    shard.facts = {
                        "read": filled[at].read, "read_bytes": filled[at].read_bytes, "requests": dict(requests),
                    }  # fmt: skip
        for at, writer in writers.items():
            each = list(writer.shard_facts.values())
            sums = {name: sum(fact[name] for fact in each) for name in ("read", "read_bytes")}
            requests = sum((Counter(fact["requests"]) for fact in each), Counter[str]())
            side = (source, other)[at]
            seen = side.began, datetime.now(UTC)  # its names and sizes are as old as its inventory
            writer.finish(seen=seen, **{**side.facts, **sums, "requests": dict(requests)})
    return Inventory.open(folder / source.side, of=about), Inventory.open(folder / other.side, of=about)


def to_read(source: Inventory, other: Inventory, reading: Reading, keys: Sequence[str] | None = None) -> int:
    """About how many bytes `digested` reads: the source's files, and the other's whose checksum is of no use.

    About, because what differs in size or is on one side only is not read.
    """
    total, code = 0, KINDS.to_pylist().index(FILE)
    columns = ["kind", "size", "checksum", "checksum_algorithm", *([] if keys is None else ["key"])]
    for side in (source, other):
        for batch in side.batches(columns):
            wanted = pc.equal(batch.column("kind").indices, code)
            if side is other:
                wanted = pc.and_(wanted, pc.invert(_usable(batch, reading)))
            if keys is not None:
                wanted = pc.and_(wanted, pc.is_in(batch.column("key"), value_set=pa.array(keys, pa.string())))
            total += pc.sum(batch.column("size").filter(wanted)).as_py() or 0
    return total


def _usable(batch: pa.RecordBatch, reading: Reading) -> pa.Array:
    """Which rows have a checksum that the source's machine can compute."""
    algorithms = pa.array(sorted(reading.computable), pa.string())
    return pc.and_(
        pc.is_valid(batch.column("checksum")), pc.is_in(batch.column("checksum_algorithm"), value_set=algorithms)
    )


def _ranges(*sides: Inventory) -> Iterator[tuple[str | None, str | None]]:
    """Ranges of keys of which no side has more rows than are held at a time."""
    keys = {key for side in sides for key in side.cut(max(1, -(-side.rows // ROWS)))}
    yield from pairwise([None, *sorted(keys), None])


def _rows(inventory: Inventory, start: str | None, stop: str | None) -> pa.RecordBatch:
    batches = list(inventory.batches(None, start, stop))
    return one(batches) if batches else pa.RecordBatch.from_pylist([], schema=SCHEMA)


def read_again(
    ours: pa.RecordBatch,
    theirs: pa.RecordBatch,
    reading: Reading,
    keys: Sequence[str] | None = None,
    progress: Told = lambda files, size: None,
) -> tuple[Filled, Filled]:
    """Rows of both sides with checksums: of all files, or of some keys."""
    both = _comparable(ours, theirs, None if keys is None else pa.array(keys, pa.string()))
    stored = _usable(both, reading)
    composite = pc.and_(stored, pc.fill_null(pc.equal(both.column("checksum_type"), "COMPOSITE"), False))
    in_parts = both.filter(composite).column("key").to_pylist()
    parts = {key: sizes for key, sizes in (reading.parts(in_parts) if in_parts else {}).items() if sizes}
    # whose parts nobody knows (the object is gone, or another by now) is read like one without a checksum
    lost = pa.array(sorted(set(in_parts) - set(parts)), pa.string())
    stored = pc.and_(stored, pc.invert(pc.is_in(both.column("key"), value_set=lost)))
    kept, rest = both.filter(stored), both.filter(pc.invert(stored))
    algorithms = zip(kept.column("key").to_pylist(), kept.column("checksum_algorithm").to_pylist(), strict=True)
    wanted: list[Wanted] = [(key, algorithm, parts.get(key, ())) for key, algorithm in algorithms]
    read: list[Wanted] = [(key, reading.algorithm, ()) for key in rest.column("key").to_pylist()]
    sizes = both.column("size"), rest.column("size")
    here, there = (pc.sum(size).as_py() or 0 for size in sizes)
    files = both.num_rows
    return (
        Filled(_with(ours, reading.source, sorted(wanted + read), progress), files, here),
        Filled(_with(theirs, reading.other, read, lambda _, size: progress(files, here + size)), rest.num_rows, there),
    )


def _comparable(ours: pa.RecordBatch, theirs: pa.RecordBatch, chosen: pa.Array | None) -> pa.RecordBatch:
    """The other side's rows of files that both have, of the same size, and that can be read."""
    at = pc.index_in(theirs.column("key"), ours.column("key"))
    wanted = pc.is_valid(at)
    code = KINDS.to_pylist().index(FILE)
    for side in (theirs, ours.select(["kind", "problem"]).take(at)):
        wanted = pc.and_(wanted, pc.fill_null(pc.equal(side.column("kind").indices, code), False))
        wanted = pc.and_(wanted, pc.is_null(side.column("problem")))
    wanted = pc.and_(wanted, pc.fill_null(pc.equal(theirs.column("size"), ours.column("size").take(at)), False))
    if chosen is not None:
        wanted = pc.and_(wanted, pc.is_in(theirs.column("key"), value_set=chosen))
    return theirs.filter(wanted)


def _with(
    batch: pa.RecordBatch,
    digests: Digests,
    wanted: Sequence[Wanted],
    progress: Told,
) -> pa.RecordBatch:
    """The batch with what the digests found: checksums, or the reasons why there are none.

    What was to be read and was not found has no checksum: the one that it had is not of the algorithm asked for.
    """
    if not wanted:
        return batch
    rows: list[pa.RecordBatch] = []
    files = finished = heard = 0

    def beat(count: int) -> None:
        nonlocal heard
        heard += count
        progress(files, max(heard, finished))

    for some in digests(wanted, beat):
        rows.append(conform(some))
        files += some.num_rows
        finished += pc.sum(rows[-1].column("size")).as_py() or 0  # what is small is read between two beats
        progress(files, max(heard, finished))
    found = by_key(one(rows)) if rows else pa.RecordBatch.from_pylist([], schema=SCHEMA)
    at = pc.index_in(batch.column("key"), found.column("key"))
    asked = pc.is_in(batch.column("key"), value_set=pa.array([key for key, _, _ in wanted], pa.string()))
    for name in (*FILLED, "problem"):
        new = found.column(name).take(at)
        known = pc.is_valid(new) if name == "problem" else asked
        column = batch.schema.get_field_index(name)
        batch = batch.set_column(column, batch.schema.field(column), pc.if_else(known, new, batch.column(name)))
    return batch
