"""The file share: what it shows of a bucket, what it uploads, and what it never does."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runbook_lib.lab import share_refresh
from runbook_lib.lab.share_known import Plan, signature
from runbook_lib.lab.share_metadata import Defaults, attributes, showable, stays_inside

from .gateway_world import BUCKET, World

MTIME = 1_602_647_222_222_919_600


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path).furnish()
    yield made
    made.gateways.stop()


# What it shows.


def test_an_object_is_absent_until_the_refresh_and_there_after_it(world: World) -> None:
    world.put("images/1.jpg", b"one")
    assert world.listing() == []
    world.refresh()
    assert world.listing() == ["images", "images/1.jpg"]
    assert (world.root / "images/1.jpg").read_bytes() == b"one"


def test_an_overwritten_object_keeps_its_old_content_until_the_refresh(world: World) -> None:
    world.put("a", b"old")
    world.refresh()
    world.put("a", b"newer")
    assert (world.root / "a").read_bytes() == b"old"
    world.refresh()
    assert (world.root / "a").read_bytes() == b"newer"


def test_a_deleted_object_stays_until_the_refresh_and_takes_its_implied_folder_along(world: World) -> None:
    world.put("a/b/c", b"x")
    world.refresh()
    world.lab.objects.delete(BUCKET, "a/b/c")
    assert world.listing() == ["a", "a/b", "a/b/c"]
    world.refresh()
    assert world.listing() == []


def test_mode_and_time_come_from_the_metadata_of_files_and_folders(world: World) -> None:
    world.put("d/", file_permissions="0040750", file_mtime=f"{MTIME}ns")
    world.put("d/f", b"x", file_permissions="100640", file_mtime=f"{MTIME}ns", file_owner="1", file_group="2")
    world.refresh()
    for path, mode in (("d", 0o750), ("d/f", 0o640)):
        seen = (world.root / path).stat()
        assert (stat.S_IMODE(seen.st_mode), seen.st_mtime_ns) == (mode, MTIME)
    if os.geteuid() == 0:
        seen = (world.root / "d/f").stat()
        assert (seen.st_uid, seen.st_gid) == (1, 2)


def test_a_metadata_change_alone_reaches_the_share(world: World) -> None:
    world.put("d/", file_permissions="0040750")
    world.put("d/f", b"x", file_permissions="0100640")
    world.refresh()
    world.put("d/", file_permissions="0040700")
    world.put("d/f", b"x", file_permissions="0100600")
    world.refresh()
    assert [stat.S_IMODE((world.root / p).stat().st_mode) for p in ("d", "d/f")] == [0o700, 0o600]


def test_a_new_child_leaves_its_folder_with_the_time_that_the_bucket_says(world: World) -> None:
    world.put("d/", file_mtime=f"{MTIME}ns")
    world.refresh()
    world.put("d/f", b"x")
    world.refresh()
    assert (world.root / "d").stat().st_mtime_ns == MTIME


def test_objects_without_metadata_get_the_defaults_of_the_share(tmp_path: Path) -> None:
    defaults = {"FileMode": "0604", "DirectoryMode": "0705", "OwnerId": 7, "GroupId": 8}
    world = World(tmp_path).furnish(NFSFileShareDefaults=defaults)
    world.put("d/f", b"x")
    world.refresh()
    assert [stat.S_IMODE((world.root / p).stat().st_mode) for p in ("d", "d/f")] == [0o705, 0o604]
    world.gateways.stop()


def test_a_share_of_a_prefix_shows_only_what_is_below_it(tmp_path: Path) -> None:
    world = World(tmp_path).furnish(f"arn:aws:s3:::{BUCKET}/data/")
    for key in ("data/", "data/a", "database/b", "c"):
        world.put(key, b"")
    world.refresh()
    assert world.listing() == ["a"]
    (world.root / "mine").write_text("x")
    assert world.settled()
    assert world.keys() == ["c", "data/", "data/a", "data/mine", "database/b"]
    world.gateways.stop()


def test_the_metadata_file_of_datasync_is_a_file_like_any_other(world: World) -> None:
    world.put(".aws-datasync-metadata", b"{}")
    world.refresh()
    assert world.listing() == [".aws-datasync-metadata"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1602647222222919600ns", MTIME),
        ("1602647222/222919600", MTIME),
        ("1602647222222", 1_602_647_222_222_000_000),
        ("yesterday", 5_000_000_000),
        ("99999999999999999999ns", 5_000_000_000),
    ],
)
def test_every_spelling_of_a_time_is_understood_and_nonsense_is_the_objects_own(text: str, expected: int) -> None:
    assert attributes({"file-mtime": text}, 5.0, folder=False, defaults=Defaults()).mtime == expected


def test_only_one_folder_is_refreshed_when_one_is_named(world: World) -> None:
    world.put("a/1", b"")
    world.put("b/1", b"")
    world.refresh()
    world.put("a/2", b"")
    world.put("b/2", b"")
    world.lab.objects.delete(BUCKET, "a/1")
    world.lab.objects.delete(BUCKET, "b/1")
    world.refresh("/a")
    assert world.listing() == ["a", "a/2", "b", "b/1"]


def test_a_folder_that_is_not_recursed_into_shows_new_subfolders_and_keeps_what_is_in_known_ones(world: World) -> None:
    world.put("a/deep/1", b"")
    world.put("gone/deep/1", b"")
    world.refresh()
    for key in ("a/deep/2", "new/deep/1", "top"):
        world.put(key, b"")
    world.lab.objects.delete(BUCKET, "gone/deep/1")
    world.refresh("/", recursive=False)
    assert world.listing() == ["a", "a/deep", "a/deep/1", "new", "top"]


def test_a_folder_that_the_gateway_does_not_know_is_not_refreshed_and_the_health_log_says_so(world: World) -> None:
    world.put("new/1", b"")
    world.refresh("/new")
    assert world.listing() == []
    assert world.bus.types() == ["FolderUnknown"]


def test_a_file_becomes_a_folder_and_a_folder_a_file(world: World) -> None:
    world.put("a", b"")
    world.put("b/c", b"")
    world.refresh()
    world.lab.objects.delete(BUCKET, "a")
    world.lab.objects.delete(BUCKET, "b/c")
    world.put("a/c", b"")
    world.put("b", b"")
    world.refresh()
    assert world.listing() == ["a", "a/c", "b"]
    assert world.settled() and world.keys() == ["a/c", "b"]


# Keys and links that would escape.


@pytest.mark.parametrize(
    "key", ["../out", "a/../../out", "/abs", "a//b", "./a", "a/.", "n" * 256, "nul\0", "//", "a/../"]
)
def test_a_hostile_key_is_not_shown_and_the_health_log_says_so(world: World, key: str) -> None:
    world.put(key, b"evil")
    world.put("good", b"")
    world.refresh()
    assert world.listing() == ["good"]
    assert world.bus.types() == ["NotShown"]
    assert not (world.root.parent / "out").exists()
    assert showable(key) is None


def test_a_key_that_is_both_file_and_folder_is_shown_as_the_folder(world: World) -> None:
    world.put("a", b"file")
    world.put("a/b", b"child")
    world.refresh()
    assert world.listing() == ["a", "a/b"]
    assert world.bus.types() == ["NotShown"]


def test_links_inside_the_share_are_links_and_links_out_of_it_are_text(world: World) -> None:
    for key, target in (("d/in", "../f"), ("d/out", "../../f"), ("absolute", "/etc/passwd"), ("sly", "d/../f")):
        world.put(key, target.encode(), file_permissions="0120777")
    world.put("f", b"content")
    world.refresh()
    assert os.readlink(world.root / "d/in") == "../f"
    for path, text in (("d/out", "../../f"), ("absolute", "/etc/passwd"), ("sly", "d/../f")):
        assert not (world.root / path).is_symlink()
        assert (world.root / path).read_text() == text
    assert world.settled()


@pytest.mark.parametrize(
    ("path", "target", "inside"),
    [("a", ".", True), ("a", "..", False), ("a/b", "..", True), ("a/b", "../..", False), ("a/b", "c/d", True),
     ("a", "", False), ("a", "b/../c", False), ("a", "/b", False)],
)  # fmt: skip
def test_a_target_stays_inside_or_not(path: str, target: str, inside: bool) -> None:
    assert stays_inside(path, target) is inside


def test_nothing_is_written_through_a_link_that_the_application_put_in_a_folders_place(world: World) -> None:
    outside = world.root.parent / "outside"
    outside.mkdir()
    world.put("d/1", b"")
    world.refresh()
    share, _ = world.held()
    with share.lock:  # before the gateway has uploaded that
        subprocess.run(["sh", "-c", f"rm -r d && ln -s '{outside}' d"], cwd=world.root, check=True)
        world.put("d/2", b"evil")
        share.refresh([""], recursive=True)
    assert list(outside.iterdir()) == []
    assert world.settled()
    assert world.body("d") == str(outside).encode()
    assert list(outside.iterdir()) == []


# What it uploads.


def test_a_new_file_is_uploaded_with_its_metadata(world: World) -> None:
    file = world.root / "new dir" / "ü.jpg"
    file.parent.mkdir(mode=0o750)
    file.write_bytes(b"content")
    file.chmod(0o640)
    os.utime(file, ns=(MTIME, MTIME))
    assert world.settled()
    assert world.keys() == ["new dir/", "new dir/ü.jpg"]
    stored = world.lab.objects.head(BUCKET, "new dir/ü.jpg")
    assert stored is not None and stored.content_type == "image/jpeg"
    assert stored.metadata["user-agent"] == "aws-storage-gateway"
    assert stored.metadata["file-permissions"] == "0100640"
    assert stored.metadata["file-mtime"] == f"{MTIME}ns"
    assert stored.metadata["file-owner"] == str(file.stat().st_uid)


def test_what_it_uploads_is_noticed_without_a_scan(tmp_path: Path) -> None:
    world = World(tmp_path).furnish(NotificationPolicy='{"Upload": {"SettlingTimeInSeconds": 60}}')
    (world.root / "f").write_bytes(b"content")
    found = world.bus.wait(lambda: [e for e in world.bus.events if "object-key" in e["detail"]])
    detail = found[0]["detail"]
    assert found[0]["detail_type"] == "Storage Gateway Object Upload Event"
    assert (detail["object-key"], detail["object-size"], detail["bucket-name"]) == ("f", 7, BUCKET)
    world.gateways.stop()


def test_changing_renaming_touching_and_deleting_reach_the_bucket(world: World) -> None:
    for name in ("changed", "renamed", "touched", "chmodded", "deleted"):
        world.put(f"d/{name}", name.encode(), file_permissions="0100644")
    world.put("d/")
    world.refresh()
    top = world.root / "d"
    with (top / "changed").open("ab") as file:
        file.write(b"!")
    (top / "renamed").rename(top / "elsewhere")
    os.utime(top / "touched", ns=(MTIME, MTIME))
    (top / "chmodded").chmod(0o600)
    (top / "deleted").unlink()
    assert world.settled()
    assert world.keys() == ["d/", "d/changed", "d/chmodded", "d/elsewhere", "d/touched"]
    assert world.body("d/changed") == b"changed!"
    assert world.body("d/elsewhere") == b"renamed"
    looks = {key: world.lab.objects.head(BUCKET, key) for key in ("d/touched", "d/chmodded")}
    assert looks["d/touched"] and looks["d/touched"].metadata["file-mtime"] == f"{MTIME}ns"
    assert looks["d/chmodded"] and looks["d/chmodded"].metadata["file-permissions"] == "0100600"


def test_a_renamed_and_a_removed_folder_reach_the_bucket_with_all_that_is_in_them(world: World) -> None:
    for key in ("a/", "a/b/", "a/b/1", "a/2", "r/1/2"):
        world.put(key, b"")
    world.refresh()
    (world.root / "a").rename(world.root / "z")
    subprocess.run(["rm", "-r", "r"], cwd=world.root, check=True)
    assert world.settled()
    assert world.keys() == ["z/", "z/2", "z/b/", "z/b/1"]


def test_a_link_of_the_application_is_stored_and_not_followed(world: World) -> None:
    (world.root / "link").symlink_to("/etc/passwd")
    assert world.settled()
    stored = world.lab.objects.head(BUCKET, "link")
    assert stored is not None and stored.metadata["file-permissions"].startswith("0120")
    assert world.body("link") == b"/etc/passwd"


def test_a_pipe_cannot_be_uploaded_and_hangs_nothing(world: World) -> None:
    os.mkfifo(world.root / "pipe")
    assert not world.settled()
    assert world.keys() == []
    assert world.held()[1].failing.keys() == {"pipe"}


@pytest.mark.skipif(sys.platform == "darwin", reason="its file system refuses such names")
def test_a_name_that_is_not_utf8_is_counted_as_failing(world: World) -> None:
    (Path(os.fsdecode(os.fsencode(world.root) + b"/\xff\xfe"))).write_text("x")
    assert not world.settled()
    assert world.keys() == []
    assert world.bus.types() == ["UploadFailed"]


def test_a_refresh_uploads_nothing(world: World) -> None:
    for number in range(20):
        world.put(f"d/{number}", b"x", file_permissions="0100600")
    before = [(s.key, s.last_modified) for s in world.lab.objects.list(BUCKET)]
    world.refresh()
    assert world.settled()
    assert [(s.key, s.last_modified) for s in world.lab.objects.list(BUCKET)] == before


def test_what_the_application_changed_is_not_overwritten_by_a_refresh(world: World) -> None:
    for key in ("changed", "removed", "kept"):
        world.put(key, b"first", file_mtime=f"{MTIME}ns")
    world.refresh()
    share, _ = world.held()
    with share.lock:  # nothing is uploaded meanwhile
        (world.root / "changed").write_bytes(b"the application's")
        (world.root / "removed").unlink()
        (world.root / "new").write_bytes(b"the application's too")
        for key in ("changed", "removed", "kept", "new"):
            world.put(key, b"somebody else's")
        share.refresh([""], recursive=True)
        assert (world.root / "changed").read_bytes() == b"the application's"
        assert (world.root / "new").read_bytes() == b"the application's too"
        assert (world.root / "kept").read_bytes() == b"somebody else's"
        assert not (world.root / "removed").exists()
    assert world.settled()
    assert world.keys() == ["changed", "kept", "new"]
    assert world.body("changed") == b"the application's"
    assert world.body("new") == b"the application's too"


def test_an_object_that_somebody_else_wrote_makes_the_upload_fail_until_a_refresh(world: World) -> None:
    world.put("f", b"first")
    world.refresh()
    world.put("f", b"somebody else's")
    (world.root / "f").write_bytes(b"the application's")
    assert not world.settled()
    assert world.body("f") == b"somebody else's"
    assert world.bus.types() == ["InvalidObjectState"]
    (line,) = world.bus.lines
    assert (line["key"], line["group"], line["bucket"]) == ("/f", "/aws/storagegateway/file-gateway", BUCKET)
    failing = world.bus.wait(
        lambda: [m for m in world.bus.metrics if m["name"] == "FilesFailingUpload" and m["value"] == 1]
    )
    assert {"ShareId"} in [set(datapoint["dimensions"]) for datapoint in failing]
    world.refresh()
    assert world.settled()
    assert world.body("f") == b"the application's"


def test_a_read_only_share_uploads_nothing_until_it_is_writable(tmp_path: Path) -> None:
    world = World(tmp_path).furnish(ReadOnly=True)
    (world.root / "f").write_bytes(b"x")
    assert world.settled()
    assert world.keys() == []
    world.call("UpdateNFSFileShare", FileShareARN=world.arn, ReadOnly=False)
    assert world.settled()
    assert world.keys() == ["f"]
    world.gateways.stop()


# Restarts.


def test_what_was_written_while_the_lab_was_down_is_uploaded(world: World) -> None:
    world.put("old", b"x")
    world.refresh()
    world.gateways.stop()
    (world.root / "f").write_bytes(b"x")
    (world.root / "old").unlink()
    world.restart()
    assert world.settled()
    assert world.keys() == ["f"]


def test_a_share_whose_directory_was_replaced_is_shown_anew_and_deletes_nothing(world: World) -> None:
    world.put("a/f", b"x")
    world.refresh()
    world.gateways.stop()
    world.root.rename(world.root.parent / "moved-away")
    world.root.mkdir()
    world.restart()
    assert world.settled()
    assert world.keys() == ["a/f"]
    assert world.listing() == ["a", "a/f"]


def test_a_refresh_that_was_killed_in_the_middle_is_not_taken_for_the_applications_work(world: World) -> None:
    world.put("kept", b"old")
    world.put("replaced", b"old")
    world.put("removed", b"old")
    world.refresh()
    world.gateways.stop()
    world.put("kept", b"new")
    world.put("replaced", b"new")
    world.lab.objects.delete(BUCKET, "removed")
    share, _ = world.held()
    staged = world.lab.folder.staging / "0"
    staged.write_bytes(b"new")
    identity = {s.key: f"{s.version_id} {s.etag} {s.last_modified!r}" for s in world.lab.objects.list(BUCKET)}
    look = signature(staged.lstat())
    share.known.plan(
        [
            Plan("replaced", False, identity["replaced"], look, 3),
            Plan("kept", False, identity["kept"], "file that was never renamed in", 3),
            Plan("removed", False, "", "", 0),
            Plan("new folder", True, "", "folder 755 0 0", 0),
        ]
    )
    os.replace(staged, world.root / "replaced")
    (world.root / "removed").unlink()
    (world.root / "new folder").mkdir(mode=0o700)
    world.restart()
    assert world.settled()
    assert world.keys() == ["kept", "replaced"]
    assert world.body("kept") == b"new"
    assert (world.root / "kept").read_bytes() == b"old"
    world.refresh()
    assert world.listing() == ["kept", "replaced"]
    assert world.settled()
    assert world.bus.types() == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_without_root_a_closed_folder_stays_open_to_the_lab(world: World) -> None:
    world.put("d/", file_permissions="0040000")
    world.put("d/f", b"x")
    world.refresh()
    assert world.listing() == ["d", "d/f"]


def test_a_file_that_cannot_be_made_is_told_and_the_rest_is_shown(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, style: object) -> None:
        if (path.stat().st_size, path.is_file()) == (5, True):
            raise OSError(28, os.strerror(28))

    monkeypatch.setattr(share_refresh, "dress", full)
    world.put("large", b"12345")
    world.put("small", b"1")
    world.refresh()
    assert world.listing() == ["small"]
    assert world.bus.types() == ["NotShown"]
