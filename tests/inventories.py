"""Inventories from a few rows, for the tests of comparing them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from runbook_lib.inventory.runs import conform
from runbook_lib.inventory.schema import SCHEMA
from runbook_lib.inventory.store import Inventory, Writer

Row = dict[str, Any]


def file(key: str, size: int = 5, **more: Any) -> Row:
    """A file's row; a folder's when the key ends in '/'."""
    kind = "folder" if key.endswith("/") else "file"
    return {"key": key, "kind": kind, "size": 0 if kind == "folder" else size, **more}


def batch(rows: Iterable[Row]) -> pa.RecordBatch:
    """Rows as a batch, in the order they come."""
    plain = pa.schema([field if field.name != "kind" else pa.field("kind", pa.string()) for field in SCHEMA])
    return conform(pa.RecordBatch.from_pylist(list(rows), schema=plain))


def inventory(folder: Path, rows: Iterable[Row], *, side: str = "source", parts: int = 1) -> Inventory:
    """A finished inventory of some rows, in several parts."""
    ordered = sorted(rows, key=lambda row: str(row["key"]).encode())
    with Writer(folder, side=side, root="/export", parameters={}) as writer:
        for number in range(parts):
            with writer.shard(str(number), number) as shard:
                shard.write(batch(ordered[len(ordered) * number // parts : len(ordered) * (number + 1) // parts]))
        return writer.finish()
