"""What does the task report say: DataSync's own list of what it transferred, verified, skipped and deleted."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from ..display import Shown, Table, plural
from .s3 import S3

KINDS = ("transferred", "verified", "skipped", "deleted")  # report files, as they are named


@dataclass(frozen=True)
class ReportEntry:
    """One item of a detailed report, the same for both task modes."""

    kind: str
    path: str  # without a leading '/'; '' is the top folder
    status: str  # SUCCESS or FAILED
    error: str


@dataclass(frozen=True, repr=False)
class TaskReport(Shown):
    """The detailed report of one execution."""

    bucket: str
    execution: str
    entries: tuple[ReportEntry, ...]
    files: int  # report files read

    def agrees(self, items: int) -> Agreement:
        """A finding: the report lists as many transferred items as the statistics count."""
        return Agreement(len(self.transferred), items, self.files > 0)

    @property
    def transferred(self) -> list[str]:
        """Paths that were transferred."""
        return [e.path for e in self.entries if e.kind == "transferred" and e.status == "SUCCESS"]

    @property
    def failed(self) -> list[ReportEntry]:
        """Items that failed, in any phase."""
        return [e for e in self.entries if e.status != "SUCCESS"]

    @property
    def ok(self) -> bool:
        """A finding: the report is there and lists no failure."""
        return self.files > 0 and not self.failed

    @property
    def reason(self) -> str:
        """What it lists."""
        if not self.files:
            return f"there is no report of {self.execution} in s3://{self.bucket}"
        worst = "; ".join(f"{e.path}: {e.error}" for e in self.failed[:3])
        return f"the report lists {plural(len(self.failed), 'failed item')}: {worst}"

    def headline(self) -> str:
        """Counts by kind."""
        counts = Counter(e.kind for e in self.entries)
        said = ", ".join(f"{counts[kind]:,} {kind}" for kind in KINDS)
        return f"The task report lists {said}; {plural(len(self.failed), 'item')} failed."

    def tables(self) -> list[Table]:
        """What was transferred, and what failed."""
        named = [
            (e.kind, f"/{e.path}", e.status, e.error)
            for e in [*self.failed, *(x for x in self.entries if x.kind == "transferred")]
        ]
        return [Table(("Kind", "Path", "Status", "Error"), named, limit=10)] if named else []


@dataclass(frozen=True)
class Agreement:
    """The report's count beside the statistics'."""

    listed: int
    counted: int
    looked: bool

    @property
    def ok(self) -> bool:
        """True when both counts are equal and there was a report to count."""
        return self.looked and self.listed == self.counted

    @property
    def reason(self) -> str:
        """Both counts."""
        return f"the report lists {self.listed:,} transferred items, the statistics count {self.counted:,}"


def parse(kind: str, document: dict[str, Any]) -> list[ReportEntry]:
    """Entries of one report file.

    BASIC: RelativePath with a leading '/', FailureReason; ENHANCED: without it, ErrorCode and ErrorDetail
    (DataSync user guide, task reports).
    """
    entries = []
    for item in document.get(kind.capitalize(), []):
        status = next((item[name] for name in item if name.endswith("Status")), "SUCCESS")
        error = item.get("FailureReason") or " ".join(filter(None, (item.get("ErrorCode"), item.get("ErrorDetail"))))
        entries.append(ReportEntry(kind, item["RelativePath"].strip("/"), status, error or ""))
    return entries


def read(s3: S3, bucket: str, prefix: str, execution_arn: str) -> TaskReport:
    """The detailed report of an execution; it comes in several files, split at 5 MB."""
    task_id, execution_id = execution_arn.split("/")[1], execution_arn.split("/")[3]
    at = "/".join(filter(None, (prefix, "Detailed-Reports", task_id, execution_id, "")))
    entries: list[ReportEntry] = []
    files = 0
    for item in s3.keys(bucket, at):
        kind = next((kind for kind in KINDS if f".files-{kind}-" in item["Key"]), None)
        if kind is not None:
            files += 1
            entries += parse(kind, json.loads(s3.read(bucket, item["Key"])))
    return TaskReport(bucket, execution_id, tuple(entries), files)
