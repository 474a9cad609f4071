"""Whatever stops the sealing, at every write: the folder is unsealed or sealed, never half, and sealing ends it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from runbook_lib.errors import EvidenceError
from runbook_lib.evidence import keys
from runbook_lib.evidence.folder import MARK, RunFolder
from runbook_lib.evidence.seal import keep_sources, seal, sealed
from runbook_lib.evidence.verify import verify
from runbook_lib.runs.plan import Step
from runbook_lib.runs.run import run
from tests import notebooks
from tests.records import command, synthetic
from tests.test_kill_matrix import small_disk  # noqa: F401 - a fixture
from tests.test_stepping_stops import fill

STEPS = ("fsync", "chmod", "replace", "unlink")  # what sealing does to files


@pytest.fixture(autouse=True)
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A key of this test's own; its fingerprint."""
    monkeypatch.setenv("RUNBOOK_KEY", str(tmp_path / "key.pem"))
    fingerprint: str = keys.own_key().public_key.keyid
    return fingerprint


def killed_at(folder: RunFolder, number: int) -> bool:
    """Seal in a process that is killed right before its n-th step; did it come to that?"""
    child = os.fork()
    if child == 0:
        left = iter(range(number - 1, -1, -1))
        for name in STEPS:
            setattr(os, name, _deadly(getattr(os, name), left))
        try:
            seal(folder)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def _deadly(step: Callable[..., Any], left: Any) -> Callable[..., Any]:
    def taken(*arguments: Any, **options: Any) -> Any:
        if next(left, 1) == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(*arguments, **options)

    return taken


@pytest.mark.parametrize("mode", ["headless", "interactive"])
def test_a_kill_at_any_step_leaves_an_open_run_that_can_be_sealed(tmp_path: Path, key: str, mode: str) -> None:
    for number in range(1, 100):
        folder = synthetic(tmp_path / "outputs", f"20260101T000000Z-{number:06}", mode=mode)
        if not killed_at(folder, number):
            break
        before = verify(folder.path, key)
        assert (before.state, len(before.faults) <= 1) == ("unsealed", True), (number, before)
        assert (folder.path / MARK).stat().st_mode & 0o200, "nobody but root could open it again"
        seal(RunFolder(folder.path))
        after = verify(folder.path, key)
        assert (after.state, after.faults) == ("intact", ()), number
        assert list(folder.path.rglob(".*")) == [], "a file half written"
    assert number > 10
    assert verify(folder.path, key).state == "intact"


def test_a_disk_that_is_full_when_a_run_is_sealed_leaves_it_open(
    small_disk: Path,  # noqa: F811
    key: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, ballast = synthetic(small_disk), small_disk / "ballast"
    with pytest.raises(EvidenceError, match="No space left"), sealed(folder):
        fill(ballast, folder)
    assert verify(folder.path, key).state == "unsealed"
    assert list(folder.path.rglob(".*")) == []
    ballast.unlink()
    monkeypatch.setenv("RUNBOOK_OUTPUTS", str(small_disk))
    assert command("seal")[0] == 0
    assert verify(folder.path, key).state == "intact"


@pytest.mark.parametrize("room", [8, 60, 90, 130], ids="{} kB".format)
def test_a_run_on_a_full_disk_is_sealed_when_there_is_space_and_verifies(
    small_disk: Path,  # noqa: F811
    tmp_path: Path,
    key: str,
    monkeypatch: pytest.MonkeyPatch,
    room: int,
) -> None:
    monkeypatch.setenv("RUNBOOK_OUTPUTS", str(small_disk))
    source = notebooks.notebook(tmp_path / "step.ipynb", *(f"print('{n}' * 10_000)" for n in range(9)))
    step = Step(source)
    folder = RunFolder.create("lab", "headless")
    keep_sources(folder, [source])
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 1000 * (200 - room))
    with suppress(EvidenceError):  # not even the end of the notebook fits
        (outcome,) = run([step], folder, {"environment": "lab"})
        assert outcome.status == "failed" and "No space left" in outcome.error
    ballast.unlink()
    found = verify(seal(folder), key)
    assert (found.state, found.faults) == ("intact", ())
    assert found.run is not None and found.run["verdict"] in ("failed", "killed")
