"""What does a task between the two PostgreSQL servers do, step by step?

A running task whose lab was killed is running again as soon as both servers are.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import psycopg

from ..errors import LabError
from .dms_endpoints import Address
from .dms_faults import LAG, SWAP
from .dms_making import IMPATIENT, make, slot_name
from .dms_metrics import Meter
from .dms_replication import Replication
from .dms_resources import Document, now
from .dms_rows import PostgresRows
from .dms_runner import PASSING, Runner, TaskFailed
from .dms_tables import COMPLETED, FAILED
from .dms_validation import Validator
from .dms_watch import Watch
from .postgres import SECRETIVE

if TYPE_CHECKING:
    from .core import Lab

LOADING_PAUSE, RUNNING_PAUSE = 0.1, 0.4  # seconds between two looks
QUIET = "-c log_min_messages=fatal"  # each look into the counting slot would be two lines of the server's log
PAUSED = (
    "Reading from source is paused. Total storage used by swap files exceeded the limit 1048576000 bytes "
    "(sorter_transaction.c:110)"
)
RESUMED = (
    "Reading from source is resumed. Total storage used by swap files is below the limit 1048576000 bytes "
    "(sorter_transaction.c:116)"
)
LOST = "The source has removed the log that this task needs; use reload-target."
_logger = logging.getLogger(__name__)


class Run(Runner):
    """One task by PostgreSQL's own replication."""

    broken = (psycopg.OperationalError, psycopg.InterfaceError, LabError)

    def __init__(self, lab: Lab, task_arn: str, source: Callable[[], Address], ended: Callable[[Runner], None]) -> None:
        super().__init__(lab, task_arn, ended)
        self._source_address = source
        self._replication: Replication | None = None
        self._watch: Watch | None = None
        self._meter: Meter | None = None
        self._validator: Validator | None = None
        self._cached_until: int | None = None  # the source's position when all tables were loaded

    def _pause(self) -> float:
        return RUNNING_PAUSE if self._document().get("FullLoadFinishDate") else LOADING_PAUSE

    def _leave(self) -> None:
        self._let_validate(False)
        self._disconnect()

    def _may_pass(self, error: Exception) -> bool:
        held = self._replication
        if held is None or held.source.closed or held.target.closed or isinstance(error, LabError):
            return True
        return (getattr(error, "sqlstate", None) or "").startswith(PASSING)

    def _step(self, task: Document) -> bool:
        replication = self._connect(task)
        if task.get("Intent") in (None, "resume-processing") and replication.lost():
            raise TaskFailed(LOST)
        if task.get("Intent"):
            self._begin(task, replication)
            return True
        if task["Status"] == "stopping":
            self._stop(task, replication, "NORMAL")
            return False
        return self._look(task, replication)

    def _connect(self, task: Document) -> Replication:
        if self._replication is None:
            databases = self._lab.databases
            source = databases.connect("source", options=f"{IMPATIENT} {QUIET}")
            target = databases.connect("target", options=f"{IMPATIENT} {SECRETIVE}")
            self._replication = Replication(source, target, slot_name(self._arn))
            if not task.get("Intent"):
                self._adopt(task, self._replication)
        return self._replication

    def _adopt(self, task: Document, replication: Replication) -> None:
        """Go on with a task that ran before: the source may listen elsewhere now."""
        if replication.subscription() is None:
            raise TaskFailed("The target has lost what the task had made there; use reload-target.")
        replication.connect(self._source_address())
        self._watching(task, replication)
        if not self._lost:
            self._reports.say("TASK_MANAGER", f"Task '{self._reports.resource}' goes on after a restart")

    def _watching(self, task: Document, replication: Replication) -> None:
        """Look at a task from now on, by new connections."""
        self._watch = Watch(self._lab, task, replication, self._reports)
        self._meter = Meter(self._lab, replication, self._reports, self._watch.changes)

    def _disconnect(self) -> None:
        if self._replication is not None:
            self._replication.source.close()
            self._replication.target.close()
        self._replication = self._watch = self._meter = None

    # The steps.

    def _begin(self, task: Document, replication: Replication) -> None:
        """Do what StartReplicationTask asked for; `running` afterwards."""
        began, date, how = time.monotonic(), now(), task["Intent"]
        self._greet(task)
        resumed = how == "resume-processing" and replication.subscription() is not None
        if resumed:
            replication.connect(self._source_address())
        else:
            make(self._lab, task, replication, self._source_address())
        replication.enable()
        task = self._running(task, began, date, fresh=not resumed)
        self._watching(task, replication)

    def _look(self, task: Document, replication: Replication) -> bool:
        """Watch a running task; False when it has come to its end by itself."""
        watch, meter = self._watch, self._meter
        assert watch is not None and meter is not None
        pause = self._pause_as_planted(task, replication)
        self._let_validate(bool(task["ReplicationTaskSettings"]["ValidationSettings"]["EnableValidation"]))
        for key in (task.get("Reloads") or []) if pause is None else []:
            watch.reload(key)
            left = [other for other in self._document()["Reloads"] if other != key]
            self._change(Reloads=left)
        watch.look(task, reading=pause != SWAP)
        loading = not task.get("FullLoadFinishDate")
        control = task["ReplicationTaskSettings"]["ControlTablesSettings"]
        meter.measure(reading=pause != SWAP, loading=loading, status_table=control["StatusTableEnabled"])
        if not loading:
            return True
        states = {table["TableState"] for table in self._tables.all()}
        if states - {COMPLETED, FAILED}:
            return True
        return self._loaded(task, replication)

    def _let_validate(self, wanted: bool) -> None:
        """Have a validator beside the task, or none."""
        if wanted and self._validator is None:
            self._validator = Validator(self._lab, self._arn, self._reports, self._rows)
            self._validator.start()
        elif not wanted and self._validator is not None:
            self._validator.stop()
            self._validator = None

    def _rows(self) -> PostgresRows:
        databases = self._lab.databases
        return PostgresRows(databases.connect("source"), databases.connect("target"))

    def _pause_as_planted(self, task: Document, replication: Replication) -> str | None:
        """Hold the apply back while a fault wants it so, and let it go on when it is mended; which fault, if any."""
        wanted = next((fault for fault in (SWAP, LAG) if self._lab.fault(fault) is not None), None)
        before = task.get("HeldBack")
        subscription = replication.subscription()
        if subscription is not None and subscription.enabled != (wanted is None):
            if wanted is None:
                replication.enable()
            else:
                replication.disable()
        if wanted != before:
            if wanted == SWAP:
                self._reports.say("SORTER", PAUSED)
                self._reports.tell("DMS-EVENT-0091", "Reading paused, swap files limit reached.")
            elif before == SWAP:
                self._reports.say("SORTER", RESUMED)
                self._reports.tell("DMS-EVENT-0093", "Reading resumed.")
            self._change(HeldBack=wanted)  # last: whoever planted it waits for this
        return wanted

    def _loaded(self, task: Document, replication: Replication) -> bool:
        """Every table is loaded, or in error: the end of a full load, or the beginning of ongoing replication."""
        if task["MigrationType"] == "full-load-and-cdc" and not task.get("Burst"):
            self._work_on(task)
        stops = task["ReplicationTaskSettings"]["FullLoadSettings"]["StopTaskCachedChangesApplied"]
        if stops and task["MigrationType"] != "full-load" and self._caches(replication):
            return True
        self._change(FullLoadFinishDate=now())
        self._reports.say("TASK_MANAGER", "All tables are loaded.")
        if task["MigrationType"] == "full-load":
            self._stop(task, replication, "FULL_LOAD_ONLY_FINISHED")
            return False
        if stops:
            self._stop(task, replication, "STOPPED_AFTER_CACHED_EVENTS")
            return False
        self._reports.say("TARGET_APPLY", "Cached changes are applied; ongoing replication begins.")
        return True

    def _caches(self, replication: Replication) -> bool:
        """Whether something that was committed while the tables were loaded is still to be applied."""
        assert self._watch is not None
        if self._cached_until is None:
            self._cached_until = replication.position()
            return True  # the next look reads until there
        loaded = {table["Key"] for table in self._tables.all() if table["TableState"] == COMPLETED}
        return self._watch.changes.waits(self._cached_until, loaded)

    def _work_on(self, task: Document) -> None:
        """Let the shop go on working while its tables are loaded: counters that stay at zero would prove nothing.

        A shop that cannot work, because somebody has changed its tables, is no matter of the task's.
        """
        self._change(Burst=True)
        try:
            self._lab.workload.burst()
        except Exception as error:
            _logger.exception("The shop did not work while the task %s loaded its tables", self._arn)
            self._reports.say("TASK_MANAGER", f"The shop did not work meanwhile: {' '.join(str(error).split())}", "W")
        if self._watch is not None:
            self._watch.look(task, reading=True)

    def _stop(self, task: Document, replication: Replication, reason: str) -> None:
        """Apply nothing more; what comes waits at the source, unless the task was a full load only."""
        began = time.monotonic()
        self._let_validate(False)
        replication.disable()
        (self._watch or Watch(self._lab, task, replication, self._reports)).catch_up()
        subscription = replication.subscription()
        if reason != "NORMAL" and task["ReplicationTaskSettings"]["ValidationSettings"]["EnableValidation"]:
            Validator(self._lab, self._arn, self._reports, self._rows).all()
        if self._meter is not None and task["ReplicationTaskSettings"]["ControlTablesSettings"]["StatusTableEnabled"]:
            self._meter.stopped()
        checkpoint = None
        if task["MigrationType"] == "full-load":
            replication.drop()
        elif subscription is not None:
            position = f"{subscription.applied >> 32:08X}/{subscription.applied & 0xFFFFFFFF:08X}"
            checkpoint = f"checkpoint:V1#1#{position}#0#0#*#0#0"
        self._stopped(began, reason, checkpoint)

    def _halt(self) -> None:
        """Nothing more is applied, if the target can be asked; what was replicated stays."""
        if self._replication is None or self._replication.target.closed:
            return
        try:
            if self._replication.subscription() is not None:
                self._replication.disable()
        except (psycopg.Error, LabError):
            _logger.exception("The subscription of the failed task %s could not be disabled", self._arn)
