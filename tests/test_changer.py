"""One run at a time changes an environment; looking is always allowed, and whoever dies lets go."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runbook_lib.errors import ChangeRefused
from runbook_lib.evidence.changer import Changer
from runbook_lib.evidence.folder import ONLY_LOOKING, RunFolder, changer_path
from runbook_lib.runs.plan import Step
from runbook_lib.runs.run import Outcome, run
from tests import notebooks
from tests.throwaway import ThrowawayLab

HOLD = """
import sys
from pathlib import Path
from runbook_lib.evidence.changer import Changer
lock = Changer(Path(sys.argv[1]))
lock.hold("the-first-run")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that changes the environment."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "lab.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_second_run_is_refused_and_told_which_is_the_first(holder: object, tmp_path: Path) -> None:
    with pytest.raises(ChangeRefused, match=r"run the-first-run by .* since .* Looking is allowed"):
        Changer(tmp_path / "lab.lock").hold("the-second-run")


def test_a_dead_holder_lets_go(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    holder.kill()
    holder.wait()
    Changer(tmp_path / "lab.lock").hold("the-second-run")


def test_kernels_of_one_run_stand_for_one_another(holder: object, tmp_path: Path) -> None:
    Changer(tmp_path / "lab.lock").hold("the-first-run")


def test_another_environment_is_free(holder: object, tmp_path: Path) -> None:
    Changer(tmp_path / "another.lock").hold("the-second-run")


def test_two_labs_have_two_locks_and_an_account_at_aws_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = set()
    for state in ("one", "another"):
        monkeypatch.setenv("RUNBOOK_LAB_STATE", state)
        paths |= {changer_path("lab", "123456789012", lab=True), changer_path("aws", "123456789012")}
    assert len(paths) == 3


OPEN = "from runbook_lib import Runbook\nrb = Runbook.open('lab', notebook='02_run_datasync_task')"
LOOK = "rb.check('The task is there', rb.task_available())"
CHANGE = "rb.datasync.run(rb.datasync.pending())"


def execute(folder: RunFolder, tmp_path: Path, *cells: str) -> Outcome:
    """A notebook of a few cells, run as the command runs it."""
    step = Step(notebooks.notebook(tmp_path / "02_run_datasync_task.ipynb", OPEN, *cells))
    (outcome,) = run([step], folder, {"environment": "lab"})
    return outcome


def test_while_another_run_changes_a_run_may_look_and_not_change(lab: ThrowawayLab, tmp_path: Path) -> None:
    lab.reset("02")
    other = Changer(changer_path("lab", "123456789012", lab=True))
    other.hold("the-first-run")
    try:
        folder = RunFolder.create("lab", "headless")
        looked, refused = execute(folder, tmp_path, LOOK), execute(folder, tmp_path, CHANGE)
    finally:
        other.close()
    assert looked.ok, looked
    assert refused.status == "failed"
    assert "ChangeRefused: Another run is changing this environment: run the-first-run" in refused.error
    assert [event["allowed"] for event in folder.events.read() if event["kind"] == "guard"] == [False]
    free = execute(folder, tmp_path, CHANGE)
    assert free.ok, free
    after = Changer(other.path)
    after.hold("the run after")  # the runner let go at its end
    after.close()


def test_a_kernel_that_only_looks_changes_nothing(
    lab: ThrowawayLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.reset("02")
    monkeypatch.setenv(ONLY_LOOKING, "1")
    folder = RunFolder.create("lab", "headless")
    refused = execute(folder, tmp_path, CHANGE)
    assert refused.status == "failed"
    assert "its postconditions are only looked at" in refused.error
    calls = [event for event in folder.events.read() if event["kind"] == "aws-call"]
    assert calls and not any(call["changes"] for call in calls)
