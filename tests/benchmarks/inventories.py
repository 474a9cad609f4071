"""What do two inventories of millions of entries look like? Made in seconds, without a tree, with 53 differences."""

from __future__ import annotations

from pathlib import Path

import duckdb

from runbook_lib.inventory.store import Inventory, Writer

PART = 500_000  # rows of a part
ROWS = """
select printf('department-%04d/project-%05d/batch-%06d/file-%08d.pdf', i // 50000, i // 2500, i // 100, i) as key,
    'file' as kind, i * 7919 % 1000003 + {wrong} as size, (1700000000 + i) * 1000000000::bigint as mtime_ns, {more}
from range({start}, {stop}) numbers(i) where {there} order by i"""
SOURCE = "420::integer as mode, 1000::bigint as uid, 1000::bigint as gid"
BUCKET = """md5(i::text) as etag, (1750000000 + i) * 1000000::bigint as last_modified_us,
    'CRC64NVME' as checksum_algorithm, 'FULL_OBJECT' as checksum_type"""


def make(folder: Path, rows: int) -> tuple[Inventory, Inventory]:
    """A source's inventory and a bucket's of about so many rows; 37 missing, 11 of another size, 5 extra."""
    missing, wrong, extra = rows // 37, rows // 11, rows // 5
    source = _side(folder / "source", "source", rows, SOURCE, f"i % {extra} <> 1", "0")
    there = f"i % {missing} <> 2 or i >= 37 * {missing}"
    changed = f"(i % {wrong} = 3 and i < 11 * {wrong})::integer"
    return source, _side(folder / "bucket", "bucket", rows, BUCKET, there, changed)


def _side(folder: Path, side: str, rows: int, more: str, there: str, wrong: str) -> Inventory:
    with duckdb.connect() as memory, Writer(folder, side=side, root=side, parameters={}) as writer:
        for number, start in enumerate(range(0, rows, PART)):
            stop = min(rows, start + PART)
            query = ROWS.format(start=start, stop=stop, more=more, there=there, wrong=wrong)
            with writer.shard(str(number), number) as shard:
                for batch in memory.sql(query).to_arrow_reader(65_536):
                    shard.write(batch)
        return writer.finish()
