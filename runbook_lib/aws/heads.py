"""What does S3 know of each object? One HEAD each: POSIX metadata, checksum, storage; and the bytes, if asked."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..inventory.blocks import Block
from ..inventory.progress import Progress
from ..inventory.runs import by_key
from ..inventory.schema import SCHEMA
from ..inventory.store import Inventory, Writer
from .client import Session
from .listing import Report, Shards
from .workers import USUAL, Job, ListOptions, Workers, door, sent

SHARD = 32_768  # objects of one shard: what a killed run does again, at most
FEW = 1000  # objects up to which starting processes takes longer than asking
AT_ONCE = 2  # jobs that a worker has: one to do, one to go on with
READ_AT_ONCE = 4096  # objects of a job that reads bytes


def describe(
    session: Session,
    region: str,
    bucket: str,
    prefix: str,
    listed: Inventory,
    folder: Path,
    *,
    keys: Iterable[str] | None,
    computable: Collection[str] | None = None,
    options: ListOptions = USUAL,
    progress: Report | None = None,
) -> Inventory:
    """The listed objects as HEAD shows them: time, mode, owner, links and their targets, checksums.

    `keys` (sorted or not) names those to ask for, None: all; the others' rows stay as they were listed. An object that
    is gone by now has no row. Of the checksums that S3 keeps one is taken that is `computable` beside the file, where
    there is one (None: whichever). Goes on where an earlier call stopped.
    """
    wanted = None if keys is None else pa.array(sorted(set(keys)), pa.string())
    parameters = {
        "level": "metadata",
        "listed": [part.sha256 for part in listed.parts],
        "keys": None if wanted is None else hashlib.sha256("\0".join(wanted.to_pylist()).encode()).hexdigest(),
        "computable": None if computable is None else sorted(computable),
    }
    count = listed.rows if wanted is None else len(wanted)
    workers = _workers(session, region, bucket, prefix, count, options)
    head = {"do": "head", "prefix": prefix, "computable": parameters["computable"]}
    with Writer(folder, side="bucket", root=listed.root, parameters=parameters) as writer:
        describing = _Describing(writer, listed, wanted, head, progress, count)
        try:
            requests = workers.run(describing.jobs(), describing.handle, describing.beat)
        finally:
            describing.shards.drop()
        gone = sum(facts.get("gone", 0) for facts in writer.shard_facts.values())
        return writer.finish(**{**listed.facts, "method": "HEAD", "requests": dict(requests), "gone": gone})


class _Describing:
    """The shards of one description: the rows that stay are written here, those asked for as they come."""

    def __init__(
        self,
        writer: Writer,
        listed: Inventory,
        wanted: pa.Array | None,
        head: Job,
        progress: Report | None,
        count: int,
    ) -> None:
        """`head` is what the jobs have in common."""
        self.shards = Shards(writer)
        self._writer, self._listed, self._wanted, self._head = writer, listed, wanted, head
        self._progress, self._count, self._began = progress or (lambda seen: None), count, time.monotonic()
        self._before = writer.rows

    def jobs(self) -> Iterator[Job]:
        """A shard of the inventory after the other, those that are finished left out."""
        for batch in sized(self._listed.batches(), SHARD):
            name = batch.column("key")[0].as_py()
            if name in self._writer.finished:
                continue
            asked = batch
            if self._wanted is not None:
                mask = pc.is_in(batch.column("key"), value_set=self._wanted)
                asked = batch.filter(mask)
                self.shards.write(name, batch.filter(pc.invert(mask)))
                if not asked.num_rows:
                    self.shards.end(name)
                    continue
            yield {**self._head, "shard": name, "keys": asked.column("key").to_pylist()}

    def handle(self, block: Block) -> Iterable[Job]:
        """Write what came."""
        if block.batch is not None:
            self.shards.write(block.shard, block.batch)
        if block.end:
            self.shards.end(block.shard, **block.facts)
        return ()

    def beat(self, requests: Mapping[str, int]) -> None:
        """Say how far it is."""
        rows = self._writer.rows + self.shards.rows
        seen = Progress(
            "bucket",
            "describing",
            rows,
            self._writer.bytes,
            sent(requests),
            self._count,
            self._began,
            self._before,
        )
        self._progress(seen)


def look_again(
    session: Session,
    region: str,
    bucket: str,
    prefix: str,
    keys: Sequence[str],
    options: ListOptions = USUAL,
    *,
    computable: Collection[str] | None = None,
) -> pa.RecordBatch:
    """These keys as HEAD shows them now, sorted; those that are gone have no row. `computable`: see `describe`."""
    head = {"do": "head", "prefix": prefix, "computable": None if computable is None else sorted(computable)}
    jobs = ({**head, "shard": str(number), "keys": some} for number, some in enumerate(_several(iter(keys), SHARD)))
    batches = list(_asked(session, region, bucket, prefix, jobs, len(keys), options))
    if not batches:
        return pa.RecordBatch.from_pylist([], schema=SCHEMA)
    return by_key(pa.concat_batches(batches))


def content(
    session: Session,
    region: str,
    bucket: str,
    prefix: str,
    wanted: Iterable[tuple[str, str]],
    options: ListOptions = USUAL,
    beat: Callable[[int], None] = lambda count: None,
) -> Iterator[pa.RecordBatch]:
    """Key and algorithm (CRC64NVME, CRC32C, CRC32, SHA256, SHA1, MD5): the bytes read, and hashed; in no order.

    Moves every byte out of the bucket, which AWS charges for. What cannot be read has a `problem`. `beat` hears of
    bytes read, now and then.
    """
    jobs = (
        {"do": "content", "shard": str(number), "prefix": prefix, "wanted": some}
        for number, some in enumerate(_several(iter(wanted), READ_AT_ONCE))
    )
    return _asked(session, region, bucket, prefix, jobs, None, options, beat)


def part_sizes(
    session: Session, region: str, bucket: str, prefix: str, keys: Sequence[str], options: ListOptions = USUAL
) -> dict[str, tuple[int, ...]]:
    """The part sizes of objects that were uploaded in parts, for composite checksums; () of one that was not."""
    found: dict[str, tuple[int, ...]] = {}

    def handle(block: Block) -> Iterable[Job]:
        found.update({key: tuple(sizes) for key, sizes in block.facts.get("parts", {}).items()})
        return ()

    jobs = (
        {"do": "parts", "shard": str(number), "prefix": prefix, "keys": some}
        for number, some in enumerate(_several(iter(keys), READ_AT_ONCE))
    )
    _workers(session, region, bucket, prefix, len(keys), options).run(jobs, handle)
    return found


def _workers(
    session: Session, region: str, bucket: str, prefix: str, count: int | None, options: ListOptions
) -> Workers:
    few = count is not None and count <= FEW
    at = door(session, region, bucket, prefix, options)
    return Workers(session, at, 0 if few else options.processes, AT_ONCE)


def _asked(
    session: Session,
    region: str,
    bucket: str,
    prefix: str,
    jobs: Iterator[Job],
    count: int | None,
    options: ListOptions,
    told: Callable[[int], None] = lambda count: None,
) -> Iterator[pa.RecordBatch]:
    """The rows of jobs, a window of jobs after the other."""
    workers = _workers(session, region, bucket, prefix, count, options)
    while window := list(islice(jobs, 2 * AT_ONCE * max(1, options.processes))):
        batches: list[pa.RecordBatch] = []
        read: deque[int] = deque()  # bytes, as several threads hear of them

        def handle(block: Block, batches: list[pa.RecordBatch] = batches, read: deque[int] = read) -> Iterable[Job]:
            if block.batch is not None:
                batches.append(block.batch)
            elif "bytes" in block.facts:
                read.append(block.facts["bytes"])
            return ()

        def beat(_: object, read: deque[int] = read) -> None:
            while read:
                told(read.popleft())

        workers.run(window, handle, beat)
        yield from batches


def _several(items: Iterator[Any], count: int) -> Iterator[list[Any]]:
    while some := list(islice(items, count)):
        yield some


def sized(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of so many, so that shards are the same in each run."""
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        while count + batch.num_rows >= rows:
            cut = rows - count
            yield pa.concat_batches([*held, batch.slice(0, cut)])
            held, count, batch = [], 0, batch.slice(cut)
        if batch.num_rows:
            held.append(batch)
            count += batch.num_rows
    if held:
        yield pa.concat_batches(held)
