"""What does one line of the result say? The columns of the differences, their names, and how values are written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

MISSING, EXTRA, KIND, SIZE, STALE = "missing", "extra", "kind", "size", "stale"
CONTENT, NO_EVIDENCE, UNREADABLE = "content", "no evidence", "unreadable"
NOT_RECORDED = "not recorded"  # the source has a value for which the other side kept none
CHANGED = "changed while looking"
NOT_UTF8, TOO_LONG = "not UTF-8", "key too long"
SAME_BUT_CASE, SAME_BUT_FORM = "same name but for case", "same name but for normalisation"
SPECIAL = "special"
FIELDS = {"mtime": "mtime", "mode": "mode", "uid": "owner", "gid": "group", "target": "link target"}

DIFFERENCES = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("difference", pa.string(), nullable=False),
        pa.field("fails", pa.bool_(), nullable=False),  # false: worth knowing, but no difference of the two sides
        pa.field("kind", pa.string(), nullable=False),  # file, folder, link, other: at the source where it is there
        pa.field("source", pa.string()),  # what the source has, and the other side
        pa.field("other", pa.string()),
        pa.field("source_bytes", pa.int64()),
        pa.field("other_bytes", pa.int64()),
    ]
)
ORDER = [("key", "ascending"), ("difference", "ascending")]

Mask = npt.NDArray[np.bool_]
Values = Sequence[str | None]


def said(
    name: str,
    source: pa.RecordBatch | None,
    other: pa.RecordBatch | None,
    values: tuple[Values | None, Values | None] = (None, None),
    *,
    fails: bool = True,
) -> pa.Table:
    """One line for each row; both batches have the same keys, or one is None."""
    shown = source if source is not None else other
    assert shown is not None
    rows = shown.num_rows
    columns = [
        shown.column("key"),
        pa.repeat(name, rows),
        pa.repeat(fails, rows),
        shown.column("kind").cast(pa.string()),
        *(pa.nulls(rows, pa.string()) if one is None else pa.array(one, pa.string()) for one in values),
        *(pa.nulls(rows, pa.int64()) if side is None else side.column("size") for side in (source, other)),
    ]
    return pa.Table.from_arrays(columns, schema=DIFFERENCES)


def written(name: str, column: pa.Array) -> list[str | None]:
    """A column's values as people read them."""
    form = FORMS.get(name, str)
    return [None if value is None else form(value) for value in column.to_pylist()]


def _moment(nanoseconds: int) -> str:
    """A time in UTC with all its nanoseconds; a number where the calendar has no such year."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
    except (ValueError, OverflowError, OSError):
        return f"{nanoseconds} ns after 1970"


FORMS: dict[str, Callable[[Any], str]] = {
    "mtime_ns": _moment,
    "last_modified_us": lambda microseconds: _moment(microseconds * 1000),
    "mode": lambda mode: f"{mode:04o}",
}
