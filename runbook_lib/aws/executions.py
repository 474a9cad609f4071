"""What was seen of a DataSync task and its executions: statistics with their units, and the verdict."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ..display import Shown, Table, duration, plural, size


@dataclass(frozen=True)
class Location:
    """One end of a task, from its URI: nfs://host/path/ or s3://bucket/prefix/."""

    arn: str
    uri: str

    @property
    def bucket(self) -> str:
        """The bucket of an S3 location."""
        return re.sub(r"^s3://", "", self.uri).split("/")[0]

    @property
    def prefix(self) -> str:
        """The key prefix of an S3 location: '' or 'a/b/'."""
        rest = re.sub(r"^s3://[^/]+", "", self.uri).strip("/")
        return f"{rest}/" if rest else ""


@dataclass(frozen=True)
class Task:
    """A DataSync task as described."""

    arn: str
    name: str
    status: str
    mode: str  # BASIC or ENHANCED
    source: Location
    destination: Location
    current_execution: str | None
    options: dict[str, Any]
    includes: str
    excludes: str
    schedule: str | None
    schedule_status: str | None
    report_bucket: str | None
    report_prefix: str
    report_lists_all: bool  # STANDARD with successes: it names every transferred item
    log_group: str | None
    agent_arns: tuple[str, ...]
    error: str | None


@dataclass(frozen=True, repr=False)
class TaskExecution(Shown):
    """A task execution as described; counts are items, sizes bytes, durations seconds, times UTC.

    In BASIC mode the Files* counters include directories; in ENHANCED mode directories have their own
    (DataSync user guide, task execution statistics).
    """

    arn: str
    status: str
    mode: str
    started: datetime | None
    ended: datetime | None
    estimated_files: int
    estimated_folders: int
    estimated_bytes: int
    files: int
    folders: int
    bytes_written: int
    bytes_transferred: int
    files_verified: int
    files_skipped: int
    files_deleted: int
    failed: int
    phases: tuple[tuple[str, str, float | None], ...]  # (phase, status, seconds)
    total_seconds: float | None
    error: str | None
    report_status: str | None
    raw: dict[str, Any] = field(repr=False, compare=False)
    adopted: bool = False

    @classmethod
    def from_response(cls, answer: dict[str, Any], adopted: bool = False) -> TaskExecution:
        """From DescribeTaskExecution; members of the other mode are absent and count as 0."""
        result = answer.get("Result", {})
        phases = tuple(
            (phase.lower(), result[f"{phase}Status"], _seconds(result.get(f"{phase}Duration")))
            for phase in ("Prepare", "Transfer", "Verify")
            if result.get(f"{phase}Status")
        )
        code, detail = result.get("ErrorCode"), result.get("ErrorDetail")
        return cls(
            arn=answer["TaskExecutionArn"],
            status=answer["Status"],
            mode=answer.get("TaskMode", "BASIC"),
            started=_utc(answer.get("StartTime")),
            ended=_utc(answer.get("EndTime")),
            estimated_files=answer.get("EstimatedFilesToTransfer", 0),
            estimated_folders=answer.get("EstimatedFoldersToTransfer", 0),
            estimated_bytes=answer.get("EstimatedBytesToTransfer", 0),
            files=answer.get("FilesTransferred", 0),
            folders=answer.get("FoldersTransferred", 0),
            bytes_written=answer.get("BytesWritten", 0),
            bytes_transferred=answer.get("BytesTransferred", 0),
            files_verified=answer.get("FilesVerified", 0),
            files_skipped=answer.get("FilesSkipped", 0),
            files_deleted=answer.get("FilesDeleted", 0),
            failed=sum(answer.get("FilesFailed", {}).values()) + sum(answer.get("FoldersFailed", {}).values()),
            phases=phases,
            total_seconds=_seconds(result.get("TotalDuration")),
            error=f"{code}: {detail}" if code and detail else code or detail,
            report_status=answer.get("ReportResult", {}).get("Status"),
            raw={key: value for key, value in answer.items() if key != "ResponseMetadata"},
            adopted=adopted,
        )

    @property
    def ended_ok(self) -> bool:
        """True when it ended with SUCCESS."""
        return self.status == "SUCCESS"

    @property
    def transferred_ok(self) -> bool:
        """True when its transfer phase succeeded, whatever verification said."""
        return self.ended_ok or ("transfer", "SUCCESS") in [(phase, status) for phase, status, _ in self.phases]

    @property
    def ok(self) -> bool:
        """A finding: it succeeded, without an error and without failed items."""
        return self.ended_ok and not self.error and self.failed == 0

    @property
    def reason(self) -> str:
        """Why it is not ok."""
        failed = f"{plural(self.failed, 'item')} failed" if self.failed else ""
        return "; ".join(part for part in (f"the execution's status is {self.status}", self.error, failed) if part)

    @property
    def items_transferred(self) -> int:
        """Files and directories transferred, counted alike in both modes."""
        return self.files + self.folders

    @property
    def items_estimated(self) -> int:
        """Files and directories that DataSync's own preparation found to transfer; read only after the end.

        BASIC adds the expected deletions to its estimate (DataSync API, DescribeTaskExecution): they are taken off.
        """
        deletions = self.raw.get("EstimatedFilesToDelete", 0) if self.mode == "BASIC" else 0
        return self.estimated_files + self.estimated_folders - deletions

    @property
    def short_id(self) -> str:
        """The last part of the ARN."""
        return self.arn.rpartition("/")[2]

    def headline(self) -> str:
        """Verdict and sentence."""
        how = ", was already running and was attached to" if self.adopted else ""
        return (
            f"{self.status}: {plural(self.items_transferred, 'item')} transferred by a {self.mode} task execution{how}."
        )

    def tables(self) -> list[Table]:
        """The statistics."""
        if self.mode == "ENHANCED":
            counts = [("Files transferred", f"{self.files:,}"), ("Folders transferred", f"{self.folders:,}")]
        else:
            counts = [("Files and folders transferred", f"{self.files:,}")]
        rows = [
            ("Execution", self.arn),
            ("Started", _text(self.started)),
            ("Ended", _text(self.ended)),
            ("Found to transfer", f"{self.items_estimated:,}"),
            *counts,
            ("Verified", f"{self.files_verified:,}"),
            ("Skipped (unchanged)", f"{self.files_skipped:,}"),
            ("Deleted", f"{self.files_deleted:,}"),
            ("Failed", f"{self.failed:,}"),
            ("Written at the destination", size(self.bytes_written)),
            *((f"Phase {phase}", f"{status}, {duration(seconds)}") for phase, status, seconds in self.phases),
            ("Total", duration(self.total_seconds)),
            *([("Error", self.error)] if self.error else []),
        ]
        return [Table(("Statistic", "Value"), rows)]


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _utc(moment: datetime | None) -> datetime | None:
    return moment.astimezone(UTC) if moment else None


def _text(moment: datetime | None) -> str:
    return moment.isoformat(timespec="milliseconds") if moment else "not yet"


def filter_text(rules: list[dict[str, str]] | None) -> str:
    """The one rule of a filter, or ''."""
    return rules[0]["Value"] if rules else ""
