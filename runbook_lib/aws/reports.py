"""What does the task report say: DataSync's own list of what it transferred, verified, skipped and deleted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..display import Shown, Table, plural
from .s3 import S3

SHOWN = 10  # items of each kind that are kept for the screen
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
    """The detailed report of one execution; a large one is counted, not kept."""

    execution: str
    wanted: bool  # the task is set up to write a detailed report
    files: int = 0  # report files read
    counts: tuple[tuple[str, int], ...] = ()  # items by kind
    transferred: tuple[str, ...] = ()  # the first ones
    failed: tuple[ReportEntry, ...] = ()  # the first ones
    failures: int = 0

    def agrees(self, items: int) -> Agreement:
        """A finding: the report lists as many transferred items as the statistics count."""
        return Agreement(dict(self.counts).get("transferred", 0) if self.wanted else items, items, self.wanted)

    @property
    def ok(self) -> bool:
        """A finding: it lists no failure; a task without a detailed report has none to read."""
        return not self.wanted or (self.files > 0 and not self.failures)

    @property
    def reason(self) -> str:
        """What it lists."""
        if not self.wanted:
            return "the task is set up without a detailed report"
        if not self.files:
            return f"there is no report of {self.execution}"
        worst = "; ".join(f"{e.path}: {e.error}" for e in self.failed[:3])
        return f"the report lists {plural(self.failures, 'failed item')}" + (f": {worst}" if worst else "")

    def headline(self) -> str:
        """Counts by kind."""
        if not self.wanted or not self.files:
            return f"No task report: {self.reason}."
        said = ", ".join(f"{count:,} {kind}" for kind, count in self.counts)
        return f"The task report lists {said}; {plural(self.failures, 'item')} failed."

    def tables(self) -> list[Table]:
        """What failed and what was transferred, the first of each."""
        rows = [(e.kind, f"/{e.path}", e.status, e.error) for e in self.failed]
        rows += [("transferred", f"/{path}", "SUCCESS", "") for path in self.transferred]
        return [Table(("Kind", "Path", "Status", "Error"), rows, limit=SHOWN)] if rows else []


@dataclass(frozen=True)
class Agreement:
    """The report's count beside the statistics'."""

    listed: int
    counted: int
    looked: bool

    @property
    def ok(self) -> bool:
        """True when both counts are equal, or there is no list to count."""
        return self.listed == self.counted

    @property
    def reason(self) -> str:
        """Both counts."""
        if not self.looked:
            return "the task is set up without a detailed report, so there is nothing to compare"
        return f"the report lists {self.listed:,} transferred items, the statistics count {self.counted:,}"


def parse(kind: str, document: dict[str, Any]) -> list[ReportEntry]:
    """Entries of one report file.

    BASIC: RelativePath with a leading '/', FailureReason; ENHANCED: without it, ErrorCode and ErrorDetail
    (DataSync user guide, task reports).
    """
    entries = []
    for item in document.get(kind.capitalize(), []):
        status, error = outcome(item)
        entries.append(ReportEntry(kind, item["RelativePath"].strip("/"), status, error))
    return entries


def outcome(item: dict[str, Any]) -> tuple[str, str]:
    """An item's status, and why it failed."""
    status = next((item[name] for name in item if name.endswith("Status")), "SUCCESS")
    error = item.get("FailureReason") or " ".join(filter(None, (item.get("ErrorCode"), item.get("ErrorDetail"))))
    return status, error or ""


def files_of(s3: S3, bucket: str, prefix: str, execution_arn: str) -> Iterator[tuple[str, str]]:
    """The files of an execution's detailed report: their kind, and their key."""
    task_id, execution_id = execution_arn.split("/")[1], execution_arn.split("/")[3]
    at = "/".join(filter(None, (prefix, "Detailed-Reports", task_id, execution_id, "")))
    for item in s3.keys(bucket, at):
        kind = next((kind for kind in KINDS if f".files-{kind}-" in item["Key"]), None)
        if kind is not None:
            yield kind, item["Key"]


def read(s3: S3, bucket: str, prefix: str, execution_arn: str) -> TaskReport:
    """The detailed report of an execution; it comes in several files, split at 5 MB, and is counted file by file."""
    execution_id = execution_arn.split("/")[3]
    counts: Counter[str] = Counter(dict.fromkeys(KINDS, 0))
    transferred: list[str] = []
    failed: list[ReportEntry] = []
    files = failures = 0
    for kind, key in files_of(s3, bucket, prefix, execution_arn):
        files += 1
        entries = parse(kind, json.loads(s3.read(bucket, key)))
        bad = [entry for entry in entries if entry.status != "SUCCESS"]
        failures += len(bad)
        counts[kind] += len(entries) - len(bad)
        failed = (failed + bad)[:SHOWN]
        if kind == "transferred":
            transferred = (transferred + [entry.path for entry in entries if entry.status == "SUCCESS"])[:SHOWN]
    return TaskReport(execution_id, True, files, tuple(counts.items()), tuple(transferred), tuple(failed), failures)
