"""The runbook on the lab: safe and green when run twice, and each check fails when it should and says so."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml

from runbook_lib.checks import MIME_TYPE
from runbook_lib.evidence.folder import RunFolder
from runbook_lib.runs import plan
from runbook_lib.runs.run import Outcome, run
from runbook_lib.settings import PACKAGE_ROOT
from tests.throwaway import ThrowawayLab, client


def execute(*numbers: str, folder: RunFolder | None = None, **parameters: Any) -> list[Outcome]:
    """Run notebooks by number in one run folder, as `runbook run` does."""
    folder = folder or RunFolder.create("lab", "headless")
    return list(run(plan.chosen(list(numbers)), folder, {"environment": "lab", **parameters}))


def verdicts(outcome: Outcome) -> dict[str, str]:
    """Each check of an executed notebook and its verdict, read as an auditor would: with nbformat alone."""
    assert outcome.output is not None
    cells = nbformat.read(outcome.output, as_version=4).cells
    bodies = [
        o.data[MIME_TYPE] for c in cells if c.cell_type == "code" for o in c.outputs if MIME_TYPE in o.get("data", {})
    ]
    return {body["name"]: body["verdict"] for body in bodies}


def events(outcome: Outcome) -> list[dict[str, Any]]:
    assert outcome.output is not None
    return [json.loads(line) for line in (outcome.output.parent / "events.jsonl").read_text().splitlines()]


def pages(outcome: Outcome) -> list[str]:
    """The HTML that a reader of the executed notebook sees."""
    assert outcome.output is not None
    cells = nbformat.read(outcome.output, as_version=4).cells
    outputs = [o for c in cells if c.cell_type == "code" for o in c.outputs]
    return ["".join(o.data["text/html"]) for o in outputs if "text/html" in o.get("data", {})]


def text(outcome: Outcome) -> str:
    assert outcome.output is not None
    return outcome.output.read_text()


@pytest.fixture(autouse=True)
def mended(lab: ThrowawayLab) -> Iterator[None]:
    yield
    lab.mend()


def test_the_whole_sequence_is_green_twice(lab: ThrowawayLab) -> None:
    lab.reset("00")
    first = execute("00", "01", "02", "03", "04", "05")
    assert [outcome.status for outcome in first] == ["passed"] * 6, first
    assert "2 items to transfer: 1 file and 1 folder." in text(first[2])
    assert "Absent: of what the NFS server has, 1 name cannot be seen on the share." in text(first[4])
    second = execute("00", "01", "02", "03", "04", "05")
    assert [outcome.status for outcome in second] == ["passed"] * 6, second
    assert "Already there, with the same content" in text(second[1])
    assert "0 items to transfer" in text(second[2])
    assert "Already visible" in text(second[4])


@pytest.mark.parametrize("number", ["00", "01", "02", "03", "04", "05"])
def test_each_notebook_is_green_twice_in_a_row(lab: ThrowawayLab, number: str) -> None:
    lab.reset(number)
    folder = RunFolder.create("lab", "headless")
    for _ in range(2):
        (outcome,) = execute(number, folder=folder)
        assert outcome.ok, outcome.error


def test_the_undo_removes_the_file_and_its_object_when_asked(lab: ThrowawayLab) -> None:
    lab.reset("03")
    (undone,) = execute("01", undo=True, undo_object=True)
    assert undone.ok, undone.error
    assert not (lab.state / "application-server/mnt/data/new-image.jpg").exists()
    (looked,) = execute("03")
    assert (looked.status, "new-image.jpg is not there" in looked.error) == ("failed", True)


@pytest.mark.parametrize(
    ("at", "fault", "notebook", "check", "parameters"),
    [
        ("00", ["agent-offline"], "00", "The DataSync agent is online", {}),
        ("00", ["application-server-unreachable"], "00", "The application server answers and sees both mounts", {}),
        ("02", ["file-changes-during-copy", "--path", "new-image.jpg"], "02",
         "The execution succeeded and nothing failed", {}),
        ("02", ["unreadable-file", "--path", "new-image.jpg"], "02", "The execution succeeded and nothing failed", {}),
        ("04", ["refresh-event-lost"], "04", "The refresh is complete, or none was needed", {"timeout_minutes": 0.03}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)  # fmt: skip
def test_each_planted_fault_fails_its_check_and_is_green_when_mended(
    lab: ThrowawayLab, at: str, fault: list[str], notebook: str, check: str, parameters: dict[str, Any]
) -> None:
    lab.reset(at)
    lab.verb("break", *fault)
    (failed,) = execute(notebook, **parameters)
    assert failed.status == "check failed", failed
    found = verdicts(failed)
    assert found[check] == "FAIL"
    assert [name for name, verdict in found.items() if verdict == "FAIL"] == [check], "another check failed too"
    assert any(event["kind"] == "check" and event["verdict"] == "FAIL" for event in events(failed))
    lab.mend()
    (repaired,) = execute(notebook, **parameters)
    assert repaired.ok, repaired.error


def test_an_object_altered_behind_everyones_back_is_found_by_its_time(lab: ThrowawayLab) -> None:
    lab.reset("04")
    lab.verb("break", "object-altered")
    refreshed, verified = execute("04", "05")
    assert refreshed.ok, refreshed.error
    assert verdicts(verified)["Every file of the NFS server is on the share"] == "FAIL"
    assert "images/00002.jpg" in text(verified)
    copied, refreshed, verified = execute("02", "04", "05", scope="everything")  # DataSync itself repairs it
    assert copied.ok, copied.error
    assert "1 item to transfer" in text(copied)
    assert refreshed.ok, refreshed.error
    assert verified.ok, verified.error


def test_other_content_of_the_same_size_and_time_is_found_when_all_is_read(lab: ThrowawayLab) -> None:
    lab.reset("05")
    shown = lab.state / "application-server/mnt/fgw/images/00002.jpg"
    kept = shown.stat()
    shown.write_bytes(b"z" * kept.st_size)
    os.utime(shown, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    verified, read = execute("05"), execute("05", scope="everything")
    assert verified[0].ok, verified[0].error
    assert [name for name, verdict in verdicts(read[0]).items() if verdict == "FAIL"] == [
        "Every file in scope has the same content on both sides"
    ]
    assert "images/00002.jpg" in text(read[0])


def test_a_file_missing_in_the_bucket_fails_03(lab: ThrowawayLab) -> None:
    lab.reset("03")
    (lab.state / "application-server/mnt/data/images/not-copied.jpg").write_bytes(b"new")
    (looked,) = execute("03")
    assert verdicts(looked)["Every file of the NFS server is in the bucket"] == "FAIL"
    assert "images/not-copied.jpg" in text(looked)
    (shown,) = [page for page in pages(looked) if "<img" in page]  # the bars, and in words what they show
    alt = re.findall(r'<img alt="([^"]+)" src="data:image/png;base64,iVBORw0KGgo', shown)
    assert alt == ["Differences by top-level folder: images/ 2."]  # the file, and its folder by its time


def test_a_file_changed_in_place_reaches_the_application_although_no_name_is_absent(lab: ThrowawayLab) -> None:
    lab.reset("00")
    (lab.state / "application-server/mnt/data/images/00007.jpg").write_bytes(b"changed in place")
    outcomes = execute("01", "02", "04", "05", scope="everything")
    assert [outcome.status for outcome in outcomes] == ["passed"] * 4, outcomes


def test_another_name_in_a_folder_that_the_share_does_not_have_yet(lab: ThrowawayLab) -> None:
    lab.reset("00")
    folder = lab.state / "application-server/mnt/data/new folder"
    folder.mkdir()
    name = {"new_file": "new folder/copy of it.jpg", "path": "new folder/copy of it.jpg"}
    outcomes = execute("01", "02", "03", "04", "05", **name)
    assert [outcome.status for outcome in outcomes] == ["passed"] * 5, outcomes


def test_the_same_content_check_fails_on_a_file_that_differs(lab: ThrowawayLab) -> None:
    lab.reset("05")
    (lab.state / "application-server/mnt/data/new-image.jpg").write_bytes(b"changed meanwhile")
    (verified,) = execute("05")
    assert verdicts(verified)["The new file has the same content on both sides"] == "FAIL"


def test_a_name_missing_on_the_share_fails_the_listing(lab: ThrowawayLab) -> None:
    lab.reset("04")
    (verified,) = execute("05")
    assert verdicts(verified)["`ls` on the share shows the new file"] == "FAIL"
    assert "new-image.jpg is on the NFS server and not on the share" in text(verified)


def test_the_account_check_fails_in_another_account(lab: ThrowawayLab, tmp_path: Path) -> None:
    lab.reset("00")
    (looked,) = execute("00", environment=other_account(tmp_path))
    assert verdicts(looked)["AWS returns the environment's account"] == "FAIL"


def other_account(tmp_path: Path, **changes: Any) -> str:
    """The lab's environment file, but for another account."""
    data = yaml.safe_load((PACKAGE_ROOT / "parameters" / "lab.yaml").read_text())
    data.update({"environment": "other", "account": "999999999999", "confirm": "999999999999", **changes})
    path = tmp_path / "other.yaml"
    path.write_text(yaml.safe_dump(data))
    return str(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "these credentials belong to 123456789012"),
        ({"account": "123456789012", "confirm": None}, "`confirm` must name it"),
        ({"account": "123456789012", "confirm": "123456789012", "allow_changes": False}, "does not allow changes"),
    ],
    ids=["wrong account", "not confirmed", "changes off"],
)
def test_the_rails_stop_the_first_change(lab: ThrowawayLab, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    lab.reset("02")
    (stopped,) = execute("02", environment=other_account(tmp_path, **changes))
    assert stopped.status == "failed"
    assert "ChangeRefused" in stopped.error and said in stopped.error
    calls = [event["operation"] for event in events(stopped) if event["kind"] == "aws-call"]
    assert "StartTaskExecution" not in calls


def test_a_denied_rule_falls_back_to_ls(lab: ThrowawayLab) -> None:
    lab.reset("04")
    lab.verb("break", "events-denied")
    (refreshed,) = execute("04")
    assert refreshed.ok, refreshed.error
    assert "so `ls` decides" in text(refreshed)


def test_the_rule_and_the_queue_of_04_are_removed(lab: ThrowawayLab) -> None:
    lab.reset("04")
    (refreshed,) = execute("04")
    names = [event["operation"] for event in events(refreshed) if event["kind"] == "aws-call"]
    assert names.index("PutTargets") < names.index("RefreshCache") < names.index("DeleteRule")
    assert names.count("CreateQueue") == names.count("DeleteQueue") == 1


def test_every_record_states_endpoint_account_and_world(lab: ThrowawayLab) -> None:
    lab.reset("00")
    (looked,) = execute("00")
    calls = [event for event in events(looked) if event["kind"] == "aws-call"]
    assert calls
    for call in calls:
        assert (call["world"], call["account"]) == ("LAB", "123456789012")
        assert call["endpoint"].startswith("http://127.0.0.1:")
        assert call["request_id"]


def test_every_call_of_a_whole_run_is_in_the_policy_that_doctor_prints(lab: ThrowawayLab) -> None:
    from runbook_lib.permissions import ACTIONS, actions

    lab.reset("00")
    outcomes = execute("00", "01", "02", "03", "04", "05")
    renamed = {"s3:HeadObject": "s3:GetObject", "s3:ListObjectsV2": "s3:ListBucket"}
    for event in events(outcomes[0]):
        if event["kind"] in ("aws-call", "aws-calls"):
            action = f"{event['service']}:{event['operation']}"
            assert renamed.get(action, action) in actions([event["notebook"]]), (event["notebook"], action)
    assert set(ACTIONS) == {step.name for step in plan.steps()}


def test_an_enhanced_task_counts_its_file_and_its_folder_apart(lab: ThrowawayLab) -> None:
    lab.reset("01")
    datasync = client(lab, "datasync")
    (basic,) = datasync.list_tasks()["Tasks"]
    ends = datasync.describe_task(TaskArn=basic["TaskArn"])
    task = datasync.create_task(
        Name="enhanced", TaskMode="ENHANCED",
        SourceLocationArn=ends["SourceLocationArn"], DestinationLocationArn=ends["DestinationLocationArn"],
        Options={"VerifyMode": "ONLY_FILES_TRANSFERRED"},
    )["TaskArn"]  # fmt: skip
    first = datasync.start_task_execution(TaskArn=task)["TaskExecutionArn"]
    while datasync.describe_task_execution(TaskExecutionArn=first)["Status"] != "SUCCESS":
        time.sleep(0.02)
    created, copied = execute("01", "02", task="enhanced")
    (again,) = execute("02", task="enhanced")
    assert created.ok and copied.ok and again.ok, (created, copied, again)
    for said in ("1 file and 1 folder", "Folders transferred", "by a ENHANCED task execution"):
        assert said in text(copied), said
    assert "0 items to transfer" in text(again)


def test_a_wait_that_ends_leaves_the_execution_running_and_the_next_run_attaches(lab: ThrowawayLab) -> None:
    lab.reset("02")
    lab.verb("pace", "2")  # long enough for the second run to find it on a busy machine
    try:
        (ended,) = execute("02", timeout_minutes=0.01)
        assert (ended.status, "WaitTimedOut" in ended.error) == ("failed", True)
        assert "nothing was cancelled" in ended.error
        (attached,) = execute("02")
    finally:
        lab.verb("pace", "0")
    assert attached.ok, attached.error
    assert "was already running and was attached to" in text(attached)
    assert len(client(lab, "datasync").list_task_executions()["TaskExecutions"]) == 2


def test_a_role_is_assumed_and_named_in_the_record(lab: ThrowawayLab, tmp_path: Path) -> None:
    lab.reset("00")
    role = "arn:aws:iam::123456789012:role/MigrationOperator"
    account = {"account": "123456789012", "confirm": "123456789012"}
    (looked,) = execute("00", environment=other_account(tmp_path, role_arn=role, **account))
    assert looked.ok, looked.error
    (who,) = [event for event in events(looked) if event["kind"] == "identity"]
    assert who["arn"] == "arn:aws:sts::123456789012:assumed-role/MigrationOperator/migration-runbook"


def test_three_kernels_at_once(lab: ThrowawayLab) -> None:
    lab.reset("03")

    def one(number: str) -> int:
        command = [sys.executable, "-m", "runbook_lib.cli", "run", number]
        return subprocess.run(command, capture_output=True, cwd=PACKAGE_ROOT, check=False).returncode

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(one, ["00", "03", "04"])) == [0, 0, 0]


def test_plain_papermill_works_with_p_and_with_f_from_any_directory(lab: ThrowawayLab, tmp_path: Path) -> None:
    lab.reset("01")
    notebook = PACKAGE_ROOT / "notebooks" / "01_create_test_file.ipynb"
    for arguments in (["-p", "environment", "lab"], ["-f", str(PACKAGE_ROOT / "parameters" / "lab.yaml")]):
        done = subprocess.run(
            [sys.executable, "-m", "papermill", str(notebook), "out.ipynb", *arguments],
            capture_output=True, text=True, cwd=tmp_path, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]


def test_the_aws_command_line_walks_the_module(lab: ThrowawayLab) -> None:
    lab.reset("02")
    exports = dict(
        line.removeprefix("export ").replace("'", "").replace('"', "").split("=", 1)
        for line in lab.verb("env").splitlines()
        if line.startswith("export ")
    )
    program = shutil.which("aws", path=os.path.dirname(sys.executable)) or "aws"

    def aws(*arguments: str) -> Any:
        done = subprocess.run([program, *arguments, "--output", "json"], capture_output=True, text=True, check=False,
                              env={**os.environ, **exports, "AWS_PAGER": ""})  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout.lstrip().startswith(("{", "[")) else done.stdout

    (task,) = aws("datasync", "list-tasks")["Tasks"]
    started = aws("datasync", "start-task-execution", "--task-arn", task["TaskArn"])["TaskExecutionArn"]
    look = ("datasync", "describe-task-execution", "--task-execution-arn", started)
    while (seen := aws(*look))["Status"] not in ("SUCCESS", "ERROR"):
        pass
    assert (seen["Status"], seen["FilesTransferred"]) == ("SUCCESS", 2)
    assert "new-image.jpg" in aws("s3", "ls", "s3://migration-lab/")
    (share,) = aws("storagegateway", "list-file-shares")["FileShareInfoList"]
    aws("storagegateway", "refresh-cache", "--file-share-arn", share["FileShareARN"])
    (server,) = aws("ssm", "describe-instance-information", "--region", "eu-west-1")["InstanceInformationList"]
    for _ in range(50):
        command = ("--document-name", "AWS-RunShellScript", "--parameters", "commands=ls mnt/fgw")
        where = ("--region", "eu-west-1", "--instance-ids", server["InstanceId"])
        sent = aws("ssm", "send-command", *command, *where)["Command"]
        which = ("--region", "eu-west-1", "--command-id", sent["CommandId"], "--instance-id", server["InstanceId"])
        aws("ssm", "wait", "command-executed", *which)
        if "new-image.jpg" in aws("ssm", "get-command-invocation", *which)["StandardOutputContent"]:
            return
    raise AssertionError("the share never showed the new file")
