"""The lab's Storage Gateway: what do the operations of an S3 File Gateway with NFS file shares answer and do?

Member rules are the service model's; texts of refusals are the lab's own, since AWS does not document them.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, ClassVar

from .core import Lab
from .protocol import Call, Refusal, Service, page
from .share import STAGED, Share
from .share_known import Known
from .share_settings import GATEWAY, SHARE, STORAGE_CLASSES, ShareSettings, bucket_and_prefix
from .share_uploads import EVERY, Uploads

CACHE = 150 << 30  # bytes; what the user guide asks for at least
NAMESPACE = "AWS/StorageGateway"
TAKES = 3.0  # seconds × pace that making, changing or removing a share takes at least


def refusal(code: str, message: str) -> Refusal:
    """InvalidGatewayRequestException with one of the model's error codes."""
    return Refusal("InvalidGatewayRequestException", message, error={"errorCode": code})


class StorageGateway(Service):
    """Gateways, file shares, refreshes and upload notices; the shares' directories and their uploads."""

    name: ClassVar[str] = "storagegateway"
    invalid: ClassVar[str] = "InvalidGatewayRequestException"

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self._lock = threading.RLock()
        self._shares: dict[str, tuple[Share, Uploads]] = {}
        self._threads: set[threading.Thread] = set()
        self._started = False
        self._stopping = threading.Event()
        Known.prepare(lab.database, [share["FileShareId"] for share in lab.database.all(SHARE)])

    # Life.

    def start(self) -> None:
        """Settle what a killed daemon left: shares being made or removed, refreshes, notices, files not uploaded."""
        self._started = True
        for leftover in self.lab.folder.staging.glob(f"{STAGED}*"):
            shutil.rmtree(leftover)
        for share in self.lab.database.all(SHARE):
            arn = share["FileShareARN"]
            if share["FileShareStatus"] == "CREATING":
                self._finish_making(arn)
            if share["FileShareStatus"] in ("DELETING", "FORCE_DELETING"):
                self._in_background(self._finish_removing, arn, share["FileShareStatus"] == "FORCE_DELETING")
            self._open(arn)
        self._restart_jobs()

    def _restart_jobs(self) -> None:
        from .storagegateway_jobs import restart

        restart(self)

    def stop(self) -> None:
        """Stop watching; threads end at their next step."""
        self._stopping.set()
        with self._lock:
            opened, self._shares = list(self._shares.values()), {}
            threads = list(self._threads)
        for _, uploads in opened:
            uploads.stop()
        for thread in threads:
            thread.join()
