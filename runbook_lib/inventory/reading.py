"""What does a finished inventory say? A folder of sorted Parquet parts and `inventory.json`, read in bounded memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import InventoryError
from .runs import as_kinds, below
from .schema import SCHEMA, VERSION

MANIFEST = "inventory.json"
ROWS_AT_ONCE = 32_768  # of a batch
ROW_GROUP = 65_536  # rows
BUFFER = 1 << 18  # bytes that are read of a column at once


@dataclass(frozen=True)
class Part:
    """One file of an inventory: rows of a contiguous range of keys."""

    name: str
    first: str
    last: str
    rows: int
    bytes: int  # of the files in it
    kinds: dict[str, int]  # entries of each kind
    stored: int  # bytes of the Parquet file
    sha256: str


@dataclass(frozen=True)
class Inventory:
    """A finished inventory of one side; `open` it."""

    folder: Path
    side: str
    root: str
    parameters: dict[str, Any]
    began: datetime  # UTC
    ended: datetime  # UTC
    parts: tuple[Part, ...]
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path, *, of: Mapping[str, Any] | None = None) -> Inventory:
        """The inventory in a folder; `InventoryError` when there is none, or not all of it.

        `of` says what it has to be of: any of `side`, `root`, and parameters by their names.
        """
        manifest = folder / MANIFEST
        try:
            said = json.loads(manifest.read_text("utf-8"))
            version = said["version"]
            if version != VERSION:
                raise InventoryError(
                    f"{folder} has an inventory of version {version}; this library reads {VERSION}. Make it again."
                )
            began, ended = (datetime.fromisoformat(said[name]) for name in ("began", "ended"))
            parts = tuple(Part(**part) for part in said["parts"])
            found = cls(folder, said["side"], said["root"], said["parameters"], began, ended, parts, said["facts"])
        except FileNotFoundError as error:
            raise InventoryError(
                f"{folder} has no finished inventory ({MANIFEST} is not there). Make it, or let it be finished: the "
                "same command again goes on where it stopped."
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InventoryError(
                f"{manifest} is not the manifest of an inventory: {error!r}. Move the folder away and make it again."
            ) from error
        for part in parts:
            path = folder / part.name
            if not path.is_file() or path.stat().st_size != part.stored:
                raise InventoryError(
                    f"{path} is missing or not as long as {MANIFEST} says. Move the folder away and make it again."
                )
        found._refuse_another(of or {})
        return found

    def _refuse_another(self, of: Mapping[str, Any]) -> None:
        mine = {**self.parameters, "side": self.side, "root": self.root}
        for name, value in json.loads(json.dumps(dict(of))).items():
            if mine.get(name) != value:
                raise InventoryError(
                    f"{self.folder} has an inventory with {name} {mine.get(name)!r}, not {value!r}. Choose another "
                    "folder."
                )

    @property
    def made_of(self) -> list[str]:
        """The SHA-256 of its parts, by which what is made of it can say so."""
        return [part.sha256 for part in self.parts]

    @property
    def rows(self) -> int:
        """Entries: files, folders, links and others; the root is none of them."""
        return sum(part.rows for part in self.parts)

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(part.bytes for part in self.parts)

    @cached_property
    def kinds(self) -> dict[str, int]:
        """Entries of each kind."""
        names = {name for part in self.parts for name in part.kinds}
        return {name: sum(part.kinds.get(name, 0) for part in self.parts) for name in sorted(names)}

    @property
    def files(self) -> list[Path]:
        """The Parquet files in order, for any engine that reads them."""
        return [self.folder / part.name for part in self.parts]

    def batches(
        self, columns: Sequence[str] | None = None, start: str | None = None, stop: str | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Rows in order of `key`, from `start` on, before `stop`; memory: one batch."""
        for part in self.parts:
            if (start is None or part.last >= start) and (stop is None or part.first < stop):
                yield from self._of_part(part, list(columns or SCHEMA.names), start, stop)

    def _of_part(self, part: Part, columns: list[str], start: str | None, stop: str | None) -> Iterator[pa.RecordBatch]:
        names = [name for name in SCHEMA.names if name in {*columns, "key"}]
        with self._opened(part) as file:
            groups = [at for at in range(file.num_row_groups) if _meets(file, at, start, stop)]
            reader = file.iter_batches(ROWS_AT_ONCE, row_groups=groups, columns=names, use_threads=False)
            for batch in reader:
                keys = batch.column("key")
                begin = 0 if start is None else below(keys, start)
                end = len(keys) if stop is None else below(keys, stop)
                if begin < end:
                    yield _one_dictionary(batch.slice(begin, end - begin)).select(columns)

    def _opened(self, part: Part) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(self.folder / part.name, buffer_size=BUFFER, pre_buffer=False)
        except (OSError, pa.ArrowInvalid) as error:
            raise InventoryError(
                f"{self.folder / part.name} cannot be read: {error}. Move the folder away and make it again."
            ) from error

    def cut(self, ranges: int) -> list[str]:
        """Keys that cut it into at most so many ranges of about equal rows; each begins its range."""
        wanted = sorted({self.rows * number // ranges for number in range(1, ranges)} - {0})
        keys: list[str] = []
        passed = 0
        for part in self.parts:
            inside = [row - passed for row in wanted if passed <= row < passed + part.rows]
            if inside:
                keys += self._keys_at(part, inside)
            passed += part.rows
        return keys

    def _keys_at(self, part: Part, rows: list[int]) -> list[str]:
        keys, passed = [], 0
        with self._opened(part) as file:
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                inside = [row - passed for row in rows if passed <= row < passed + count]
                if inside:
                    keys += file.read_row_group(group, columns=["key"])["key"].take(pa.array(inside)).to_pylist()
                passed += count
        return keys

    def verify(self) -> None:
        """Read every part again: `InventoryError` when one is not what was written."""
        for part in self.parts:
            if hashed(self.folder / part.name) != part.sha256:
                raise InventoryError(
                    f"{self.folder / part.name} is not the file that was written: its SHA-256 differs from the one in "
                    f"{MANIFEST}. Move the folder away and make the inventory again."
                )

    def manifest(self) -> dict[str, Any]:
        """What `inventory.json` says."""
        return {
            "version": VERSION,
            "side": self.side,
            "root": self.root,
            "parameters": self.parameters,
            "began": self.began.isoformat(),
            "ended": self.ended.isoformat(),
            "rows": self.rows,
            "bytes": self.bytes,
            "kinds": self.kinds,
            "facts": self.facts,
            "parts": [asdict(part) for part in self.parts],
        }


def _meets(file: pq.ParquetFile, group: int, start: str | None, stop: str | None) -> bool:
    """Whether a row group can have keys of the range; a file without statistics has to be read."""
    if start is None and stop is None:
        return True
    known = file.metadata.row_group(group).column(0).statistics
    if known is None or not known.has_min_max:
        return True
    return (start is None or known.max >= start) and (stop is None or known.min < stop)


def _one_dictionary(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The reader makes a dictionary of its own for each part; comparing needs one for all."""
    at = batch.schema.get_field_index("kind")
    return batch if at < 0 else batch.set_column(at, SCHEMA.field("kind"), as_kinds(batch.column(at)))


def hashed(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
