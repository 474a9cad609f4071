"""Which objects are below a prefix? LIST by many at once, in ranges cut from the source's own keys."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..inventory.blocks import Block
from ..inventory.progress import Progress
from ..inventory.schema import LONGEST_KEY
from ..inventory.store import Inventory, ShardWriter, Writer
from ..inventory.underway import Underway, thinned
from .client import Session
from .pages import microseconds
from .workers import USUAL, Workers, door, sent
from .workers import Job as Job
from .workers import ListOptions as ListOptions

FEW = 20_000  # keys up to which starting processes takes longer than asking
FEW_PAGES = 20
PAGE = 1000  # keys
Report = Callable[[Progress], None]
Gap = tuple[str, str | None]  # keys after the first, up to and with the second; None: to the end


def list_bucket(
    session: Session,
    region: str,
    bucket: str,
    prefix: str,
    folder: Path,
    *,
    cut_from: Inventory | Underway | None,
    options: ListOptions = USUAL,
    progress: Report | None = None,
) -> Inventory:
    """Every object below a prefix, as LIST shows it: no metadata, and no checksum but the ETag.

    `cut_from` is an inventory of about the same keys, or one that is being made: its keys cut the ranges. Goes on where
    an earlier call stopped.
    """
    at = door(session, region, bucket, prefix, options)
    root = f"s3://{bucket}/{prefix}"
    with Writer(folder, side="bucket", root=root, parameters={"level": "size"}) as writer:
        if options.method == "boto3":
            return _by_boto3(session, region, bucket, prefix, writer)
        listing = _Listing(writer, prefix, cut_from, options, progress)
        if cut_from is None or (isinstance(cut_from, Inventory) and cut_from.rows < FEW):
            listing.few(Workers(session, at, 0, options.connections))
        listing.all(Workers(session, at, options.processes, options.connections + 1))
        return writer.finish(method="LIST", requests=listing.requests)


def gaps(done: Iterable[Gap]) -> list[Gap]:
    """What ranges that are done leave over."""
    left: list[Gap] = []
    at: str | None = ""
    for after, last in sorted(done, key=lambda gap: gap[0]):
        if at is not None and after > at:
            left.append((at, after))
        at = last
    return left if at is None else [*left, (at, None)]


class _Listing:
    """The ranges of one listing: which are done, which are left, who is writing which."""

    def __init__(
        self,
        writer: Writer,
        prefix: str,
        cut_from: Inventory | Underway | None,
        options: ListOptions,
        progress: Report | None,
    ) -> None:
        self._writer, self._prefix, self._options, self._source = writer, prefix, options, cut_from
        self._progress = progress or (lambda seen: None)
        self._shards = Shards(writer)
        self._began, self._before = time.monotonic(), writer.rows
        self._split = True
        self._lock = threading.Lock()
        self._even: list[str] | None = None  # see _all_cuts
        self.requests: dict[str, int] = {}

    def few(self, workers: Workers) -> None:
        """The first pages of what is left, without starting processes."""
        count = min(self._options.connections, self._source.rows // PAGE + 1) if self._source else 1
        self._split = False
        self._run(workers, self._jobs(self._cuts(count), FEW_PAGES))

    def all(self, workers: Workers) -> None:
        """What is left, with every process."""
        if not self._left():
            return
        self._split = True
        cuts = self._all_cuts() or (self._cuts(4 * self._threads) if isinstance(self._source, Underway) else [])
        jobs = self._jobs(cuts, self._options.pages)
        self._run(workers, jobs if cuts else (self._cut_job(*gap) for gap in self._left()))

    def _run(self, workers: Workers, jobs: Iterable[Job]) -> None:
        try:
            asked = workers.run(jobs, self._handle, lambda counts: self._beat(sent(counts)))
        finally:
            self._shards.drop()
        for kind, count in asked.items():
            self.requests[kind] = self.requests.get(kind, 0) + count

    def _left(self) -> list[Gap]:
        return gaps((facts["after"], facts["last"]) for facts in self._writer.shard_facts.values())

    @property
    def _threads(self) -> int:
        return self._options.connections * max(1, self._options.processes)

    def _all_cuts(self) -> list[str]:
        """The keys that cut the source evenly; none as long as its keys are not known, or few."""
        with self._lock:
            if self._even is None and self._source and self._source.rows >= FEW:
                ranges = -(-self._source.rows // (self._threads * self._options.range_keys))
                self._even = self._cuts(self._threads * ranges)
            return self._even or []

    def _cuts(self, count: int) -> list[str]:
        cuts = self._source.cut(count) if self._source and count > 1 else []
        return [cut for cut in cuts if len((self._prefix + cut).encode()) <= LONGEST_KEY]  # S3 knows no longer ones

    def _jobs(self, cuts: list[str], pages: int) -> Iterator[Job]:
        for gap in self._left():
            yield from self._ranges(gap, cuts, pages)

    def _ranges(self, gap: Gap, cuts: list[str], pages: int) -> list[Job]:
        after, last = gap
        ends = [cut for cut in cuts if cut > after and (last is None or cut < last)]
        starts = [after, *ends]
        return [
            {"do": "keys", "shard": start, "prefix": self._prefix, "after": start, "last": end, "pages": pages}
            for start, end in zip(starts, [*ends, last], strict=True)
        ]

    def _cut_job(self, after: str, last: str | None) -> Job:
        place = {"shard": f"cut {after}", "prefix": self._prefix, "after": after, "last": last}
        return {"do": "cuts", **place, "wanted": self._threads}

    def _handle(self, block: Block) -> Iterable[Job]:
        """Write a block; what a range left over is cut and listed."""
        facts = block.facts
        if not block.end:
            if block.batch is not None:
                self._shards.write(block.shard, block.batch)
            return ()
        if "cuts" in facts:
            cuts = thinned(facts["cuts"], 4 * self._options.connections)
            return self._ranges((facts["after"], facts["last"]), cuts, self._options.pages)
        self._shards.end(block.shard, after=facts["after"], last=facts["last"])
        return self._rest(*facts["left"]) if "left" in facts and self._split else ()

    def _rest(self, after: str, last: str | None) -> list[Job]:
        """What a range left over: cut by the source's keys where these are known by now, else by what S3 shows."""
        jobs = self._ranges((after, last), self._all_cuts(), self._options.pages)
        return jobs if len(jobs) > 1 else [self._cut_job(after, last)]

    def _beat(self, requests: int) -> None:
        expected = (self._source.rows if self._source else 0) or None
        rows, size = self._writer.rows + self._shards.rows, self._writer.bytes
        self._progress(Progress("bucket", "listing", rows, size, requests, expected, self._began, self._before))


class Shards:
    """Shards that are being written, by several threads: each has one worker's blocks."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._lock = threading.Lock()
        self._order = len(writer.finished)
        self._open: dict[str, tuple[ExitStack, ShardWriter]] = {}

    @property
    def rows(self) -> int:
        """Rows of shards that are not finished."""
        with self._lock:
            return sum(shard.rows for _, shard in self._open.values())

    def _of(self, name: str) -> ShardWriter:
        with self._lock:
            if name not in self._open:
                stack = ExitStack()
                self._order += 1
                self._open[name] = (stack, stack.enter_context(self._writer.shard(name, self._order)))
            return self._open[name][1]

    def write(self, name: str, batch: pa.RecordBatch) -> None:
        """Some of a shard's rows, as a stream of blocks brought them."""
        self._of(name).write(batch, sound=True)

    def end(self, name: str, **facts: Any) -> None:
        """All of a shard's rows were written."""
        self._of(name).facts = facts
        with self._lock:
            stack, _ = self._open.pop(name)
        stack.close()

    def drop(self) -> None:
        """Let go of what was not finished, as if it had never begun."""
        for stack, _ in self._open.values():
            with suppress(_Dropped):
                stack.__exit__(_Dropped, _Dropped(), None)
        self._open.clear()


class _Dropped(Exception):
    """A shard is not finished."""


def _by_boto3(session: Session, region: str, bucket: str, prefix: str, writer: Writer) -> Inventory:
    """The same with boto3's own paginator, in order and one page after the other."""
    pages = session.client("s3", region).boto.get_paginator("list_objects_v2")
    with writer.shard("all", 0) as shard:
        for page in pages.paginate(Bucket=bucket, Prefix=prefix, StartAfter=prefix):
            rows = [_row(item, prefix) for item in page.get("Contents", [])]
            if rows:
                shard.write(pa.RecordBatch.from_pylist(rows))
    return writer.finish(method="LIST by boto3")


def _row(item: dict[str, Any], prefix: str) -> dict[str, Any]:
    key, storage = item["Key"][len(prefix) :], item.get("StorageClass", "STANDARD")
    folder = key.endswith("/")
    return {
        "key": key,
        "kind": "folder" if folder else "file",
        "size": 0 if folder else item["Size"],
        "etag": item["ETag"].strip('"'),
        "last_modified_us": microseconds(item["LastModified"].isoformat()),
        "storage_class": None if storage == "STANDARD" else storage,
    }
