"""What does a DataSync task report say, and where in the bucket does it say it?

Keys, the split at 5 MB and the two schemas are from the DataSync user guide, task reports. Not documented there, so the
lab's own: the summary's file name and members, and the names of the hashes and metadata in Verified entries.
"""

from __future__ import annotations

import json
import secrets
import stat
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from ..errors import LabError
from .objects import ObjectStore
from .transfer_source import Item, shown

SECTIONS = ("Transferred", "Verified", "Skipped", "Deleted")
PART_BYTES = 5_000_000
_STATUS = {"Transferred": "Transfer", "Verified": "Verify", "Skipped": "Skip", "Deleted": "Delete"}


def now() -> str:
    """Now as reports write it: UTC with nanoseconds."""
    seconds, rest = divmod(time.time_ns(), 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def _moment(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def bucket_and_prefix(config: Mapping[str, Any]) -> tuple[str, str]:
    """Where a TaskReportConfig wants its report; the prefix is empty or ends in a slash."""
    destination = config["Destination"]["S3"]
    prefix = destination.get("Subdirectory", "").strip("/")
    return destination["S3BucketArn"].rpartition(":")[2], prefix + "/" if prefix else ""


def summary_key(prefix: str, task_id: str, execution_id: str) -> str:
    """The key of a summary."""
    return f"{prefix}Summary-Reports/{task_id}/{execution_id}/{execution_id}.summary-v1-00001-{_suffix()}.json"


def _suffix() -> str:
    return secrets.token_hex(9)[:17]


def source_metadata(item: Item, *, enhanced: bool, metadata: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A source file as an entry describes it; ENHANCED describes everything as an object."""
    if enhanced:
        return {
            "Type": "Object",
            "ContentSize": item.size,
            "LastModified": _moment(item.mtime),
            "SystemMetadata": {},
            "UserMetadata": dict(metadata or {}),
            "Tags": {},
        }
    kinds = {stat.S_IFDIR: "Directory", stat.S_IFLNK: "Symlink", stat.S_IFREG: "Regular"}
    return {
        "Type": kinds.get(stat.S_IFMT(item.mode), "Special"),
        "ContentSize": item.size,
        "Mtime": _moment(item.mtime),
        "Atime": _moment(item.atime),
        "Uid": item.uid,
        "Gid": item.gid,
        "Mode": f"{stat.S_IMODE(item.mode):04o}",
    }


class Section:
    """One list of a report, written in parts while the transfer goes on."""

    def __init__(self, reports: Reports, name: str) -> None:
        self._reports, self._name = reports, name
        self._file: IO[bytes] | None = None
        self._part = 0
        self._entries = 0

    def add(self, entry: Mapping[str, Any]) -> None:
        """One entry; a full part goes to the bucket."""
        text = json.dumps(entry).encode()
        if self._file is not None and self._file.tell() + len(text) + 4 > PART_BYTES:
            self.flush()
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._reports.staging)  # noqa: SIM115  (open from entry to entry)
            head = {"TaskExecutionId": self._reports.execution_id}
            self._file.write(json.dumps(head).encode()[:-1] + f', "{self._name}": ['.encode())
            self._entries = 0
        self._file.write((b", " if self._entries else b"") + text)
        self._entries += 1

    def flush(self) -> None:
        """Put the part that is being written, if there is one."""
        if self._file is None:
            return
        self._file.write(b"]}")
        self._file.seek(0)
        self._part += 1
        kind = f"files-{self._name.lower()}-v1-{self._part:05d}-{_suffix()}"
        self._reports.put(f"{self._reports.execution_id}.{kind}.json", self._file)
        self._file.close()
        self._file = None


class Reports:
    """The detailed part of one execution's report; does nothing without a configuration or with SUMMARY_ONLY."""

    def __init__(
        self,
        store: ObjectStore,
        staging: Path,
        task_id: str,
        execution_id: str,
        config: Mapping[str, Any] | None,
        enhanced: bool,
    ) -> None:
        self.store, self.staging, self.execution_id, self.enhanced = store, staging, execution_id, enhanced
        self.failure: str | None = None
        self._versions = False
        self._levels: dict[str, str] = {}
        if config and config.get("OutputType", "SUMMARY_ONLY") == "STANDARD":
            self._bucket, prefix = bucket_and_prefix(config)
            self._folder = f"{prefix}Detailed-Reports/{task_id}/{execution_id}/"
            self._versions = config.get("ObjectVersionIds", "INCLUDE") == "INCLUDE"
            level = config.get("ReportLevel", "ERRORS_ONLY")
            overrides = config.get("Overrides", {})
            self._levels = {name: overrides.get(name, {}).get("ReportLevel", level) for name in SECTIONS}
        self._sections = {name: Section(self, name) for name in SECTIONS}

    def put(self, name: str, source: IO[bytes]) -> None:
        """One finished part. A report can fail without the transfer failing: the reason is kept in `failure`."""
        try:
            self.store.put(self._bucket, self._folder + name, cast(BinaryIO, source), content_type="application/json")
        except LabError as error:
            self.failure = str(error)
            self._levels = {}

    def wants(self, section: str, *, failed: bool) -> bool:
        """Whether an entry would be written; asked before building one."""
        return section in self._levels and (failed or self._levels[section] == "SUCCESSES_AND_ERRORS")

    def add(
        self,
        section: str,
        path: bytes,
        item: Item | None,
        *,
        failure: tuple[int, str, str] | None = None,  # errno, code, reason
        metadata: Mapping[str, str] | None = None,
        version: str | None = None,
        **more: Any,
    ) -> None:
        """One entry of a section, in the schema of the task's mode."""
        if not self.wants(section, failed=failure is not None):
            return
        verb = _STATUS[section]
        entry: dict[str, Any] = {"RelativePath": ("" if self.enhanced else "/") + shown(path)}
        if item is not None:
            name = "SourceMetadata" if self.enhanced else "SrcMetadata"
            entry[name] = source_metadata(item, enhanced=self.enhanced, metadata=metadata)
        entry |= more
        entry |= {f"{verb}Timestamp": now(), f"{verb}Status": "FAILED" if failure else "SUCCESS"}
        if version is not None and version != "null" and self._versions:
            entry["DstS3VersionId"] = version
        if failure is not None:
            number, code, reason = failure
            entry |= (
                {"ErrorCode": code, "ErrorDetail": reason}
                if self.enhanced
                else {"FailureReason": reason, "FailureCode": number}
            )
        self._sections[section].add(entry)

    def finish(self) -> None:
        """Put what is still open."""
        for section in self._sections.values():
            section.flush()
