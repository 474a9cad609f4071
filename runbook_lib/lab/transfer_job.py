"""What is one transfer asked to do, and which hands does it do it with?"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ..filters import Filters
from .database import Database
from .objects import ObjectStore
from .reports import Reports
from .transfer_channel import Channel
from .transfer_log import Log
from .transfer_source import Tree


@dataclass(frozen=True)
class Job:
    """As the daemon sends it; everything is plain JSON."""

    database: str
    blobs: str
    staging: str
    export: str
    subdirectory: str
    bucket: str
    prefix: str  # "" or ending in "/"
    storage_class: str
    task_id: str
    execution_id: str
    source_location: str  # ids, for log lines
    destination_location: str
    enhanced: bool
    options: dict[str, Any]
    includes: str | None
    excludes: str | None
    report: dict[str, Any] | None  # a TaskReportConfig
    unreadable: list[str]
    changing: str | None  # path of a file to change while it is copied; "" is the first one

    @property
    def parallel(self) -> bool:
        """Whether listing, copying (and in ENHANCED verifying) go on together instead of one after the other."""
        return self.enhanced or self.options["TransferMode"] == "ALL"


class Hands:
    """Everything a transfer works with, held open for its life."""

    def __init__(self, job: Job, channel: Channel) -> None:
        self.job, self.channel, self.counters = job, channel, channel.counters
        self.options: dict[str, str] = job.options
        self.store = ObjectStore(Database(Path(job.database)), Path(job.blobs))
        unreadable = frozenset(os.fsencode(path.strip("/")) for path in job.unreadable)
        self.tree = Tree(job.export, job.subdirectory, unreadable=unreadable)
        self.filters = Filters(job.includes, job.excludes)
        self.log = Log(job, channel)
        self.reports = Reports(self.store, Path(job.staging), job.task_id, job.execution_id, job.report, job.enhanced)

    def spool(self) -> IO[str]:
        """A nameless file for what would not fit into memory; gone with the process."""
        return tempfile.TemporaryFile("w+", dir=self.job.staging, encoding="utf-8", newline="\n")
