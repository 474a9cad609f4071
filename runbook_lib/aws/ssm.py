"""Run a command on a managed instance through SSM Run Command."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..display import Progress
from ..errors import Ambiguous, AwsError, NotFound
from ..waiting import wait_until
from .client import Session

STILL_GOING = {"Pending", "InProgress", "Delayed", "Cancelling", "Unknown"}


@dataclass(frozen=True)
class Instance:
    """A managed instance as SSM sees it."""

    instance_id: str
    name: str
    ping: str  # Online, ConnectionLost, Inactive


class RunCommand:
    """SSM in one region, held open."""

    def __init__(
        self,
        session: Session,
        region: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = session.client("ssm", region)
        self._starter = session.client("ssm", region, starts=True)
        self._record = session.record
        self._clock, self._sleep = clock, sleep

    def instances(self) -> list[Instance]:
        """Every managed instance of the region."""
        listed = self._client.pages("describe_instance_information", "InstanceInformationList")
        return [
            Instance(item["InstanceId"], item.get("Name") or item.get("ComputerName", ""), item["PingStatus"])
            for item in listed
        ]

    def instance(self, name: str) -> Instance:
        """A managed instance by id, name or computer name."""
        instances = self.instances()
        fitting = [i for i in instances if name in (i.instance_id, i.name)]
        if not fitting and "*" not in name:  # EC2 instances are called by their Name tag, which is not in the list
            tagged = self._client.look(
                "describe_instance_information", Filters=[{"Key": "tag:Name", "Values": [name]}]
            )["InstanceInformationList"]
            fitting = [Instance(item["InstanceId"], name, item["PingStatus"]) for item in tagged]
        candidates = ", ".join(sorted(f"{i.name or i.instance_id} ({i.ping})" for i in instances)) or "none"
        if not fitting:
            raise NotFound(
                f"SSM manages no instance {name!r} in this region; it manages: {candidates}. Is the region of the "
                "application server right (`regions: premises`), and does its role have AmazonSSMManagedInstanceCore?"
            )
        if len(fitting) > 1:
            raise Ambiguous(f"Several managed instances are called {name!r}; give the instance id.")
        return fitting[0]

    def run(self, instance_id: str, script: str, *, timeout: int, changes: bool) -> tuple[int, str, str]:
        """Exit status, standard output and standard error of a shell script run as root by sh.

        `timeout` in seconds bounds the command's run (its executionTimeout). Standard output is cut at
        24,000 characters, standard error at 8,000 (SSM user guide).
        """
        send = self._starter.change if changes else self._client.look  # looking twice does no harm: SDK retries
        try:
            sent = send(
                "send_command",
                InstanceIds=[instance_id],
                DocumentName="AWS-RunShellScript",
                Parameters={"commands": [script], "executionTimeout": [str(timeout)]},
                TimeoutSeconds=max(timeout, 30),
            )
        except AwsError as error:
            if error.code == "InvalidInstanceId":
                raise AwsError(
                    f"The application server {instance_id} cannot be reached through SSM: {error}. "
                    "Is it running, and is its SSM agent online? Then run this cell again.",
                    code=error.code,
                ) from error
            raise
        command = sent["Command"]["CommandId"]
        progress = Progress("Command on the application server")
        answer = wait_until(
            lambda: self._invocation(command, instance_id),
            lambda seen: seen["Status"] not in STILL_GOING,
            timeout=timeout + 60,
            what=f"command {command} on {instance_id}",
            advice="Look at it with `aws ssm get-command-invocation`, then run this cell again.",
            heartbeat=lambda seen, elapsed: progress.beat(seen["Status"], elapsed) if elapsed > 2 else None,
            first=0.05,
            longest=5,
            clock=self._clock,
            sleep=self._sleep,
        )
        self._record("command", id=command, instance=instance_id, status=answer["Status"], exit=answer["ResponseCode"])
        if answer["ResponseCode"] == -1:
            raise AwsError(
                f"The command did not run on {instance_id}: {answer['Status']} ({answer.get('StatusDetails', '')})."
                f" {answer.get('StandardErrorContent', '')}".rstrip(),
                code=answer["Status"],
            )
        return answer["ResponseCode"], answer.get("StandardOutputContent", ""), answer.get("StandardErrorContent", "")

    def _invocation(self, command: str, instance_id: str) -> dict[str, Any]:
        try:
            return self._client.look("get_command_invocation", CommandId=command, InstanceId=instance_id)
        except AwsError as error:
            if error.code == "InvocationDoesNotExist":  # normal just after sending: SSM is eventually consistent
                return {"Status": "Unknown"}
            raise
