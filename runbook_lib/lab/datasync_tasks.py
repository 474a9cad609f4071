"""Which tasks are there, how are they set up, and what state is each in?"""

from __future__ import annotations

import re
from typing import Any

from .datasync_locations import Locations, mount_problem
from .datasync_options import check_filters, complete, invalid
from .datasync_resources import EXECUTION, LOCATION, TASK, Document, chosen, merged, now, passes
from .protocol import Call

TERMINAL = ("SUCCESS", "ERROR")
CREATING_SECONDS = 1.0  # times pace
MAX_TASKS = 100  # a region (DataSync user guide, quotas)
_SHOWN = (
    "TaskArn", "Name", "SourceLocationArn", "DestinationLocationArn", "CloudWatchLogGroupArn", "Options", "Excludes",
    "Includes", "Schedule", "ScheduleDetails", "CreationTime", "TaskReportConfig", "TaskMode",
    "CurrentTaskExecutionArn",
)  # fmt: skip


class Tasks(Locations):
    """Tasks; what their executions do is in datasync.py."""

    def create_task(self, parameters: Document, call: Call) -> Document:
        """CreateTask, from NFS to S3: the lab has no other direction, and no manifests."""
        self._check_locations(parameters, call)
        mode = parameters.get("TaskMode", "BASIC")
        options = complete(mode, parameters.get("Options", {}))
        self._check_settings(parameters)
        with self.lock:
            if len(self.here(TASK, "TaskArn", call)) >= MAX_TASKS:
                raise invalid(f"There are {MAX_TASKS} tasks in {call.region} already.", "LimitExceeded")
            task = {
                "TaskArn": self.new_arn(call, "task", "task"),
                "Name": parameters.get("Name", ""),
                "TaskMode": mode,
                "Options": options,
                "Includes": parameters.get("Includes", []),
                "Excludes": parameters.get("Excludes", []),
                "CreationTime": now(),
                "MadeBy": now() + CREATING_SECONDS * self.lab.pace,  # a later pace does not make it new again
                "Tags": merged([], parameters.get("Tags")),
                **chosen(parameters, "SourceLocationArn", "DestinationLocationArn", "CloudWatchLogGroupArn"),
                **_schedule(parameters),
            }
            if parameters.get("TaskReportConfig"):
                task["TaskReportConfig"] = parameters["TaskReportConfig"]
            self.lab.database.put(TASK, task["TaskArn"], task)
        return {"TaskArn": task["TaskArn"]}

    def _check_locations(self, parameters: Document, call: Call) -> None:
        for member, kind in (("SourceLocationArn", "nfs"), ("DestinationLocationArn", "s3")):
            location = self.find(LOCATION, parameters[member], call)
            if not location["LocationUri"].startswith(kind + "://"):
                raise invalid(f"The lab's tasks go from NFS to S3; {member} is {location['LocationUri']}.")

    def _check_settings(self, parameters: Document) -> None:
        """Refusal of filters, reports and manifests that cannot be, at a task and at an execution."""
        check_filters(parameters.get("Includes"), parameters.get("Excludes"))
        if parameters.get("ManifestConfig"):
            raise invalid("The lab does not have manifests.")
        config = parameters.get("TaskReportConfig")
        if not config:
            return
        if "S3" not in config.get("Destination", {}):
            raise invalid("TaskReportConfig needs Destination.S3")
        bucket = config["Destination"]["S3"]["S3BucketArn"].rpartition(":")[2]
        if self.lab.objects.bucket(bucket) is None:
            raise invalid(f"DataSync could not access the task report bucket {bucket}.")

    def problem(self, task: Document) -> tuple[str, str] | None:
        """Why a task is UNAVAILABLE: (ErrorCode, ErrorDetail); None when it could run. AWS documents no codes."""
        if self.agent_status == "OFFLINE":
            return "AgentOffline", "The DataSync agent is offline: it does not answer."
        location = self.lab.database.get(LOCATION, task["SourceLocationArn"])
        assert location is not None  # DeleteLocation refuses while a task uses it
        trouble = mount_problem(location, str(self.lab.folder.export))
        if trouble is not None:
            return "MountFailed", f"Task failed to access location {location['LocationArn']}: mount failed: {trouble}"
        return None

    def executions(self, task_arn: str) -> list[Document]:
        """A task's executions, oldest first."""
        found = self.lab.database.all(EXECUTION)
        return [execution for execution in found if execution["TaskArn"] == task_arn]

    def status(self, task: Document) -> str:
        """A task's state: by the clock while it is new, by its executions, by what stands in its way."""
        if now() < task.get("MadeBy", 0):  # an older lab did not write it down
            return "CREATING"
        states = {execution["Status"] for execution in self.executions(task["TaskArn"])} - set(TERMINAL)
        if states:
            return "QUEUED" if states == {"QUEUED"} else "RUNNING"
        return "AVAILABLE" if self.problem(task) is None else "UNAVAILABLE"

    def describe_task(self, parameters: Document, call: Call) -> Document:
        """DescribeTask; CurrentTaskExecutionArn is the most recent execution."""
        task = self.find(TASK, parameters["TaskArn"], call)
        shown: dict[str, Any] = {**chosen(task, *_SHOWN), "Status": self.status(task)}
        trouble = self.problem(task) if shown["Status"] == "UNAVAILABLE" else None
        if trouble is not None:
            shown["ErrorCode"], shown["ErrorDetail"] = trouble
        return shown

    def list_tasks(self, parameters: Document, call: Call) -> Document:
        """ListTasks; a LocationId filter passes when either end is that location."""
        tests = parameters.get("Filters", [])
        found = []
        for task in self.here(TASK, "TaskArn", call):
            ends = [task[member].rpartition("/")[2] for member in ("SourceLocationArn", "DestinationLocationArn")]
            values = {"LocationId": ends, "CreationTime": [task["CreationTime"]]}
            if all(any(passes(value, test) for value in values[test["Name"]]) for test in tests):
                found.append(task)
        result = self.listed(found, "Tasks", parameters)
        result["Tasks"] = [
            {**chosen(task, "TaskArn", "Name", "TaskMode"), "Status": self.status(task)} for task in result["Tasks"]
        ]
        return result

    def update_task(self, parameters: Document, call: Call) -> Document:
        """UpdateTask; members that are given replace the old ones, single options are set over the old options."""
        self._check_settings(parameters)
        with self.lock:
            task = self.find(TASK, parameters["TaskArn"], call)
            changes = chosen(parameters, "Name", "Includes", "Excludes", "CloudWatchLogGroupArn", "TaskReportConfig")
            changes |= _schedule(parameters)
            if parameters.get("Options"):
                changes["Options"] = complete(task["TaskMode"], task["Options"], parameters["Options"])
            self.lab.database.update(TASK, task["TaskArn"], **changes)
        return {}

    def delete_task(self, parameters: Document, call: Call) -> Document:
        """DeleteTask with its history; refused while an execution runs."""
        with self.lock:
            task = self.find(TASK, parameters["TaskArn"], call)
            if self.status(task) in ("RUNNING", "QUEUED"):
                raise invalid(f"Sync task {task['TaskArn']} has an execution that is not finished.", "InUse")
            with self.lab.database.writing():
                for execution in self.executions(task["TaskArn"]):
                    self.lab.database.delete(EXECUTION, execution["TaskExecutionArn"])
                self.lab.database.delete(TASK, task["TaskArn"])
        return {}


def _schedule(parameters: Document) -> Document:
    """A schedule as it is stored and shown; the lab does not run it."""
    schedule = parameters.get("Schedule")
    if not schedule:
        return {}
    if not re.fullmatch(r"(cron|rate)\(.+\)", schedule["ScheduleExpression"]):
        raise invalid("ScheduleExpression must be cron(…) or rate(…)")
    details: Document = {"StatusUpdateTime": now()}
    if schedule.get("Status") == "DISABLED":
        details["DisabledBy"] = "USER"
    return {"Schedule": {"Status": "ENABLED", **schedule}, "ScheduleDetails": details}
