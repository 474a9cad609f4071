"""The command line: what a person types, what is printed, and the exit code."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runbook_lib import cli
from runbook_lib.settings import PACKAGE_ROOT
from tests import notebooks
from tests.throwaway import ThrowawayLab


def runbook(*arguments: str, cwd: Path = PACKAGE_ROOT) -> tuple[int, str]:
    """Exit code and everything printed."""
    command = [sys.executable, "-m", "runbook_lib.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)
    return done.returncode, done.stdout + done.stderr


def test_list_names_every_notebook_and_its_title() -> None:
    code, said = runbook("list")
    assert code == 0
    assert "04_refresh_gateway_cache" in said and "Refresh the file gateway's cache" in said


def test_doctor_says_that_everything_is_there_and_what_is_not(lab: ThrowawayLab) -> None:
    lab.reset("00")
    code, said = runbook("doctor")
    assert (code, said.count("PASS")) == (0, 5), said
    lab.verb("break", "agent-offline")
    code, said = runbook("doctor")
    lab.mend()
    assert code == 1
    assert "FAIL  agent online: offline: on-premises-agent" in said


def test_doctor_iam_prints_a_policy_that_names_our_own_rules_only() -> None:
    code, said = runbook("doctor", "--iam", "04")
    policy = json.loads(said)
    assert code == 0
    by_name = {statement["Sid"]: statement for statement in policy["Statement"]}
    assert "storagegateway:RefreshCache" in by_name["Regional"]["Action"]
    assert "datasync:StartTaskExecution" not in said
    assert all("migration-runbook-" in arn or "event-bus" in arn for arn in by_name["OursByName"]["Resource"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "--environment", "lob"), "Did you mean 'lab'?"),
        (("run", "02_run_datasync_tusk"), "Did you mean 02_run_datasync_task?"),
        (("run", "02", "-p", "timeout_minuts=3"), "Did you mean 'timeout_minutes'?"),
        (("run", "02", "-p", "timeout_minutes"), "write name=value"),
    ],
)
def test_bad_input_is_a_usage_error_that_names_the_nearest(arguments: tuple[str, ...], said: str) -> None:
    code, printed = runbook(*arguments)
    assert code == 2
    assert said in printed
    assert "Traceback" not in printed


def test_a_failed_check_is_exit_code_1_and_says_what_failed_and_how_to_go_on(lab: ThrowawayLab) -> None:
    lab.reset("00")
    lab.verb("break", "agent-offline")
    code, said = runbook("run", "00", "01")
    lab.mend()
    assert code == 1
    for part in (
        "CHECK FAILED",
        "The DataSync agent is online",
        "runbook lab mend agent-offline",
        "runbook run --resume",
        "not run",
    ):
        assert part in said, said


def test_an_error_of_aws_is_exit_code_3(lab: ThrowawayLab) -> None:
    lab.reset("00")
    code, said = runbook("run", "03", "-p", "task=another")
    assert code == 3
    assert "There is no DataSync task 'another' here" in said and "nfs-to-s3" in said


def test_a_bug_is_exit_code_4(lab: ThrowawayLab, tmp_path: Path) -> None:
    shutil.copytree(PACKAGE_ROOT / "parameters", tmp_path / "parameters")
    (tmp_path / "notebooks").mkdir()
    notebooks.notebook(tmp_path / "notebooks" / "00_a_bug.ipynb", "1 / 0", environment="lab")
    code, said = runbook("run", cwd=tmp_path)
    assert code == 4, said
    assert "ZeroDivisionError: division by zero" in said


def test_a_parameter_that_holds_a_secret_is_refused_with_the_way_to_name_one() -> None:
    code, said = runbook("run", "00", "-p", "db_password=hunter22")
    assert code == 2
    assert "db_password=secretsmanager:NAME" in said and "hunter22" not in said


def test_it_works_from_another_directory(lab: ThrowawayLab, tmp_path: Path) -> None:
    lab.reset("00")
    code, said = runbook("run", "00", cwd=tmp_path)
    assert code == 0, said


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("logs_since=2026-11-28T03:13:19Z", "2026-11-28T03:13:19Z"),
        ("logs_since=2026-11-28 03:13:19", "2026-11-28 03:13:19"),
        ("logs_since=2026-11-28", "2026-11-28"),
        ("account=012345678901", "012345678901"),
        ("timeout_minutes=0.5", "0.5"),
        ("exclude=[shop.a]", ["shop.a"]),
        ("history=0", 0),
        ("task=", None),
    ],
)
def test_a_parameter_is_read_as_yaml_but_times_and_numbers_that_begin_with_0_stay_text(pair: str, value: Any) -> None:
    assert cli._parameters([pair]) == {pair.partition("=")[0]: value}
