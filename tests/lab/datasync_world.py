"""A lab of a few lines for DataSync's tests and benchmark: a bucket, an agent, two locations and a recording bus."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runbook_lib.lab.core import ACCOUNT, CLOUD_REGION, Folder, Lab
from runbook_lib.lab.datasync import DataSync
from runbook_lib.lab.protocol import Call

ROLE = "arn:aws:iam::123456789012:role/datasync"
BUCKET, REPORTS = "migration-lab", "migration-lab-reports"
LOG_GROUP = f"arn:aws:logs:{CLOUD_REGION}:{ACCOUNT}:log-group:/aws/datasync:*"
REPORT = {
    "Destination": {"S3": {"S3BucketArn": f"arn:aws:s3:::{REPORTS}", "BucketAccessRoleArn": ROLE}},
    "OutputType": "STANDARD",
    "ReportLevel": "SUCCESSES_AND_ERRORS",
}


class RecordingBus:
    """Remembers what was published."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.lines: list[str] = []
        self.streams: set[tuple[str, str]] = set()

    def emit(self, **event: Any) -> None:
        self.events.append(event)

    def log(self, *, region: str, group: str, stream: str, lines: list[str]) -> None:
        self.streams.add((group, stream))
        self.lines += lines

    def metric(self, **datapoint: Any) -> None:
        raise AssertionError("DataSync of the lab publishes no metrics")

    def states(self, arn: str) -> list[str]:
        """The states that were published for a resource."""
        return [event["detail"]["State"] for event in self.events if event["resources"] == [arn]]


class World:
    """DataSync in a lab of its own, spoken to in JSON."""

    def __init__(self, root: Path) -> None:
        self.bus = RecordingBus()
        self.lab = Lab(Folder(root), self.bus)
        self.datasync = DataSync(self.lab)
        self.datasync.start()
        self.export = self.lab.folder.export

    def furnish(self) -> World:
        """Buckets, an agent and the two ends of the workshop's task."""
        self.lab.objects.create_bucket(BUCKET, CLOUD_REGION)
        self.lab.objects.create_bucket(REPORTS, CLOUD_REGION)
        key = "AAAAA-BBBBB-CCCCC-DDDDD-EEEEE"
        self.agent = self.call("CreateAgent", ActivationKey=key, AgentName="on-premises-agent")["AgentArn"]
        self.source = self.nfs("/media/data")
        self.destination = self.s3("")
        return self

    def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """One request in JSON, as the wire brings it."""
        call = Call(operation, CLOUD_REGION, ACCOUNT, "AKIA")
        body = json.dumps(parameters).encode()
        answer: dict[str, Any] = json.loads(self.datasync.answer(f"FmrsService.{operation}", body, call))
        return answer

    def nfs(self, folder: str, host: str = "nfs.on-premises.lab", agent: str | None = None) -> str:
        """A new NFS location."""
        config = {"AgentArns": [agent or self.agent]}
        made = self.call("CreateLocationNfs", ServerHostname=host, Subdirectory=folder, OnPremConfig=config)
        return str(made["LocationArn"])

    def s3(self, prefix: str, **more: Any) -> str:
        """A new location in the data bucket."""
        bucket, role = f"arn:aws:s3:::{BUCKET}", {"BucketAccessRoleArn": ROLE}
        made = self.call("CreateLocationS3", S3BucketArn=bucket, S3Config=role, Subdirectory=prefix, **more)
        return str(made["LocationArn"])

    def task(self, mode: str = "BASIC", verify: str = "ONLY_FILES_TRANSFERRED", **more: Any) -> str:
        """A new task; Options, Source and Destination can be given."""
        source, destination = more.pop("Source", self.source), more.pop("Destination", self.destination)
        options = {"VerifyMode": verify, "LogLevel": "BASIC", **more.pop("Options", {})}
        members = {"SourceLocationArn": source, "DestinationLocationArn": destination, "TaskMode": mode}
        logs = {"CloudWatchLogGroupArn": LOG_GROUP}
        return str(self.call("CreateTask", Options=options, **members, **logs, **more)["TaskArn"])

    def begin(self, task: str, **more: Any) -> str:
        """Start an execution."""
        return str(self.call("StartTaskExecution", TaskArn=task, **more)["TaskExecutionArn"])

    def describe(self, execution: str) -> dict[str, Any]:
        """DescribeTaskExecution."""
        return self.call("DescribeTaskExecution", TaskExecutionArn=execution)

    def run(self, task: str, **more: Any) -> dict[str, Any]:
        """Run a task to its end."""
        execution = self.begin(task, **more)
        self.datasync.finish(execution)
        return self.describe(execution)

    def write(self, path: str, content: bytes = b"content") -> Path:
        """A file of the export."""
        file = self.export / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return file

    def stored(self, bucket: str = BUCKET) -> list[str]:
        """What is in a bucket."""
        return [stored.key for stored in self.lab.objects.list(bucket)]

    def body(self, key: str, bucket: str = BUCKET) -> bytes:
        """An object's bytes."""
        stored = self.lab.objects.head(bucket, key)
        assert stored is not None, key
        with self.lab.objects.open(stored) as source:
            return source.read()

    def metadata(self, key: str) -> dict[str, str]:
        """An object's user metadata."""
        stored = self.lab.objects.head(BUCKET, key)
        assert stored is not None, key
        return stored.metadata

    def plant(self, fault: str, **arguments: Any) -> None:
        """Break something, alone."""
        self.lab.database.set("faults", {fault: arguments})

    def mend(self) -> None:
        """Mend everything."""
        self.lab.database.set("faults", {})

    def report(self, execution: dict[str, Any], section: str) -> list[dict[str, Any]]:
        """All entries of a section of an execution's report."""
        execution_id = execution["TaskExecutionArn"].rpartition("/")[2]
        parts = [key for key in self.stored(REPORTS) if f"{execution_id}.files-{section.lower()}-v1-" in key]
        return [entry for key in parts for entry in json.loads(self.body(key, REPORTS))[section]]


def eventually(look: Callable[[], Any]) -> Any:
    """The first true answer; looks often, for ten seconds."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.005)
    raise AssertionError("it did not happen")


def resident(pid: int | None) -> int:
    """A process's memory in bytes now; 0 when there is none."""
    if pid is None:
        return 0
    seen = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return int(seen or 0) * 1024
