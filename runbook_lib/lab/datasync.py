"""The lab's DataSync: what does StartTaskExecution set off, what waits its turn, and how did it end?"""

from __future__ import annotations

import secrets
import time
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from ..errors import LabError
from .datasync_options import complete, invalid
from .datasync_resources import EXECUTION, LOCATION, TASK, Document, chosen, merged, now
from .datasync_runs import Run, counters_shown, emit_state
from .datasync_tasks import TERMINAL, Tasks
from .protocol import Call
from .transfer_channel import Counters

if TYPE_CHECKING:
    from .core import Lab

MAX_QUEUED = 50  # executions of a task (DataSync user guide, quotas)
_SHOWN = (
    "TaskExecutionArn", "Status", "Options", "Includes", "Excludes", "StartTime", "LaunchTime", "EndTime", "Result",
    "TaskReportConfig", "ReportResult", "TaskMode",
)  # fmt: skip


class DataSync(Tasks):
    """Executions, on top of agents, locations and tasks."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self._runs: dict[str, Run] = {}

    def start(self) -> None:
        """End the executions that a killed daemon left: what it had committed stays, nothing goes on."""
        with self.lock:
            for execution in self.lab.database.all(EXECUTION):
                if execution["Status"] not in TERMINAL:
                    self._give_up(execution, "LabStopped", "The lab was stopped during this execution.")

    def stop(self) -> None:
        """Kill the workers and write down that their executions ended."""
        with self.lock:
            for execution in self.lab.database.all(EXECUTION):
                if execution["Status"] == "QUEUED":
                    self._give_up(execution, "LabStopped", "The lab was stopped before this execution began.")
            runs = list(self._runs.values())
        for run in runs:
            run.kill()
        for run in runs:
            run.join()

    def _give_up(self, execution: Document, code: str, detail: str) -> None:
        result = {**execution["Result"], "ErrorCode": code, "ErrorDetail": detail}
        phase = {"PREPARING": "Prepare", "TRANSFERRING": "Transfer", "VERIFYING": "Verify"}.get(execution["Status"])
        seen = execution.get("SeenAt", 0)  # what came after the last sign of it nobody knows
        if seen:
            result["TotalDuration"] = round((seen - execution["LaunchTime"]) * 1000)
        if phase is not None:
            result[f"{phase}Status"] = "ERROR"
            if seen and execution["TaskMode"] == "BASIC":
                result[f"{phase}Duration"] = round((seen - execution["PhaseBegan"]) * 1000)
        changes: Document = {"Status": "ERROR", "EndTime": now(), "Result": result}
        if execution.get("TaskReportConfig"):
            changes["ReportResult"] = {"Status": "ERROR", "ErrorCode": code, "ErrorDetail": detail}
        self.lab.database.update(EXECUTION, execution["TaskExecutionArn"], **changes)
        emit_state(self.lab, execution["TaskExecutionArn"], "DataSync Task Execution State Change", "ERROR")

    # Operations.

    def start_task_execution(self, parameters: Document, call: Call) -> Document:
        """StartTaskExecution; what is left out is as the task says, an empty TaskReportConfig means none."""
        self._check_settings(parameters)
        with self.lock:
            task = self.find(TASK, parameters["TaskArn"], call)
            mode = task["TaskMode"]
            source = self.find(LOCATION, task["SourceLocationArn"], call)
            arn = f"{task['TaskArn']}/execution/exec-{secrets.token_hex(9)[:17]}"
            execution: Document = {
                "TaskExecutionArn": arn,
                "TaskArn": task["TaskArn"],
                "TaskMode": mode,
                "Status": "QUEUED",
                "StartTime": now(),
                "Options": complete(mode, task["Options"], parameters.get("OverrideOptions", {})),
                "Includes": parameters.get("Includes", task["Includes"]),
                "Excludes": parameters.get("Excludes", task["Excludes"]),
                "Result": {f"{name}Status": "PENDING" for name in ("Prepare", "Transfer", "Verify")}
                | {f"{name}Duration": 0 for name in ("Prepare", "Transfer", "Verify", "Total")},
                "Counters": asdict(Counters()),
                "AgentArns": source["AgentArns"],
                "Tags": merged([], parameters.get("Tags")),
                **chosen(task, "SourceLocationArn", "DestinationLocationArn", "CloudWatchLogGroupArn"),
            }
            report = parameters.get("TaskReportConfig", task.get("TaskReportConfig"))
            if report:
                execution |= {"TaskReportConfig": report, "ReportResult": {"Status": "PENDING"}}
            self._admit(task, execution)
            with self.lab.database.writing():
                self.lab.database.put(EXECUTION, arn, execution)
                self.lab.database.update(TASK, task["TaskArn"], CurrentTaskExecutionArn=arn)
            self._dispatch()
            if arn not in self._runs:
                emit_state(self.lab, arn, "DataSync Task Execution State Change", "QUEUED")
        return {"TaskExecutionArn": arn}

    def _admit(self, task: Document, execution: Document) -> None:
        """Refusal of an execution that may not start and may not wait either."""
        arn = task["TaskArn"]
        if self.status(task) in ("CREATING", "UNAVAILABLE"):
            _, detail = self.problem(task) or ("", "It is being created.")
            raise invalid(f"Sync task {arn} is not available. {detail}", "TaskUnavailable")
        open_ones = [e for e in self.executions(arn) if e["Status"] not in TERMINAL]
        for other in open_ones:
            if (other["Includes"], other["Excludes"]) == (execution["Includes"], execution["Excludes"]):
                raise invalid(
                    f"Sync task {arn} is already running with these settings: {other['TaskExecutionArn']}.",
                    "AlreadyRunning",
                )
        if self._free(execution):
            return
        if execution["Options"]["TaskQueueing"] == "DISABLED":
            raise invalid(f"Sync task {arn} would have to wait and its TaskQueueing is DISABLED.", "Busy")
        if sum(e["Status"] == "QUEUED" for e in open_ones) >= MAX_QUEUED:
            raise invalid(f"Sync task {arn} has {MAX_QUEUED} queued executions already.", "LimitExceeded")

    def _free(self, execution: Document) -> bool:
        """Whether the task and the agents of an execution have nothing to do; the caller holds the lock."""
        agents = set(execution["AgentArns"])
        return not any(run.task == execution["TaskArn"] or run.agents & agents for run in self._runs.values())

    def _dispatch(self) -> None:
        """Start what may start, first come first served; the caller holds the lock."""
        for execution in self.lab.database.all(EXECUTION):
            if execution["Status"] == "QUEUED" and self._free(execution):
                run = Run(self.lab, self.lock, execution, partial(self._ended, execution["TaskExecutionArn"]))
                self._runs[run.arn] = run
                run.start()

    def _ended(self, arn: str) -> None:
        with self.lock:
            del self._runs[arn]
            self._dispatch()

    def describe_task_execution(self, parameters: Document, call: Call) -> Document:
        """DescribeTaskExecution."""
        execution = self.find(EXECUTION, parameters["TaskExecutionArn"], call)
        return chosen(execution, *_SHOWN) | counters_shown(execution)

    def list_task_executions(self, parameters: Document, call: Call) -> Document:
        """ListTaskExecutions, of a task or of all."""
        found = self.here(EXECUTION, "TaskExecutionArn", call)
        if "TaskArn" in parameters:
            task = self.find(TASK, parameters["TaskArn"], call)
            found = [execution for execution in found if execution["TaskArn"] == task["TaskArn"]]
        entries = [chosen(execution, "TaskExecutionArn", "Status", "TaskMode") for execution in found]
        return self.listed(entries, "TaskExecutions", parameters)

    def cancel_task_execution(self, parameters: Document, call: Call) -> Document:
        """CancelTaskExecution: CANCELLING, then ERROR (there is no state CANCELLED); a queued one ends at once."""
        arn = parameters["TaskExecutionArn"]
        with self.lock:
            execution = self.find(EXECUTION, arn, call)
            status = execution["Status"]
            if status in TERMINAL:
                raise invalid(f"Sync task cannot be cancelled in its current status: {status}", "InvalidState")
            if status == "QUEUED":
                self._give_up(execution, "Cancelled", "The task execution was cancelled while it was queued.")
            elif status != "CANCELLING":
                self._runs[arn].cancelling()
        return {}

    def update_task_execution(self, parameters: Document, call: Call) -> Document:
        """UpdateTaskExecution: only BytesPerSecond, at once."""
        arn, given = parameters["TaskExecutionArn"], parameters["Options"]
        if set(given) - {"BytesPerSecond"}:
            raise invalid("Only BytesPerSecond can be changed for a task execution.")
        with self.lock:
            execution = self.find(EXECUTION, arn, call)
            if execution["Status"] in TERMINAL:
                raise invalid(f"Task execution {arn} is finished.", "InvalidState")
            options = complete(execution["TaskMode"], execution["Options"], given)
            self.lab.database.update(EXECUTION, arn, Options=options)
            if arn in self._runs:
                self._runs[arn].limit(options["BytesPerSecond"])
        return {}

    # For the world's builder and tests.

    def run_of(self, execution_arn: str) -> Run | None:
        """The run that is going on for an execution."""
        return self._runs.get(execution_arn)

    def finish(self, execution_arn: str, timeout: float = 60) -> Document:
        """Wait until an execution is over and published; LabError after `timeout` seconds. Its stored document."""
        end = time.monotonic() + timeout
        while True:
            run = self._runs.get(execution_arn)
            if run is not None:
                run.join(max(0.0, end - time.monotonic()))
            execution = self.lab.database.get(EXECUTION, execution_arn)
            if execution is None:
                raise LabError(f"There is no task execution {execution_arn}")
            if execution["Status"] in TERMINAL and self._runs.get(execution_arn) is None:
                return execution
            if time.monotonic() >= end:
                raise LabError(f"The task execution {execution_arn} is still {execution['Status']} after {timeout} s")
            time.sleep(0.01)
