"""Which names are the same but for their case or their Unicode form? On disk, in DuckDB's bounded memory.

Case is compared as file systems that ignore it do, letter by letter ('ß' is not 'ss').
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from ..errors import InventoryError
from . import differences as d
from .reading import ROWS_AT_ONCE, Inventory

if TYPE_CHECKING:
    import duckdb

MEMORY = "128MB"  # for DuckDB; what does not fit is spilled beside the result


class TooMany(InventoryError):
    """More names than can be looked at in the memory that is allowed."""


def may_collide(keys: pa.Array) -> bool:
    """Whether another name could differ from one of these by case or form only: not when all is plain lower case."""
    return not (pc.all(pc.string_is_ascii(keys)).as_py() and pc.ascii_lower(keys).equals(keys))


def decomposed(keys: pa.Array) -> int:
    """How many are not in Unicode's composed form (NFC): S3 keeps them so, and other systems may look for the other."""
    odd = keys.filter(pc.invert(pc.string_is_ascii(keys)))
    return int(pc.sum(pc.not_equal(odd, pc.utf8_normalize(odd, "NFC"))).as_py() or 0) if len(odd) else 0


def connection(folder: Path) -> duckdb.DuckDBPyConnection:
    """A DuckDB in memory that spills into the folder."""
    import duckdb

    spill = str(folder / "spill")
    return duckdb.connect(
        config={"memory_limit": MEMORY, "threads": 1, "temp_directory": spill, "preserve_insertion_order": False}
    )


COLLISIONS = """
WITH folded AS (SELECT hash(nfc_normalize(lower(key))) AS folded FROM read_parquet($files, hive_partitioning=false)),
twice AS (SELECT folded FROM folded GROUP BY folded HAVING count(*) > 1),
suspects AS (
    SELECT key, nfc_normalize(lower(key)) AS name, kind::VARCHAR AS kind, size
    FROM read_parquet($files, hive_partitioning=false)
    WHERE hash(nfc_normalize(lower(key))) IN (SELECT folded FROM twice)
),
beside AS (
    SELECT *, coalesce(lag(key) OVER same, lead(key) OVER same) AS twin
    FROM suspects WINDOW same AS (PARTITION BY name ORDER BY key)
)
SELECT
    key, CASE WHEN nfc_normalize(key) = nfc_normalize(twin) THEN $form ELSE $case END AS difference, false AS fails,
    kind, key AS source, twin AS other, size AS source_bytes, NULL::BIGINT AS other_bytes
FROM beside WHERE twin IS NOT NULL
"""


def collisions(source: Inventory, folder: Path) -> Iterator[pa.RecordBatch]:
    """Keys of one side of which another one differs by case or Unicode form only; lines of the result."""
    values = {"files": [str(path) for path in source.files], "form": d.SAME_BUT_FORM, "case": d.SAME_BUT_CASE}
    with connection(folder) as database:
        yield from _batches(database, COLLISIONS, values)


# A missing and an extra key that are the same name otherwise spelled become one line.
ORDERED = """
WITH lines AS (SELECT * FROM read_parquet($lines, hive_partitioning=false)),
alone AS (
    SELECT *, rtrim(key, '/') AS bare, nfc_normalize(lower(nfc_normalize(bare))) AS name, hash(name) AS hashed
    FROM lines WHERE difference IN ('missing', 'extra')
),
twice AS (
    SELECT hashed FROM alone WHERE difference = 'missing' INTERSECT SELECT hashed FROM alone WHERE difference = 'extra'
),
named AS (
    SELECT *, row_number() OVER (PARTITION BY difference, name ORDER BY key) AS number
    FROM alone WHERE hashed IN (SELECT hashed FROM twice)
),
pairs AS (
    SELECT
        ours.key AS ours, theirs.key AS theirs, theirs.other_bytes AS bytes,
        CASE
            WHEN ours.bare = theirs.bare THEN $kind
            WHEN nfc_normalize(ours.bare) = nfc_normalize(theirs.bare) THEN $form
            ELSE $case
        END AS difference
    FROM named AS ours JOIN named AS theirs
        ON ours.name = theirs.name AND ours.number = theirs.number
        AND ours.difference = 'missing' AND theirs.difference = 'extra'
)
SELECT
    lines.key, CASE WHEN missing THEN pairs.difference ELSE lines.difference END AS difference, lines.fails, lines.kind,
    CASE WHEN missing THEN lines.key ELSE lines.source END AS source,
    CASE WHEN missing THEN pairs.theirs ELSE lines.other END AS other, lines.source_bytes,
    CASE WHEN missing THEN pairs.bytes ELSE lines.other_bytes END AS other_bytes
FROM (SELECT *, difference = 'missing' AND key IN (SELECT ours FROM pairs) AS missing FROM lines) AS lines
LEFT JOIN pairs ON lines.key = pairs.ours
WHERE NOT (lines.difference = 'extra' AND lines.key IN (SELECT theirs FROM pairs))
    AND NOT coalesce(lines.difference IN ($form, $case) AND lines.difference = pairs.difference, false)
ORDER BY lines.key, difference
"""

PLAIN = "SELECT * FROM read_parquet($lines, hive_partitioning=false) ORDER BY key, difference"


def ordered(lines: Path, folder: Path) -> Iterator[pa.RecordBatch]:
    """The lines of a file in order, with what is missing and extra under two spellings as one."""
    values = {"lines": str(lines), "kind": d.KIND, "form": d.SAME_BUT_FORM, "case": d.SAME_BUT_CASE}
    with connection(folder) as database:
        yield from _batches(database, ORDERED, values)


def plain(lines: Path, folder: Path) -> Iterator[pa.RecordBatch]:
    """The lines of a file in order, and nothing else."""
    with connection(folder) as database:
        yield from _batches(database, PLAIN, {"lines": str(lines)})


def _batches(database: duckdb.DuckDBPyConnection, statement: str, values: dict[str, Any]) -> Iterator[pa.RecordBatch]:
    import duckdb

    try:
        for batch in database.sql(statement, params=values).to_arrow_reader(ROWS_AT_ONCE):
            yield pa.RecordBatch.from_arrays(
                [column.cast(field.type) for column, field in zip(batch.columns, d.DIFFERENCES, strict=True)],
                schema=d.DIFFERENCES,
            )
    except (duckdb.Error, OSError) as error:  # Arrow's reader wraps what DuckDB says while rows are fetched
        if isinstance(error, duckdb.OutOfMemoryException) or "Out of Memory" in str(error):
            raise TooMany(
                f"The differences do not fit into {MEMORY} of memory: {str(error).splitlines()[0]}. Correct what "
                "differs most (a wrong prefix or filter makes every file differ), then compare again."
            ) from error
        raise InventoryError(
            f"The differences cannot be put in order: {error}. Look whether the disk of the result's folder has room, "
            "then compare again."
        ) from error
