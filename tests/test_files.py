"""Every kind of difference between NFS server, bucket and share is found on the lab, and nothing else is."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from runbook_lib import Runbook, files_cli
from runbook_lib.asked import DONE
from runbook_lib.aws.executions import TaskExecution
from runbook_lib.errors import AwsError, CommandFailed, InventoryError, SettingsError
from runbook_lib.files import FileComparison
from runbook_lib.inventory import cost
from runbook_lib.inventory.cost import listing
from runbook_lib.inventory.progress import Progress
from runbook_lib.inventory.store import Inventory
from runbook_lib.settings import PACKAGE_ROOT
from tests.listing import inventory_configuration, put_inventory
from tests.test_scanner import ODD
from tests.throwaway import ThrowawayLab, client


@pytest.fixture
def rb(lab: ThrowawayLab) -> Iterator[Runbook]:
    """The runbook after everything was copied and refreshed."""
    lab.reset("05")
    yield Runbook.open("lab", notebook="05_verify_listing")
    lab.mend()


def export(lab: ThrowawayLab) -> Path:
    return lab.state / "application-server/mnt/data"


def objects(rb: Runbook, lab: ThrowawayLab) -> tuple[Any, str, str]:
    """A client of S3, and where the task's files are."""
    place = rb.datasync.task.destination
    return client(lab, "s3"), place.bucket, place.prefix


def counts(found: FileComparison) -> dict[str, int]:
    """What fails, and how often."""
    return {count.difference: count.lines for count in found.comparison.counts if count.fails}


@pytest.mark.parametrize("level", ["names", "size", "metadata", "sample", "content"])
@pytest.mark.parametrize("against", ["bucket", "share"])
def test_what_was_copied_is_the_same_at_every_level(rb: Runbook, level: Any, against: Any) -> None:
    found = rb.files.compare(level, against=against, take=20, seed=1)
    assert (found.ok, counts(found)) == (True, {}), found
    assert found.comparison.files == 201
    assert "Every file is accounted for." in repr(found)


def test_a_missing_and_an_extra_file_are_named(rb: Runbook, lab: ThrowawayLab) -> None:
    s3, bucket, prefix = objects(rb, lab)
    s3.delete_object(Bucket=bucket, Key=f"{prefix}images/00001.jpg")
    s3.put_object(Bucket=bucket, Key=f"{prefix}images/nobody-asked-for-it.jpg", Body=b"x")
    found = rb.files.compare("names")
    assert counts(found) == {"missing": 1, "extra": 1}
    assert "images/00001.jpg" in repr(found)
    lines = pq.read_table(found.folder / "differences.parquet").to_pylist()
    assert {(line["key"], line["difference"]) for line in lines} == {
        ("images/00001.jpg", "missing"), ("images/nobody-asked-for-it.jpg", "extra"),
    }  # fmt: skip
    with (found.folder / "differences.csv").open(encoding="utf-8-sig", newline="") as file:
        assert [row["key"] for row in csv.DictReader(file)] == ["images/00001.jpg", "images/nobody-asked-for-it.jpg"]


def test_what_listing_a_large_tree_costs_is_said_before_it_begins(rb: Runbook, lab: ThrowawayLab) -> None:
    heard: list[str] = []

    def hear(sentence: str) -> None:
        heard.append(sentence)
        raise KeyboardInterrupt  # that is all that is asked here

    many = export(lab) / "many"
    many.mkdir()
    try:
        for number in range(20_001):  # more than are listed without a plan
            (many / f"{number}").touch()
        used = os.statvfs(many)
        with pytest.raises(KeyboardInterrupt):
            rb.files.compare("names", said=hear)
    finally:
        shutil.rmtree(many)
    assert used.f_files == 0 or used.f_files - used.f_ffree > 20_000
    whose = "as many objects as the source's file system has entries" if used.f_files else "a million objects"
    assert len(heard) == 1 and heard[0].startswith(f"LIST goes on beside the scan: for {whose}")


@pytest.mark.parametrize(
    ("used", "expected"),
    [
        (0, "for a million objects, AWS charges less than $0.01 ("),
        (5_000_000, "as many objects as the source's file system has entries (5,000,000), AWS charges about $0.03 ("),
    ],
)
def test_the_price_of_a_listing(used: int, expected: str) -> None:
    assert expected in listing(used)


def test_another_size_is_found_from_level_size_on(rb: Runbook, lab: ThrowawayLab) -> None:
    s3, bucket, prefix = objects(rb, lab)
    s3.put_object(Bucket=bucket, Key=f"{prefix}images/00002.jpg", Body=b"short")
    assert rb.files.compare("names").ok
    assert counts(rb.files.compare("size")) == {"size": 1}


def test_other_metadata_are_found_from_level_metadata_on(rb: Runbook, lab: ThrowawayLab) -> None:
    s3, bucket, prefix = objects(rb, lab)
    key = f"{prefix}images/00003.jpg"
    kept = s3.head_object(Bucket=bucket, Key=key)["Metadata"]
    other = kept | {"file-mtime": "1000000000000", "file-permissions": "0100600", "file-owner": "4711"}
    body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    s3.put_object(Bucket=bucket, Key=key, Body=body, Metadata=other)
    assert rb.files.compare("size").ok
    assert counts(rb.files.compare("metadata")) == {"mtime": 1, "mode": 1, "owner": 1}


def test_the_three_spellings_of_a_time_are_the_same_time(rb: Runbook, lab: ThrowawayLab) -> None:
    s3, bucket, prefix = objects(rb, lab)
    for number, spelling in enumerate(("{ns}ns", "{ms}", "{s}/{rest}"), 4):
        path = f"images/{number:05}.jpg"
        ns = (export(lab) / path).stat().st_mtime_ns
        text = spelling.format(ns=ns, ms=ns // 10**6, s=ns // 10**9, rest=ns % 10**9)
        kept = s3.head_object(Bucket=bucket, Key=prefix + path)["Metadata"]
        body = s3.get_object(Bucket=bucket, Key=prefix + path)["Body"].read()
        s3.put_object(Bucket=bucket, Key=prefix + path, Body=body, Metadata=kept | {"file-mtime": text})
    found = rb.files.compare("metadata")
    assert found.ok, found


def test_other_content_of_the_same_size_is_found_by_content_alone(rb: Runbook, lab: ThrowawayLab) -> None:
    s3, bucket, prefix = objects(rb, lab)
    key = f"{prefix}images/00007.jpg"
    kept = s3.head_object(Bucket=bucket, Key=key)
    s3.put_object(Bucket=bucket, Key=key, Body=b"z" * kept["ContentLength"], Metadata=kept["Metadata"])
    assert rb.files.compare("metadata").ok
    found = rb.files.compare("content")
    assert counts(found) == {"content": 1}
    assert "images/00007.jpg" in repr(found)


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "SHA1", "SHA256", "CRC64NVME"])
def test_each_algorithm_that_s3_keeps_is_compared_or_the_object_is_read(
    rb: Runbook, lab: ThrowawayLab, algorithm: str
) -> None:
    s3, bucket, prefix = objects(rb, lab)
    key = f"{prefix}images/00008.jpg"
    kept, body = s3.head_object(Bucket=bucket, Key=key), s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    s3.put_object(Bucket=bucket, Key=key, Body=body, Metadata=kept["Metadata"], ChecksumAlgorithm=algorithm)
    found = rb.files.compare("content")
    assert found.ok, found


def test_what_the_share_does_not_show_yet_is_missing_there(lab: ThrowawayLab) -> None:
    lab.reset("04")
    rb = Runbook.open("lab", notebook="05_verify_listing")
    assert rb.files.compare("metadata").ok
    assert counts(rb.files.compare("metadata", against="share")) == {"missing": 1}


def test_links_special_files_and_hard_links_are_told_apart(rb: Runbook, lab: ThrowawayLab) -> None:
    top = export(lab)
    (top / "link").symlink_to("images/00001.jpg")
    os.link(top / "images/00001.jpg", top / "again.jpg")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(top / "socket"))
    try:
        found = rb.files.compare("size")
        assert counts(found) == {"missing": 2}
        assert "special" in repr(found)
        assert "hard links" in repr(found)
        rb.datasync.run(rb.datasync.pending())
        found = rb.files.compare("content")
        assert found.ok, found
    finally:
        for name in ("link", "again.jpg", "socket"):
            (top / name).unlink()


def test_an_export_without_files_is_not_the_same(rb: Runbook, lab: ThrowawayLab) -> None:
    images, aside = export(lab) / "images", lab.state / "aside"
    images.rename(aside)
    (export(lab) / "new-image.jpg").rename(lab.state / "aside.jpg")
    try:
        found = rb.files.compare("names")
        assert not found.ok
    finally:
        aside.rename(images)
        (lab.state / "aside.jpg").rename(export(lab) / "new-image.jpg")


def test_only_one_folder_can_be_compared(rb: Runbook, lab: ThrowawayLab) -> None:
    found = rb.files.compare("content", against="share", within="/")
    assert (found.ok, found.comparison.files) == (True, 1), found
    assert rb.files.compare("content", against="share", within="/images").comparison.files == 200
    for missing in ("imges", "images/00001.jpg", "image"):
        with pytest.raises(SettingsError, match=rf"Neither the NFS server nor the file share has a folder /{missing}:"):
            rb.files.compare("names", against="share", within=missing)


def test_what_the_tasks_filter_leaves_out_is_not_missed(rb: Runbook, lab: ThrowawayLab) -> None:
    task = rb.datasync.task.arn
    skip = [{"FilterType": "SIMPLE_PATTERN", "Value": "/images/0000*"}]
    client(lab, "datasync").update_task(TaskArn=task, Excludes=skip)
    s3, bucket, prefix = objects(rb, lab)
    s3.delete_object(Bucket=bucket, Key=f"{prefix}images/00001.jpg")
    found = Runbook.open("lab", notebook="05_verify_listing").files.compare("metadata")
    assert (found.ok, found.comparison.source.left_out) == (True, 9), found


def test_what_was_left_unfinished_is_gone_on_with(rb: Runbook) -> None:
    first = rb.files.compare("size")
    (first.folder / DONE).unlink()
    scanned = (first.folder / "source" / "inventory.json").read_text()
    second = rb.files.compare("size")
    assert (second.ok, second.folder) == (True, first.folder)
    assert (second.folder / "source" / "inventory.json").read_text() == scanned
    assert "This goes on with what was begun" in repr(second) and "the NFS server as " in repr(second)
    third = rb.files.compare("size")
    assert third.folder != first.folder and "goes on" not in repr(third)


def test_an_inventory_made_under_other_filters_is_not_believed(rb: Runbook, lab: ThrowawayLab) -> None:
    task = rb.datasync.task.arn
    skip = [{"FilterType": "SIMPLE_PATTERN", "Value": "/images"}]
    client(lab, "datasync").update_task(TaskArn=task, Excludes=skip)
    first = Runbook.open("lab", notebook="05_verify_listing").files.compare("size")
    (first.folder / DONE).unlink()
    shutil.rmtree(first.folder / "bucket")  # as if it was killed before LIST
    s3, bucket, prefix = objects(rb, lab)
    for at in range(1, 4):
        s3.delete_object(Bucket=bucket, Key=f"{prefix}images/{at:05}.jpg")
    client(lab, "datasync").update_task(TaskArn=task, Excludes=[])
    now = Runbook.open("lab", notebook="05_verify_listing").files
    with pytest.raises(InventoryError, match="begun with another filters"):
        now.compare("size", out=first.folder)
    assert counts(now.compare("size")) == {"missing": 3}


def test_an_earlier_comparison_is_looked_at_further_and_stays_as_it_was(rb: Runbook, lab: ThrowawayLab) -> None:
    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in first.folder.rglob("*") if path.is_file()}

    first = rb.files.compare("size")
    assert "2 requests" in first.spent.sentence()  # where the bucket is, and its one page
    before = files()
    further = rb.files.compare("metadata", of=first)
    assert further.ok and files() == before
    assert "LIST" not in further.spent.sentence() and "HEAD" in further.spent.sentence()
    (further.folder / DONE).unlink()
    with pytest.raises(InventoryError, match="begun with another of"):
        rb.files.compare("metadata", of=rb.files.compare("size"), out=further.folder)
    shared = rb.files.compare("size", against="share", of=first)
    assert shared.ok and shared.comparison.source.began == first.comparison.source.began and files() == before
    with pytest.raises(InventoryError, match="is of other sides"):
        rb.files.compare("size", against="share", source="report", of=first)


def test_what_would_prove_nothing_is_refused_before_anything_is_looked_at(rb: Runbook) -> None:
    with pytest.raises(SettingsError, match="the report with the report"):
        rb.files.compare("size", against="report", source="report")
    with pytest.raises(SettingsError, match="has no content"):
        rb.files.compare("sample", against="report", take=5)
    with pytest.raises(SettingsError, match="give 0 or more"):
        rb.files.compare("sample", seed=-1)


def test_a_snapshot_folder_is_left_out_at_the_top_alone_and_that_is_said(rb: Runbook, lab: ThrowawayLab) -> None:
    top, below = export(lab) / ".snapshot", export(lab) / "images/.snapshot"
    for folder in (top, below):
        folder.mkdir()
        (folder / "precious").write_text("x")
    try:
        found = rb.files.compare("size")
        assert counts(found) == {"missing": 2}
        assert "1 snapshot folder at the top of the NFS server left out." in repr(found)
    finally:
        for folder in (top, below):
            shutil.rmtree(folder)


def test_a_file_of_the_far_future_is_named_and_all_others_are_compared(rb: Runbook, lab: ThrowawayLab) -> None:
    path = export(lab) / "images/00005.jpg"
    before = path.stat()
    os.utime(path, (before.st_atime, 13_569_465_600))  # in the year 2400
    try:
        found = rb.files.compare("size")
        assert (counts(found), found.comparison.first[0].key) == ({"unreadable": 1}, "images/00005.jpg"), found
        assert "after 2262" in repr(found)
    finally:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@dataclass(frozen=True)
class Planting:
    """The export, and the objects of its files, which may be made to differ."""

    top: Path
    s3: Any
    bucket: str
    prefix: str

    def file(self, name: str | bytes) -> Path:
        """A new file at the top."""
        path = Path(os.fsdecode(os.path.join(os.fsencode(self.top), os.fsencode(name))))
        path.write_text("content")
        return path

    def put(self, key: str, like: Path, body: bytes | None = None, but: Mapping[str, str] | None = None) -> None:
        """An object as DataSync makes it of a path, but for some metadata; "" leaves one out."""
        seen = like.lstat()
        posix = {
            "file-mtime": f"{seen.st_mtime_ns}ns", "file-permissions": f"0{seen.st_mode:o}",
            "file-owner": str(seen.st_uid), "file-group": str(seen.st_gid),
        }  # fmt: skip
        kept = {name: value for name, value in {**posix, **(but or {})}.items() if value}
        body = like.read_bytes() if body is None else body
        self.s3.put_object(Bucket=self.bucket, Key=self.prefix + key, Body=body, Metadata=kept)


def other_group(at: Planting) -> str:
    at.put("file", at.file("file"), but={"file-group": "4711"})
    return "file"


def no_group(at: Planting) -> str:
    at.put("file", at.file("file"), but={"file-group": ""})
    return "file"


def other_target(at: Planting) -> str:
    (at.top / "link").symlink_to("images/00001.jpg")
    at.put("link", at.top / "link", b"images/00002.jpg")
    return "link"


def folder_for_a_file(at: Planting) -> str:
    at.file("thing")
    at.put("thing/", at.top / "images", b"")
    return "thing"


def file_for_a_link(at: Planting) -> str:
    (at.top / "link").symlink_to("images/00001.jpg")
    at.put("link", at.top / "link", b"images/00001.jpg", but={"file-permissions": "0100777"})
    return "link"


def long_key(at: Planting) -> str:
    key = ""
    for _ in range(4):
        key += "k" * 200 + "/"
        (at.top / key).mkdir()
    long = key + "k" * 255
    at.file(long)
    for depth in range(1, 5):
        folder = ("k" * 200 + "/") * depth
        at.put(folder, at.top / folder, b"")
    return long


def other_case(at: Planting) -> str:
    at.put("Read.Me", at.file("READ.ME"))
    return "READ.ME"


def other_form(at: Planting) -> str:
    at.put("caf\u00e9", at.file("cafe\u0301"))
    return "cafe\u0301"


def bad_name(at: Planting) -> str:
    at.file(b"bad\xff")
    return r"bad\xff"


KINDS: dict[Callable[[Planting], str], str] = {
    other_group: "group", no_group: "not recorded", other_target: "link target", folder_for_a_file: "kind",
    file_for_a_link: "kind", long_key: "key too long", other_case: "same name but for case",
    other_form: "same name but for normalisation", bad_name: "not UTF-8",
}  # fmt: skip


@pytest.fixture
def planting(rb: Runbook, lab: ThrowawayLab) -> Iterator[Planting]:
    """What is new at the export's top is removed at the end."""
    top = export(lab)
    before = {path.name for path in top.iterdir()}
    yield Planting(top, *objects(rb, lab))
    for path in [path for path in top.iterdir() if path.name not in before]:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


@pytest.mark.parametrize("plant", KINDS, ids=lambda plant: plant.__name__)
def test_one_planted_difference_has_the_name_of_its_kind_and_there_is_no_other(
    rb: Runbook, planting: Planting, plant: Callable[[Planting], str]
) -> None:
    if sys.platform == "darwin" and plant is bad_name:
        pytest.skip("its file systems refuse names that are not UTF-8")
    key = plant(planting)
    found = rb.files.compare("metadata")
    assert (found.ok, counts(found)) == (False, {KINDS[plant]: 1}), found
    assert (found.comparison.first[0].key, found.comparison.files >= 201) == (key, True)


HOSTILE = [*ODD, b"50%", b"50%25", b"one+two", b"trailing ", b"<tag>&amp;", b"#?;=", b"..hidden", b"caf\xc3\xa9.d/x"]


def test_names_of_all_sorts_are_copied_and_found_again_and_what_lacks_one_is_told(
    rb: Runbook, planting: Planting
) -> None:
    top, made = os.fsencode(planting.top) + b"/hostile/", set[str]()
    for at, name in enumerate(HOSTILE):
        for path in (b"files/" + name, b"folders/" + name + b"/inside"):
            os.makedirs(os.path.dirname(top + path), exist_ok=True)
            Path(os.fsdecode(top + path)).write_bytes(b"x" * at)
            made.add("hostile/" + path.decode())
    rb.datasync.run(rb.datasync.pending())
    found = rb.files.compare("metadata")
    assert (found.ok, counts(found), found.comparison.files) == (True, {}, 201 + len(made)), found
    for side in ("source", "bucket"):
        keys = {
            row["key"] for batch in Inventory.open(found.folder / side).batches(["key"]) for row in batch.to_pylist()
        }
        assert {key for key in keys if key.startswith("hostile/") and key[-1] != "/"} == made
    gone = {
        "hostile/files/new\nline",
        "hostile/files/cafe\u0301",
        "hostile/files/50%25",
        "hostile/folders/ space /inside",
    }
    for key in gone:
        planting.s3.delete_object(Bucket=planting.bucket, Key=planting.prefix + key)
    less = rb.files.compare("metadata")
    lines = pq.read_table(less.folder / "differences.parquet").to_pylist()
    assert {line["key"] for line in lines if line["fails"]} == gone and counts(less) == {"missing": len(gone)}, less


def s3_inventory(lab: ThrowawayLab, bucket: str, prefix: str, *, of: str, created: datetime) -> str:
    """Write an S3 Inventory of what is in the bucket, as of another bucket or time; the manifest's address."""
    s3, text = client(lab, "s3"), io.StringIO()
    for item in s3.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]:
        row = [of, item["Key"], item["Size"], f"{item['LastModified']:%Y-%m-%dT%H:%M:%S.000Z}"]
        csv.writer(text).writerow(row)
    data = gzip.compress(text.getvalue().encode())
    s3.create_bucket(Bucket="lists", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    s3.put_object(Bucket="lists", Key="data.csv.gz", Body=data)
    manifest = {
        "sourceBucket": of, "destinationBucket": "arn:aws:s3:::lists", "version": "2016-11-30", "fileFormat": "CSV",
        "creationTimestamp": str(int(created.timestamp() * 1000)), "fileSchema": "Bucket, Key, Size, LastModifiedDate",
        "files": [{"key": "data.csv.gz", "size": len(data), "MD5checksum": hashlib.md5(data).hexdigest()}],
    }  # fmt: skip
    s3.put_object(Bucket="lists", Key="manifest.json", Body=json.dumps(manifest).encode())
    return "s3://lists/manifest.json"


@pytest.mark.parametrize(
    ("of", "hours", "why"), [("another", 1, "lists the bucket another"), ("", -1, "execution ended later"), ("", 1, "")]
)
def test_an_s3_inventory_is_of_this_bucket_and_younger_than_the_copy(
    rb: Runbook, lab: ThrowawayLab, of: str, hours: int, why: str
) -> None:
    _, bucket, prefix = objects(rb, lab)
    ended = rb.datasync.history(1).latest.ended
    assert ended is not None
    created = ended + timedelta(hours=hours)
    files = rb.files_as(s3_inventory=s3_inventory(lab, bucket, prefix, of=of or bucket, created=created))
    if why:
        with pytest.raises(AwsError, match=why):
            files.compare("size")
    else:
        found = files.compare("size")
        assert found.ok and f"as S3 Inventory had it at {created:%Y-%m-%d %H:%M:%S} UTC" in repr(found)
        assert (
            f"The bucket is as S3 Inventory had it at {created:%Y-%m-%d %H:%M:%S} UTC." in found.reason
        )  # of the check
        described = files.compare("metadata")
        assert "The list of the bucket's objects is as S3 Inventory had it" in described.reason
        assert "What was added to the bucket since then is not seen" in repr(described)
        assert found.comparison.other.began == created.replace(microsecond=created.microsecond // 1000 * 1000)


@pytest.fixture
def lists(rb: Runbook, lab: ThrowawayLab) -> Iterator[Callable[[], None]]:
    """Writes an S3 Inventory of the task's bucket into a bucket of its own."""
    s3, bucket, _ = objects(rb, lab)
    s3.create_bucket(Bucket="lists", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    yield lambda: put_inventory(s3, inventory_configuration(kind="Parquet"), bucket)


def test_the_latest_s3_inventory_stands_in_for_list_when_it_is_younger_than_the_copy(
    rb: Runbook, lab: ThrowawayLab, lists: Callable[[], None]
) -> None:
    s3, bucket, prefix = objects(rb, lab)
    files, heard = rb.files_as(s3_inventory="latest"), list[str]()
    found = files.compare("size", said=heard.append)
    assert found.ok and f"asked by LIST. The bucket {bucket} has no S3 Inventory configuration." in repr(found)
    assert "asked by LIST" in heard[0]  # before it is
    s3.delete_object(Bucket=bucket, Key=f"{prefix}images/00001.jpg")
    lists()
    found = files.compare("size")
    assert counts(found) == {"missing": 1} and "The bucket is as S3 Inventory had it at" in repr(found)
    assert "asked by LIST" not in repr(found)
    said = found.spent.sentence()  # to find it: the place, its folder, the manifest; then the manifest and its file
    assert "LIST and PUT requests: 2 requests" in said and "HEAD and GET requests: 4 requests" in said
    (export(lab) / "later.txt").write_text("after the inventory")
    copy = Runbook.open("lab", notebook="02_run_datasync_task")
    copy.datasync.run(copy.datasync.pending())
    found = files.compare("size")
    assert found.ok and "as S3 Inventory had it" not in repr(found)
    assert "asked by LIST. The latest S3 Inventory, s3://lists/" in repr(found)
    assert "the task's last execution ended later, at" in repr(found)


def test_what_was_begun_with_the_latest_inventory_goes_on_with_it_when_there_is_a_later_one(
    rb: Runbook, lists: Callable[[], None]
) -> None:
    files = rb.files_as(s3_inventory="latest")
    lists()
    first = files.compare("size")
    lists()
    further = files.compare("metadata", of=first)
    assert further.ok and "as S3 Inventory had it" in repr(further)
    assert "LIST and PUT requests: 1 request," in further.spent.sentence()  # where the bucket is
    (first.folder / DONE).unlink()
    again = files.compare("size")
    assert again.folder == first.folder and "This goes on with what was begun" in repr(again)
    shutil.rmtree(again.folder / "bucket")
    (again.folder / DONE).unlink()
    again = files.compare("size")
    assert again.folder == first.folder and "as S3 Inventory had it" in repr(again)


def test_a_copy_that_ends_while_the_source_is_scanned_makes_the_latest_inventory_too_old(
    rb: Runbook, lists: Callable[[], None]
) -> None:
    lists()
    files, heard = rb.files_as(s3_inventory="latest"), list[str]()
    ended = iter([rb.datasync.history(1).latest])

    def latest() -> TaskExecution:
        known = next(ended, None)
        return known or replace(rb.datasync.history(1).latest, ended=datetime.now(UTC) + timedelta(hours=1))

    files.sides = replace(files.sides, latest=latest)
    found = files.compare("size", said=heard.append)
    assert found.ok and "as S3 Inventory had it" not in repr(found)
    (why,) = (sentence for sentence in heard if "asked by LIST" in sentence)
    assert "execution ended later" in why and why in repr(found)


def test_a_task_that_runs_makes_every_inventory_too_old(rb: Runbook, lists: Callable[[], None]) -> None:
    lists()
    files = rb.files_as(s3_inventory="latest")
    files.sides = replace(files.sides, latest=lambda: replace(rb.datasync.history(1).latest, ended=None))
    assert "UTC, and the task is running." in repr(files.compare("size"))


def test_datasyncs_report_and_a_scan_are_compared_with_each_other(rb: Runbook, lab: ThrowawayLab) -> None:
    found = rb.files.compare("size", against="report")
    assert found.ok, found
    assert rb.files.compare("metadata", source="report").ok
    (export(lab) / "new-image.jpg").write_bytes(b"longer than what DataSync saw" * 1000)
    assert counts(rb.files.compare("size", against="report")) == {"size": 1}


def compare_files(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "runbook_lib.cli", "compare-files", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=PACKAGE_ROOT)


def test_the_command_ends_with_0_when_all_is_the_same_and_with_1_when_not(
    rb: Runbook, lab: ThrowawayLab, tmp_path: Path
) -> None:
    done = compare_files("lab", "--gentle", "--out", str(tmp_path / "one"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Every file is accounted for.")
    s3, bucket, prefix = objects(rb, lab)
    s3.delete_object(Bucket=bucket, Key=f"{prefix}images/00001.jpg")
    done = compare_files("lab", "--json")
    assert (done.returncode, json.loads(done.stdout)["counts"][0]["difference"]) == (1, "missing"), done.stderr


def test_one_scan_is_compared_with_the_bucket_and_the_share(rb: Runbook, lab: ThrowawayLab, tmp_path: Path) -> None:
    s3, bucket, prefix = objects(rb, lab)
    both = ("--against", "bucket", "--against", "share")
    done = compare_files("lab", *both, "--out", str(tmp_path / "both"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Every file is accounted for.") == 2
    assert sorted(path.name for path in (tmp_path / "both").iterdir()) == ["bucket", "share"]
    assert not (tmp_path / "both/share/source").exists()
    s3.put_object(Bucket=bucket, Key=f"{prefix}images/00001.jpg", Body=b"behind the gateway's back")
    done = compare_files("lab", *both, "--json")
    assert done.returncode == 1, done.stderr
    assert [[count["difference"] for count in one["counts"]] for one in json.loads(done.stdout)] == [["size"], []]


def test_wrong_words_are_told(rb: Runbook) -> None:
    done = compare_files("lab", "--level", "everything")
    assert (done.returncode, done.stdout) == (2, "")
    assert "names, size, metadata, sample or content" in done.stderr
    with pytest.raises(SettingsError, match="manifest"):
        _ = rb.files_as(s3_inventory="somewhere")


def test_a_folder_of_something_else_is_left_alone(rb: Runbook, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "differences.csv").write_text("mine")
    with pytest.raises(SettingsError, match="files of something else"):
        rb.files.compare("names", out=tmp_path / "mine")
    assert (tmp_path / "mine" / "differences.csv").read_text() == "mine"
    with pytest.raises(SettingsError, match="cannot be used"):
        rb.files.compare("names", out=tmp_path / "mine" / "differences.csv")


def test_the_cost_is_said_before_s3_is_asked(rb: Runbook) -> None:
    said: list[str] = []
    found = rb.files.compare("content", said=said.append)
    assert len(said) == 1 and said[0].startswith("AWS will charge"), said
    assert "KMS requests: 607" in said[0] and "no checksum" in said[0], said
    assert "AWS charges" in repr(found)
    usd = found.body()["usd"]
    assert 0 < usd["spent"] <= usd["at_most"] and 0 < usd["athena"] < 0.01
    assert "Athena would join the two inventories (join.sql) for less than $0.01" in found.elsewhere


def test_no_byte_leaves_the_bucket_where_an_etag_is_an_md5_and_the_server_has_no_crc64nvme(rb: Runbook) -> None:
    found = rb.files.compare("content")
    assert "CRC64NVME" not in rb.files.sides.computable  # the lab's server has no awscrt, as servers do not
    assert found.ok and found.comparison.compared["content"] == 201, found
    assert "Data out" not in found.spent.sentence()


def test_a_comparison_that_goes_on_counts_what_an_earlier_call_read_with_its_requests(
    rb: Runbook, lab: ThrowawayLab
) -> None:
    s3, bucket, prefix = objects(rb, lab)
    key = f"{prefix}images/00008.jpg"
    kept, body = s3.head_object(Bucket=bucket, Key=key), s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    place = {"Bucket": bucket, "Key": key}
    upload = s3.create_multipart_upload(**place, Metadata=kept["Metadata"])["UploadId"]
    part = s3.upload_part(**place, UploadId=upload, PartNumber=1, Body=body)
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}  # its ETag is no MD5, so that it is read
    s3.complete_multipart_upload(**place, UploadId=upload, MultipartUpload=parts)
    first = rb.files.compare("content")
    assert first.ok and "Data out" in first.spent.sentence(), first
    (first.folder / DONE).unlink()  # as if it was killed just before it ended
    again = Runbook.open("lab", notebook="05_verify_listing").files.compare("content", out=first.folder)
    bill = {item.price.what: item.count for item in first.spent.items}
    lists = next(what for what in bill if "LIST" in what)
    assert {item.price.what: item.count for item in again.spent.items} == {**bill, lists: bill[lists] - 1}  # no look
    # for where the bucket is: all else was paid before, and is counted once


@pytest.mark.parametrize("stage", ["listing", "describing", "comparing"])
def test_a_comparison_that_was_killed_goes_on_and_finds_the_same(
    rb: Runbook, lab: ThrowawayLab, tmp_path: Path, stage: str
) -> None:
    s3, bucket, prefix = objects(rb, lab)
    s3.delete_object(Bucket=bucket, Key=f"{prefix}images/00001.jpg")
    s3.put_object(Bucket=bucket, Key=f"{prefix}images/extra.jpg", Body=b"x")
    killed = (
        "import os, pathlib, sys\n"
        "from runbook_lib import Runbook\n"
        "def told(said):\n"
        "    if said.doing == sys.argv[2]: os.kill(os.getpid(), 9)\n"
        "rb = Runbook.open('lab', notebook='05_verify_listing')\n"
        "rb.files.compare('metadata', out=pathlib.Path(sys.argv[1]), told=told)\n"
    )
    done = subprocess.run([sys.executable, "-c", killed, str(tmp_path / "one"), stage], cwd=PACKAGE_ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    scanned = (tmp_path / "one/source/inventory.json").read_bytes()
    with pytest.raises(InventoryError, match="begun with another level"):
        rb.files.compare("size", out=tmp_path / "one")
    found = rb.files.compare("metadata", out=tmp_path / "one")
    assert counts(found) == {"missing": 1, "extra": 1}
    assert (tmp_path / "one/source/inventory.json").read_bytes() == scanned
    assert "This goes on with what was begun" in repr(found)
    left = {path.name for path in found.folder.iterdir()}
    assert left == {
        "asked.json", "bucket", "bucket-described", DONE, "differences.csv", "differences.parquet", "source",
    }  # fmt: skip


def test_what_the_user_may_not_read_is_read_with_sudo_where_the_environment_says_so(rb: Runbook) -> None:
    assert rb.files.sides.scan_options.privilege == ""
    assert rb.files_as(privilege="sudo").sides.scan_options.privilege == "sudo -n"
    with pytest.raises(SettingsError, match="privilege"):
        rb.files_as(privilege="doas")


def test_a_log_has_a_line_now_and_then() -> None:
    lines: list[str] = []
    times = iter([0.0, 1.0, 31.0, 31.0, 32.0, 62.0, 62.0])
    told = files_cli._now_and_then(lines.append, lambda: next(times))
    for entries in (1, 310, 320, 620):
        told(Progress("source", "scanning", entries, 0, 0, 1000, began=0.0))
    assert lines == [
        "source: scanning, 310 of about 1,000 entries, 10 a second, about 69 s left",
        "source: scanning, 620 of about 1,000 entries, 10 a second, about 38 s left",
    ]


def test_below_a_mount_that_has_gone_nothing_is_settled(rb: Runbook, lab: ThrowawayLab) -> None:
    s3, bucket, prefix = objects(rb, lab)
    s3.delete_object(Bucket=bucket, Key=f"{prefix}images/00010.jpg")
    top, aside = export(lab), lab.state / "unmounted"

    def told(said: Any) -> None:
        if said.side == "bucket" and top.exists() and not aside.exists():
            top.rename(aside)
            top.mkdir()

    try:
        with pytest.raises(CommandFailed, match="not the folder any more that was scanned"):
            rb.files.compare("names", told=told)
    finally:
        if aside.exists():
            top.rmdir()
            aside.rename(top)


def test_a_cost_is_written_without_powers_of_ten() -> None:
    said = cost.spent({"LIST": 2}, read=67_000).sentence()
    assert "Data out of AWS to the internet: less than 0.001 GiB" in said and "e-" not in said
    assert cost.plural_of(0.5, "GiB") == "0.5 GiB"
