"""The lab's DMS: what does StartReplicationTask set off, what stops it, and what happens to a single table?

Rows are moved by PostgreSQL's own logical replication between the lab's two servers (dms_replication.py), or copied
from its MariaDB (dms_load.py); DMS's interface, states, statistics, control tables, logs and metrics are told from what
is really done.
"""

from __future__ import annotations

import logging
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from .databases import DATABASE, MARIADB
from .dms_endpoints import Address
from .dms_machine import Machine
from .dms_reports import Reports
from .dms_resources import ENDPOINT, TASK, Document
from .dms_roles import VPC_ROLE
from .dms_tables import Tables, load_again
from .dms_tasks import Tasks
from .protocol import Call, Refusal

if TYPE_CHECKING:
    from .core import Lab
    from .dms_runner import Runner

_ENDS = ("Source", "Target")
_UNDER_WAY = ("starting", "running", "stopping")
PATIENCE = 8.0  # seconds that runs get to end their sessions when the lab stops
_logger = logging.getLogger(__name__)


class Dms(Tasks):
    """Runs of tasks, on top of instances, endpoints and tasks as documents."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self._runs: dict[str, Runner] = {}
        self._stopping = threading.Event()
        self._machine = Machine(lab)

    def start(self) -> None:
        """Go on with the tasks that ran when the lab was stopped or killed."""
        super().start()
        if self.lab.fault("dms-role-missing") is not None:
            self.lab.bus.drop_role(VPC_ROLE)
        self._machine.start()
        with self.lock:
            for task in self.lab.database.all(TASK):
                if task["Status"] in _UNDER_WAY:
                    self._run(task)
                elif task["Status"] == "deleting":
                    self._remove(task)

    def stop(self) -> None:
        """End the threads; the tasks stay as they are."""
        self._stopping.set()
        self._machine.stop()
        with self.lock:
            runs = list(self._runs.items())
        for _, run in runs:
            run.close()
        deadline = time.monotonic() + PATIENCE
        for arn, run in runs:
            if not run.join(max(0.0, deadline - time.monotonic())):
                _logger.error("The run of the task %s does not end; it is not waited for", arn)

    def _run(self, task: Document) -> None:
        from .dms_load import Load  # the drivers cost 0.1 s that a lab whose tasks do not run does not spend
        from .dms_run import Run

        arn, ended = task["ReplicationTaskArn"], partial(self._ended, task["ReplicationTaskArn"])
        before = self._runs.get(arn)  # it has written down its end, and still ends its sessions
        source, target = (partial(self._address, task[f"{side}EndpointArn"], side.lower()) for side in _ENDS)
        if self.engine(task) == MARIADB:
            self._runs[arn] = Load(self.lab, arn, lambda: (source(), target()), ended)
        else:
            self._runs[arn] = Run(self.lab, arn, source, ended)
        self._runs[arn].start(after=before)

    def _ended(self, arn: str, run: Runner) -> None:
        with self.lock:
            if self._runs.get(arn) is run:
                del self._runs[arn]

    def _address(self, endpoint_arn: str, side: str) -> Address:
        """Where a task's end is. The lab replicates from its sources to its target, and nowhere else."""
        endpoint = self.lab.database.get(ENDPOINT, endpoint_arn)
        assert endpoint is not None  # DeleteEndpoint refuses while a task has it
        address = self.address(endpoint)
        port = self.lab.databases.port(MARIADB if endpoint["EngineName"] == MARIADB else side)
        if address.host not in ("127.0.0.1", "localhost") or address.port != port:
            raise Refusal(
                "InvalidParameterValueException",
                f"The lab's tasks go from its own source to its own target database; {endpoint_arn} is at "
                f"{address.host}:{address.port}.",
            )
        return address

    # Operations.

    def start_replication_task(self, parameters: Document, call: Call) -> Document:
        """StartReplicationTask."""
        how = parameters["StartReplicationTaskType"]
        for member in ("CdcStartTime", "CdcStartPosition", "CdcStopPosition"):
            if parameters.get(member):
                raise Refusal("InvalidParameterValueException", f"The lab does not have {member}.")
        with self.lock:
            task = self.idle(parameters["ReplicationTaskArn"], call, "started")
            self._admit(task, how)
            task = self.lab.database.update(
                TASK, task["ReplicationTaskArn"], Status="starting", Intent=how, StopReason=None, Started=True
            )
            self._run(task)
        return {"ReplicationTask": self.shown(task)}

    def _admit(self, task: Document, how: str) -> None:
        """Refusal of a start that DMS does not allow."""
        first = not task.get("Started")
        if how == "start-replication" and not first:
            raise Refusal(
                "InvalidParameterCombinationException",
                "Start Type : START_REPLICATION, valid only for tasks running for the first time",
            )
        if how != "start-replication" and first:
            kind = how.upper().replace("-", "_")
            raise Refusal(
                "InvalidParameterCombinationException",
                f"Start Type : {kind}, not valid for tasks running for the first time",
            )
        if how == "reload-target" and task["MigrationType"] == "cdc":
            raise Refusal(
                "InvalidParameterCombinationException", "Start Type : RELOAD_TARGET, not valid for the type : cdc"
            )
        for end in _ENDS:
            endpoint, side = task[f"{end}EndpointArn"], end.lower()
            if not self.connected(task["ReplicationInstanceArn"], endpoint):
                raise Refusal(
                    "InvalidResourceStateFault",
                    f"Test connection for replication instance {task['ReplicationInstanceArn']} and endpoint "
                    f"{endpoint} should be successful for starting the replication task",
                )
            address = self._address(endpoint, side)
            if self.engine(task) != MARIADB and address.database != DATABASE:
                raise Refusal(
                    "InvalidParameterValueException",
                    f"The lab replicates between databases called {DATABASE}, and {endpoint} is {address.database}.",
                )

    def stop_replication_task(self, parameters: Document, call: Call) -> Document:
        """StopReplicationTask: `stopping`, then `stopped`."""
        arn = parameters["ReplicationTaskArn"]
        with self.lock:
            task = self._running(arn, call)
            task = self.lab.database.update(TASK, arn, Status="stopping")
            self._runs[arn].wake()
        return {"ReplicationTask": self.shown(task)}

    def _running(self, arn: str, call: Call) -> Document:
        task = self.find(TASK, arn, call)
        if task["Status"] != "running" or arn not in self._runs:
            status = self.task_status(task)
            raise Refusal("InvalidResourceStateFault", f"Replication Task {arn} is not running, it is {status}.")
        return task

    def reload_tables(self, parameters: Document, call: Call) -> Document:
        """ReloadTables, while the task runs: load tables again, or only validate them again."""
        arn = parameters["ReplicationTaskArn"]
        with self.lock:
            task = self._running(arn, call)
            keys = [f"{table['SchemaName']}.{table['TableName']}" for table in parameters["TablesToReload"]]
            tables = Tables(self.lab.database, arn)
            for key in keys:
                if tables.get(key) is None:
                    raise Refusal("ResourceNotFoundFault", f"The task {arn} has no table {key}.")
            if parameters.get("ReloadOption", "data-reload") == "validate-only":
                if not task["ReplicationTaskSettings"]["ValidationSettings"]["EnableValidation"]:
                    raise Refusal("InvalidParameterValueException", f"Validation is not enabled for the task {arn}.")
                for key in keys:
                    tables.change(key, ValidationState="Pending revalidation")
            else:
                load_again(self.lab.database, arn, keys)
                Reports(self.lab, task).tell("DMS-EVENT-0081", "Reload of table details has been requested.")
            self._runs[arn].wake()
        return {"ReplicationTaskArn": arn}

    def delete_replication_task(self, parameters: Document, call: Call) -> Document:
        """DeleteReplicationTask, while it does not run; what it made in the databases goes, their rows stay."""
        with self.lock:
            task = self.idle(parameters["ReplicationTaskArn"], call, "deleted")
            task = self.lab.database.update(TASK, task["ReplicationTaskArn"], Status="deleting")
            self._remove(task)
        return {"ReplicationTask": self.shown(task)}

    def _remove(self, task: Document) -> None:
        threading.Thread(target=self._take_down, args=(task,), name="dms-delete", daemon=True).start()

    def _take_down(self, task: Document) -> None:
        """Delete a task; when that fails it is `failed`, and can be deleted again."""
        arn = task["ReplicationTaskArn"]
        try:
            if task.get("Started") and self.engine(task) != MARIADB:  # a full load leaves nothing but its rows
                from .dms_making import remove

                remove(self.lab, arn)
            with self.lab.database.writing():
                Tables(self.lab.database, arn).forget()
                self.lab.database.delete(TASK, arn)
        except Exception as error:
            _logger.exception("The task %s could not be deleted", arn)
            if not self._stopping.is_set():  # else the next lab goes on
                why = f"The task could not be deleted: {' '.join(str(error).split())}. Delete it again."
                self.lab.database.update(TASK, arn, Status="failed", LastFailureMessage=why)
        finally:
            self.lab.database.close()
