"""Run Command on the lab's application server: SSM's states and limits around a command that really runs."""

from __future__ import annotations

import json
import logging
import re
import threading
import uuid
from datetime import UTC, datetime
from typing import Any

from .commands import Command, Done, run_command
from .core import Lab
from .protocol import UNWRITABLE, Call, Refusal, Service, page

INSTANCE = "ssm.instance"
INVOCATION = "ssm.invocation"
STDOUT_LIMIT = 24_000  # characters kept (SSM API, GetCommandInvocation)
STDERR_LIMIT = 8_000
SCRIPT_LIMIT = 100_000  # bytes; about what SSM takes, and less than Linux takes in one argument
DEFAULT_TIMEOUT = "3600"  # seconds: AWS-RunShellScript's executionTimeout
VISIBLE_AFTER = 0.05  # seconds in which GetCommandInvocation does not know a command yet
FINAL = {"Success", "Failed", "TimedOut", "Cancelled"}

log = logging.getLogger(__name__)


class Ssm(Service):
    """SSM: managed instances and Run Command."""

    name = "ssm"
    invalid = "ValidationException"

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self._running: dict[str, Command] = {}
        self._lock = threading.Lock()

    def start(self) -> None:
        """What ran when the daemon was killed was killed with it: say so."""
        for body in self.lab.database.all(INVOCATION):
            if body["Status"] not in FINAL:
                self._finish(body["CommandId"], "Failed", "Terminated", -1, "", "The lab was stopped while this ran.")

    def stop(self) -> None:
        """End every running command."""
        with self._lock:
            running = list(self._running.values())
        for command in running:
            command.kill()

    # instances

    def register(self, name: str) -> str:
        """Make the application server a managed instance; its id. Called by the world."""
        identity = f"mi-{uuid.uuid4().hex[:17]}"
        self.lab.database.put(INSTANCE, identity, {"InstanceId": identity, "Name": name, "RegistrationDate": _now()})
        return identity

    def _instances(self) -> list[dict[str, Any]]:
        unreachable = self.lab.fault("application-server-unreachable") is not None
        return [
            {
                **instance,
                "PingStatus": "ConnectionLost" if unreachable else "Online",
                "LastPingDateTime": instance["RegistrationDate"] if unreachable else _now(),
                "AgentVersion": "3.3.0.0",
                "IsLatestVersion": True,
                "PlatformType": "Linux",
                "ResourceType": "ManagedInstance",
                "ComputerName": instance["Name"],
                "IPAddress": "127.0.0.1",
            }
            for instance in self.lab.database.all(INSTANCE)
        ]

    def describe_instance_information(self, parameters: dict[str, Any], call: Call) -> dict[str, Any]:
        """Managed instances, filtered."""
        found = self._instances()
        filters = [(f["Key"], f["Values"]) for f in parameters.get("Filters", [])]
        filters += [(f["key"], f["valueSet"]) for f in parameters.get("InstanceInformationFilterList", [])]
        members = {"InstanceIds": "InstanceId", "PingStatus": "PingStatus", "PlatformTypes": "PlatformType",
                   "ResourceType": "ResourceType", "AgentVersion": "AgentVersion", "tag:Name": "Name"}  # fmt: skip
        for key, values in filters:
            if key not in members:
                raise Refusal("InvalidFilterKey", f"The lab does not filter instances by {key!r}.")
            found = [instance for instance in found if instance.get(members[key]) in values]
        rows, token = page(found, parameters, size="MaxResults", token="NextToken", default=10)
        return {"InstanceInformationList": rows, "NextToken": token}

    def _targets(self, parameters: dict[str, Any]) -> list[str]:
        wanted = list(parameters.get("InstanceIds") or [])
        online = {i["InstanceId"]: i for i in self._instances() if i["PingStatus"] == "Online"}
        for target in parameters.get("Targets") or []:
            key, values = target.get("Key", ""), target.get("Values", [])
            member = {"InstanceIds": "InstanceId", "tag:Name": "Name"}.get(key)
            if member is None:
                raise Refusal("InvalidTarget", f"The lab does not target instances by {key!r}.")
            wanted += [identity for identity, instance in online.items() if instance[member] in values]
        unknown = [identity for identity in wanted if identity not in online]
        if unknown or not wanted:
            raise Refusal(
                "InvalidInstanceId", f"Instances {unknown} not in a valid state for account {self.lab.account}"
            )
        return wanted

    # commands

    def send_command(self, parameters: dict[str, Any], call: Call) -> dict[str, Any]:
        """Run AWS-RunShellScript's commands, each invocation on a thread of its own."""
        if parameters["DocumentName"] not in ("AWS-RunShellScript",):
            raise Refusal(
                "InvalidDocument", f"The lab runs AWS-RunShellScript, not {parameters['DocumentName'][:100]!r}."
            )
        given = parameters.get("Parameters") or {}
        unknown = set(given) - {"commands", "workingDirectory", "executionTimeout"}
        if unknown or not given.get("commands"):
            raise Refusal(
                "InvalidParameters", f"AWS-RunShellScript needs commands and does not know {sorted(unknown)}."
            )
        script = "\n".join(given["commands"])
        directory = (given.get("workingDirectory") or [""])[0]
        if UNWRITABLE.search(script + directory):
            raise Refusal("InvalidParameters", "commands and workingDirectory may not have NUL or lone surrogates.")
        if len(script.encode()) > SCRIPT_LIMIT:
            raise Refusal("InvalidParameters", f"commands may have {SCRIPT_LIMIT} bytes, not {len(script.encode())}.")
        timeout = (given.get("executionTimeout") or [DEFAULT_TIMEOUT])[0]
        if not re.fullmatch(r"[1-9][0-9]{0,5}", timeout) or int(timeout) > 172_800:
            raise Refusal("InvalidParameters", f"executionTimeout is 1 to 172800 seconds, not {timeout[:20]!r}.")
        targets = self._targets(parameters)
        command = str(uuid.uuid4())
        for instance in targets:
            body = {
                "CommandId": command,
                "InstanceId": instance,
                "Comment": parameters.get("Comment", ""),
                "Parameters": given,
                "TimeoutSeconds": parameters.get("TimeoutSeconds", 3600),
                "Requested": _now(),
                "Status": "Pending",
                "StatusDetails": "Pending",
                "ResponseCode": -1,
                "StandardOutputContent": "",
                "StandardErrorContent": "",
            }
            self.lab.database.put(INVOCATION, f"{command}/{instance}", body)
            threading.Thread(
                target=self._run, args=(command, instance, script, directory, int(timeout)), daemon=True
            ).start()
        return {"Command": self._command(command)}

    def _run(self, command: str, instance: str, script: str, directory: str, timeout: int) -> None:
        key = f"{command}/{instance}"
        with self._lock:
            if self.lab.database.get(INVOCATION, key) is None:  # the lab was reset meanwhile
                return
            running = Command(script, self.lab.folder.application / directory, timeout)
            self._running[key] = running
        self.lab.database.update(INVOCATION, key, Status="InProgress", StatusDetails="InProgress", Began=_now())
        try:
            done = run_command(running, STDOUT_LIMIT, STDERR_LIMIT)
        except Exception:
            log.exception("The command %s could not be run", command)
            running.kill()
            done = Done(-1, "", "The lab could not run this; `runbook lab logs` has the reason.\n", False, False)
        if done.cancelled:
            status, details = "Cancelled", "Cancelled"
        elif done.timed_out:
            status, details = "TimedOut", "ExecutionTimedOut"
        else:
            status = details = "Success" if done.exit_status == 0 else "Failed"
        with self._lock:
            self._running.pop(key, None)
        self._finish(command, status, details, done.exit_status, done.output, done.errors, instance)

    def _finish(
        self, command: str, status: str, details: str, code: int, output: str, errors: str, instance: str | None = None
    ) -> None:
        for body in self._invocations(command):
            if instance in (None, body["InstanceId"]):
                self.lab.database.update(
                    INVOCATION,
                    f"{command}/{body['InstanceId']}",
                    Status=status,
                    StatusDetails=details,
                    ResponseCode=code,
                    StandardOutputContent=output,
                    StandardErrorContent=errors,
                    Ended=_now(),
                )

    def _invocations(self, command: str) -> list[dict[str, Any]]:
        query = "select body from documents where kind = ? and id > ? and id < ? order by sequence"
        rows = self.lab.database.read(query, (INVOCATION, f"{command}/", f"{command}0"))
        return [json.loads(row["body"]) for row in rows]

    def get_command_invocation(self, parameters: dict[str, Any], call: Call) -> dict[str, Any]:
        """One invocation; just after sending it does not exist yet, as at AWS."""
        key = f"{parameters['CommandId']}/{parameters['InstanceId']}"
        body = self.lab.database.get(INVOCATION, key)
        if body is None or _now() - body["Requested"] < VISIBLE_AFTER:
            raise Refusal("InvocationDoesNotExist", "")
        began, ended = body.get("Began"), body.get("Ended")
        return {
            "CommandId": body["CommandId"],
            "InstanceId": body["InstanceId"],
            "Comment": body["Comment"],
            "DocumentName": "AWS-RunShellScript",
            "DocumentVersion": "1",
            "PluginName": "aws:runShellScript",
            "ResponseCode": body["ResponseCode"],
            "ExecutionStartDateTime": _iso(began) if began else "",
            "ExecutionEndDateTime": _iso(ended) if ended else "",
            "ExecutionElapsedTime": f"PT{ended - began:.3f}S" if began and ended else "",
            "Status": body["Status"],
            "StatusDetails": body["StatusDetails"],
            "StandardOutputContent": body["StandardOutputContent"],
            "StandardErrorContent": body["StandardErrorContent"],
            "StandardOutputUrl": "",
            "StandardErrorUrl": "",
        }

    def _command(self, command: str) -> dict[str, Any]:
        found = self._invocations(command)
        ended = [body for body in found if body["Status"] in FINAL]
        status = "InProgress" if len(ended) < len(found) else ended[0]["Status"]
        return {
            "CommandId": command,
            "DocumentName": "AWS-RunShellScript",
            "DocumentVersion": "1",
            "Comment": found[0]["Comment"],
            "ExpiresAfter": found[0]["Requested"] + found[0]["TimeoutSeconds"],
            "Parameters": found[0]["Parameters"],
            "InstanceIds": [body["InstanceId"] for body in found],
            "RequestedDateTime": found[0]["Requested"],
            "Status": "Pending" if all(body["Status"] == "Pending" for body in found) else status,
            "StatusDetails": "Pending" if all(body["Status"] == "Pending" for body in found) else status,
            "TargetCount": len(found),
            "CompletedCount": len(ended),
            "ErrorCount": sum(body["Status"] != "Success" for body in ended),
            "TimeoutSeconds": found[0]["TimeoutSeconds"],
        }

    def list_commands(self, parameters: dict[str, Any], call: Call) -> dict[str, Any]:
        """Commands, newest first."""
        every = list(dict.fromkeys(body["CommandId"] for body in reversed(self.lab.database.all(INVOCATION))))
        wanted = [c for c in every if parameters.get("CommandId") in (None, c)]
        rows, token = page(wanted, parameters, size="MaxResults", token="NextToken", default=50)
        return {"Commands": [self._command(command) for command in rows], "NextToken": token}

    def list_command_invocations(self, parameters: dict[str, Any], call: Call) -> dict[str, Any]:
        """Invocations, newest first; with Details their output (cut at 2,500 characters, as at AWS)."""
        found = [
            body
            for body in reversed(self.lab.database.all(INVOCATION))
            if parameters.get("CommandId") in (None, body["CommandId"])
            and parameters.get("InstanceId") in (None, body["InstanceId"])
        ]
        rows, token = page(found, parameters, size="MaxResults", token="NextToken", default=50)
        return {
            "CommandInvocations": [_listed(body, bool(parameters.get("Details"))) for body in rows],
            "NextToken": token,
        }

    def cancel_command(self, parameters: dict[str, Any], call: Call) -> dict[str, Any]:
        """Ask the running invocations of a command to end."""
        found = self._invocations(parameters["CommandId"])
        if not found:
            raise Refusal("InvalidCommandId", f"There is no command {parameters['CommandId']}.")
        for body in found:
            with self._lock:
                running = self._running.get(f"{body['CommandId']}/{body['InstanceId']}")
            if running is not None and body["InstanceId"] in (parameters.get("InstanceIds") or [body["InstanceId"]]):
                running.cancel()
        return {}


def _listed(body: dict[str, Any], details: bool) -> dict[str, Any]:
    row = {
        "CommandId": body["CommandId"],
        "InstanceId": body["InstanceId"],
        "Comment": body["Comment"],
        "DocumentName": "AWS-RunShellScript",
        "DocumentVersion": "1",
        "RequestedDateTime": body["Requested"],
        "Status": body["Status"],
        "StatusDetails": body["StatusDetails"],
    }
    if details:
        row["CommandPlugins"] = [
            {
                "Name": "aws:runShellScript",
                "Status": body["Status"],
                "StatusDetails": body["StatusDetails"],
                "ResponseCode": body["ResponseCode"],
                "ResponseStartDateTime": body.get("Began"),
                "ResponseFinishDateTime": body.get("Ended"),
                "Output": (body["StandardOutputContent"] + body["StandardErrorContent"])[:2500],
            }
        ]
    return row


def _now() -> float:
    return datetime.now(UTC).timestamp()


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
