"""The world a lab starts with, at each notebook, and the faults that can be planted in it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from runbook_lib.errors import LabError
from runbook_lib.lab import faults, images, world
from runbook_lib.lab.control import Control, SilentBus, open_lab
from runbook_lib.lab.core import CLOUD_REGION, PREMISES_REGION, Folder, Lab
from runbook_lib.lab.dms_faults import DMS_FAULTS
from runbook_lib.lab.protocol import Call, Service


class Built:
    """A lab with its world, and short ways to look at it."""

    def __init__(self, folder: Path) -> None:
        self.lab = open_lab(Folder(folder), SilentBus())
        self.control = Control(self.lab)
        self.control.start()

    @property
    def services(self) -> dict[str, Service]:
        return self.control.services

    def ask(self, service: str, operation: str, **parameters: Any) -> dict[str, Any]:
        region = PREMISES_REGION if service == "ssm" else CLOUD_REGION
        call = Call(operation, region, self.lab.account, "the-tests")
        handler = getattr(self.services[service], operation)
        answer: dict[str, Any] = handler(parameters, call)
        return answer

    def task(self) -> dict[str, Any]:
        (entry,) = self.ask("datasync", "list_tasks")["Tasks"]
        return self.ask("datasync", "describe_task", TaskArn=entry["TaskArn"])

    def run(self) -> dict[str, Any]:
        """Run the task to its end, as DescribeTaskExecution shows it."""
        arn = self.ask("datasync", "start_task_execution", TaskArn=self.task()["TaskArn"])["TaskExecutionArn"]
        self.services["datasync"].finish(arn)  # type: ignore[attr-defined]
        return self.ask("datasync", "describe_task_execution", TaskExecutionArn=arn)

    def transferred(self) -> list[int]:
        """What each execution counted, oldest first."""
        entries = self.ask("datasync", "list_task_executions")["TaskExecutions"]
        assert {entry["Status"] for entry in entries} == {"SUCCESS"}
        return [
            self.ask("datasync", "describe_task_execution", TaskExecutionArn=entry["TaskExecutionArn"])[
                "FilesTransferred"
            ]
            for entry in entries
        ]

    def body(self, key: str) -> bytes:
        found = self.lab.objects.read(world.BUCKET, key)
        assert found is not None
        with found[1] as source:
            return source.read()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    built = Built(tmp_path_factory.mktemp("lab"))
    yield built
    built.control.stop()


@pytest.fixture
def built(shared: Built) -> Built:
    shared.control.reset("00")
    return shared


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


PICTURES = {f"images/{images.name(number)}" for number in range(1, 201)}


def test_the_export_holds_200_different_pictures_with_their_times(built: Built) -> None:
    export = built.lab.folder.export
    assert files(export) == PICTURES
    assert len({(export / name).read_bytes() for name in PICTURES}) == 200
    for name in sorted(PICTURES)[::50]:
        with Image.open(export / name) as picture:
            picture.load()
            assert (picture.format, picture.size) == ("JPEG", (160, 120))
    assert (export / "images/00001.jpg").stat().st_mtime == images.FIRST_TAKEN + 60


def test_the_workshop_begins_with_a_task_that_was_run_once_and_a_share_that_was_refreshed_once(built: Built) -> None:
    task = built.task()
    assert (task["Name"], task["Status"], task["TaskMode"]) == ("nfs-to-s3", "AVAILABLE", "BASIC")
    assert built.transferred() == [world.FILES]
    (share,) = built.ask("storagegateway", "list_file_shares")["FileShareInfoList"]
    shown = built.ask("storagegateway", "describe_nfs_file_shares", FileShareARNList=[share["FileShareARN"]])
    (share,) = shown["NFSFileShareInfoList"]
    assert (share["FileShareName"], share["FileShareStatus"]) == ("migration-share", "AVAILABLE")
    assert share["LocationARN"] == "arn:aws:s3:::migration-lab"
    assert files(built.lab.folder.share) >= PICTURES
    assert any(True for _ in built.lab.objects.list(world.REPORTS))
    (instance,) = built.ask("ssm", "describe_instance_information")["InstanceInformationList"]
    assert instance["PingStatus"] == "Online"


@pytest.mark.parametrize(
    ("at", "exported", "copied", "counted", "shown"),
    [
        ("00", False, False, [202], False),
        ("01", False, False, [202], False),
        ("02", True, False, [202], False),
        ("03", True, True, [202, 2], False),
        ("04", True, True, [202, 2], False),
        ("05", True, True, [202, 2], True),
    ],
)
def test_each_notebook_finds_what_those_before_it_left(
    shared: Built, at: str, exported: bool, copied: bool, counted: list[int], shown: bool
) -> None:
    shared.control.reset(at)
    assert (world.NEW_FILE in files(shared.lab.folder.export)) is exported
    assert (shared.lab.objects.head(world.BUCKET, world.NEW_FILE) is not None) is copied
    assert shared.transferred() == counted
    assert (world.NEW_FILE in files(shared.lab.folder.share)) is shown
    assert shared.lab.database.setting("world")["at"] == at


def test_what_notebook_02_finds_is_worth_two_items(shared: Built) -> None:
    shared.control.reset("02")
    assert shared.run()["FilesTransferred"] == 2
    assert shared.run()["FilesTransferred"] == 0


def test_a_reset_keeps_the_pace_and_the_directories_that_kernels_stand_in(shared: Built) -> None:
    folder = shared.lab.folder
    standing = [folder.application, folder.export, folder.share]
    before = [path.stat().st_ino for path in standing]
    (folder.application / "notes.txt").write_text("mine")
    (folder.export / "late.txt").write_text("mine")
    shared.lab.database.set("pace", 0.01)
    shared.control.reset("00")
    assert [path.stat().st_ino for path in standing] == before
    assert shared.lab.pace == 0.01
    shared.lab.database.set("pace", 0)
    assert not (folder.application / "notes.txt").exists()
    assert files(folder.export) == PICTURES


def test_a_world_that_was_being_built_when_the_lab_was_killed_is_built_anew(tmp_path: Path) -> None:
    lab = open_lab(Folder(tmp_path), SilentBus())
    lab.objects.create_bucket(world.BUCKET, CLOUD_REGION)
    lab.objects.put(world.BUCKET, "images/half", b"half")
    (lab.folder.export / "images").mkdir()
    built = Built(tmp_path)
    assert built.transferred() == [world.FILES]
    assert lab.objects.head(world.BUCKET, "images/half") is None
    built.control.stop()


def test_emptying_removes_locked_folders_and_follows_no_link(tmp_path: Path) -> None:
    lab = open_lab(Folder(tmp_path / "lab"), SilentBus())
    kept = tmp_path / "kept.txt"
    kept.write_text("not the lab's")
    locked = lab.folder.export / "locked" / "deeper"
    locked.mkdir(parents=True)
    (locked / "file").write_text("…")
    (locked / "out").symlink_to(tmp_path)
    (lab.folder.application / "link").symlink_to(tmp_path)
    locked.chmod(0)
    locked.parent.chmod(0)
    world.empty(lab)
    assert kept.read_text() == "not the lab's"
    assert [path.name for path in lab.folder.application.iterdir()] == ["mnt"]
    assert list(lab.folder.export.iterdir()) == []


def test_an_unknown_fault_is_answered_with_the_nearest_and_all(built: Built) -> None:
    with pytest.raises(LabError, match=r"Did you mean agent-offline\?.*Faults: agent-offline, file-changes") as caught:
        faults.plant(built.lab, built.services, "agent-of-line")
    with pytest.raises(LabError, match="There is no fault"):
        faults.mend(built.lab, built.services, "nothing-like-it")
    assert "unreadable-file" in str(caught.value)


@pytest.mark.parametrize("path", ["/etc/passwd", "../connection.json", "images/../../x", "images//a", "a\0b", "images"])
def test_a_fault_stays_below_the_export(built: Built, path: str) -> None:
    with pytest.raises(LabError):
        faults.plant(built.lab, built.services, "unreadable-file", path)
    assert built.lab.database.setting("faults", {}) == {}


def test_a_fault_does_not_go_over_a_symbolic_link(built: Built, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("…")
    (built.lab.folder.export / "out").symlink_to(tmp_path)
    with pytest.raises(LabError, match="symbolic link"):
        faults.plant(built.lab, built.services, "unreadable-file", "out/secret")


def test_a_fault_without_a_path_takes_none(built: Built) -> None:
    with pytest.raises(LabError, match="takes no path"):
        faults.plant(built.lab, built.services, "agent-offline", "images/00001.jpg")


def test_all_faults_can_be_planted_together_and_mended_together(built: Built) -> None:
    names = [name for name in faults.FAULTS if faults.FAULTS[name] not in DMS_FAULTS]  # those have a test of their own
    for name in names:
        faults.plant(built.lab, built.services, name)
        assert built.lab.fault(name) is not None
    assert faults.mend(built.lab, built.services) == names
    assert built.lab.database.setting("faults") == {}
    assert built.run()["FilesTransferred"] == 0


def test_an_altered_object_is_what_the_next_run_repairs(built: Built) -> None:
    original = built.body("images/00002.jpg")
    before = built.lab.objects.head(world.BUCKET, "images/00002.jpg")
    faults.plant(built.lab, built.services, "object-altered")
    after = built.lab.objects.head(world.BUCKET, "images/00002.jpg")
    assert before is not None and after is not None
    assert (after.metadata, after.size) == (before.metadata, before.size + 1)
    assert built.run()["FilesTransferred"] == 1
    assert built.body("images/00002.jpg") == original
    faults.mend(built.lab, built.services, "object-altered")
    assert built.body("images/00002.jpg") == original


def test_mending_an_altered_object_gives_its_bytes_back(built: Built) -> None:
    original = built.body("images/00007.jpg")
    faults.plant(built.lab, built.services, "object-altered", "images/00007.jpg")
    faults.plant(built.lab, built.services, "object-altered", "images/00007.jpg")
    assert built.body("images/00007.jpg") == original + b"!"
    assert faults.mend(built.lab, built.services, "object-altered") == ["object-altered"]
    assert built.body("images/00007.jpg") == original
    assert built.run()["FilesTransferred"] == 0


def test_a_file_that_cannot_be_read_is_left_out_until_it_is_mended(built: Built) -> None:
    file = built.lab.folder.export / "images/00003.jpg"
    before = file.stat()
    faults.plant(built.lab, built.services, "unreadable-file")
    failed = built.run()
    assert failed["FilesTransferred"] == 0
    assert failed["FilesSkipped"] >= 1
    faults.mend(built.lab, built.services, "unreadable-file")
    after = file.stat()
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    assert built.run()["Status"] == "SUCCESS"


def test_mending_does_not_undo_what_somebody_wrote_meanwhile(built: Built) -> None:
    file = built.lab.folder.export / "images/00003.jpg"
    faults.plant(built.lab, built.services, "unreadable-file")
    os.utime(file, (2_000_000_000, 2_000_000_000))
    faults.mend(built.lab, built.services)
    assert file.stat().st_mtime == 2_000_000_000


def test_a_file_that_changes_while_it_is_copied_fails_the_verification(shared: Built) -> None:
    shared.control.reset("02")
    faults.plant(shared.lab, shared.services, "file-changes-during-copy")
    failed = shared.run()
    assert (failed["Status"], failed["Result"]["VerifyStatus"]) == ("ERROR", "ERROR")
    faults.mend(shared.lab, shared.services)
    assert shared.run()["Status"] == "SUCCESS"


def test_an_offline_agent_makes_the_task_unavailable(built: Built) -> None:
    faults.plant(built.lab, built.services, "agent-offline")
    assert built.task()["Status"] == "UNAVAILABLE"
    faults.mend(built.lab, built.services)
    assert built.task()["Status"] == "AVAILABLE"


def test_an_unreachable_application_server_has_lost_its_connection(built: Built) -> None:
    faults.plant(built.lab, built.services, "application-server-unreachable")
    (instance,) = built.ask("ssm", "describe_instance_information")["InstanceInformationList"]
    assert instance["PingStatus"] == "ConnectionLost"


def test_a_world_is_made_without_waiting_whatever_the_pace(tmp_path: Path) -> None:
    lab: Lab = open_lab(Folder(tmp_path), SilentBus())
    lab.database.set("pace", 1)
    with lab.hurried():
        assert lab.pace == 0
    assert lab.pace == 1


def test_every_fault_names_a_check_in_the_notebooks_own_words() -> None:
    notebooks = Path(__file__).resolve().parents[2] / "notebooks"
    for fault in faults.FAULTS.values():
        number, _, check = fault.fails.partition(": ")
        if fault.name != "events-denied":  # none fails
            (notebook,) = notebooks.glob(f"{number}_*.ipynb")
            assert json.dumps(f'"{check}"')[1:-1] in notebook.read_text()


def test_the_readme_names_every_fault() -> None:
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    for name in faults.FAULTS:
        assert f"`{name}`" in readme
