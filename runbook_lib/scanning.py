"""Which entries does a tree have on a host, and what are their checksums? The scanner is sent there and streams back.

Nothing is installed there: the scanner (`inventory/job.py` and the modules it needs) is text that a python3 reads.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from .errors import CommandFailed, TornStream
from .filters import Filters
from .hosts import Host
from .inventory.blocks import Block, read_blocks
from .inventory.progress import Progress
from .inventory.schema import SCHEMA, Side
from .inventory.store import Inventory, ShardWriter, Writer

MODULES = ("encoding", "looking", "scanner", "hasher", "job")  # each after those it needs
ASKED_AT_ONCE = 20_000  # keys of one request
COUNTED = ("vanished", "skipped", "not looked into")
PLAN = "plan"  # the shard without rows whose facts are the plan
DIGEST = ["key", "size", "mtime_ns", "checksum_algorithm", "checksum_type", "checksum", "problem"]
Report = Callable[[Progress], None]
Planned = Callable[[list[str], int], None]

# Makes a package of the modules' text and calls the last one's `main`. Isolated (-I), so that it imports nothing from
# the folders that it scans.
BOOTSTRAP = """
import json, sys, types
job = json.loads(sys.stdin.buffer.read().decode("ascii"))
package = types.ModuleType("sent")
package.__path__ = []
sys.modules["sent"] = package
for name, text in job["modules"]:
    module = types.ModuleType("sent." + name)
    module.__package__ = "sent"
    sys.modules[module.__name__] = module
    exec(compile(text, name + ".py", "exec"), module.__dict__)
module.main(job["request"])
"""


@dataclass(frozen=True)
class ScanOptions:
    """How gently, and what to leave out. Folders that the filters exclude have a row but are not looked into."""

    processes: int = 2
    entries_per_second: float | None = None  # all processes together; None: as fast as it goes
    bytes_per_second: float | None = None  # read for checksums, all processes together
    filters: Filters | None = None
    skipped: tuple[str, ...] = (".snapshot",)  # folders of these names at the top have no row at all
    limit: int = 100_000  # names of one folder that are held and sorted at once
    nice: int = 5
    privilege: str = ""  # `sudo -n` where the user may not read everything

    def request(self, host: Host, mode: str, root: str, **more: Any) -> dict[str, Any]:
        """What the job is told."""
        return {
            "mode": mode,
            "root": root,
            "processes": self.processes,
            "entries_per_second": self.entries_per_second,
            "bytes_per_second": self.bytes_per_second,
            "limit": self.limit,
            "nice": self.nice,
            "compress": 6 if host.remote else 0,
            **self.left_out(),
            **more,
        }

    def left_out(self) -> dict[str, Any]:
        """The filters as the job reads them; an inventory is gone on with only under the same ones."""
        filters = self.filters or Filters(None, None)
        return {
            "includes": [list(pattern.texts) for pattern in filters.includes],
            "excludes": [list(pattern.texts) for pattern in filters.excludes],
            "skipped": list(self.skipped),
        }


def scan(
    host: Host,
    root: str,
    folder: Path,
    *,
    side: Side,
    options: ScanOptions = ScanOptions(),
    progress: Report | None = None,
    planned: Planned = lambda cuts, used: None,
) -> Inventory:
    """Every entry below `root`, with its metadata; goes on where an earlier scan into `folder` was stopped.

    `planned` hears soon which keys cut the tree into shards (none when it is a small one), and how many entries its
    whole file system has in use (0: it does not say).
    Raises `TornStream` when it stops early (finished shards are kept), `CommandFailed` when it cannot be done.
    """
    with Writer(folder, side=side, root=root, parameters={"host": host.name, **options.left_out()}) as writer:
        plan = writer.shard_facts.get(PLAN)
        finished = sorted(int(name) for name in writer.finished - {PLAN})
        cuts = plan["cuts"] if plan else None
        receiver = _Receiver(writer, side, progress, planned, None if cuts is None else len(cuts) + 1)
        receiver.take(_answer(host, options, "scan", root, cuts=cuts, finished=finished))
        facts = dict(writer.shard_facts)
        plan = facts.pop(PLAN)
        counts = {name: sum(shard[name] for shard in facts.values()) for name in COUNTED}
        return writer.finish(method="scan", host=host.name, top=plan["root"], shards=len(facts), **counts)


@dataclass
class _Receiver:
    """Brings a stream's blocks to the writer: those of several shards come mixed."""

    writer: Writer
    side: str
    progress: Report | None
    planned: Planned
    shards: int | None  # in all, by the plan; None: it is not made yet
    before: int = 0
    began: float = field(default_factory=time.monotonic)
    open: dict[str, tuple[ExitStack, ShardWriter]] = field(default_factory=dict)
    said: dict[str, int] = field(default_factory=dict)  # entries of open shards

    def __post_init__(self) -> None:
        self.before = self.writer.rows

    def take(self, blocks: Iterator[Block]) -> None:
        """Write all of a stream; a shard that has not ended is as if never begun."""
        with ExitStack() as unfinished:
            for block in blocks:
                if "cuts" in block.facts:
                    self._plan(block.facts)
                else:
                    self._shard(block, unfinished)
            if self.open:
                raise TornStream(f"{len(self.open)} shards of the scan have no end. Run it again.")

    def _plan(self, facts: dict[str, Any]) -> None:
        self.shards = len(facts["cuts"]) + 1
        if PLAN not in self.writer.finished:
            with self.writer.shard(PLAN, 0) as shard:
                shard.facts = facts
        self.planned(facts["cuts"], facts["used"])

    def _shard(self, block: Block, unfinished: ExitStack) -> None:
        if block.shard not in self.open:
            stack = unfinished.enter_context(ExitStack())
            self.open[block.shard] = stack, stack.enter_context(self.writer.shard(block.shard, int(block.shard) + 1))
        stack, shard = self.open[block.shard]
        if block.batch is not None:
            shard.write(block.batch, sound=True)
        self.said[block.shard] = max(self.said.get(block.shard, 0) + block.facts.get("entries", 0), shard.rows)
        if block.end:
            shard.facts = block.facts
            stack.close()
            del self.open[block.shard], self.said[block.shard]
        self._report()

    def _report(self) -> None:
        if self.progress is not None:
            entries = self.writer.rows + sum(self.said.values())
            size, expected = self.writer.bytes, self._expected(entries)
            self.progress(Progress(self.side, "scanning", entries, size, 0, expected, self.began, self.before))

    def _expected(self, entries: int) -> int | None:
        """About how many entries there are: as many in each shard that is left as in those that are finished."""
        finished = len(self.writer.finished - {PLAN})
        if self.shards is None or not finished:
            return None
        return max(entries, round(self.writer.rows * self.shards / finished))


def look_again(
    host: Host,
    root: str,
    keys: Sequence[str],
    options: ScanOptions = ScanOptions(),
    top: Mapping[str, int] | None = None,
) -> pa.RecordBatch:
    """The entries of these keys as they are now; those that are gone have no row.

    `top` is what a scan knows of its root (`Inventory.facts["top"]`): raises `CommandFailed` when the root is another
    one by now, such as what lies below an NFS mount that has gone, where nothing would be found.
    """
    found: list[pa.RecordBatch] = []
    for at in range(0, len(keys), ASKED_AT_ONCE):
        asked = list(keys[at : at + ASKED_AT_ONCE])
        for block in _answer(host, options, "look", root, keys=asked):
            now = block.facts.get("root")
            if now and top and any(now[name] != top.get(name, now[name]) for name in ("inode", "device")):
                raise CommandFailed(
                    f"{root} on {host.name} is not the folder any more that was scanned. Is it still mounted "
                    "(`mount`), or was it mounted anew? Then compare once more from the beginning."
                )
            if block.batch is not None:
                found.append(block.batch)
    return pa.concat_batches(found) if found else pa.RecordBatch.from_pylist([], schema=SCHEMA)


def digests(
    host: Host,
    root: str,
    wanted: Iterable[tuple[str, str, tuple[int, ...]]],
    options: ScanOptions = ScanOptions(),
    beat: Callable[[int], None] = lambda count: None,
) -> Iterator[pa.RecordBatch]:
    """Checksums of files, and of what links say: key, algorithm (S3's name), part sizes in bytes; () the whole.

    The last part size repeats until the file ends. Files that are gone have no row. In no particular order. `beat`
    hears of bytes read, now and then.
    """
    left = iter(wanted)
    while asked := list(islice(left, ASKED_AT_ONCE)):
        for block in _answer(host, options, "hash", root, wanted=asked):
            if block.batch is not None:
                yield block.batch.select(DIGEST)
            elif "bytes" in block.facts:
                beat(block.facts["bytes"])


def capabilities(host: Host, options: ScanOptions = ScanOptions()) -> frozenset[str]:
    """The checksum algorithms that a host can compute, by S3's names."""
    (block,) = _answer(host, options, "can", "/")
    return frozenset(block.facts["algorithms"])


def _answer(host: Host, options: ScanOptions, mode: str, root: str, **more: Any) -> Iterator[Block]:
    """Do a job on a host; what it says."""
    source = Path(__file__).parent / "inventory"
    job = {
        "modules": [(name, (source / f"{name}.py").read_text("utf-8")) for name in MODULES],
        "request": options.request(host, mode, root, **more),
    }
    command = [*options.privilege.split(), host.python, "-I", "-c", BOOTSTRAP]
    with host.stream(command, json.dumps(job).encode("ascii")) as stream:
        yield from read_blocks(stream)
