"""The last copy: what differs before it, the DataSync task run to its end, and its statistics beside earlier ones."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from .application_server import ApplicationServer, ListingTooLong
from .aws import reports
from .aws.datasync import DataSync
from .aws.executions import Task, TaskExecution
from .aws.reports import TaskReport
from .aws.s3 import S3, StoredObject
from .display import Plot, Shown, Table, duration, plural, size
from .errors import NotFound
from .filters import Filters
from .inventory import METADATA_KEY, Pending, pending

if TYPE_CHECKING:
    from .inventory.store import Inventory


@dataclass(frozen=True, repr=False)
class History(Shown):
    """Executions of a task, oldest first; the last is this run."""

    executions: tuple[TaskExecution, ...]

    @property
    def latest(self) -> TaskExecution:
        """The last one."""
        return self.executions[-1]

    @property
    def ok(self) -> bool:
        """A finding: there is at least one."""
        return bool(self.executions)

    @property
    def reason(self) -> str:
        """What was seen."""
        return f"{plural(len(self.executions), 'execution')} listed; AWS keeps them for 30 days"

    def headline(self) -> str:
        """How many."""
        return f"The last {plural(len(self.executions), 'execution')} of the task, oldest first."

    def tables(self) -> list[Table]:
        """One row an execution."""
        rows = [
            (
                e.started.isoformat(timespec="seconds") if e.started else "",
                e.status,
                f"{e.items_transferred:,}",
                f"{e.files_skipped:,}",
                size(e.bytes_written),
                duration(e.total_seconds),
            )
            for e in self.executions
        ]
        return [Table(("Started", "Status", "Items transferred", "Skipped", "Written", "Took"), rows)]

    def plot(self) -> Plot:
        """Items transferred by each execution, as bars on a logarithmic scale."""
        from matplotlib.figure import Figure

        counts = [e.items_transferred for e in self.executions]
        labels = [e.started.strftime("%d %b %H:%M:%S") if e.started else "" for e in self.executions]
        figure = Figure(figsize=(6.4, 0.6 + 0.45 * len(counts)), layout="constrained")
        axes = figure.subplots()
        bars = axes.barh([f"{label}  #{n}" for n, label in enumerate(labels, 1)], counts, color="#4c72b0")
        axes.bar_label(bars, [f"{count:,}" for count in counts], padding=3)
        axes.set_xscale("symlog")
        axes.set_xlabel("items transferred (logarithmic)")
        axes.invert_yaxis()
        axes.margins(x=0.15)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
        said = ", then ".join(f"{count:,}" for count in counts)
        return Plot(f"Items transferred by each execution, oldest first: {said}.", buffer.getvalue())


class Transfer:
    """The environment's DataSync task and both its ends; `rb.datasync`."""

    def __init__(
        self,
        datasync: DataSync,
        s3: S3,
        server: ApplicationServer,
        *,
        find_task: Callable[[], Task],
        timeout: float,
    ) -> None:
        self._datasync, self._s3, self._server = datasync, s3, server
        self._find_task = find_task
        self._timeout = timeout

    @cached_property
    def task(self) -> Task:
        """The task, as it was when first asked for."""
        return self._find_task()

    def pending(self) -> Pending:
        """What differs between source and destination now, so what a run in CHANGED mode has to transfer."""
        task = self.task
        try:
            source = self._server.scan("source")
        except ListingTooLong as error:  # then DataSync's own estimate has to do
            count, newest = self._server.newest("source")
            return Pending((), (), count, newest, str(error))
        filters = Filters(task.includes, task.excludes)
        options = task.options
        ignored = {"mtime"} if options.get("Mtime") == "NONE" else set()
        ignored |= {"uid"} if options.get("Uid") == "NONE" else set()
        ignored |= {"gid"} if options.get("Gid") == "NONE" else set()
        ignored |= {"mode"} if options.get("PosixPermissions") == "NONE" else set()
        return pending(
            source,
            self._s3.entries(task.destination.bucket, task.destination.prefix, {entry.key for entry in source}),
            root_copied=self._top_copied(),
            compare=frozenset({"mtime", "mode", "uid", "gid"} - ignored),
            everything=options.get("TransferMode") == "ALL",
            never_overwrite=options.get("OverwriteMode") == "NEVER",
            excluded=lambda path: not filters.in_scope(path),
        )

    def _top_copied(self) -> datetime | None:
        """The start of the last execution that copied the top folder's own metadata.

        That is every one whose transfer succeeded; one that failed did so too when it rewrote the metadata object.
        """
        target = self.task.destination
        try:
            rewritten = self._s3.head(target.bucket, target.prefix + METADATA_KEY).modified
        except NotFound:
            rewritten = datetime.min.replace(tzinfo=UTC)
        copied = [
            e.started
            for e in self._datasync.executions(self.task, 100)
            if e.started and e.ended and (e.transferred_ok or rewritten >= e.started.replace(microsecond=0))
        ]
        # AWS forgets executions after 30 days; then the object itself tells, to the second
        return max(copied, default=rewritten + timedelta(seconds=1) if rewritten.year > 1 else None)

    def run(self, before: Pending) -> TaskExecution:
        """Run the task once to its end, or attach to a run that already has the last change at the source."""
        return self._datasync.run(self.task, changed=before.newest_change, timeout=self._timeout)

    @staticmethod
    def expected(before: Pending, execution: TaskExecution) -> int:
        """How many items the execution should have transferred: what differed before its start.

        For an execution that was already running when we looked, or a source too long to be listed through
        commands, it is what DataSync's own preparation found.
        """
        return execution.items_estimated if execution.adopted or before.items is None else before.items

    def history(self, most: int = 5) -> History:
        """The latest executions, oldest first; `NotFound` when the task was never run."""
        executions = self._datasync.executions(self.task, most)
        if not executions:
            raise NotFound(
                f"The task {self.task.name} has no execution that AWS still lists (30 days). Run 02_run_datasync_task."
            )
        return History(tuple(executions))

    def report(self, execution: TaskExecution) -> TaskReport:
        """The task report of an execution, once it is written; a task may be set up without a detailed one."""
        if self.task.report_bucket is None or not self.task.report_lists_all:
            return TaskReport(execution.short_id, wanted=False)
        ended = self._datasync.wait_report(execution)
        return reports.read(self._s3, self.task.report_bucket, self.task.report_prefix, ended.arn)

    def report_inventory(self, folder: Path) -> Inventory:
        """What the latest execution's report lists, as an inventory made in a folder."""
        from .aws.report_inventory import from_task_report

        latest, task = self.history(1).latest, self.task
        if task.report_bucket is None or not task.report_lists_all:
            raise NotFound(
                f"The task {task.name} writes no detailed report. Set its report to STANDARD with "
                "SUCCESSES_AND_ERRORS and run it once more, or scan the source."
            )
        ended = self._datasync.wait_report(latest)
        seen = None if ended.started is None else (ended.started, ended.ended or ended.started)
        return from_task_report(
            self._s3, task.report_bucket, task.report_prefix, ended.arn, folder, seen,
            counted={"transferred": ended.files, "skipped": ended.files_skipped},
        )  # fmt: skip

    def object(self, path: str) -> StoredObject:
        """The object of a file, by the file's path below the source."""
        return self._s3.head(self.task.destination.bucket, self.task.destination.prefix + path)

    def delete_object(self, path: str) -> None:
        """Delete the object of a file; part of the undo."""
        self._s3.delete(self.task.destination.bucket, self.task.destination.prefix + path)
