"""How does one execution go through its states, and who watches the worker that does the work?"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..errors import LabError
from .datasync_locations import export_path
from .datasync_options import filter_text
from .datasync_resources import EXECUTION, LOCATION, Document, chosen, now
from .datasync_tasks import TERMINAL
from .reports import bucket_and_prefix, summary_key
from .transfer_job import Job

if TYPE_CHECKING:
    from .core import Lab

FLOORS = {"LAUNCHING": 2.0, "PREPARING": 2.0, "TRANSFERRING": 3.0, "VERIFYING": 2.0}  # seconds times pace
_PHASES = {"PREPARING": "Prepare", "TRANSFERRING": "Transfer", "VERIFYING": "Verify"}  # as Result names them
_LOGGER = logging.getLogger(__name__)


def publish(send: Callable[[], None]) -> None:
    """Send an event or a log line. Delivery is best effort, as AWS's is: a transfer does not fail for it."""
    try:
        send()
    except Exception:
        _LOGGER.exception("An event or a log line of DataSync was lost")


class Run:
    """One execution from LAUNCHING to its end: a thread of the daemon and a worker process."""

    def __init__(self, lab: Lab, lock: threading.RLock, execution: Document, ended: Callable[[], None]) -> None:
        self._lab, self._lock, self._ended = lab, lock, ended
        self.arn: str = execution["TaskExecutionArn"]
        self.agents = set(execution["AgentArns"])
        self.task: str = execution["TaskArn"]
        self._region = self.arn.split(":")[3]
        self._group = _log_group(execution)
        self._worker: subprocess.Popen[str] | None = None
        self._phase, self._began = "LAUNCHING", time.monotonic()
        self._launched = time.monotonic()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=self.arn.rpartition("/")[2], daemon=True)

    # What the service asks for.

    def start(self) -> None:
        """Begin; the caller holds the lock."""
        self._change(Status="LAUNCHING", LaunchTime=now())
        self._thread.start()

    def cancelling(self) -> None:
        """Begin to cancel: what the worker has staged is dropped, what it has committed stays."""
        with self._lock:
            self._lab.database.update(EXECUTION, self.arn, Status="CANCELLING")
        self._tell(cancel=True)
        emit_state(self._lab, self.arn, "DataSync Task Execution State Change", "CANCELLING")

    def limit(self, rate: int) -> None:
        """Bytes per second from now on."""
        self._tell(rate=rate)

    def kill(self) -> None:
        """The lab stops: end the worker at once."""
        self._stopping = True
        if self._worker is not None:
            self._worker.kill()

    def join(self, timeout: float | None = None) -> None:
        """Wait until everything about the execution is written and published."""
        self._thread.join(timeout)

    @property
    def worker(self) -> int | None:
        """The worker's process id, once it runs."""
        return None if self._worker is None else self._worker.pid

    # The thread.

    def _run(self) -> None:
        self._emit("LAUNCHING")
        try:
            end = self._work()
        except Exception as error:
            _LOGGER.exception("The execution %s failed", self.arn)
            end = {"ErrorCode": "InternalError", "ErrorDetail": f"{type(error).__name__}: {error}"}
        self._finish(end)
        self._lab.database.close()
        self._ended()

    def _work(self) -> Document:
        if self._lab.fault("agent-offline") is not None:
            return {"ErrorCode": "AgentOffline", "ErrorDetail": "The DataSync agent is offline: it does not answer."}
        command = [sys.executable, "-m", "runbook_lib.lab.transfer"]
        # In a session of its own: an interrupt from a terminal reaches the daemon, and the daemon's end the worker.
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", start_new_session=True
        ) as worker:
            assert worker.stdout is not None and worker.stdin is not None
            with self._lock:  # the job comes first: earlier changes are in it, later ones come after it
                self._worker = worker
                self._send(asdict(job_of(self._lab, self._document())))
            if self._stopping:
                worker.kill()
            elif self._document()["Status"] == "CANCELLING":  # asked before there was a worker to tell
                self._tell(cancel=True)
            end: Document | None = None
            for line in worker.stdout:
                message = json.loads(line)
                if "end" in message:
                    end = message["end"]
                    break
                self._hear(message)
            worker.stdin.close()
            status = worker.wait()
        if end is not None:
            return end
        if self._stopping:
            return {"ErrorCode": "LabStopped", "ErrorDetail": "The lab was stopped during this execution."}
        return {"ErrorCode": "WorkerLost", "ErrorDetail": f"The transfer process ended unexpectedly (status {status})."}

    def _hear(self, message: Document) -> None:
        if "counters" in message:
            self._change(Counters=message["counters"], SeenAt=now())
            if message["log"]:
                self._log(message["log"])
        elif "phase" in message:
            self._enter(message["phase"])
            self._tell(go=True)

    def _enter(self, phase: str) -> None:
        self._lab.linger(self._began, FLOORS[self._phase])
        with self._lock:
            self._leave("SUCCESS")
            if self._document()["Status"] == "CANCELLING":
                return
            self._change(Status=phase)
        self._emit(phase)

    def _leave(self, status: str) -> None:
        """Write down how the phase that ends went and how long it took; ENHANCED has no durations of phases."""
        name = _PHASES.get(self._phase)
        execution = self._document()
        if name is not None:
            took = 0 if execution["TaskMode"] == "ENHANCED" else round((time.monotonic() - self._began) * 1000)
            result = {**execution["Result"], f"{name}Status": status, f"{name}Duration": took}
            self._change(Result=result)

    def _finish(self, end: Document) -> None:
        self._lab.linger(self._began, FLOORS[self._phase] if not self._stopping else 0)
        report_failure = end.pop("report", None)
        whole = "ErrorCode" not in end or any(name.endswith("Status") for name in end)
        with self._lock:
            self._leave("SUCCESS" if whole else "ERROR")
            execution = self._document()
            if execution["Status"] == "CANCELLING" and whole:  # the worker was done before it heard
                end = {**end, "ErrorCode": "Cancelled", "ErrorDetail": "The task execution was cancelled."}
            took = round((time.monotonic() - self._launched) * 1000)
            result = {**execution["Result"], **end, "TotalDuration": took}
            status = "ERROR" if "ErrorCode" in end else "SUCCESS"
            self._change(Status=status, EndTime=now(), Result=result)
        self._report(report_failure)
        self._log_end(status, end)
        self._emit(status)

    # What goes out.

    def _report(self, failure: str | None) -> None:
        """Write the summary; the worker has written the rest. It can fail without the transfer failing."""
        execution = self._document()
        config = execution.get("TaskReportConfig")
        if not config:
            return
        bucket, prefix = bucket_and_prefix(config)
        task_id, execution_id = ids(self.arn)
        members = chosen(execution, "TaskMode", "Options", "Includes", "Excludes", "StartTime", "LaunchTime", "EndTime")
        summary = {
            "TaskExecutionId": execution_id,
            "TaskExecutionArn": self.arn,
            **members,
            "Status": execution["Status"],
            "Result": execution["Result"],
            **counters_shown(execution),
        }
        try:
            key = summary_key(prefix, task_id, execution_id)
            self._lab.objects.put(bucket, key, json.dumps(summary).encode(), content_type="application/json")
        except LabError as error:
            failure = str(error)
        if failure is None:
            self._change(ReportResult={"Status": "SUCCESS"})
        else:
            self._change(ReportResult={"Status": "ERROR", "ErrorCode": "ReportFailed", "ErrorDetail": failure})

    def _log(self, lines: list[str]) -> None:
        if self._group is not None:
            group, stream = self._group, "-".join(ids(self.arn))
            publish(lambda: self._lab.bus.log(region=self._region, group=group, stream=stream, lines=lines))

    def _log_end(self, status: str, end: Document) -> None:
        execution = self._document()
        if execution["Options"]["LogLevel"] == "OFF" or execution["TaskMode"] == "ENHANCED":
            return
        reason = f": {end['ErrorDetail']}" if "ErrorDetail" in end else ""
        self._log([f"[{'INFO' if status == 'SUCCESS' else 'ERROR'}] Finished with status {status}{reason}"])

    def _emit(self, state: str) -> None:
        emit_state(self._lab, self.arn, "DataSync Task Execution State Change", state)
        if state in ("LAUNCHING", *TERMINAL):
            task_state = "AVAILABLE" if state in TERMINAL else "RUNNING"
            emit_state(self._lab, self.task, "DataSync Task State Change", task_state)

    # Small things.

    def _document(self) -> Document:
        found = self._lab.database.get(EXECUTION, self.arn)
        assert found is not None  # DeleteTask refuses while it runs
        return found

    def _change(self, **changes: Any) -> None:
        with self._lock:
            if "Status" in changes:
                changes["PhaseBegan"] = changes["SeenAt"] = now()  # for who finds it after this process was killed
            self._lab.database.update(EXECUTION, self.arn, **changes)
            if "Status" in changes:
                self._phase, self._began = changes["Status"], time.monotonic()

    def _tell(self, **command: Any) -> None:
        if self._worker is not None:
            self._send(command)

    def _send(self, message: Document) -> None:
        assert self._worker is not None and self._worker.stdin is not None
        try:
            with self._lock:  # the API's threads and the run's own thread write
                self._worker.stdin.write(json.dumps(message) + "\n")
                self._worker.stdin.flush()
        except (BrokenPipeError, ValueError):  # ValueError: closed
            _LOGGER.info("The worker of %s has ended; it did not hear %s", self.arn, sorted(message))


def ids(execution_arn: str) -> tuple[str, str]:
    """(task id, execution id) of an execution's ARN."""
    task, _, execution = execution_arn.partition("/execution/")
    return task.rpartition("/")[2], execution


def emit_state(lab: Lab, arn: str, detail_type: str, state: str) -> None:
    """One state-change event; the ARN is only in `resources`, as on AWS."""
    region = arn.split(":")[3]
    publish(
        lambda: lab.bus.emit(
            region=region, source="aws.datasync", detail_type=detail_type, resources=[arn], detail={"State": state}
        )
    )


def _log_group(execution: Document) -> str | None:
    """Where an execution logs: ENHANCED tasks have a group without being given one."""
    arn: str | None = execution.get("CloudWatchLogGroupArn")
    if arn is not None:
        return arn.split(":log-group:")[1].removesuffix(":*")
    return "/aws/datasync" if execution["TaskMode"] == "ENHANCED" else None


def job_of(lab: Lab, execution: Document) -> Job:
    """What the worker has to know."""
    source = lab.database.get(LOCATION, execution["SourceLocationArn"])
    destination = lab.database.get(LOCATION, execution["DestinationLocationArn"])
    assert source is not None and destination is not None
    task_id, execution_id = ids(execution["TaskExecutionArn"])
    unreadable = lab.fault("unreadable-file")
    changing = lab.fault("file-changes-during-copy")
    return Job(
        database=str(lab.folder.database),
        blobs=str(lab.folder.blobs),
        staging=str(lab.folder.staging),
        export=str(lab.folder.export),
        subdirectory=export_path(source["Folder"]) or "",
        bucket=destination["Bucket"],
        prefix=destination["Prefix"],
        storage_class=destination["S3StorageClass"],
        task_id=task_id,
        execution_id=execution_id,
        source_location=source["LocationArn"].rpartition("/")[2],
        destination_location=destination["LocationArn"].rpartition("/")[2],
        enhanced=execution["TaskMode"] == "ENHANCED",
        options=execution["Options"],
        includes=filter_text(execution["Includes"]),
        excludes=filter_text(execution["Excludes"]),
        report=execution.get("TaskReportConfig"),
        unreadable=[] if unreadable is None else [unreadable.get("path", "images/00003.jpg")],
        changing=None if changing is None else changing.get("path", ""),
    )


def counters_shown(execution: Document) -> Document:
    """The counters of DescribeTaskExecution: BASIC adds folders to files, ENHANCED has them apart."""
    counters = execution["Counters"]
    files, folders = counters["files"], counters["folders"]
    shown = {
        "EstimatedBytesToTransfer": counters["bytes_estimated"],
        "BytesTransferred": counters["bytes_transferred"],
        "BytesCompressed": counters["bytes_transferred"],  # nothing is compressed on the way to a loopback port
        "BytesWritten": counters["bytes_written"],
    }
    if execution["TaskMode"] == "BASIC":
        both = {name: files[name] + folders[name] for name in files}
        failed = both["failed_list"] + both["failed_prepare"] + both["failed_transfer"]
        return shown | {
            "EstimatedFilesToTransfer": both["prepared"] + both["to_delete"],
            "EstimatedFilesToDelete": both["to_delete"],
            "FilesTransferred": both["transferred"],
            "FilesSkipped": both["skipped"] + failed,
            "FilesVerified": both["verified"],
            "FilesDeleted": both["deleted"],
        }
    compared = execution["Options"]["TransferMode"] == "CHANGED"
    for name, count in (("Files", files), ("Folders", folders)):
        shown |= {
            f"Estimated{name}ToTransfer": count["prepared"],
            f"Estimated{name}ToDelete": count["to_delete"],
            f"{name}Listed": {
                "AtSource": count["listed"],
                "AtDestinationForDelete": count["listed_at_destination"],
            },
            f"{name}Prepared": count["prepared"] if compared else 0,
            f"{name}Transferred": count["transferred"],
            f"{name}Skipped": count["skipped"],
            f"{name}Verified": count["verified"],
            f"{name}Deleted": count["deleted"],
            f"{name}Failed": {
                step.capitalize(): count[f"failed_{step}"] for step in ("prepare", "transfer", "verify", "delete")
            },
        }
    shown["FoldersFailed"]["List"] = folders["failed_list"]
    return shown
