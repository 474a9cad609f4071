"""The lab's replication instance has the memory of its class, as EC2 has it, and what is taken of it is measured."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from runbook_lib.lab import dms_machine
from runbook_lib.lab.core import Folder, Lab
from runbook_lib.lab.dms_machine import GIB, left, memory_of

from .dms_world import RecordingBus, eventually, sown

INSTANCE = {"ReplicationInstanceClass": "dms.r5.24xlarge", "AllocatedStorage": 50}
MIB = 1 << 20


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A lab whose databases do not run."""
    made = Lab(Folder(tmp_path / "lab"), RecordingBus())
    yield made
    made.databases.close()


@pytest.mark.parametrize(
    ("machine", "gib"),
    [("dms.t3.micro", 1), ("dms.t3.medium", 4), ("dms.c5.large", 4), ("dms.r5.large", 16), ("dms.r6i.24xlarge", 768)],
)
def test_a_class_has_its_memory(machine: str, gib: int) -> None:
    assert memory_of(machine) == gib * GIB


@pytest.mark.parametrize("machine", ["dms.x9.large", "dms.t3.mega", "large", ""])
def test_an_unknown_class_has_this_computers(machine: str) -> None:
    assert memory_of(machine) == psutil.virtual_memory().total


def test_what_the_source_has_spilled_is_taken_off_the_storage(lab: Lab) -> None:
    assert left(lab, INSTANCE)["FreeStorageSpace"] == (50 * GIB, "Bytes")
    slot = lab.databases.source.data / "pg_replslot" / "a_slot"
    slot.mkdir(parents=True)
    (slot / "xid-1-lsn-0-1000000.spill").write_bytes(bytes(3 * MIB))
    (slot / "xid-1-lsn-0-2000000.spill").write_bytes(b"x")
    assert left(lab, INSTANCE)["FreeStorageSpace"] == (50 * GIB - 3 * MIB - 1, "Bytes")
    (slot / "xid-1-lsn-0-1000000.spill").unlink()
    assert left(lab, INSTANCE)["FreeStorageSpace"] == (50 * GIB - 1, "Bytes")


def test_a_larger_disk_has_more_storage_left_and_none_has_less_than_nothing(lab: Lab) -> None:
    assert left(lab, {**INSTANCE, "AllocatedStorage": 51})["FreeStorageSpace"] == (51 * GIB, "Bytes")
    slot = lab.databases.source.data / "pg_replslot"
    slot.mkdir(parents=True)
    (slot / "one").write_bytes(b"x")
    assert left(lab, {**INSTANCE, "AllocatedStorage": 0})["FreeStorageSpace"] == (0, "Bytes")


def test_what_a_session_of_a_server_holds_is_taken_off_the_memory(seed: Path, tmp_path: Path) -> None:
    lab = Lab(Folder(sown(seed, tmp_path / "sown")), RecordingBus())
    free = lambda: left(lab, INSTANCE)["FreeableMemory"][0]  # noqa: E731
    try:
        lab.databases.ready()
        with lab.databases.connect("source") as session:
            before = free()
            session.execute("select length(set_config('tests.held', repeat('x', 200 << 20), false))")
            assert before - free() > 150 * MIB
        eventually(lambda: before - free() < 50 * MIB, "the session's memory is free again")
    finally:
        lab.databases.close()


def test_what_the_labs_processes_have_in_swap_is_counted(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dms_machine, "PROC", tmp_path)
    for process in ("self", str(os.getpid())):
        (tmp_path / process).mkdir()
        (tmp_path / process / "status").write_text("Name:\tlab\nVmRSS:\t   90000 kB\nVmSwap:\t    1234 kB\n")
    assert left(lab, INSTANCE)["SwapUsage"] == (1234 << 10, "Bytes")
    (tmp_path / str(os.getpid()) / "status").unlink()  # it has ended
    assert left(lab, INSTANCE)["SwapUsage"] == (0, "Bytes")


def test_a_system_that_does_not_tell_a_processs_swap_tells_all(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dms_machine, "PROC", tmp_path / "nowhere")
    used = psutil.swap_memory()._replace(used=77 * MIB)
    monkeypatch.setattr(psutil, "swap_memory", lambda: used)
    assert left(lab, INSTANCE)["SwapUsage"] == (77 * MIB, "Bytes")
