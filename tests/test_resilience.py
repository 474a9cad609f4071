"""Killed at a bad moment: the lab tells the truth afterwards, and an interrupted run leaves nothing but the lab."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runbook_lib.settings import PACKAGE_ROOT
from tests.throwaway import ThrowawayLab, client, connection, throwaway_lab

SLOW = 40_000  # bytes per second: 200 pictures take more than ten seconds


@pytest.fixture
def own_lab() -> Iterator[ThrowawayLab]:
    """A lab of this test's own, because it is killed."""
    with throwaway_lab() as lab:
        yield lab


def eventually(look: Any, patience: float = 30) -> Any:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        seen = look()
        if seen:
            return seen
        time.sleep(0.02)
    raise AssertionError("it did not come true in time")


def test_a_lab_killed_in_mid_transfer_comes_back_with_a_truthful_error_and_whole_files(own_lab: ThrowawayLab) -> None:
    datasync, s3 = client(own_lab, "datasync"), client(own_lab, "s3")
    (task,) = datasync.list_tasks()["Tasks"]
    export = own_lab.state / "application-server/mnt/data"
    for number in range(1, 201):
        path = export / "images" / f"{number:05}.jpg"
        path.write_bytes(path.read_bytes() + b"more")
    before = {
        entry.name: entry.stat().st_size for entry in (own_lab.state / "application-server/mnt/fgw/images").iterdir()
    }
    execution = datasync.start_task_execution(TaskArn=task["TaskArn"], OverrideOptions={"BytesPerSecond": SLOW})
    arn = execution["TaskExecutionArn"]
    eventually(lambda: datasync.describe_task_execution(TaskExecutionArn=arn)["Status"] == "TRANSFERRING")
    os.kill(connection(own_lab)["pid"], signal.SIGKILL)
    own_lab.verb("start")
    seen = client(own_lab, "datasync").describe_task_execution(TaskExecutionArn=arn)
    assert seen["Status"] == "ERROR"
    assert seen["Result"]["ErrorDetail"]
    assert seen["EndTime"] > seen["StartTime"]
    listed = client(own_lab, "s3").list_objects_v2(Bucket="migration-lab", Prefix="images/0")["Contents"]
    assert len(listed) == 200
    for item in listed:  # each object is wholly the old or wholly the new one
        new = (export / item["Key"]).read_bytes()
        body = s3.get_object(Bucket="migration-lab", Key=item["Key"])["Body"].read()
        assert body in (new, new.removesuffix(b"more"))
    after = {
        entry.name: entry.stat().st_size for entry in (own_lab.state / "application-server/mnt/fgw/images").iterdir()
    }
    assert after == before, "the share changed without a refresh"
    again = datasync.start_task_execution(TaskArn=task["TaskArn"])["TaskExecutionArn"]
    eventually(lambda: datasync.describe_task_execution(TaskExecutionArn=again)["Status"] == "SUCCESS")


def kernels(run: Path) -> list[str]:
    """Kernels that work for a run: their environment names its folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            variables = (process / "environ").read_bytes()
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if str(run).encode() in variables and b"ipykernel" in command:
            found.append(process.name)
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at other processes through /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing_running_but_the_lab_and_says_so(
    own_lab: ThrowawayLab, number: signal.Signals
) -> None:
    own_lab.reset("02")
    own_lab.verb("pace", "5")  # the task's states last long enough to be interrupted
    outputs = Path(os.environ["RUNBOOK_OUTPUTS"])
    runner = subprocess.Popen(
        [sys.executable, "-m", "runbook_lib.cli", "run", "02", "03"], cwd=PACKAGE_ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    execution = "StartTaskExecution"
    (run,) = eventually(lambda: list(outputs.glob("*/events.jsonl")))
    eventually(lambda: execution in run.read_text())
    assert kernels(run.parent)
    runner.send_signal(number)
    said, _ = runner.communicate(timeout=60)
    assert runner.returncode == 128 + number
    assert "Interrupted" in said and "runbook lab stop" in said
    assert eventually(lambda: not kernels(run.parent))
    ends = [event for line in run.read_text().splitlines() if (event := json.loads(line))["kind"] == "notebook-end"]
    assert [event["status"] for event in ends] == ["interrupted", "not run"]
    assert "running" in own_lab.verb("status", "--json")
