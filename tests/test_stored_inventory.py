"""What AWS listed itself, and what DataSync reported, are inventories like any other."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pyarrow as pa
import pyarrow.orc as orc
import pyarrow.parquet as pq
import pytest

from runbook_lib.aws.listing import list_bucket
from runbook_lib.aws.report_inventory import from_task_report
from runbook_lib.aws.s3 import S3
from runbook_lib.aws.stored_inventory import from_s3_inventory
from runbook_lib.errors import AwsError, NotFound
from runbook_lib.inventory import cost
from runbook_lib.lab.reports import Reports
from runbook_lib.lab.transfer_source import Item
from tests.lab import s3_server
from tests.lab.s3_server import BUCKET
from tests.listing import ODD_KEYS, REGION, rows, session

NAMES = ["bucket", "key", "version_id", "is_latest", "is_delete_marker", "size", "last_modified_date", "e_tag"]
CSV_NAMES = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, LastModifiedDate, ETag"
EXECUTION = "arn:aws:datasync:eu-central-1:123456789012:task/task-0123/execution/exec-0456"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[s3_server.S3Server]:
    """The lab's S3, with awkward keys under `p/`, and something beside it."""
    with s3_server.serving(tmp_path / "state") as server:
        s3 = s3_server.client(server.url)
        s3.create_bucket(Bucket="lists", CreateBucketConfiguration={"LocationConstraint": REGION})
        for key in [*("p/" + key for key in ODD_KEYS), "p/", "other"]:
            s3.put_object(Bucket=BUCKET, Key=key, Body=key.encode())
        yield server


def stored(url: str, kind: str, **more: Any) -> str:
    """Write an S3 Inventory of the bucket in two files, as AWS does; versions and delete markers too."""
    s3 = s3_server.client(url)
    listed = s3.list_objects_v2(Bucket=BUCKET)["Contents"]
    table: list[tuple[Any, ...]] = [
        (BUCKET, item["Key"], "v2", True, False, item["Size"], item["LastModified"], item["ETag"].strip('"'))
        for item in listed
    ]
    table += [(BUCKET, "p/a&b", "v1", False, False, 99, listed[0]["LastModified"], "old")]
    table += [(BUCKET, "p/deleted", "v9", True, True, None, listed[0]["LastModified"], None)]
    files = []
    for number, some in enumerate((table[1::2], table[::2])):
        data = {"Parquet": as_parquet, "ORC": as_orc, "CSV": as_csv}[kind](some)
        s3.put_object(Bucket="lists", Key=f"data/{number}", Body=data)
        files.append({"key": f"data/{number}", "size": len(data), "MD5checksum": hashlib.md5(data).hexdigest()})
    manifest = {
        "sourceBucket": BUCKET, "destinationBucket": "arn:aws:s3:::lists", "version": "2016-11-30",
        "creationTimestamp": "1740819600000", "fileFormat": kind, "files": files,
        "fileSchema": CSV_NAMES if kind == "CSV" else "message s3.inventory {…}", **more,
    }  # fmt: skip
    s3.put_object(Bucket="lists", Key="manifest.json", Body=json.dumps(manifest).encode())
    return "s3://lists/manifest.json"


def as_table(some: list[tuple[Any, ...]]) -> pa.Table:
    return pa.table({name: [row[at] for row in some] for at, name in enumerate(NAMES)})


def as_parquet(some: list[tuple[Any, ...]]) -> bytes:
    pq.write_table(as_table(some), out := io.BytesIO())
    return out.getvalue()


def as_orc(some: list[tuple[Any, ...]]) -> bytes:
    orc.write_table(as_table(some), out := io.BytesIO())
    return out.getvalue()


def as_csv(some: list[tuple[Any, ...]]) -> bytes:
    text = io.StringIO()
    for bucket, key, version, latest, marker, size, modified, etag in some:
        stamp = f"{modified.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{modified.microsecond // 1000:03d}Z"
        flags = [str(flag).lower() for flag in (latest, marker)]
        csv.writer(text).writerow([bucket, quote_plus(key), version, *flags, size, stamp, etag])
    return gzip.compress(text.getvalue().encode())


@pytest.mark.parametrize("kind", ["Parquet", "ORC", "CSV"])
def test_an_s3_inventory_says_what_a_list_says(kind: str, lab: s3_server.S3Server, tmp_path: Path) -> None:
    manifest = stored(lab.url, kind)
    found = from_s3_inventory(session(lab.url), REGION, manifest, BUCKET, "p/", tmp_path / "stored")
    listed = list_bucket(session(lab.url), REGION, BUCKET, "p/", tmp_path / "listed", cut_from=None)
    assert rows(found) == rows(listed) and found.rows == len(ODD_KEYS)
    assert found.root == listed.root
    assert found.began == found.ended == datetime.fromtimestamp(1740819600, UTC)


def test_what_is_wrong_with_a_stored_inventory_is_said(lab: s3_server.S3Server, tmp_path: Path) -> None:
    def asked(manifest: str) -> None:
        from_s3_inventory(session(lab.url), REGION, manifest, BUCKET, "p/", tmp_path / "i")

    with pytest.raises(AwsError, match="not the address of a manifest"):
        asked("lists/manifest.json")
    with pytest.raises(AwsError, match="has no modified"):
        asked(stored(lab.url, "CSV", fileSchema=CSV_NAMES.replace("LastModifiedDate", "Other")))
    with pytest.raises(AwsError, match="is of Avro"):
        asked(stored(lab.url, "CSV", fileFormat="Avro"))
    with pytest.raises(AwsError, match="lists the bucket another, not"):
        asked(stored(lab.url, "CSV", sourceBucket="another"))
    late = datetime(2025, 3, 2, tzinfo=UTC)
    with pytest.raises(AwsError, match="is of 2025-03-01 09:00:00 UTC, and the task ran since"):
        made = stored(lab.url, "CSV")
        from_s3_inventory(
            session(lab.url), REGION, made, BUCKET, "p/", tmp_path / "j", since=late, because="the task ran since"
        )
    s3 = s3_server.client(lab.url)
    manifest = stored(lab.url, "CSV")
    s3.put_object(Bucket="lists", Key="data/0", Body=b"changed")
    with pytest.raises(AwsError, match="is not the file that the manifest names"):
        asked(manifest)
    s3.put_object(Bucket="lists", Key="manifest.json", Body=b"{}")
    with pytest.raises(AwsError, match="lacks"):
        asked(manifest)


def item(path: bytes, mode: int, size: int = 0) -> Item:
    values: dict[str, Any] = {"path": path, "mode": mode, "size": size, "mtime": 1740819600123456789}
    others = {name: 1000 for name in Item.__dataclass_fields__ if name not in values}
    return Item(**{**others, **values})


@pytest.mark.parametrize("enhanced", [False, True])
def test_a_task_report_stands_beside_a_scan(enhanced: bool, lab: s3_server.S3Server, tmp_path: Path) -> None:
    destination = {"S3": {"S3BucketArn": "arn:aws:s3:::lists", "Subdirectory": "reports"}}
    config = {"Destination": destination, "OutputType": "STANDARD", "ReportLevel": "SUCCESSES_AND_ERRORS"}
    reports = Reports(lab.lab.objects, tmp_path, "task-0123", "exec-0456", config, enhanced)
    metadata = {"file-permissions": "0644", "file-mtime": "1740819600123456789ns", "file-owner": "1000"}
    reports.add("Transferred", b"b/file", item(b"b/file", stat.S_IFREG | 0o644, 7), metadata=metadata)
    reports.add("Transferred", b"", item(b"", stat.S_IFDIR | 0o755))
    reports.add("Skipped", b"a", item(b"a", stat.S_IFREG | 0o600, 3), metadata=metadata)
    reports.add("Transferred", b"c", item(b"c", stat.S_IFREG, 9), failure=(13, "Denied", "permission denied"))
    reports.finish()
    found = from_task_report(S3(session(lab.url), REGION), "lists", "reports", EXECUTION, tmp_path / "i")
    assert [(row["key"], row["size"], row["mtime_ns"]) for row in rows(found)] == [
        ("a", 3, 1740819600123456789), ("b/file", 7, 1740819600123456789), ("c", 9, 1740819600123456789),
    ]  # fmt: skip
    assert found.side == "report" and found.facts["listed"] == {"transferred": 2, "skipped": 1}
    assert "permission denied" in rows(found)[2]["problem"]
    assert rows(found)[1]["uid"] == 1000


def test_a_missing_task_report_is_said(lab: s3_server.S3Server, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no detailed report"):
        from_task_report(S3(session(lab.url), REGION), "lists", "", EXECUTION, tmp_path / "i")


def test_costs_are_those_of_the_reference() -> None:
    assert cost.estimate("size", 50_000_000).usd == pytest.approx(0.25, rel=1e-4)
    assert cost.estimate("metadata", 50_000_000).usd == pytest.approx(20.25, rel=1e-4)
    assert cost.estimate("size", 0).usd > 0
    assert cost.estimate("metadata", 999).sentence().count("2 requests") == 1  # where the bucket is, then one page
    assert (
        "HEAD and GET requests: 1,001 requests" in cost.estimate("metadata", 1000).sentence()
    )  # and DataSync's own object
    read = cost.estimate("content", 1000, size=100 * cost.GIB)
    assert read.usd < 0.01 and read.most == pytest.approx(9.0, rel=0.01)
    assert cost.estimate("content", 1, size=100 * cost.GIB).most == pytest.approx(9.0, rel=0.01)
    assert "up to $9.00 more where S3 keeps no checksum" in read.sentence()
    assert "where objects are encrypted with SSE-KMS" in read.sentence() and "KMS requests: 3,001" in read.sentence()
    assert cost.estimate("content", 9, computable=False).sentence().count("it has no CRC64NVME") == 1
    assert cost.estimate("sample", 10, sample=3000, size=10).items[1].count == 10
    assert cost.estimate("names", 10**6, listed=False).items == ()
    assert cost.spent({"KMS": 1_000_000, "again": 3}).usd == pytest.approx(3.0)
    assert cost.spent({"LIST": 10_000, "HEAD": 10}).sentence().startswith("AWS charges about $0.05")
    assert cost.athena(1).usd < cost.athena(cost.TIB).usd == 5.0
