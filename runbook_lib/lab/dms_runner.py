"""How does a task go from `starting` to its end? A thread of the lab that goes by what is written down.

Every step begins from the stored task, so that a thread which a killed server interrupts tries the step again, and a
killed lab goes on where it was. What the steps are is in dms_run.py and dms_load.py.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from .dms_reports import Reports
from .dms_resources import TASK, Document, now
from .dms_tables import Tables

if TYPE_CHECKING:
    from .core import Lab

FLOORS = {"starting": 3.0, "stopping": 2.0}  # seconds times pace
RETRY = 0.5  # seconds until the next try after a server went away
PATIENCE = 30.0  # seconds for the run before to end its sessions
PREFIX = "Stop Reason "
PASSING = ("08", "40", "53", "55006", "55P03", "57P")  # SQLSTATEs of errors that another try may cure
MODES = {"start-replication": "fresh start", "resume-processing": "resume", "reload-target": "reload"}
_logger = logging.getLogger(__name__)


class TaskFailed(Exception):
    """The task cannot go on, and trying again does not help; the message is its LastFailureMessage."""


class Runner(ABC):
    """One task from its start to its end."""

    broken: ClassVar[tuple[type[Exception], ...]]  # what is raised, among others when a server went away

    def __init__(self, lab: Lab, task_arn: str, ended: Callable[[Runner], None]) -> None:
        self._lab, self._arn, self._ended = lab, task_arn, ended
        self._reports = Reports(lab, self._document())
        self._tables = Tables(lab.database, task_arn)
        self._closing = threading.Event()
        self._wake = threading.Event()
        self._lost = False
        self._before: Runner | None = None
        name = f"dms-{task_arn.rpartition(':')[2].lower()}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self, after: Runner | None = None) -> None:
        """Begin, or go on with what is written down, when the run before has ended its sessions."""
        self._before = after
        self._thread.start()

    def wake(self) -> None:
        """Look at the stored task now: somebody has asked for something."""
        self._wake.set()

    def close(self) -> None:
        """The lab stops: the task stays as it is, for the next lab to go on with."""
        self._closing.set()
        self._wake.set()

    def join(self, patience: float) -> bool:
        """Wait for the thread's end, for seconds; whether it has ended."""
        self._thread.join(patience)
        return not self._thread.is_alive()

    def _document(self) -> Document:
        task = self._lab.database.get(TASK, self._arn)
        if task is None:
            raise KeyError(self._arn)
        return task

    def _change(self, **changes: Any) -> Document:
        return self._lab.database.update(TASK, self._arn, **changes)

    # What a kind of run does.

    @abstractmethod
    def _step(self, task: Document) -> bool:
        """One step; False when it was the last."""

    @abstractmethod
    def _pause(self) -> float:
        """Seconds until the next step."""

    @abstractmethod
    def _may_pass(self, error: Exception) -> bool:
        """Whether it was a server that went away, or something else that another try may cure."""

    @abstractmethod
    def _disconnect(self) -> None:
        """End the sessions."""

    def _leave(self) -> None:
        """End the sessions, and what runs beside the thread."""
        self._disconnect()

    def _halt(self) -> None:
        """Have nothing more happen to the databases: the task has failed."""
        self._disconnect()

    # The thread.

    def _run(self) -> None:
        try:
            if self._before is not None and not self._before.join(PATIENCE):
                raise TaskFailed("The task's last run does not end its sessions; start the task again later.")
            self._before = None
            while not self._closing.is_set() and self._survive():
                self._wake.wait(RETRY if self._lost else self._pause())
                self._wake.clear()
        except TaskFailed as error:
            self._fail(str(error))
        except Exception as error:
            if not self._closing.is_set():
                _logger.exception("The DMS task %s failed", self._arn)
                self._fail(f"{type(error).__name__}: {' '.join(str(error).split())}")
        finally:
            self._leave()
            self._lab.database.close()
            self._ended(self)

    def _survive(self) -> bool:
        """One step; False when it was the last. A server that went away is waited for."""
        try:
            more = self._step(self._document())
            if self._lost:
                self._lost = False
                self._reports.say("TASK_MANAGER", "Connections to source and target are restored; the task goes on.")
            return more
        except self.broken as error:
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

    # Its states.

    def _greet(self, task: Document) -> None:
        said = f"running {task['MigrationType']} in {MODES[task['Intent']]} mode"
        self._reports.say("TASK_MANAGER", f"Task '{self._reports.resource}' {said}")

    def _running(self, task: Document, began: float, date: float, *, fresh: bool) -> Document:
        """`running` from now on, and from the beginning when `fresh`.

        It began at `date`, by time.monotonic at `began`: before its first line in the log.
        """
        self._lab.linger(began, FLOORS["starting"])
        loads = task["MigrationType"] != "cdc"
        changes: Document = {"Status": "running", "Intent": None, "StartDate": date, "ReplicationTaskStartDate": date}
        if fresh:
            changes |= {"FreshStartDate": date, "FullLoadStartDate": date if loads else None}
            changes |= {"FullLoadFinishDate": None if loads else date}
        mode = MODES[task["Intent"]]
        task = self._change(**changes, StopReason=None, StopDate=None, LastFailureMessage=None)
        self._reports.tell("DMS-EVENT-0069", f"Replication task started, with flag = {mode}")
        return task

    def _stopped(self, began: float, reason: str, checkpoint: str | None = None) -> None:
        """`stopped` from now on."""
        self._lab.linger(began, FLOORS["stopping"])
        self._change(Status="stopped", StopReason=PREFIX + reason, StopDate=now(), RecoveryCheckpoint=checkpoint)
        self._reports.say("TASK_MANAGER", f"Task '{self._reports.resource}' stopped: {reason}")
        self._reports.tell("DMS-EVENT-0079", f"Replication task stopped, {PREFIX}{reason}")

    def _fail(self, why: str) -> None:
        """Write down why it ended; nothing more happens to the databases."""
        self._halt()
        self._change(
            Status="failed", Intent=None, LastFailureMessage=why, StopReason=f"{PREFIX}FATAL_ERROR", StopDate=now()
        )
        self._reports.say("TASK_MANAGER", f"Task error: {why}", "E")
        self._reports.tell("DMS-EVENT-0078", f"Replication task failed, {why}")
