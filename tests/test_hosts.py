"""Commands on this machine: quoting, rails, and paths that stay below their mount."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runbook_lib.application_server import ApplicationServer, ListingTooLong
from runbook_lib.errors import ChangeRefused, CommandFailed, NotFound, RunbookError, SettingsError
from runbook_lib.hosts import ProcessHost
from runbook_lib.inventory import Entry


def allowed() -> None: ...


def refused() -> None:
    raise ChangeRefused("changes are off")


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    (tmp_path / "data" / "sub dir").mkdir(parents=True)
    (tmp_path / "fgw").mkdir()
    (tmp_path / "data" / "it's $(date) \n.txt").write_text("odd")
    (tmp_path / "data" / "sub dir" / "b").write_text("b")
    return tmp_path


def server(mounts: Path, guard: object = allowed) -> ApplicationServer:
    host = ProcessHost("here", guard)  # type: ignore[arg-type]
    return ApplicationServer(host, source_mount=str(mounts / "data"), share_mount=str(mounts / "fgw"), privilege="")


def test_odd_names_are_quoted_and_never_interpreted(mounts: Path) -> None:
    assert server(mounts).facts("source", "it's $(date) \n.txt").size == 3


def test_a_scan_sees_every_entry_with_its_metadata(mounts: Path) -> None:
    found = {entry.path: entry for entry in server(mounts).scan("source")}
    assert set(found) == {"", "it's $(date) \n.txt", "sub dir", "sub dir/b"}
    seen: Entry = found["sub dir/b"]
    real = (mounts / "data" / "sub dir" / "b").stat()
    assert (seen.kind, seen.size, seen.mtime_ns, seen.mode) == ("file", 1, real.st_mtime_ns, real.st_mode & 0o7777)


def test_a_long_scan_is_fetched_in_pieces(mounts: Path) -> None:
    import random

    names = random.Random(1)
    for _ in range(900):
        (mounts / "data" / f"{names.getrandbits(400):x}").touch()
    assert len(server(mounts).scan("source")) == 904


def test_a_file_that_is_missing_is_not_found_and_a_failing_command_says_why(mounts: Path) -> None:
    with pytest.raises(NotFound, match="nowhere is not on the NFS server"):
        server(mounts).facts("source", "nowhere")
    with pytest.raises(NotFound, match=r"nowhere is not on the NFS server\. Is it mounted"):
        server(mounts).ls("source", "nowhere")
    with pytest.raises(CommandFailed, match="exit status 1"):
        server(mounts).copy("nowhere", "copy")


def test_a_folder_that_the_share_does_not_have_yet_is_shown_as_such(mounts: Path) -> None:
    assert "(there is no such folder)" in repr(server(mounts).ls("share", "sub dir"))


@pytest.mark.parametrize("path", ["../other", "a/../../other", "/../other"])
def test_a_path_that_leaves_the_mount_is_refused(mounts: Path, path: str) -> None:
    with pytest.raises(SettingsError, match="leaves"):
        server(mounts).copy("sub dir/b", path)


def test_the_rails_are_asked_before_a_change_and_not_before_a_look(mounts: Path) -> None:
    assert server(mounts, refused).ls("source").names
    with pytest.raises(ChangeRefused):
        server(mounts, refused).copy("sub dir/b", "c")
    assert not (mounts / "data" / "c").exists()


def test_names_are_compared_on_the_server_however_many_there_are(mounts: Path) -> None:
    for number in range(3000):
        (mounts / "data" / "sub dir" / f"{number:06}-with-a-long-name").touch()
    found = server(mounts).difference("sub dir")
    assert (found.ok, found.looked_at, found.source_count) == (False, 3001, 3001)
    assert found.only_source[:2] == ("000000-with-a-long-name", "000001-with-a-long-name")
    assert "000004-with-a-long-name and 2,996 more; only on the share: nothing" in found.reason


def test_names_that_the_tasks_filters_leave_out_are_not_missed(mounts: Path) -> None:
    host = ProcessHost("here", allowed)
    made = ApplicationServer(
        host, source_mount=str(mounts / "data"), share_mount=str(mounts / "fgw"), privilege="",
        in_scope=lambda path: path != "sub dir/b",
    )  # fmt: skip
    assert made.difference("sub dir").source_count == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_fails_the_scan(mounts: Path) -> None:
    (mounts / "data" / "sub dir").chmod(0)
    with pytest.raises(CommandFailed):
        server(mounts).scan("source")


def test_a_tree_too_long_to_be_fetched_is_counted_on_the_server(mounts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runbook_lib.application_server.SCAN_LIMIT", 10)
    with pytest.raises(ListingTooLong, match="too long to be fetched"):
        server(mounts).scan("source")
    count, newest = server(mounts).newest("source")
    assert count == 4
    assert newest is not None


def test_a_command_that_does_not_end_is_stopped(mounts: Path) -> None:
    with pytest.raises(RunbookError, match="did not end within 1 s"):
        ProcessHost("here", allowed).run("sleep 30", timeout=1)
