"""Every kind of difference between NFS server, bucket and share is found on the lab, and nothing else is."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from runbook_lib import Runbook
from runbook_lib.errors import SettingsError
from runbook_lib.files import DONE, FileComparison
from runbook_lib.settings import PACKAGE_ROOT
from tests.throwaway import ThrowawayLab, client


@pytest.fixture
def rb(lab: ThrowawayLab) -> Iterator[Runbook]:
    """The runbook after everything was copied and refreshed."""
    lab.reset("05")
    yield Runbook.open("lab", notebook="05_verify_listing")
    lab.verb("mend")


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
    with (found.folder / "differences.csv").open(newline="") as file:
        assert [row["key"] for row in csv.DictReader(file)] == ["images/00001.jpg", "images/nobody-asked-for-it.jpg"]


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
    assert rb.files.compare("size").folder != first.folder


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


def test_wrong_words_are_told(rb: Runbook) -> None:
    done = compare_files("lab", "--level", "everything")
    assert (done.returncode, "names, size, metadata, sample or content" in done.stdout) == (2, True)
    with pytest.raises(SettingsError, match="manifest"):
        _ = rb.files_as(s3_inventory="somewhere")
