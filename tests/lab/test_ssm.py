"""SSM on the lab: commands really run, with SSM's states, limits and eventual consistency."""

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

import psutil
import pytest

from runbook_lib.lab.core import ACCOUNT, PREMISES_REGION, Folder, Lab
from runbook_lib.lab.protocol import Call, Refusal
from runbook_lib.lab.ssm import INVOCATION, Ssm


class SilentBus:
    """A bus that nobody listens to."""

    def emit(self, **event: Any) -> None: ...
    def log(self, **lines: Any) -> None: ...
    def metric(self, **point: Any) -> None: ...


class Server:
    """The service and its one instance."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.ssm = lab, Ssm(lab)
        self.instance = self.ssm.register("application-server")

    def ask(self, operation: str, **parameters: Any) -> dict[str, Any]:
        call = Call(operation, PREMISES_REGION, ACCOUNT, "me")
        answer: dict[str, Any] = json.loads(
            self.ssm.answer(f"AmazonSSM.{operation}", json.dumps(parameters).encode(), call)
        )
        return answer

    def send(self, *lines: str, **parameters: list[str]) -> str:
        sent = self.ask("SendCommand", InstanceIds=[self.instance], DocumentName="AWS-RunShellScript",
                        Parameters={"commands": list(lines), **parameters})  # fmt: skip
        command: str = sent["Command"]["CommandId"]
        return command

    def ended(self, command: str) -> dict[str, Any]:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                seen = self.ask("GetCommandInvocation", CommandId=command, InstanceId=self.instance)
            except Refusal as refusal:
                assert refusal.code == "InvocationDoesNotExist"
            else:
                if seen["Status"] not in ("Pending", "InProgress"):
                    return seen
            time.sleep(0.02)
        raise AssertionError("the command did not end")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(Lab(Folder(tmp_path), SilentBus()))
    yield made
    made.ssm.stop()


def test_a_command_really_runs_in_the_servers_home(server: Server) -> None:
    seen = server.ended(server.send("touch made && pwd -P"))
    assert (seen["Status"], seen["ResponseCode"]) == ("Success", 0)
    assert Path(seen["StandardOutputContent"].strip()) == server.lab.folder.application.resolve()
    assert (server.lab.folder.application / "made").exists()


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b"])
def test_a_text_that_no_command_can_hold_is_refused(server: Server, text: str) -> None:
    for attempt in ({"commands": [text]}, {"commands": ["true"], "workingDirectory": [text]}):
        with pytest.raises(Refusal, match="NUL") as refused:
            server.send(*attempt.pop("commands"), **attempt)
        assert refused.value.code == "InvalidParameters"


def test_a_script_has_a_limit(server: Server) -> None:
    assert server.ended(server.send("#" * 100_000))["Status"] == "Success"
    with pytest.raises(Refusal, match="100000 bytes"):
        server.send("#" * 50_000, "#" * 50_000)


def test_a_directory_that_is_not_there_is_told_without_the_machines_paths(server: Server) -> None:
    seen = server.ended(server.send("true", workingDirectory=["nowhere"]))
    assert seen["Status"] == "Failed" and "No such file or directory" in seen["StandardErrorContent"]
    assert "/" not in seen["StandardErrorContent"]


def test_a_command_that_the_lab_cannot_run_ends(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr("runbook_lib.lab.ssm.run_command", broken)
    assert server.ended(server.send("true"))["Status"] == "Failed"
    assert not server.ssm._running


def test_just_after_sending_the_invocation_does_not_exist(server: Server) -> None:
    command = server.send("true")
    with pytest.raises(Refusal) as refused:
        server.ask("GetCommandInvocation", CommandId=command, InstanceId=server.instance)
    assert refused.value.code == "InvocationDoesNotExist"
    assert server.ended(command)["Status"] == "Success"


def test_a_failing_command_keeps_its_exit_status_and_output(server: Server) -> None:
    seen = server.ended(server.send("echo before; ls missing"))
    assert (seen["Status"], seen["StatusDetails"], seen["ResponseCode"]) == ("Failed", "Failed", 2)
    assert seen["StandardOutputContent"] == "before\n"
    assert "missing" in seen["StandardErrorContent"]


def test_output_is_cut_at_24000_and_8000_characters(server: Server) -> None:
    seen = server.ended(
        server.send("i=0; while [ $i -lt 3000 ]; do echo 0123456789; echo 0123456789 >&2; i=$((i+1)); done")
    )
    assert len(seen["StandardOutputContent"]) == 24_000
    assert len(seen["StandardErrorContent"]) == 8_000


def test_the_execution_timeout_ends_a_command_and_its_children(server: Server) -> None:
    seen = server.ended(server.send(f"sleep {own(987)} & sleep {own(986)}", executionTimeout=["1"]))
    assert (seen["Status"], seen["StatusDetails"]) == ("TimedOut", "ExecutionTimedOut")
    assert not asleep(own(986), own(987))


def test_a_child_that_left_the_session_does_not_keep_the_command_waiting(server: Server) -> None:
    leave = "import os, time; os.setsid(); open('left', 'w').write(str(os.getpid())); time.sleep(60)"
    seen = server.ended(server.send(f"""{sys.executable} -c "{leave}" & until test -s left; do sleep 0.02; done"""))
    assert seen["Status"] == "Success"
    os.kill(int((server.lab.folder.application / "left").read_text()), signal.SIGKILL)  # it is still there


def test_a_cancelled_command_ends(server: Server) -> None:
    command = server.send(f"sleep {own(985)}")
    deadline = time.monotonic() + 10
    while not asleep(own(985)) and time.monotonic() < deadline:
        time.sleep(0.02)
    server.ask("CancelCommand", CommandId=command)
    assert server.ended(command)["Status"] == "Cancelled"


def test_no_credentials_reach_the_command(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "never-to-be-seen")
    assert "never-to-be-seen" not in server.ended(server.send("env"))["StandardOutputContent"]


def test_an_unreachable_server_is_said_and_refuses_commands(server: Server) -> None:
    server.lab.database.set("faults", {"application-server-unreachable": {}})
    (seen,) = server.ask("DescribeInstanceInformation")["InstanceInformationList"]
    assert seen["PingStatus"] == "ConnectionLost"
    with pytest.raises(Refusal) as refused:
        server.send("true")
    assert refused.value.code == "InvalidInstanceId"


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"InstanceIds": ["mi-00000000000000000"]}, "InvalidInstanceId"),
        ({"DocumentName": "AWS-RunPowerShellScript"}, "InvalidDocument"),
        ({"Parameters": {}}, "InvalidParameters"),
        ({"Parameters": {"commands": ["true"], "executionTimeout": ["soon"]}}, "InvalidParameters"),
        ({"Parameters": {"commands": "true"}}, "ValidationException"),
    ],
)
def test_a_bad_request_is_refused_with_ssms_own_code(server: Server, parameters: dict[str, Any], code: str) -> None:
    good = {
        "InstanceIds": [server.instance],
        "DocumentName": "AWS-RunShellScript",
        "Parameters": {"commands": ["true"]},
    }
    with pytest.raises(Refusal) as refused:
        server.ask("SendCommand", **{**good, **parameters})
    assert refused.value.code == code


def test_what_was_running_when_the_daemon_was_killed_is_said_to_have_failed(server: Server) -> None:
    server.lab.database.put(INVOCATION, f"c/{server.instance}", {
        "CommandId": "c", "InstanceId": server.instance, "Status": "InProgress", "Requested": 0.0,
    })  # fmt: skip
    Ssm(server.lab).start()
    found = server.lab.database.get(INVOCATION, f"c/{server.instance}")
    assert found is not None
    assert (found["Status"], found["StatusDetails"]) == ("Failed", "Terminated")


def test_a_command_dies_with_the_daemon(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path\n"
        "from runbook_lib.lab.commands import Command\n"
        "command = Command('sleep ' + sys.argv[2], Path(sys.argv[1]), 100); command.launch()\n"
        "print('up', flush=True); time.sleep(60)\n"
    )
    daemon = subprocess.Popen([sys.executable, "-c", program, str(tmp_path), own(984)], stdout=subprocess.PIPE)
    assert daemon.stdout is not None
    daemon.stdout.readline()
    deadline = time.monotonic() + 10
    while not asleep(own(984)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert asleep(own(984))
    os.kill(daemon.pid, signal.SIGKILL)
    daemon.wait()
    daemon.stdout.close()
    deadline = time.monotonic() + 10
    while asleep(own(984)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not asleep(own(984))


def asleep(*seconds: str) -> bool:
    """Does a `sleep` of this many seconds run?"""
    wanted = [["sleep", each] for each in seconds]
    return any(process.info["cmdline"] in wanted for process in psutil.process_iter(["cmdline"]))


def own(seconds: int) -> str:
    """Seconds that no other test run on this machine sleeps for."""
    return f"{seconds}.{os.getpid()}"
