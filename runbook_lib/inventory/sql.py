"""How does another engine compare two inventories? By one SQL statement, `join.sql`; here DuckDB runs it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import duckdb
import pyarrow as pa

from .reading import ROWS_AT_ONCE, Inventory
from .schema import SCHEMA


def statement() -> str:
    """The join of the tables `source` and `other`, for DuckDB, Athena and Spark."""
    return files(__package__).joinpath("join.sql").read_text("utf-8")


def on_duckdb(source: Inventory, other: Inventory, *, memory: str = "1GB", spill: Path) -> Iterator[pa.RecordBatch]:
    """The keys that differ, in no order: key, kind, differences, source_bytes, other_bytes."""
    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": memory, "temp_directory": str(spill), "preserve_insertion_order": False,
    }  # fmt: skip
    with duckdb.connect(config=settings) as database:
        for name, side in (("source", source), ("other", other)):
            parts = [str(path) for path in side.files]
            if parts:
                database.read_parquet(parts, hive_partitioning=False).create_view(name)
            else:  # an inventory without a row has no file
                database.from_arrow(SCHEMA.empty_table()).create(name)
        yield from database.sql(statement()).to_arrow_reader(ROWS_AT_ONCE)
