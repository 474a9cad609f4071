"""How do rows of any number come in order? In sorted runs on the disk, in memory that does not grow with them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import InventoryError
from .runs import Order, by_key, merged, whole

MEMORY = 8 << 20  # bytes of the rows that are sorted together
PIECE = 1 << 19  # bytes of a run's rows that are read at once
RUNS_AT_ONCE = 16  # that are merged together: with a piece of each, what bounds the memory


class Spilled:
    """Rows with a `key`, written in any order and read in one; what fits in memory never goes to the disk."""

    def __init__(self, folder: Path, order: Order) -> None:
        """`folder` is for this only."""
        self._folder, self._order = folder, order
        self._held: list[pa.RecordBatch] = []
        self._bytes = 0
        self._runs: list[list[Path]] = [[]]  # by how often their rows were merged
        self._numbers = count()

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows."""
        if batch.num_rows:
            self._held.append(batch)
            self._bytes += batch.nbytes
        if self._bytes >= MEMORY:
            self._keep(self._let_go(), 0)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows in order, once; those of one key in one batch."""
        return self._merged([*(_read(path) for level in self._runs for path in level), self._let_go()])

    def _let_go(self) -> Iterator[pa.RecordBatch]:
        """What is held, in order."""
        if self._held:
            rows = by_key(pa.concat_batches(self._held), self._order)
            self._held, self._bytes = [], 0
            yield from _pieces(rows)

    def _merged(self, runs: list[Iterator[pa.RecordBatch]]) -> Iterator[pa.RecordBatch]:
        return merged([whole(run) for run in runs], self._order)

    def _keep(self, rows: Iterator[pa.RecordBatch], level: int) -> None:
        """Write a run; so many runs of one level become one of the next, so that no row is written often."""
        path = self._folder / f"{next(self._numbers)}.parquet"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            _write(path, rows)
        except OSError as error:
            raise InventoryError(
                f"The differences cannot be put in order: {error}. Look whether the disk of the result's folder has "
                "room, then compare again."
            ) from error
        runs = self._runs[level]
        runs.append(path)
        if len(runs) == RUNS_AT_ONCE:
            if level + 1 == len(self._runs):
                self._runs.append([])
            self._keep(self._merged([_read(run) for run in runs]), level + 1)
            for run in runs:
                run.unlink()
            runs.clear()


def _write(path: Path, rows: Iterable[pa.RecordBatch]) -> None:
    writer = None
    for batch in rows:
        if writer is None:
            how = {"compression": "zstd", "use_dictionary": False, "write_statistics": False}
            writer = pq.ParquetWriter(path, batch.schema, **how)
        for piece in _pieces(batch):
            writer.write_table(pa.Table.from_batches([piece]), piece.num_rows)  # a row group, which is read at once
    if writer is not None:
        writer.close()


def _read(path: Path) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for group in range(file.num_row_groups):
            yield from file.read_row_group(group, use_threads=False).to_batches()


def _pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The batch in parts of so many bytes."""
    rows = max(1, batch.num_rows * PIECE // max(batch.nbytes, 1))
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)
