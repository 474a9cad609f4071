"""How is an inventory written, so that a kill at any instant leaves nothing half-believed?

A shard is a piece of work that is done again as a whole: its rows go to files under other names, which are renamed
when it ends; then one line of the journal says that it is finished. A file that no line mentions is rubbish of a run
that was killed. `inventory.json` comes last, and makes the folder an inventory.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import InventoryError
from .reading import BUFFER, MANIFEST, ROW_GROUP, ROWS_AT_ONCE, Inventory, Part, hashed
from .runs import ascending, by_key, conform, first, last, merged
from .schema import FILE, KINDS, SCHEMA, VERSION

JOURNAL = "journal.jsonl"
RUNS_AT_ONCE = 16  # runs that are merged together: what bounds the memory
# Values that hardly repeat: a dictionary of them costs time and saves nothing.
PLAIN = {
    "key", "size", "target", "etag", "checksum", "problem", "raw", "mtime_ns", "inode", "last_modified_us", "allocated",
}  # fmt: skip
REPEATED = [name for name in SCHEMA.names if name not in PLAIN]


class PartFile:
    """One Parquet file that is being written, in order of its keys."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer = pq.ParquetWriter(
            path, SCHEMA, compression="zstd", compression_level=1, use_dictionary=REPEATED,
            write_statistics=["key"], column_encoding={"key": "DELTA_BYTE_ARRAY"},  # of paths: what is new in each
        )  # fmt: skip
        self.first = self.last = ""
        self.rows = self.bytes = 0
        self.kinds: dict[str, int] = {}

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows that come after those written so far; keys must ascend."""
        if not batch.num_rows:
            return
        if not ascending(batch.column("key")) or (self.rows and first(batch) <= self.last):
            raise InventoryError(f"{_doubled(batch, self.last)} Look at that entry, then make the inventory again.")
        self.first = self.first if self.rows else first(batch)
        self.last = last(batch)
        self.rows += batch.num_rows
        kinds = batch.column("kind")
        for counted in pc.value_counts(kinds.indices).to_pylist():
            name = KINDS[counted["values"]].as_py()
            self.kinds[name] = self.kinds.get(name, 0) + counted["counts"]
        files = pc.equal(kinds.indices, KINDS.index(FILE).as_py())
        self.bytes += pc.sum(batch.column("size").filter(files)).as_py() or 0
        self._writer.write_batch(batch, ROW_GROUP)

    def close(self) -> None:
        """End the file, and have it on the disk."""
        self._writer.close()
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())

    def placed(self, name: str) -> Part:
        """Give the closed file its name; what is returned goes to the journal."""
        digest, stored = hashed(self.path), self.path.stat().st_size
        self.path.rename(self.path.with_name(name))
        return Part(name, self.first, self.last, self.rows, self.bytes, self.kinds, stored, digest)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Read the closed file."""
        with pq.ParquetFile(self.path, buffer_size=BUFFER, pre_buffer=False) as file:
            for batch in file.iter_batches(ROWS_AT_ONCE // 2, use_threads=False):
                yield conform(batch)


def _doubled(batch: pa.RecordBatch, before: str) -> str:
    keys = [before, *batch.column("key").to_pylist()]
    again = next(b for a, b in pairwise(keys) if b <= a)
    return f"The key {again!r} came twice, or out of order."


class ShardWriter:
    """One shard's rows: batches in order, or in several runs that are merged at its end."""

    def __init__(self, stem: Path) -> None:
        self._stem = stem
        self._runs: list[PartFile] = []
        self._open: PartFile | None = None
        self._made = 0
        self.rows = 0
        self.facts: dict[str, Any] = {}  # what the journal keeps of this shard beside its rows

    def write(self, batch: pa.RecordBatch, *, sound: bool = False) -> None:
        """Add rows, with at least `key` and `kind`; a batch that begins before the last one's end starts a new run.

        `sound`: the batch was validated when it was read.
        """
        if not batch.num_rows:
            return
        batch = conform(batch)
        if not sound:
            self._require_sound(batch)
        if batch.column("key").null_count or batch.column("kind").null_count:
            raise InventoryError(f"A row of {self._stem.parent} has no key, or a kind that is none of {KINDS}.")
        batch = by_key(batch)
        if self._open is None or first(batch) < self._open.last:
            self._close_run()
            self._open = self._new()
        self._open.write(batch)
        self.rows += batch.num_rows

    def _require_sound(self, batch: pa.RecordBatch) -> None:
        try:
            batch.validate(full=True)
        except pa.ArrowInvalid as error:
            raise InventoryError(
                f"Rows of {self._stem.parent} are not what an inventory holds: {error}. Report this with the message."
            ) from error

    def _new(self) -> PartFile:
        self._made += 1
        return PartFile(self._stem.with_name(f"{self._stem.name}.{self._made}.run"))

    def _close_run(self) -> None:
        if self._open is not None:
            self._open.close()
            self._runs.append(self._open)
            self._open = None
        if len(self._runs) >= RUNS_AT_ONCE:
            self._runs = [self._merge(self._runs)]

    def _merge(self, runs: list[PartFile]) -> PartFile:
        whole = self._new()
        for batch in merged([run.batches() for run in runs]):
            whole.write(batch)
        whole.close()
        for run in runs:
            run.path.unlink()
        return whole

    def end(self) -> Part | None:
        """Make one sorted part of it; None: it had no rows."""
        self._close_run()
        if not self._runs:
            return None
        whole = self._runs[0] if len(self._runs) == 1 else self._merge(self._runs)
        return whole.placed(f"{self._stem.name}.parquet")


def begun_with(folder: Path) -> dict[str, Any] | None:
    """The parameters of an inventory that was begun in a folder and is not finished; None where none was."""
    try:
        with (folder / JOURNAL).open("rb") as journal:
            head = journal.readline()
    except FileNotFoundError:
        return None
    return dict(json.loads(head)["parameters"]) if head.endswith(b"\n") else None


class Writer:
    """An inventory that is being written; opened again after a kill, it knows the shards that were finished."""

    def __init__(self, folder: Path, *, side: str, root: str, parameters: dict[str, Any]) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / MANIFEST).exists():
            raise InventoryError(f"{folder} has a finished inventory already. Open it, or choose another folder.")
        self._lock = threading.Lock()  # shards may be written by several threads
        self._journal = (folder / JOURNAL).open("ab+")
        self.shard_facts: dict[str, dict[str, Any]] = {}  # of each finished shard
        self._parts: dict[str, Part] = {}
        began = datetime.now(UTC).isoformat()
        self._head: dict[str, Any] = {
            "version": VERSION, "side": side, "root": root, "parameters": parameters, "began": began,
        }  # fmt: skip
        try:
            self._hold()
            self._resume()
        except BaseException:
            self._journal.close()
            raise

    def _hold(self) -> None:
        try:
            fcntl.flock(self._journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InventoryError(
                f"Another process is writing the inventory {self.folder}. Let it end, or choose another folder."
            ) from error

    def _resume(self) -> None:
        """Believe the journal's whole lines, and nothing else in the folder."""
        self._journal.seek(0)
        written = self._journal.read()
        whole = written[: written.rfind(b"\n") + 1]
        lines = [json.loads(line) for line in whole.splitlines()]
        if lines:
            self._refuse_another(lines[0])
            self._head = lines[0]
            for line in lines[1:]:
                self._replay(line)
        for path in self.folder.iterdir():
            if path.name.endswith((".parquet", ".run")) and path.name not in self._parts:
                path.unlink()
        if len(whole) < len(written):
            os.truncate(self.folder / JOURNAL, len(whole))
        if not lines:
            self._note(self._head)

    def _refuse_another(self, head: dict[str, Any]) -> None:
        for name in ("version", "side", "root", "parameters"):
            if head[name] != json.loads(json.dumps(self._head[name])):
                raise InventoryError(
                    f"{self.folder} was begun with {name} {head[name]!r}, and cannot be gone on with as "
                    f"{self._head[name]!r}. Use the same again, or another folder."
                )

    def _replay(self, line: dict[str, Any]) -> None:
        if "shard" in line:
            self.shard_facts[line["shard"]] = line["facts"]
        for name in line["instead_of"]:
            del self._parts[name]
        if line["part"] is not None:
            self._parts[line["part"]["name"]] = Part(**line["part"])

    def _note(self, line: dict[str, Any]) -> None:
        self._journal.write(json.dumps(line).encode() + b"\n")
        self._journal.flush()
        os.fsync(self._journal.fileno())

    @property
    def finished(self) -> frozenset[str]:
        """Shards that are complete: skip them."""
        return frozenset(self.shard_facts)

    @property
    def rows(self) -> int:
        """Entries in finished shards."""
        return sum(part.rows for part in self._parts.values())

    @property
    def bytes(self) -> int:
        """Bytes of the files in finished shards."""
        return sum(part.bytes for part in self._parts.values())

    @contextmanager
    def shard(self, name: str, order: int) -> Iterator[ShardWriter]:
        """Write one shard; it is finished when the block ends, and as if never begun when the block fails."""
        if name in self.shard_facts:
            raise InventoryError(f"The shard {name!r} of {self.folder} is finished already. Skip it: see `finished`.")
        stem = f"{order:06d}-{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:12]}"
        writer = ShardWriter(self.folder / stem)
        try:
            yield writer
            part = writer.end()
        except BaseException:
            for path in self.folder.glob(f"{stem}*.run"):
                path.unlink()
            raise
        with self._lock:
            made = None if part is None else asdict(part)
            self._finish_line({"shard": name, "facts": writer.facts, "part": made, "instead_of": []})

    def _finish_line(self, line: dict[str, Any]) -> None:
        self._note(line)
        self._replay(line)

    def finish(self, *, seen: tuple[datetime, datetime] | None = None, **facts: Any) -> Inventory:
        """Put the parts in order, merge those that overlap, and write `inventory.json`.

        `seen`: from when to when the side was looked at, where that was not while this was written.
        """
        ordered = sorted(self._parts.values(), key=lambda part: part.first)
        group: list[Part] = []
        for part in [*ordered, None]:
            if part is not None and group and part.first <= max(member.last for member in group):
                group.append(part)
                continue
            if len(group) > 1:
                self._join(group)
            group = [] if part is None else [part]
        parts = tuple(sorted(self._parts.values(), key=lambda part: part.first))
        began, ended = seen or (datetime.fromisoformat(self._head["began"]), datetime.now(UTC))
        head = self._head
        done = Inventory(self.folder, head["side"], head["root"], head["parameters"], began, ended, parts, facts)
        put(self.folder / MANIFEST, json.dumps(done.manifest(), indent=1).encode())
        self.close()
        (self.folder / JOURNAL).unlink()
        return Inventory.open(self.folder)

    def _join(self, parts: list[Part]) -> None:
        """One part instead of several whose keys lie between each other's."""
        source = Inventory(self.folder, "", "", {}, datetime.now(UTC), datetime.now(UTC), ())
        streams = [_only(source, part).batches() for part in parts]
        whole = PartFile(self.folder / f"joined-{parts[0].name}.run")
        for batch in merged(streams):
            whole.write(batch)
        whole.close()
        part = whole.placed(f"joined-{parts[0].name}")
        self._finish_line({"part": asdict(part), "instead_of": [member.name for member in parts]})
        for member in parts:
            (self.folder / member.name).unlink()

    def close(self) -> None:
        """Let go of the folder; what is finished stays."""
        self._journal.close()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _only(inventory: Inventory, part: Part) -> Inventory:
    return Inventory(inventory.folder, "", "", {}, inventory.began, inventory.ended, (part,))


def put(path: Path, data: bytes) -> None:
    """Write a small file as a whole or not at all."""
    beside = path.with_name(path.name + ".new")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
