"""What a transfer carries to the bucket, what it leaves alone, and what it notices."""

from __future__ import annotations

import io
import json
import os
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib.filters import FilterError, Filters
from runbook_lib.lab.datasync_runs import job_of
from runbook_lib.lab.transfer_channel import Channel
from runbook_lib.lab.transfer_job import Hands
from runbook_lib.lab.transfer_metadata import same_mode, same_time
from runbook_lib.lab.transfer_plan import Delete, plan
from runbook_lib.lab.transfer_source import Item, Tree

from .datasync_world import BUCKET, REPORT, REPORTS, World, eventually, resident

NO_FILTER = Filters(None, None)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path / "lab").furnish()
    yield world
    world.datasync.stop()


@pytest.fixture
def images(world: World) -> World:
    for number in range(200):
        world.write(f"images/{number:05d}.jpg", b"image %d" % number)
    return world


# What stands in the bucket.


def test_a_file_arrives_with_its_posix_metadata(world: World) -> None:
    file = world.write("a.txt")
    file.chmod(0o640)
    os.utime(file, ns=(1_600_000_000_000_000_001, 1_700_000_000_123_456_789))
    assert world.run(world.task())["Status"] == "SUCCESS"
    seen = file.stat()
    assert world.body("a.txt") == b"content"
    assert world.metadata("a.txt") == {
        "user-agent": "aws-datasync",
        "file-owner": str(seen.st_uid),
        "file-group": str(seen.st_gid),
        "file-permissions": "100640",
        "file-mtime": "1700000000123456789ns",
        "file-atime": "1600000000000000001ns",
    }


def test_folders_links_and_hard_links_arrive_as_objects(world: World) -> None:
    world.write("folder/sub/one", b"1")
    os.link(world.export / "folder/sub/one", world.export / "folder/two")
    (world.export / "empty").mkdir(mode=0o755)
    (world.export / "pointer").symlink_to("folder/sub/one")
    assert world.run(world.task())["Status"] == "SUCCESS"
    assert world.stored() == [
        ".aws-datasync-metadata", "empty/", "folder/", "folder/sub/", "folder/sub/one", "folder/two", "pointer",
    ]  # fmt: skip
    assert world.body("empty/") == b""
    assert world.metadata("empty/")["file-permissions"] == "40755"
    assert world.body("pointer") == b"folder/sub/one"
    assert stat.S_ISLNK(int(world.metadata("pointer")["file-permissions"], 8))
    assert world.body("folder/two") == b"1"
    top = json.loads(world.body(".aws-datasync-metadata"))["top-folder"]
    assert int(top["file-permissions"], 8) == world.export.stat().st_mode


def test_a_prefix_and_a_storage_class_are_those_of_the_location(world: World) -> None:
    world.write("a/b")
    task = world.task(Destination=world.s3("target/x", S3StorageClass="STANDARD_IA"))
    assert world.run(task)["FilesTransferred"] == 3
    assert world.stored() == ["target/x/.aws-datasync-metadata", "target/x/a/", "target/x/a/b"]
    stored = world.lab.objects.head(BUCKET, "target/x/a/b")
    assert stored is not None and stored.storage_class == "STANDARD_IA"
    assert world.run(task)["FilesTransferred"] == 0


def test_a_subdirectory_of_the_export_is_a_source(world: World) -> None:
    world.write("images/a")
    world.write("other")
    world.run(world.task(Source=world.nfs("/media/data/images/")))
    assert world.stored() == [".aws-datasync-metadata", "a"]


# Counters.


def test_basic_counts_202_then_0_then_2(images: World) -> None:
    task = images.task()
    first = images.run(task)
    assert first["Status"] == "SUCCESS"
    assert (first["EstimatedFilesToTransfer"], first["FilesTransferred"], first["FilesVerified"]) == (202, 202, 200)
    assert first["BytesWritten"] == first["BytesTransferred"] == first["EstimatedBytesToTransfer"] == 1690
    again = images.run(task)
    assert (again["FilesTransferred"], again["FilesSkipped"], again["BytesWritten"]) == (0, 202, 0)
    images.write("new-image.jpg", b"new")
    second = images.run(task)
    assert (second["FilesTransferred"], second["FilesSkipped"], second["BytesWritten"]) == (2, 201, 3)
    assert "FoldersTransferred" not in second
    durations = {name: second["Result"][name] for name in second["Result"] if name.endswith("Duration")}
    assert durations["TotalDuration"] >= sum(durations.values()) - durations["TotalDuration"]
    assert second["StartTime"] <= second["LaunchTime"] <= second["EndTime"]


def test_enhanced_counts_files_and_folders_apart(images: World) -> None:
    task = images.task("ENHANCED")
    first = images.run(task)
    assert (first["FilesTransferred"], first["FoldersTransferred"]) == (200, 2)
    assert (first["FilesVerified"], first["FoldersVerified"]) == (200, 2)
    images.write("new-image.jpg")
    second = images.run(task)
    assert (second["FilesTransferred"], second["FoldersTransferred"]) == (1, 1)
    assert second["FilesListed"] == {"AtSource": 201, "AtDestinationForDelete": 0}
    assert second["FilesFailed"] == {"Prepare": 0, "Transfer": 0, "Verify": 0, "Delete": 0}
    assert second["FoldersFailed"] == {"List": 0, "Prepare": 0, "Transfer": 0, "Verify": 0, "Delete": 0}
    assert second["Result"]["PrepareDuration"] == second["Result"]["TransferDuration"] == 0


def test_rewriting_a_file_in_place_is_one_item(images: World) -> None:
    task = images.task()
    images.run(task)
    (images.export / "images/00001.jpg").write_bytes(b"other content")
    assert images.run(task)["FilesTransferred"] == 1
    assert images.body("images/00001.jpg") == b"other content"


# What counts as a change, and what is done about it.


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, 1), ({"PosixPermissions": "NONE"}, 0)],
    ids=["permissions count", "permissions do not count"],
)
def test_a_changed_mode_counts_when_it_is_preserved(world: World, options: dict[str, str], expected: int) -> None:
    file = world.write("a")
    task = world.task(Options=options)
    world.run(task)
    file.chmod(0o600)
    assert world.run(task)["FilesTransferred"] == expected


def test_mtime_does_not_count_when_it_is_not_preserved(world: World) -> None:
    file = world.write("a")
    task = world.task(Options={"Mtime": "NONE", "Atime": "NONE"})
    world.run(task)
    assert not {"file-mtime", "file-atime"} & set(world.metadata("a"))
    os.utime(file, (1, 1))
    assert world.run(task)["FilesTransferred"] == 0


def test_owner_and_group_are_left_out_when_asked(world: World) -> None:
    world.write("a")
    task = world.task(Options={"Uid": "NONE", "Gid": "NONE"})
    world.run(task)
    assert not {"file-owner", "file-group"} & set(world.metadata("a"))
    assert world.run(task)["FilesTransferred"] == 0


def test_what_was_altered_or_deleted_at_the_destination_is_repaired(world: World) -> None:
    for name in ("altered", "deleted", "same"):
        world.write(name)
    task = world.task()
    world.run(task)
    world.lab.objects.put(BUCKET, "altered", b"somebody else's")
    world.lab.objects.delete(BUCKET, "deleted")
    assert world.run(task)["FilesTransferred"] == 2
    assert world.body("altered") == world.body("deleted") == b"content"


def test_overwrite_never_leaves_what_is_there(world: World) -> None:
    world.write("altered")
    world.write("deleted")
    task = world.task(verify="POINT_IN_TIME_CONSISTENT", Options={"OverwriteMode": "NEVER"})
    world.run(task)
    world.lab.objects.put(BUCKET, "altered", b"somebody else's")
    world.lab.objects.delete(BUCKET, "deleted")
    done = world.run(task)
    assert (done["Status"], done["FilesTransferred"]) == ("SUCCESS", 1)
    assert world.body("altered") == b"somebody else's"


def test_transfer_mode_all_copies_everything_and_prepares_nothing(world: World) -> None:
    world.write("a/b")
    task = world.task()
    world.run(task)
    done = world.run(task, OverrideOptions={"TransferMode": "ALL"})
    assert (done["EstimatedFilesToTransfer"], done["FilesTransferred"], done["FilesVerified"]) == (3, 3, 1)
    states = world.bus.states(done["TaskExecutionArn"])
    assert states == ["LAUNCHING", "TRANSFERRING", "VERIFYING", "SUCCESS"]


def test_deleted_files_stay_unless_remove_is_asked(world: World) -> None:
    for name in ("keep", "gone", "folder/gone too"):
        world.write(name)
    task = world.task()
    world.run(task)
    (world.export / "gone").unlink()
    (world.export / "folder/gone too").unlink()
    (world.export / "folder").rmdir()
    assert world.run(task)["FilesDeleted"] == 0
    assert "gone" in world.stored()
    done = world.run(task, OverrideOptions={"PreserveDeletedFiles": "REMOVE"}, TaskReportConfig=REPORT)
    assert (done["EstimatedFilesToDelete"], done["FilesDeleted"], done["FilesTransferred"]) == (3, 3, 0)
    assert done["EstimatedFilesToTransfer"] == 3  # BASIC adds the expected deletions
    assert world.stored() == [".aws-datasync-metadata", "keep"]
    deleted = {entry["RelativePath"] for entry in world.report(done, "Deleted")}
    assert deleted == {"/gone", "/folder", "/folder/gone too"}


def test_remove_spares_what_a_filter_leaves_out(world: World) -> None:
    world.write("images/a")
    world.write("other/b")
    task = world.task()
    world.run(task)
    (world.export / "images/a").unlink()
    (world.export / "other/b").unlink()
    excluded = [{"FilterType": "SIMPLE_PATTERN", "Value": "/other"}]
    world.run(task, OverrideOptions={"PreserveDeletedFiles": "REMOVE"}, Excludes=excluded)
    assert world.stored() == [".aws-datasync-metadata", "images/", "other/", "other/b"]


# Verifying.


def test_a_file_that_changes_while_it_is_copied_fails_the_verification(world: World) -> None:
    world.write("a")
    world.write("b")
    world.plant("file-changes-during-copy", path="b")
    task = world.task()
    done = world.run(task, TaskReportConfig=REPORT)
    assert done["Status"] == "ERROR"
    assert done["Result"]["TransferStatus"] == "SUCCESS"
    assert done["Result"]["VerifyStatus"] == "ERROR"
    assert done["Result"]["ErrorDetail"] == (
        "Transfer and verification completed. Verification detected mismatches. "
        "Files with mismatches are listed in Cloud Watch Logs"
    )
    assert done["FilesVerified"] == 1
    assert "[NOTICE] Verification failed <> /b" in world.bus.lines
    failed = [entry for entry in world.report(done, "Verified") if entry["VerifyStatus"] == "FAILED"]
    assert [(entry["RelativePath"], entry["FailureReason"]) for entry in failed] == [("/b", "Checksum failure")]
    world.mend()
    assert world.run(task)["Status"] == "SUCCESS"
    assert world.body("b") == b"content!"


def test_enhanced_logs_a_mismatch_as_json(world: World) -> None:
    world.write("first")
    world.plant("file-changes-during-copy")
    done = world.run(world.task("ENHANCED"))
    assert (done["Status"], done["FilesFailed"]["Verify"]) == ("ERROR", 1)
    line = json.loads(world.bus.lines[0])
    assert (line["Action"], line["Source"]["RelativePath"]) == ("VERIFY", "first")


def test_verify_none_does_not_notice(world: World) -> None:
    world.write("a")
    world.plant("file-changes-during-copy")
    done = world.run(world.task(verify="NONE"))
    assert (done["Status"], done["FilesVerified"]) == ("SUCCESS", 0)
    assert "VERIFYING" not in world.bus.states(done["TaskExecutionArn"])


def test_only_point_in_time_notices_bytes_altered_with_the_metadata_kept(world: World) -> None:
    world.write("a", b"right")
    world.run(world.task())
    world.lab.objects.put(BUCKET, "a", b"wrong", world.metadata("a"))
    assert world.run(world.task())["Status"] == "SUCCESS"
    done = world.run(world.task(verify="POINT_IN_TIME_CONSISTENT"))
    assert (done["Status"], done["FilesTransferred"], done["FilesVerified"]) == ("ERROR", 0, 1)
    assert "[NOTICE] Verification failed <> /a" in world.bus.lines


# Hostile and unreadable things.


def test_an_unreadable_file_is_reported_and_the_rest_arrives(world: World) -> None:
    world.write("images/00003.jpg")
    world.write("images/00004.jpg")
    world.plant("unreadable-file")
    done = world.run(world.task(), TaskReportConfig=REPORT)
    assert (done["Status"], done["Result"]["TransferStatus"]) == ("ERROR", "ERROR")
    assert (done["FilesTransferred"], done["FilesSkipped"]) == (3, 1)
    assert "images/00003.jpg" not in world.stored()
    assert "[ERROR] Failed to transfer /images/00003.jpg: Permission denied" in world.bus.lines
    failed = [entry for entry in world.report(done, "Transferred") if entry["TransferStatus"] == "FAILED"]
    assert [(entry["RelativePath"], entry["FailureCode"]) for entry in failed] == [("/images/00003.jpg", 13)]
    enhanced = world.run(world.task("ENHANCED"))
    assert (enhanced["Status"], enhanced["FilesFailed"]["Transfer"]) == ("ERROR", 1)


def test_hostile_names_are_carried_and_links_never_followed(world: World, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"outside")
    (world.export / "out").symlink_to(tmp_path / "secret")
    (world.export / "away").symlink_to(tmp_path)
    odd = ["new\nline", "über", "a b", "-", "💥", "[x]", "a\\b", "*", "%2e%2e"]
    for name in odd:
        world.write(name)
    world.write(".aws-datasync-metadata", b"not ours")
    assert world.run(world.task())["Status"] == "SUCCESS"
    assert all(world.body(name) == b"content" for name in odd)
    assert world.body("out") == os.fsencode(tmp_path / "secret")
    assert not any(key.startswith("away/") for key in world.stored())
    assert b"outside" not in [world.body(key) for key in world.stored()]
    assert "top-folder" in json.loads(world.body(".aws-datasync-metadata"))


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no names of other bytes and no paths this long")
def test_names_that_cannot_be_keys_are_reported(world: World) -> None:
    world.write("good")
    (Path(os.fsdecode(os.fsencode(world.export) + b"/bad-\xff"))).write_bytes(b"x")
    long = world.export
    for _ in range(5):
        long = long / ("d" * 250)
    long.mkdir(parents=True)
    (long / "file").write_bytes(b"x")
    done = world.run(world.task())
    assert (done["Status"], done["Result"]["PrepareStatus"]) == ("ERROR", "ERROR")
    assert world.body("good") == b"content"
    failures = [line for line in world.bus.lines if line.startswith("[ERROR] Failed to prepare")]
    assert len(failures) == 2 and any("/bad-\\xff: " in line for line in failures)
    assert max(len(key.encode()) for key in world.stored()) <= 1024


def test_pipes_and_sockets_are_skipped_without_an_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.write("file")
    os.mkfifo(world.export / "pipe")
    monkeypatch.chdir(world.export)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
    done = world.run(world.task())
    assert (done["Status"], done["FilesTransferred"], done["FilesSkipped"]) == ("SUCCESS", 2, 2)
    assert world.stored() == [".aws-datasync-metadata", "file"]


def test_a_folder_swapped_for_a_link_is_not_entered(tmp_path: Path) -> None:
    (tmp_path / "export/folder").mkdir(parents=True)
    (tmp_path / "export/folder/file").write_bytes(b"inside")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/file").write_bytes(b"outside")
    tree = Tree(str(tmp_path / "export"), "")
    (tmp_path / "export/folder").rename(tmp_path / "export/was")
    (tmp_path / "export/folder").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        tree.open(b"folder/file")
    with pytest.raises(OSError):
        tree.look(b"folder/file")
    tree.close()


def test_remove_spares_the_objects_of_a_folder_that_cannot_be_listed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("closed/a", "closed/sub/b", "gone", "open/c"):
        world.write(name)
    done = world.run(world.task(Options={"PreserveDeletedFiles": "REMOVE"}))
    execution = world.lab.database.get("datasync.execution", done["TaskExecutionArn"])
    assert execution is not None
    hands = Hands(job_of(world.lab, execution), Channel(io.StringIO(), io.StringIO()))
    (world.export / "gone").unlink()
    unlistable(monkeypatch, hands.tree, b"closed")
    assert [step for step in plan(hands) if isinstance(step, Delete)] == [Delete("gone", 7)]
    assert hands.counters.folders.failed_list == 1


def unlistable(monkeypatch: pytest.MonkeyPatch, tree: Tree, closed: bytes) -> None:
    """Make one folder's listing fail, also for root."""
    whole = tree._entries

    def entries(folder: bytes) -> list[bytes]:
        if folder == closed:
            raise PermissionError(13, "Permission denied")
        return whole(folder)

    monkeypatch.setattr(tree, "_entries", entries)


def test_a_folder_that_cannot_be_listed_hides_its_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    tree = Tree(str(tmp_path), "")
    unlistable(monkeypatch, tree, b"b")
    seen = list(tree.walk(NO_FILTER))
    assert [(type(s).__name__, s.path) for s in seen] == [
        ("Item", b""), ("Item", b"a"), ("Item", b"b"), ("Problem", b"b"), ("Item", b"c"),
    ]  # fmt: skip


# The walk's order, filters, and spellings.


@given(st.lists(st.lists(st.text("ab-/.0é", min_size=1, max_size=3), min_size=1, max_size=4), max_size=12))
def test_the_walk_goes_in_the_order_of_s3_keys(
    tmp_path_factory: pytest.TempPathFactory, paths: list[list[str]]
) -> None:
    top = tmp_path_factory.mktemp("walk")
    for parts in paths:
        names = [name.replace("/", "_").replace(".", "~") for name in parts]
        folder = top.joinpath(*names[:-1])
        if all(not parent.is_file() for parent in (folder, *folder.parents)):
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / names[-1]).is_dir():
                (folder / names[-1]).write_bytes(b"")
    tree = Tree(str(top), "")
    keys = [seen.key for seen in tree.walk(NO_FILTER)][1:]
    tree.close()
    assert keys == sorted(keys)
    assert len(keys) == sum(1 for _ in top.rglob("*"))


@pytest.mark.parametrize(
    ("pattern", "stopped", "passed"),
    [
        ("/docs", ["docs", "docs/a", "docs/a/b"], ["docs2", "a/docs"]),
        ("/docs/", ["docs", "docs/a"], ["docs2"]),
        ("*.tmp", ["a.tmp", "x/y.tmp", "d.tmp/inside"], ["a.tmpx", "tmp"]),
        ("*/.snapshot", [".snapshot", "a/.snapshot/b"], ["a/snapshot"]),
        ("/a*z", ["az", "abz", "a/b/z"], ["a", "abzy"]),
        (r"/a\*b|/c\|d", ["a*b", "c|d"], ["axb", "c", "d"]),
        ("name", ["name", "x/name/y"], ["names", "xname"]),
    ],
)
def test_exclude_patterns(pattern: str, stopped: list[str], passed: list[str]) -> None:
    filters = Filters(None, pattern)
    assert [path for path in stopped if not filters.excluded(path)] == []
    assert [path for path in passed if filters.excluded(path)] == []


def test_an_include_filter_takes_a_star_only_at_its_end() -> None:
    filters = Filters("/docs*|/images/a", None)
    assert filters.included("docs2/x") and filters.included("images/a") and not filters.included("images")
    assert filters.leads_to_included("images") and not filters.leads_to_included("other")
    for refused in ("*.txt", "/a*b", "**"):
        with pytest.raises(FilterError):
            Filters(refused, None)


def test_a_pattern_of_many_stars_takes_no_exponential_time() -> None:
    assert not Filters(None, "*a" * 30 + "b").excluded("a" * 4000)


def test_filters_choose_what_is_carried(world: World) -> None:
    for name in ("docs/a.txt", "docs/b.tmp", "images/c", "top"):
        world.write(name)
    task = world.task(Includes=[{"FilterType": "SIMPLE_PATTERN", "Value": "/docs|/images*"}])
    done = world.run(task, Excludes=[{"FilterType": "SIMPLE_PATTERN", "Value": "*.tmp"}])
    assert done["FilesTransferred"] == 4
    assert world.stored() == ["docs/", "docs/a.txt", "images/", "images/c"]


def test_all_three_spellings_of_a_time_are_read() -> None:
    moment = 1_602_647_222_222_919_600
    assert same_time("1602647222222919600ns", moment)
    assert same_time("1602647222222", moment)
    assert same_time("1602647222/222919600", moment)
    assert not any(same_time(text, moment) for text in ("", "x", "1602647222", "1602647222222919601ns"))


def test_a_mode_is_read_with_and_without_its_type() -> None:
    file = Item(b"a", stat.S_IFREG | 0o755, 0, 0, 0, 0, 0)
    assert all(same_mode(text, file) for text in ("100755", "0100755", "0755", "755"))
    assert not any(same_mode(text, file) for text in ("100644", "040755", "9", "", None))


# Reports.


def test_a_report_names_every_item_in_the_schema_of_its_mode(world: World) -> None:
    world.write("a/b", b"12345")
    basic = world.run(world.task(TaskReportConfig=REPORT))
    assert basic["ReportResult"] == {"Status": "SUCCESS"}
    task_id, _, execution_id = basic["TaskExecutionArn"].split(":")[-1].removeprefix("task/").partition("/execution/")
    assert any(key.startswith(f"Summary-Reports/{task_id}/{execution_id}/") for key in world.stored(REPORTS))
    assert all(f"/{task_id}/{execution_id}/{execution_id}." in key for key in world.stored(REPORTS))
    entries = {entry["RelativePath"]: entry for entry in world.report(basic, "Transferred")}
    assert set(entries) == {"/", "/a", "/a/b"}
    file = entries["/a/b"]
    assert (file["SrcMetadata"]["Type"], file["SrcMetadata"]["ContentSize"]) == ("Regular", 5)
    assert (file["Overwrite"], file["TransferStatus"]) == ("False", "SUCCESS")
    (verified,) = world.report(basic, "Verified")
    assert verified["SrcHash"] == verified["DstHash"] != ""
    enhanced = world.run(world.task("ENHANCED", TaskReportConfig=REPORT))
    skipped = {entry["RelativePath"] for entry in world.report(enhanced, "Skipped")}
    assert skipped == {"", "a", "a/b"}
    assert all(entry["SourceMetadata"]["Type"] == "Object" for entry in world.report(enhanced, "Skipped"))


def test_a_report_has_only_errors_where_that_was_asked(world: World) -> None:
    world.write("a")
    verified = {"Verified": {"ReportLevel": "SUCCESSES_AND_ERRORS"}}
    config = {**REPORT, "ReportLevel": "ERRORS_ONLY", "Overrides": verified}
    done = world.run(world.task(), TaskReportConfig=config)
    assert world.report(done, "Transferred") == []
    assert len(world.report(done, "Verified")) == 1
    summary = world.run(world.task(), TaskReportConfig={**config, "OutputType": "SUMMARY_ONLY"})
    execution_id = summary["TaskExecutionArn"].rpartition("/")[2]
    assert len([key for key in world.stored(REPORTS) if execution_id in key]) == 1


def test_a_long_report_is_split_at_five_megabytes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from runbook_lib.lab import reports

    monkeypatch.setattr(reports, "PART_BYTES", 1000)
    report = reports.Reports(world.lab.objects, world.lab.folder.staging, "task-1", "exec-1", REPORT, False)
    for number in range(50):
        report.add("Transferred", b"file-%d" % number, None)
    report.finish()
    stored = list(world.lab.objects.list(REPORTS))
    assert len(stored) > 1 and all(item.size <= 1000 for item in stored)
    entries = [entry for item in stored for entry in json.loads(world.body(item.key, REPORTS))["Transferred"]]
    assert [entry["RelativePath"] for entry in entries] == [f"/file-{number}" for number in range(50)]


def test_a_report_that_cannot_be_written_does_not_fail_the_transfer(world: World) -> None:
    world.write("a", b"x" * 1000)
    execution = world.begin(world.task(), TaskReportConfig=REPORT, OverrideOptions={"BytesPerSecond": 1000})
    world.lab.objects.delete_bucket(REPORTS)
    world.call("UpdateTaskExecution", TaskExecutionArn=execution, Options={"BytesPerSecond": -1})
    world.datasync.finish(execution)
    done = world.describe(execution)
    assert (done["Status"], done["ReportResult"]["Status"]) == ("SUCCESS", "ERROR")


# Speed limits and memory.


def test_a_limit_set_while_the_worker_starts_is_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from runbook_lib.lab import datasync_runs

    world.write("a", b"x" * 1_000_000)
    callers: list[threading.Thread] = []
    job_of = datasync_runs.job_of

    def interrupted(lab: Any, execution: Any) -> Any:
        """Somebody lifts the limit after the worker was started and before it has its job."""
        change = {"TaskExecutionArn": execution["TaskExecutionArn"], "Options": {"BytesPerSecond": -1}}
        callers.append(threading.Thread(target=lambda: world.call("UpdateTaskExecution", **change)))
        callers[-1].start()
        callers[-1].join(0.5)
        return job_of(lab, execution)

    monkeypatch.setattr(datasync_runs, "job_of", interrupted)
    execution = world.begin(world.task(), OverrideOptions={"BytesPerSecond": 1})
    world.datasync.finish(execution)
    callers[0].join()
    assert world.describe(execution)["Status"] == "SUCCESS"


def test_a_limited_transfer_shows_its_progress_and_can_be_let_go(world: World) -> None:
    for number in range(20):
        world.write(f"{number:02d}", b"x" * 1000)
    execution = world.begin(world.task(), OverrideOptions={"BytesPerSecond": 4000})
    eventually(lambda: 0 < world.describe(execution)["FilesTransferred"] < 21)
    world.call("UpdateTaskExecution", TaskExecutionArn=execution, Options={"BytesPerSecond": -1})
    world.datasync.finish(execution)
    done = world.describe(execution)
    assert (done["Status"], done["FilesTransferred"], done["Options"]["BytesPerSecond"]) == ("SUCCESS", 21, -1)


def test_a_large_file_is_streamed(world: World) -> None:
    with (world.export / "large").open("wb") as file:
        file.truncate(200_000_000)
    execution = world.begin(world.task())
    run = world.datasync.run_of(execution)
    assert run is not None
    seen = [0]
    while world.describe(execution)["Status"] not in ("SUCCESS", "ERROR"):
        seen.append(resident(run.worker))
    assert world.describe(execution)["Status"] == "SUCCESS"
    assert 0 < max(seen) < 100_000_000


@pytest.mark.parametrize(
    ("excludes", "path", "left_out"),
    [
        (r"/a\|b", "a|b", True), (r"/a\|b", "a", False), (r"/a\*", "a*", True), (r"/a\*", "ab", False),
        (r"/a\\b", "a\\b", True), (r"/a\b", "ab", True), ("/ab\\", "ab", True), ("/ab\\", "ab\\", False),
    ],
)  # fmt: skip
def test_a_backslash_escapes_what_is_special_and_is_ignored_elsewhere(excludes: str, path: str, left_out: bool) -> None:
    assert Filters(None, excludes).excluded(path) is left_out
