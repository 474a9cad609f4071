"""What do two inventories of millions of entries look like? Made in seconds, without a tree.

They have 53 differences, or nothing but differences.
"""

from __future__ import annotations

from pathlib import Path

import duckdb

from runbook_lib.inventory.store import Inventory, Writer

PART = 500_000  # rows of a part
ROWS = """
select printf('department-%04d/project-%05d/batch-%06d/%s-%08d.pdf', i // 50000, i // 2500, i // 100, {name}, i) as key,
    'file' as kind, i * 7919 % 1000003 + {wrong} as size, (1700000000 + i) * 1000000000::bigint as mtime_ns, {more}
from range({start}, {stop}) numbers(i) where {there} order by key"""
SOURCE = "420::integer as mode, 1000::bigint as uid, 1000::bigint as gid"
BUCKET = """md5(i::text) as etag, (1750000000 + i) * 1000000::bigint as last_modified_us,
    'CRC64NVME' as checksum_algorithm, 'FULL_OBJECT' as checksum_type"""


def make(folder: Path, rows: int) -> tuple[Inventory, Inventory]:
    """A source's inventory and a bucket's of about so many rows; 37 missing, 11 of another size, 5 extra."""
    missing, wrong, extra = rows // 37, rows // 11, rows // 5
    source = _side(folder / "source", "source", rows, SOURCE, f"i % {extra} <> 1")
    there = f"i % {missing} <> 2 or i >= 37 * {missing}"
    changed = f"(i % {wrong} = 3 and i < 11 * {wrong})::integer"
    return source, _side(folder / "bucket", "bucket", rows, BUCKET, there, changed)


def differing(folder: Path, rows: int) -> dict[str, int]:
    """Two inventories of so many rows that share no key, one in a thousand of them another's in capitals; what is told.

    `rows` is a multiple of 1000.
    """
    _side(folder / "source", "source", 2 * rows, SOURCE, "i % 2 = 0", name="'File'")
    name = "if(i % 2 = 1, 'File', 'FILE')"
    _side(folder / "bucket", "bucket", 2 * rows, BUCKET, "i % 2 = 1 and i % 2000 <> 1 or i % 2000 = 0", name=name)
    same = rows // 1000
    return {"missing": rows - same, "extra": rows - same, "same name but for case": same}


def _side(
    folder: Path, side: str, rows: int, more: str, there: str, wrong: str = "0", name: str = "'file'"
) -> Inventory:
    with duckdb.connect() as memory, Writer(folder, side=side, root=side, parameters={}) as writer:
        for number, start in enumerate(range(0, rows, PART)):
            stop = min(rows, start + PART)
            query = ROWS.format(start=start, stop=stop, more=more, there=there, wrong=wrong, name=name)
            with writer.shard(str(number), number) as shard:
                for batch in memory.sql(query).to_arrow_reader(65_536):
                    shard.write(batch)
        return writer.finish()
