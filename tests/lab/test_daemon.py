"""The lab's life: started once whoever calls, found again, killed, reset, stopped without a trace."""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import botocore.config
import pytest

from runbook_lib.lab.connection import holding
from runbook_lib.lab.core import Folder


@dataclass
class StateFolder:
    """A lab's state folder and the command line on it."""

    path: Path

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*arguments), capture_output=True, text=True, check=check, timeout=120)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "runbook_lib.lab", *arguments, "--state", str(self.path)]

    def start(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("start", "--json").stdout)
        return found

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("status", "--json").stdout)
        return found

    def client(self, service: str) -> Any:
        connection = json.loads((self.path / "connection.json").read_text())
        return boto3.client(
            service,
            endpoint_url=connection["url"],
            region_name=connection["regions"]["cloud"],
            aws_access_key_id=connection["access_key"],
            aws_secret_access_key=connection["secret_key"],
            config=botocore.config.Config(retries={"max_attempts": 0}, proxies={}),
        )


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StateFolder]:
    folder = StateFolder(tmp_path_factory.mktemp("lab") / "state")
    yield folder
    folder.run("stop")


@pytest.fixture
def lab(state: StateFolder) -> StateFolder:
    """A running lab."""
    state.start()
    return state


def gone(pid: int) -> bool:
    """Whether it has ended; an ended process may wait for a lazy init as a zombie."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return not state or state.startswith("Z")


def descendants(pid: int) -> list[int]:
    listing = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = [(int(child), int(parent)) for child, parent in (line.split() for line in listing.splitlines())]
    direct = [child for child, parent in parents if parent == pid]
    return direct + [far for child in direct for far in descendants(child)]


def test_three_starts_at_once_give_one_daemon(state: StateFolder) -> None:
    starts = [subprocess.Popen(state.command("start", "--json"), stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = [json.loads(process.communicate(timeout=120)[0]) for process in starts]
    assert answers[0] == answers[1] == answers[2] and not gone(answers[0]["pid"])
    assert state.start() == answers[0]


def test_the_connection_is_for_its_owner_only(lab: StateFolder) -> None:
    assert stat.S_IMODE((lab.path / "connection.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(lab.path.stat().st_mode) == 0o700
    connection = json.loads((lab.path / "connection.json").read_text())
    assert set(connection) == {"url", "access_key", "secret_key", "regions", "account", "pid"}
    assert connection["url"].startswith("http://127.0.0.1:")


def test_a_second_daemon_on_the_same_folder_is_refused(lab: StateFolder) -> None:
    from runbook_lib.errors import LabError

    with pytest.raises(LabError, match="Another process"), holding(Folder(lab.path), "lab", patience=0):
        pytest.fail("two daemons")


def test_status_and_env_say_where_the_lab_is(lab: StateFolder) -> None:
    connection, status = lab.start(), lab.status()
    assert status["running"] and status["url"] == connection["url"] and status["pid"] == connection["pid"]
    assert status["counts"]["datasync.task"] == 1 and status["counts"]["objects in migration-lab"] >= 200
    assert f"export AWS_ENDPOINT_URL={connection['url']}\n" in lab.run("env").stdout
    assert connection["secret_key"] not in lab.run("status").stdout + lab.run("start").stdout


def test_a_killed_daemon_is_started_again_with_the_same_keys_port_and_objects(lab: StateFolder) -> None:
    before = lab.start()
    lab.client("s3").put_object(Bucket="migration-lab", Key="acknowledged", Body=b"kept")
    os.kill(before["pid"], signal.SIGKILL)
    after = lab.start()
    assert after["pid"] != before["pid"]
    assert {**after, "pid": 0} == {**before, "pid": 0}
    assert lab.client("s3").get_object(Bucket="migration-lab", Key="acknowledged")["Body"].read() == b"kept"
    assert lab.client("logs").describe_log_groups()["logGroups"][0]["logGroupName"] == "/aws/datasync"


def test_a_reset_while_it_runs_keeps_keys_port_and_pace(lab: StateFolder) -> None:
    before = lab.start()
    lab.run("pace", "0.25")
    lab.client("s3").put_object(Bucket="migration-lab", Key="mine", Body=b"x")
    lab.client("sqs").create_queue(QueueName="mine")
    lab.run("reset", "--at", "02")
    assert lab.start() == {**before, "pace": 0.25} and lab.status()["world"]["at"] == "02"
    assert "Contents" not in lab.client("s3").list_objects_v2(Bucket="migration-lab", Prefix="mine")
    assert not lab.client("sqs").list_queues().get("QueueUrls")
    assert lab.client("sts").get_caller_identity()["Arn"].endswith(":user/participant")
    lab.run("pace", "0")


def test_faults_are_planted_and_mended(lab: StateFolder) -> None:
    said = lab.run("break", "agent-offline").stdout
    assert "00: The DataSync agent is online" in said and "runbook run 00" in said and "mend agent-offline" in said
    assert list(lab.status()["faults"]) == ["agent-offline"]
    lab.run("mend")
    assert lab.status()["faults"] == {}
    wrong = lab.run("break", "agent-ofline", check=False)
    assert wrong.returncode == 1 and "agent-offline" in wrong.stderr and "Traceback" not in wrong.stderr


def test_wrong_verbs_and_wrong_worlds_are_clear(lab: StateFolder) -> None:
    assert lab.run("brew", check=False).returncode == 2
    wrong = lab.run("reset", "--at", "99", check=False)
    assert wrong.returncode == 1 and "99" in wrong.stderr and wrong.stderr.count("\n") == 1


def test_faults_are_listed_with_what_happens_and_what_fails(lab: StateFolder) -> None:
    said = lab.run("break").stdout
    assert said.count("  happens  ") == said.count("  fails    ") == 16 and "object-altered" in said
    assert lab.status()["faults"] == {}


def test_a_pace_is_a_number_and_4_is_04(lab: StateFolder) -> None:
    wrong = lab.run("pace", "fast", check=False)
    assert wrong.returncode == 2 and "'fast' is no pace: give a number from 0" in wrong.stderr
    assert "notebook 04" in lab.run("reset", "--at", "4").stdout and lab.status()["world"]["at"] == "04"


def test_stop_leaves_nothing_running_and_the_state_stays(lab: StateFolder) -> None:
    pid, port = lab.start()["pid"], int(lab.start()["url"].rpartition(":")[2])
    children = descendants(pid)
    lab.run("stop")
    assert gone(pid) and all(gone(child) for child in children)
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.1", port))
    assert not lab.status()["running"] and "No lab was running" in lab.run("stop").stdout
    squatter = http.server.HTTPServer(("127.0.0.1", port), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=squatter.serve_forever, args=(0.01,)).start()
    moved = lab.start()
    squatter.shutdown()
    squatter.server_close()
    assert not moved["url"].endswith(f":{port}") and lab.status()["counts"]["datasync.task"] == 1


def test_verbs_work_while_no_lab_runs(lab: StateFolder) -> None:
    lab.run("stop")
    lab.run("pace", "0.5")
    lab.run("reset", "--at", "01")
    lab.run("break", "refresh-event-lost")
    lab.start()
    status = lab.status()
    assert status["pace"] == 0.5 and status["world"]["at"] == "01" and "refresh-event-lost" in status["faults"]
    lab.run("mend")
    lab.run("pace", "0")


def test_sigterm_ends_the_daemon_cleanly(lab: StateFolder) -> None:
    pid = lab.start()["pid"]
    os.kill(pid, signal.SIGTERM)
    with holding(Folder(lab.path), "lab", patience=15):
        assert "The lab has stopped" in lab.run("logs").stdout.splitlines()[-1]


def test_a_lab_that_cannot_start_says_why_and_leaves_no_process(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / "damaged")
    folder.path.mkdir()
    (folder.path / "lab.sqlite").write_bytes(b"not a database" * 1000)
    failed = folder.run("start", check=False)
    assert failed.returncode == 1 and "not a database" in failed.stderr and failed.stderr.count("\n") == 1
    assert not folder.status()["running"]
    processes = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(folder.path) not in processes
