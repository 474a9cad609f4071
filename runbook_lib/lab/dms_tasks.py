"""Which replication tasks are there, how are they set up, and how far did each come?"""

from __future__ import annotations

import json

from .databases import MARIADB
from .dms_endpoints import Endpoints
from .dms_mappings import read_mappings
from .dms_resources import ENDPOINT, INSTANCE, TASK, Document, check_name, chosen, filtered, merged, now, paged
from .dms_settings import expanded
from .dms_tables import Tables, counted, shown
from .protocol import Call, Refusal

CREATING_SECONDS = 2.0  # times pace
IDLE = ("ready", "stopped", "failed")
_SHOWN = (
    "ReplicationTaskIdentifier", "SourceEndpointArn", "TargetEndpointArn", "ReplicationInstanceArn", "MigrationType",
    "TableMappings", "LastFailureMessage", "StopReason", "ReplicationTaskCreationDate", "ReplicationTaskStartDate",
    "CdcStartPosition", "CdcStopPosition", "RecoveryCheckpoint", "ReplicationTaskArn", "TaskData",
)  # fmt: skip
_STATS = ("FreshStartDate", "StartDate", "StopDate", "FullLoadStartDate", "FullLoadFinishDate")


class Tasks(Endpoints):
    """Tasks as documents; what they do is in dms.py."""

    def create_replication_task(self, parameters: Document, call: Call) -> Document:
        """CreateReplicationTask; it is `creating`, then `ready`."""
        name = parameters["ReplicationTaskIdentifier"]
        check_name(name, "ReplicationTaskIdentifier", 255)
        read_mappings(parameters["TableMappings"])
        settings = expanded(parameters.get("ReplicationTaskSettings"))
        _refuse_positions(parameters)
        with self.lock:
            self.find(INSTANCE, parameters["ReplicationInstanceArn"], call)
            for side in ("source", "target"):
                endpoint = self.find(ENDPOINT, parameters[f"{side.capitalize()}EndpointArn"], call)
                if endpoint["EndpointType"] != side:
                    arn = endpoint["EndpointArn"]
                    raise Refusal("InvalidParameterValueException", f"Endpoint {arn} is not a {side} endpoint.")
            self._refuse_capture(parameters, parameters["MigrationType"])
            self.unused(TASK, "ReplicationTaskIdentifier", name, call)
            task: Document = {
                **chosen(parameters, *_SHOWN),
                "ReplicationTaskSettings": settings,
                "ReplicationTaskArn": self.new_arn(call, TASK, parameters.get("ResourceIdentifier")),
                "ReplicationTaskCreationDate": now(),
                "Status": "ready",
                "MadeBy": now() + CREATING_SECONDS * self.lab.pace,
                "Tags": merged([], parameters.get("Tags")),
            }
            self.lab.database.put(TASK, task["ReplicationTaskArn"], task)
        return {"ReplicationTask": self.shown(task)}

    def engine(self, task: Document) -> str:
        """The EngineName of a task's source."""
        endpoint = self.lab.database.get(ENDPOINT, task["SourceEndpointArn"])
        assert endpoint is not None  # DeleteEndpoint refuses while a task has it
        return str(endpoint["EngineName"])

    def _refuse_capture(self, task: Document, kind: str) -> None:
        """Refusal of change capture from MariaDB."""
        if self.engine(task) == MARIADB and kind != "full-load":
            raise Refusal(
                "InvalidParameterValueException",
                f"The lab does not capture MariaDB's changes: a task from it is of the type full-load, not {kind}.",
            )

    def task_status(self, task: Document) -> str:
        """A task's status: by the clock while it is new, then as its run has written it down."""
        return "creating" if now() < task["MadeBy"] else str(task["Status"])

    def shown(self, task: Document, *, settings: bool = True) -> Document:
        """A task as it is described."""
        tables = Tables(self.lab.database, task["ReplicationTaskArn"]).all()
        began = task.get("StartDate")
        ended = task.get("StopDate") if task["Status"] in IDLE else now()
        stats = {
            **chosen(task, *_STATS),
            **counted(tables),
            "ElapsedTimeMillis": round(1000 * (ended - began)) if began and ended else 0,
        }
        return {
            **chosen(task, *_SHOWN),
            "Status": self.task_status(task),
            "ReplicationTaskSettings": json.dumps(task["ReplicationTaskSettings"]) if settings else None,
            "ReplicationTaskStats": stats if began else None,
        }

    def describe_replication_tasks(self, parameters: Document, call: Call) -> Document:
        """DescribeReplicationTasks."""
        getters = {
            "replication-task-arn": lambda task: str(task["ReplicationTaskArn"]),
            "replication-task-id": lambda task: str(task["ReplicationTaskIdentifier"]),
            "migration-type": lambda task: str(task["MigrationType"]),
            "replication-instance-arn": lambda task: str(task["ReplicationInstanceArn"]),
        }
        tests = [test for test in parameters.get("Filters") or [] if test["Name"] == "endpoint-arn"]
        tasks = self.here(TASK, call)
        for test in tests:  # either end
            tasks = [
                task for task in tasks if {task["SourceEndpointArn"], task["TargetEndpointArn"]} & set(test["Values"])
            ]
        others = [test for test in parameters.get("Filters") or [] if test["Name"] != "endpoint-arn"]
        found = filtered(tasks, {"Filters": others}, getters, "Tasks")
        if tests and not found:
            raise Refusal("ResourceNotFoundFault", "No Tasks found matching given filter")
        settings = not parameters.get("WithoutSettings", False)
        return paged([self.shown(task, settings=settings) for task in found], "ReplicationTasks", parameters)

    def modify_replication_task(self, parameters: Document, call: Call) -> Document:
        """ModifyReplicationTask, while it does not run."""
        _refuse_positions(parameters)
        if "TableMappings" in parameters:
            read_mappings(parameters["TableMappings"])
        with self.lock:
            task = self.idle(parameters["ReplicationTaskArn"], call, "modified")
            self._refuse_capture(task, parameters.get("MigrationType") or task["MigrationType"])
            changes = chosen(parameters, "ReplicationTaskIdentifier", "MigrationType", "TableMappings", "TaskData")
            if "ReplicationTaskIdentifier" in changes:
                name = changes["ReplicationTaskIdentifier"]
                check_name(name, "ReplicationTaskIdentifier", 255)
                if name != task["ReplicationTaskIdentifier"]:
                    self.unused(TASK, "ReplicationTaskIdentifier", name, call)
            if "ReplicationTaskSettings" in parameters:
                given = parameters["ReplicationTaskSettings"]
                changes["ReplicationTaskSettings"] = expanded(given, task["ReplicationTaskSettings"])
            task = self.lab.database.update(TASK, task["ReplicationTaskArn"], **changes)
        return {"ReplicationTask": {**self.shown(task), "Status": "modifying"}}

    def idle(self, arn: str, call: Call, what: str) -> Document:
        """A task that does nothing, or InvalidResourceStateFault."""
        task = self.find(TASK, arn, call)
        status = self.task_status(task)
        if status not in IDLE:
            raise Refusal(
                "InvalidResourceStateFault",
                f"Replication task cannot be {what}, invalid state: {arn} is currently {status}.",
            )
        return task

    def describe_table_statistics(self, parameters: Document, call: Call) -> Document:
        """DescribeTableStatistics: what is written down; looking changes nothing."""
        task = self.find(TASK, parameters["ReplicationTaskArn"], call)
        tables = Tables(self.lab.database, task["ReplicationTaskArn"]).all()
        members = {"schema-name": "SchemaName", "table-name": "TableName", "table-state": "TableState"}
        for test in parameters.get("Filters") or []:
            if test["Name"] not in members:
                raise Refusal("InvalidParameterValueException", f"Unrecognized filter name {test['Name'][:100]!r}.")
            tables = [table for table in tables if table[members[test["Name"]]] in test["Values"]]
        return {
            **paged([shown(table) for table in tables], "TableStatistics", parameters, most=500),
            "ReplicationTaskArn": task["ReplicationTaskArn"],
        }


def _refuse_positions(parameters: Document) -> None:
    """Refusal of positions in the source's log: the lab's replication begins where it is created."""
    for member in ("CdcStartTime", "CdcStartPosition", "CdcStopPosition"):
        if parameters.get(member):
            raise Refusal("InvalidParameterValueException", f"The lab does not have {member}.")
