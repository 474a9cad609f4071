"""Where do the differences go? Into a Parquet file for machines and a CSV file for people, a batch at a time."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .differences import DIFFERENCES

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # what a spreadsheet would calculate, at the start of a cell
ROW_GROUP = 4 << 20  # bytes of lines: what a Parquet file says of each group stays in memory until the file's end
AT_ONCE = 8192  # lines: a row of Python values is far larger than one of Arrow's


class Lines:
    """A Parquet file of differences that is being written; it has its name when it is whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._new = path.with_name(path.name + ".new")
        self._writer = pq.ParquetWriter(self._new, DIFFERENCES, compression="zstd")
        self._held: list[pa.RecordBatch] = []
        self._bytes = 0  # of them

    def write(self, lines: pa.Table | pa.RecordBatch) -> None:
        """Add lines."""
        self._held += lines.to_batches() if isinstance(lines, pa.Table) else [lines]
        self._bytes += lines.nbytes
        if self._bytes >= ROW_GROUP:
            self._write()

    def _write(self) -> None:
        self._writer.write_table(pa.Table.from_batches(self._held, DIFFERENCES))
        self._held, self._bytes = [], 0

    def close(self) -> None:
        """Give the whole file its name."""
        if self._bytes:
            self._write()
        self._writer.close()
        self._new.replace(self.path)

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        if failed is None:
            self.close()
        else:
            self._writer.close()
            self._new.unlink()


def read(path: Path) -> Iterator[pa.RecordBatch]:
    """The lines of a file."""
    with pq.ParquetFile(path, pre_buffer=False) as file:
        yield from file.iter_batches(AT_ONCE, use_threads=False)


class Spreadsheet:
    """The same lines as CSV, as spreadsheets read it: marked as UTF-8, no cell a formula, names quoted as needed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._new = path.with_name(path.name + ".new")
        self._file = self._new.open("w", encoding="utf-8-sig", newline="")
        self._csv = csv.writer(self._file)  # its CRLF is what makes it quote names with either
        self._csv.writerow(DIFFERENCES.names)

    def write(self, lines: pa.RecordBatch) -> None:
        """Add lines."""
        for start in range(0, lines.num_rows, AT_ONCE):
            columns = [_cells(column) for column in lines.slice(start, AT_ONCE).columns]
            self._csv.writerows(zip(*columns, strict=True))

    def close(self) -> None:
        """Give the whole file its name."""
        self._file.close()
        self._new.replace(self.path)

    def __enter__(self) -> Spreadsheet:
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        if failed is None:
            self.close()
        else:
            self._file.close()
            self._new.unlink()


def _cells(column: pa.Array) -> list[object]:
    if column.type == pa.bool_():
        return ["yes" if value else "no" for value in column.to_pylist()]
    if column.type != pa.string():
        return list(column.to_pylist())
    starts = pc.utf8_slice_codeunits(column, 0, 1)
    if not pc.any(pc.is_in(starts, value_set=pa.array(FORMULA))).as_py():
        return list(column.to_pylist())
    return [f"'{value}" if value is not None and value.startswith(FORMULA) else value for value in column.to_pylist()]
