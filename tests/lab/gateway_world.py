"""A lab of a few lines for the file gateway's tests: a bucket, a gateway, a share, and a bus that can be waited on."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runbook_lib.lab.core import ACCOUNT, CLOUD_REGION, Folder, Lab
from runbook_lib.lab.protocol import Call
from runbook_lib.lab.share import Share
from runbook_lib.lab.share_uploads import Uploads
from runbook_lib.lab.storagegateway import StorageGateway

ROLE = "arn:aws:iam::123456789012:role/storage-gateway"
BUCKET = "migration-lab"
REFRESHED = "Storage Gateway Refresh Cache Event"


class WaitedBus:
    """Remembers what was published; a test waits for what it expects."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self.events: list[dict[str, Any]] = []
        self.lines: list[dict[str, Any]] = []
        self.metrics: list[dict[str, Any]] = []

    def _add(self, to: list[dict[str, Any]], items: list[dict[str, Any]]) -> None:
        with self._condition:
            to += items
            self._condition.notify_all()

    def emit(self, **event: Any) -> None:
        self._add(self.events, [event])

    def log(self, *, region: str, group: str, stream: str, lines: list[str]) -> None:
        self._add(self.lines, [{"group": group, "stream": stream, **json.loads(line)} for line in lines])

    def metric(self, **datapoint: Any) -> None:
        self._add(self.metrics, [datapoint])

    def wait(self, seen: Callable[[], Any], timeout: float = 10) -> Any:
        """What `seen` answers once it is true."""
        with self._condition:
            found = self._condition.wait_for(seen, timeout)
        assert found, f"not published in {timeout} s; events: {self.events}, lines: {self.lines}"
        return found

    def event(self, notification: str) -> dict[str, Any]:
        """The event with a notification id, once it comes."""
        found = self.wait(lambda: [e for e in self.events if e["detail"].get("notification-id") == notification])
        event: dict[str, Any] = found[0]
        return event

    def types(self) -> list[str]:
        """The health log's types so far."""
        return [line["type"] for line in self.lines]


class World:
    """A file gateway in a lab of its own, spoken to in JSON."""

    def __init__(self, root: Path) -> None:
        self.bus = WaitedBus()
        self.lab = Lab(Folder(root), self.bus)
        self.root = self.lab.folder.share
        self.gateways = StorageGateway(self.lab)
        self.gateway = self.arn = ""

    def furnish(self, location: str = f"arn:aws:s3:::{BUCKET}", **share: Any) -> World:
        """A bucket, a gateway and a share that is available."""
        self.gateways.start()
        self.lab.objects.create_bucket(BUCKET, CLOUD_REGION)
        self.gateway = self.call(
            "ActivateGateway",
            ActivationKey="AAAAA-BBBBB-CCCCC-DDDDD-EEEEE",
            GatewayName="file-gateway",
            GatewayTimezone="GMT",
            GatewayRegion=CLOUD_REGION,
            GatewayType="FILE_S3",
        )["GatewayARN"]
        self.arn = self.share(location, FileShareName="migration-share", **share)
        return self

    def share(self, location: str, **more: Any) -> str:
        """A new share, available."""
        more = {"ClientToken": f"token-{more.get('FileShareName')}", **more}
        made = self.call("CreateNFSFileShare", GatewayARN=self.gateway, Role=ROLE, LocationARN=location, **more)
        self.gateways.refresh_now(made["FileShareARN"])
        return str(made["FileShareARN"])

    def call(self, operation: str, region: str = CLOUD_REGION, **parameters: Any) -> dict[str, Any]:
        """One request in JSON, as the wire brings it."""
        call = Call(operation, region, ACCOUNT, "AKIA")
        target = f"StorageGateway_20130630.{operation}"
        answer: dict[str, Any] = json.loads(self.gateways.answer(target, json.dumps(parameters).encode(), call))
        return answer

    def put(self, key: str, body: bytes = b"", **metadata: str) -> None:
        """Somebody else writes an object, with user metadata (`file_mtime` is `file-mtime`)."""
        named = {name.replace("_", "-"): value for name, value in metadata.items()}
        self.lab.objects.put(BUCKET, key, body, named)

    def refresh(self, *folders: str, recursive: bool = True) -> None:
        """Refresh through the API and wait for the event."""
        answer = self.call("RefreshCache", FileShareARN=self.arn, FolderList=folders or ["/"], Recursive=recursive)
        self.bus.event(answer["NotificationId"])

    def settled(self) -> bool:
        """Wait until everything is in the bucket."""
        return self.gateways.settle(10)

    def listing(self) -> list[str]:
        """What a recursive `ls` shows."""
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*"))

    def keys(self) -> list[str]:
        """What is in the bucket."""
        return [stored.key for stored in self.lab.objects.list(BUCKET)]

    def body(self, key: str) -> bytes:
        """An object's bytes."""
        stored = self.lab.objects.head(BUCKET, key)
        assert stored is not None, f"no {key} in {self.keys()}"
        with self.lab.objects.open(stored) as source:
            return source.read()

    def held(self) -> tuple[Share, Uploads]:
        """The open share and its uploads."""
        return self.gateways._shares.get(self.arn)

    def restart(self) -> None:
        """Another daemon on the same state, as after a SIGKILL: nothing was told to the first one's files."""
        self.gateways.stop()
        self.gateways = StorageGateway(self.lab)
        self.gateways.start()
