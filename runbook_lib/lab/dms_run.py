"""How does a task go from `starting` to `running` to its end? A thread of the lab that goes by what is written down.

Every step begins from the stored task, so that a thread which a killed server interrupts tries the step again, and a
killed lab goes on where it was: a running task is running again as soon as both servers are.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import psycopg

from ..errors import LabError
from .dms_endpoints import Address
from .dms_making import TaskFailed, make, slot_name
from .dms_metrics import Meter
from .dms_replication import Replication
from .dms_reports import Reports
from .dms_resources import TASK, Document, now
from .dms_tables import COMPLETED, FAILED, Tables
from .dms_validation import Validator
from .dms_watch import Watch

if TYPE_CHECKING:
    from .core import Lab

FLOORS = {"starting": 3.0, "stopping": 2.0}  # seconds times pace
LOADING_PAUSE, RUNNING_PAUSE = 0.1, 0.4  # seconds between two looks
RETRY = 0.5  # seconds until the next try after a server went away
PASSING = ("08", "40", "53", "55006", "55P03", "57P")  # SQLSTATEs
PREFIX = "Stop Reason "
IMPATIENT = "-c lock_timeout=10s"  # somebody reads a table for long: try again later
QUIET = "-c log_min_messages=fatal"  # each look into the counting slot would be two lines of the server's log
SWAP, LAG = "swap-pause", "replication-lag"  # faults that a running task looks at
PAUSED = (
    "Reading from source is paused. Total storage used by swap files exceeded the limit 1048576000 bytes "
    "(sorter_transaction.c:110)"
)
RESUMED = (
    "Reading from source is resumed. Total storage used by swap files is below the limit 1048576000 bytes "
    "(sorter_transaction.c:116)"
)
_logger = logging.getLogger(__name__)


class Run:
    """One task from its start to its end."""

    def __init__(self, lab: Lab, task_arn: str, source: Callable[[], Address], ended: Callable[[], None]) -> None:
        self._lab, self._arn, self._ended = lab, task_arn, ended
        self._source_address = source
        task = self._document()
        self._reports = Reports(lab, task)
        self._tables = Tables(lab.database, task_arn)
        self._closing = threading.Event()
        self._wake = threading.Event()
        self._replication: Replication | None = None
        self._watch: Watch | None = None
        self._meter: Meter | None = None
        self._validator: Validator | None = None
        self._lost = False
        self._thread = threading.Thread(target=self._run, name=f"dms-{slot_name(task_arn)}", daemon=True)

    def start(self) -> None:
        """Begin, or go on with what is written down."""
        self._thread.start()

    def wake(self) -> None:
        """Look at the stored task now: somebody has asked for something."""
        self._wake.set()

    def close(self) -> None:
        """The lab stops: the task stays as it is, for the next lab to go on with."""
        self._closing.set()
        self._wake.set()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the thread's end."""
        self._thread.join(timeout)

    def _document(self) -> Document:
        task = self._lab.database.get(TASK, self._arn)
        if task is None:
            raise KeyError(self._arn)
        return task

    def _change(self, **changes: Any) -> Document:
        return self._lab.database.update(TASK, self._arn, **changes)

    # The thread.

    def _run(self) -> None:
        try:
            while not self._closing.is_set() and self._survive():
                self._wake.wait(self._pause())
                self._wake.clear()
        except TaskFailed as error:
            self._fail(str(error))
        except Exception as error:
            if not self._closing.is_set():
                _logger.exception("The DMS task %s failed", self._arn)
                self._fail(f"{type(error).__name__}: {' '.join(str(error).split())}")
        finally:
            self._let_validate(False)
            self._disconnect()
            self._lab.database.close()
            self._ended()

    def _pause(self) -> float:
        if self._lost:
            return RETRY
        return RUNNING_PAUSE if self._document().get("FullLoadFinishDate") else LOADING_PAUSE

    def _survive(self) -> bool:
        """One step; False when it was the last. A server that went away is waited for."""
        try:
            more = self._step(self._document())
            if self._lost:
                self._lost = False
                self._reports.say("TASK_MANAGER", "Connections to source and target are restored; the task goes on.")
            return more
        except (psycopg.OperationalError, psycopg.InterfaceError, LabError) as error:
            if self._closing.is_set():
                return False
            if not self._may_pass(error):
                raise
            self._disconnect()
            if not self._lost:
                said = " ".join(str(error).split())
                self._reports.say("TASK_MANAGER", f"Recoverable error: {said}. The task tries again.", "W")
            self._lost = True
            return True

    def _may_pass(self, error: Exception) -> bool:
        """Whether it was a server that went away, or something else that another try may cure."""
        held = self._replication
        if held is None or held.source.closed or held.target.closed or isinstance(error, LabError):
            return True
        return (getattr(error, "sqlstate", None) or "").startswith(PASSING)

    def _step(self, task: Document) -> bool:
        replication = self._connect(task)
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
            target = databases.connect("target", options=IMPATIENT)
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
        began, how = time.monotonic(), task["Intent"]
        kind = task["MigrationType"]
        mode = "resume" if how == "resume-processing" else "fresh start" if how == "start-replication" else "reload"
        self._reports.say("TASK_MANAGER", f"Task '{self._reports.resource}' running {kind} in {mode} mode")
        resumed = how == "resume-processing" and replication.subscription() is not None
        if resumed:
            replication.connect(self._source_address())
        else:
            make(self._lab, task, replication, self._source_address())
        replication.enable()
        self._lab.linger(began, FLOORS["starting"])
        date = now()
        changes: Document = {"Status": "running", "Intent": None, "StartDate": date, "ReplicationTaskStartDate": date}
        if not resumed:
            changes |= {"FreshStartDate": date, "FullLoadStartDate": None if kind == "cdc" else date}
            changes |= {"FullLoadFinishDate": date if kind == "cdc" else None}
        task = self._change(**changes, StopReason=None, StopDate=None, LastFailureMessage=None)
        self._watching(task, replication)
        self._reports.tell("DMS-EVENT-0069", f"Replication task started, with flag = {mode}")

    def _look(self, task: Document, replication: Replication) -> bool:
        """Watch a running task; False when it has come to its end by itself."""
        watch, meter = self._watch, self._meter
        assert watch is not None and meter is not None
        pause = self._pause_as_planted(task, replication)
        self._let_validate(bool(task["ReplicationTaskSettings"]["ValidationSettings"]["EnableValidation"]))
        for key in task.get("Reloads") or []:
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
            self._validator = Validator(self._lab, self._arn, self._reports)
            self._validator.start()
        elif not wanted and self._validator is not None:
            self._validator.stop()
            self._validator = None

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
            self._change(HeldBack=wanted)
            if wanted == SWAP:
                self._reports.say("SORTER", PAUSED)
                self._reports.tell("DMS-EVENT-0091", "Reading paused, swap files limit reached.")
            elif before == SWAP:
                self._reports.say("SORTER", RESUMED)
                self._reports.tell("DMS-EVENT-0093", "Reading resumed.")
        return wanted

    def _loaded(self, task: Document, replication: Replication) -> bool:
        """Every table is loaded, or in error: the end of a full load, or the beginning of ongoing replication."""
        if task["MigrationType"] == "full-load-and-cdc" and not task.get("Burst"):
            self._work_on(task)
        self._change(FullLoadFinishDate=now())
        self._reports.say("TASK_MANAGER", "All tables are loaded.")
        if task["MigrationType"] == "full-load":
            self._stop(task, replication, "FULL_LOAD_ONLY_FINISHED")
            return False
        if task["ReplicationTaskSettings"]["FullLoadSettings"]["StopTaskCachedChangesApplied"]:
            self._stop(task, replication, "STOPPED_AFTER_CACHED_EVENTS")
            return False
        self._reports.say("TARGET_APPLY", "Cached changes are applied; ongoing replication begins.")
        return True

    def _work_on(self, task: Document) -> None:
        """Let the shop go on working while its tables are loaded: counters that stay at zero would prove nothing."""
        self._change(Burst=True)
        self._lab.workload.burst()
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
            Validator(self._lab, self._arn, self._reports).all()
        if self._meter is not None and task["ReplicationTaskSettings"]["ControlTablesSettings"]["StatusTableEnabled"]:
            self._meter.stopped()
        checkpoint = None
        if task["MigrationType"] == "full-load":
            replication.drop()
        elif subscription is not None:
            position = f"{subscription.applied >> 32:08X}/{subscription.applied & 0xFFFFFFFF:08X}"
            checkpoint = f"checkpoint:V1#1#{position}#0#0#*#0#0"
        self._lab.linger(began, FLOORS["stopping"])
        self._change(Status="stopped", StopReason=PREFIX + reason, StopDate=now(), RecoveryCheckpoint=checkpoint)
        self._reports.say("TASK_MANAGER", f"Task '{self._reports.resource}' stopped: {reason}")
        self._reports.tell("DMS-EVENT-0079", f"Replication task stopped, {PREFIX}{reason}")

    def _fail(self, why: str) -> None:
        """Write down why it ended. What was replicated stays; nothing more is applied, if the target can be asked."""
        if self._replication is not None and not self._replication.target.closed:
            try:
                if self._replication.subscription() is not None:
                    self._replication.disable()
            except (psycopg.Error, LabError):
                _logger.exception("The subscription of the failed task %s could not be disabled", self._arn)
        self._change(
            Status="failed", Intent=None, LastFailureMessage=why, StopReason=f"{PREFIX}FATAL_ERROR", StopDate=now()
        )
        self._reports.say("TASK_MANAGER", f"Task error: {why}", "E")
        self._reports.tell("DMS-EVENT-0078", f"Replication task failed, {why}")
