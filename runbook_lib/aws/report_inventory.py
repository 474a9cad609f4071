"""What did DataSync see at the source? Its task report's items as an inventory that stands beside a scan of ours.

The names of the metadata are those of the DataSync user guide, task reports: SrcMetadata of a BASIC task,
SourceMetadata of an ENHANCED one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..errors import NotFound
from ..inventory.schema import SCHEMA
from ..inventory.store import Inventory, Writer
from .object_headers import posix_row
from .pages import EPOCH
from .reports import files_of, outcome
from .s3 import S3

SECTIONS = ("transferred", "skipped")  # what was copied, and what was not because it was there already
TYPES = {"Directory": "folder", "Symlink": "link", "Regular": "file", "Object": "file", "Special": "other"}
NUMBERS = {"Uid": "uid", "Gid": "gid"}


def from_task_report(
    s3: S3,
    bucket: str,
    prefix: str,
    execution_arn: str,
    folder: Path,
    seen: tuple[datetime, datetime] | None = None,
    counted: Mapping[str, int] | None = None,
) -> Inventory:
    """The source as an execution's detailed report describes it; side `report`. `NotFound` when there is none.

    It is whole only if the report lists successes of both sections: the facts count what each listed. What failed has
    a `problem`. `seen`: from when to when the execution ran; `counted`: what its statistics count of each section.
    """
    files = [(kind, key) for kind, key in files_of(s3, bucket, prefix, execution_arn) if kind in SECTIONS]
    if not files:
        raise NotFound(
            f"There is no detailed report of {execution_arn} in s3://{bucket}/{prefix} with transferred or skipped "
            "items. Set the task's report to STANDARD with SUCCESSES_AND_ERRORS, or scan the source."
        )
    with Writer(folder, side="report", root=execution_arn, parameters={"bucket": bucket, "prefix": prefix}) as writer:
        for order, (kind, key) in enumerate(files):
            if key in writer.finished:
                continue
            with writer.shard(key, order) as shard:
                rows = _rows(json.loads(s3.read(bucket, key)).get(kind.capitalize(), []))
                shard.write(pa.RecordBatch.from_pylist(rows, schema=_plain()))
                shard.facts = {"kind": kind, "items": len(rows)}
        listed = dict.fromkeys(SECTIONS, 0)
        for facts in writer.shard_facts.values():
            listed[facts["kind"]] += facts["items"]
        requests = {"LIST": 1, "GET": len(files)}
        return writer.finish(
            seen=seen,
            method="DataSync task report",
            counted=dict(counted or {}),
            execution=execution_arn,
            listed=listed,
            requests=requests,
        )


def _plain() -> pa.Schema:
    """The schema with `kind` as plain text, as Python's values come."""
    return SCHEMA.set(SCHEMA.get_field_index("kind"), pa.field("kind", pa.string(), nullable=False))


def _rows(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The items but for the root."""
    rows = [_row(item) for item in items if item["RelativePath"].strip("/")]
    return sorted(rows, key=lambda row: str(row["key"]))


def _row(item: dict[str, Any]) -> dict[str, Any]:
    seen = item.get("SrcMetadata") or item.get("SourceMetadata") or {}
    path = item["RelativePath"].removeprefix("/")
    row: dict[str, Any] = {"key": path, "kind": TYPES.get(seen.get("Type", "Regular"), "other")}
    row["size"] = seen.get("ContentSize")
    stamp = seen.get("Mtime") or seen.get("LastModified")
    row["mtime_ns"] = nanoseconds(stamp) if stamp else None
    row["mtime_step_ns"] = step(stamp) if stamp else None
    row["mode"] = int(seen["Mode"], 8) & 0o7777 if "Mode" in seen else None
    row.update({ours: seen.get(theirs) for theirs, ours in NUMBERS.items()})
    if seen.get("UserMetadata"):
        row.update(posix_row(seen["UserMetadata"]))
    if path.endswith("/") or row["kind"] == "folder":
        row.update(kind="folder", size=0, key=path.rstrip("/") + "/")
    status, error = outcome(item)
    if status != "SUCCESS":
        row["problem"] = f"DataSync: {error or status}"
    return row


def nanoseconds(stamp: str) -> int:
    """An ISO time in UTC with up to nine digits of a second, as nanoseconds since 1970."""
    whole, _, fraction = stamp.removesuffix("Z").partition(".")
    seconds = (datetime.fromisoformat(whole + "+00:00") - EPOCH).total_seconds()
    return int(seconds) * 1_000_000_000 + int((fraction + "000000000")[:9])


def step(stamp: str) -> int | None:
    """How exactly an ISO time is written, in nanoseconds; None: to the nanosecond."""
    digits = len(stamp.removesuffix("Z").partition(".")[2])
    return 10 ** (9 - digits) if digits < 9 else None
