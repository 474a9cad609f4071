"""An interrupted run goes on: what holds is skipped and said so, nothing is done twice, changed sources are refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import psutil
import pytest
import yaml

from runbook_lib.errors import NotFound, SettingsError
from runbook_lib.evidence.events import Events
from runbook_lib.evidence.folder import RunFolder
from runbook_lib.runbook import Runbook
from runbook_lib.runs.plan import chosen, steps
from runbook_lib.runs.request import resumed
from runbook_lib.runs.resume import looking
from runbook_lib.runs.run import run
from runbook_lib.settings import PACKAGE_ROOT
from tests.test_cli import runbook
from tests.test_resilience import eventually
from tests.throwaway import ThrowawayLab, client


def runs() -> list[Path]:
    """The run folders, oldest first."""
    return sorted(path.parent for path in Path(os.environ["RUNBOOK_OUTPUTS"]).glob("*/events.jsonl"))


def happened(run: Path, kind: str) -> list[tuple[str, str]]:
    """The notebooks of a kind of events and what was said of them."""
    said = [event for event in Events(run / "events.jsonl").read() if event["kind"] == kind]
    return [(event["notebook"][:2], event.get("status") or event.get("decision") or "") for event in said]


def changes(lab: ThrowawayLab) -> dict[str, int]:
    """What has been done to the lab: executions of the task, refreshes of the share, new files."""
    datasync = client(lab, "datasync")
    (task,) = datasync.list_tasks()["Tasks"]
    executions = datasync.list_task_executions(TaskArn=task["TaskArn"])["TaskExecutions"]
    calls = [
        event["operation"] for run in runs() for event in Events(run / "events.jsonl").read()
        if event["kind"] == "aws-call" and event["changes"] and not event.get("error")
    ]  # fmt: skip
    return {
        "executions": len(executions),
        "copies": calls.count("SendCommand"),
        "refreshes": calls.count("RefreshCache"),
    }


@pytest.fixture
def fresh(lab: ThrowawayLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThrowawayLab]:
    """The lab as 01 finds it, and no run yet."""
    lab.reset("01")
    monkeypatch.setenv("RUNBOOK_OUTPUTS", str(tmp_path / "outputs"))
    yield lab


def test_a_killed_run_is_resumed_without_doing_anything_twice(fresh: ThrowawayLab) -> None:
    before = changes(fresh)
    runner = start("01", "02", "04")
    eventually(lambda: runs() and ("02", "passed") in happened(runs()[0], "notebook-end"), 120)
    eventually(lambda: ("04", "running") in happened(runs()[0], "cell"), 60)
    os.kill(runner.pid, signal.SIGKILL)
    runner.wait()
    (killed,) = runs()
    code, said = runbook("run", "--resume", killed.name)
    assert code == 0, said
    resumed = runs()[-1]
    assert happened(resumed, "notebook-end") == [
        ("01", "skipped"),
        ("02", "skipped"),
        ("04", "passed"),
    ]
    assert happened(runs()[-1], "resume") == [("01", "skipped"), ("02", "skipped")]
    assert f"finished in run {killed.name}, and its end still holds: check-succeeded" in said
    done = changes(fresh)
    assert {name: done[name] - before[name] for name in done} == {"executions": 1, "copies": 1, "refreshes": 1}


@pytest.mark.parametrize(
    ("notebook", "operation"),
    [("01", "SendCommand"), ("02", "StartTaskExecution"), ("04", "RefreshCache")],
)
def test_a_runner_that_is_killed_while_it_changes_something_did_so_once_and_its_kernel_does_no_more(
    fresh: ThrowawayLab, notebook: str, operation: str
) -> None:
    before = changes(fresh)
    fresh.verb("pace", "0.3")
    runner = start("01", "02", "04")
    eventually(lambda: called(operation), 120)
    kernels = psutil.Process(runner.pid).children(recursive=True)
    runner.kill()
    runner.wait()
    eventually(lambda: not any(lives(kernel) for kernel in kernels), 0.3)
    (killed,) = runs()
    assert happened(killed, "cell")[-1] == (notebook, "running")
    said = (killed / "events.jsonl").read_bytes()
    fresh.verb("pace", "0")
    code, answer = runbook("run", "--resume", killed.name)
    assert code == 0, answer
    assert (killed / "events.jsonl").read_bytes() == said
    done = changes(fresh)
    assert {name: done[name] - before[name] for name in done} == {"executions": 1, "copies": 1, "refreshes": 1}


def start(*arguments: str) -> subprocess.Popen[bytes]:
    """A runner."""
    command = [sys.executable, "-m", "runbook_lib.cli", "run", *arguments]
    return subprocess.Popen(command, cwd=PACKAGE_ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)


def lives(process: psutil.Process) -> bool:
    """Is it more than an entry that nobody has collected?"""
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def called(operation: str) -> bool:
    """Has the newest run made a call?"""
    return bool(runs()) and any(
        event["kind"] == "aws-call" and event["changes"] and event["operation"] == operation
        for event in Events(runs()[-1] / "events.jsonl").read()
    )


def test_what_does_not_hold_any_more_is_run_again(fresh: ThrowawayLab) -> None:
    (outcome,) = run(chosen(["01"]), RunFolder.create("lab", "headless"), {"environment": "lab"})
    assert outcome.ok, outcome
    (fresh.state / "application-server/mnt/data/new-image.jpg").unlink()
    code, said = runbook("run", "--resume", runs()[-1].name)
    assert code == 0, said
    assert happened(runs()[-1], "resume") == [("01", "run again")]
    assert happened(runs()[-1], "notebook-end") == [("01", "passed")]
    assert changes(fresh)["copies"] == 2


START = """
from runbook_lib import Runbook
rb = Runbook.open("lab", notebook="02_run_datasync_task")
rb.datasync.run(rb.datasync.pending())
"""


def test_an_execution_that_ended_before_the_resume_is_not_repeated(
    fresh: ThrowawayLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = changes(fresh)["executions"]
    (fresh.state / "application-server/mnt/data/another.jpg").write_bytes(b"x" * 20_000)
    fresh.verb("pace", "1")
    folder = RunFolder.create("lab", "headless")
    monkeypatch.setenv("RUNBOOK_RUN", str(folder.path))
    noted = lambda: [event for event in folder.events.read() if event["kind"] == "note"]  # noqa: E731
    with subprocess.Popen([sys.executable, "-c", START], cwd=PACKAGE_ROOT) as starter:
        eventually(lambda: noted() and noted()[-1]["value"]["arn"], 60)
        starter.kill()
    assert "ended" not in noted()[-1]["value"], "it was killed too late"
    fresh.verb("pace", "0")
    describe = client(fresh, "datasync").describe_task_execution
    eventually(lambda: describe(TaskExecutionArn=noted()[-1]["value"]["arn"])["Status"] == "SUCCESS", 60)
    rb = Runbook.open("lab", notebook="02_run_datasync_task")
    taken = rb.datasync.run(rb.datasync.pending())
    assert (taken.adopted, taken.arn) == (True, noted()[-1]["value"]["arn"])
    assert changes(fresh)["executions"] - before == 1


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A finished run of 00 on an environment whose file can be edited, as its record has it."""
    monkeypatch.setenv("RUNBOOK_OUTPUTS", str(tmp_path / "outputs"))
    mine = tmp_path / "mine.yaml"
    settings = yaml.safe_load((PACKAGE_ROOT / "parameters" / "lab.yaml").read_text())
    mine.write_text(yaml.safe_dump({**settings, "environment": "mine"}))
    folder = RunFolder.create("mine", "headless")
    next(run(chosen(["00"]), folder, {"environment": str(mine)}, verified=lambda step: "it is not run by this test"))
    return folder.run_id


def test_the_same_run_may_be_resumed(finished: str) -> None:
    asked = resumed(finished, [], None, {}, afresh=False)
    assert [step.name for step in asked.steps] == ["00_start_here"]
    assert asked.environment.endswith("mine.yaml")
    assert asked.about() == {"resumes": finished}


def test_another_environment_or_file_of_it_is_refused_unless_the_run_starts_afresh(
    finished: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=r"environment was '.*mine.yaml' and is 'lab'.*--afresh"):
        resumed(finished, [], "lab", {}, afresh=False)
    (tmp_path / "mine.yaml").write_text((tmp_path / "mine.yaml").read_text() + "# edited\n")
    with pytest.raises(SettingsError, match=r"the file of the environment .* was edited"):
        resumed(finished, [], None, {}, afresh=False)
    afresh = resumed(finished, [], None, {}, afresh=True)
    assert afresh.about() == {"resumes": finished, "afresh": True}
    assert afresh.verified(RunFolder.create("mine", "headless"))(afresh.steps[0]) == ""


def test_a_parameter_that_the_record_masked_has_to_be_given_again_and_only_then(
    finished: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = str(Path(os.environ["RUNBOOK_OUTPUTS"]).parent / "mine.yaml")
    monkeypatch.setenv("RUNBOOK_MASK", "share")
    folder = RunFolder.create("mine", "headless")
    given = {"environment": environment, "confirm": 123456789012}
    next(run(chosen(["01"]), folder, given, verified=lambda step: "it is not run by this test"))
    monkeypatch.delenv("RUNBOOK_MASK")
    assert "123456789012" not in (folder.path / "events.jsonl").read_text()
    with pytest.raises(SettingsError, match="keeps a mask for confirm: add -p confirm="):
        resumed(folder.run_id, [], None, {}, afresh=False)
    asked = resumed(folder.run_id, [], None, {"confirm": 123456789012}, afresh=False)
    assert asked.parameters == given
    with pytest.raises(SettingsError, match="confirm was"):
        resumed(folder.run_id, [], None, {"confirm": "another"}, afresh=False)


def test_an_edited_notebook_is_refused(finished: str) -> None:
    folder = Path(os.environ["RUNBOOK_OUTPUTS"]) / finished
    (now,) = {step.source() for step in chosen(["00"])}
    record = folder / "events.jsonl"
    record.write_text(record.read_text().replace(now, "0" * 64))
    with pytest.raises(SettingsError, match="00_start_here was edited"):
        resumed(finished, [], None, {}, afresh=False)


def test_a_run_that_is_not_there_is_said_so_with_those_that_are(finished: str) -> None:
    with pytest.raises(NotFound, match=f"no headless run '20200101T000000Z-abcdef'.*{finished}"):
        resumed("20200101T000000Z-abcdef", [], None, {}, afresh=False)


@pytest.mark.parametrize("step", steps(), ids=lambda step: step.name)
def test_every_notebook_has_a_postcondition_that_only_looks(step: object) -> None:
    only, ids = looking(step)  # type: ignore[arg-type]
    tagged = [
        cell["id"]
        for cell in nbformat.read(step.path, as_version=4).cells  # type: ignore[attr-defined]
        if "postcondition" in cell.metadata.get("tags", [])
    ]
    assert ids == tagged and ids, "a postcondition that needs a cell tagged `act`"
    assert [cell["id"] for cell in only.cells][:2] == ["parameters", "open"]
    assert not any("act" in cell.metadata.get("tags", []) for cell in only.cells)
