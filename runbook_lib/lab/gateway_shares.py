"""What goes on in a gateway between two calls? Shares are made and removed, refreshed, uploaded from and measured.

What was accepted is a document until it is done, so that a killed daemon's successor finishes it.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from .core import Lab
from .objects import StoreRefusal
from .share import Share
from .share_settings import SHARE, ShareSettings
from .share_uploads import EVERY, Uploads

REFRESH = "storagegateway.refresh"  # kinds of documents
NOTICE = "storagegateway.notice"
CACHE = 150 << 30  # bytes; the least that the user guide asks for
NAMESPACE = "AWS/StorageGateway"
TAKES = 3.0  # seconds × pace that a refresh, and making or removing a share, take at least


class Shares:
    """The open shares, and the threads that work for them."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._lock = threading.RLock()
        self._open: dict[str, tuple[Share, Uploads]] = {}
        self._threads: set[threading.Thread] = set()
        self._watching = False
        self._stopping = threading.Event()
        self._figures: dict[str, tuple[float, int]] = {}  # share -> its dirty bytes, files that fail to upload
        self._published: dict[str, tuple[float, float, int]] = {}  # share or gateway -> when, and what

    def start(self) -> None:
        """Watch every share, and go on with what was accepted."""
        self._watching = True
        for document in self._lab.database.all(SHARE):
            arn, status = document["FileShareARN"], document["FileShareStatus"]
            if status == "CREATING":
                self.make(arn)
            elif status in ("DELETING", "FORCE_DELETING"):
                self.remove(arn)
            self.get(arn)
        for job in self._lab.database.all(REFRESH):
            self._in_background(self._refresh, job)
        for job in self._lab.database.all(NOTICE):
            self._in_background(self._notify, job)

    def stop(self) -> None:
        """Stop watching; what is not done stays accepted."""
        self._stopping.set()
        with self._lock:
            opened, threads = list(self._open.values()), list(self._threads)
            self._open = {}
        for _, uploads in opened:
            uploads.stop()
        for thread in threads:
            thread.join()

    def get(self, arn: str) -> tuple[Share, Uploads]:
        """A share and its uploads; opened, and watched once started."""
        with self._lock:
            if arn not in self._open:
                share = Share(self._lab, arn)
                uploads = Uploads(share, lambda: self._measure(share, uploads))
                if self._watching and not self._stopping.is_set():
                    share.recover()
                    uploads.start()
                self._open[arn] = (share, uploads)
            return self._open[arn]

    def _in_background(self, work: Callable[..., None], *arguments: Any) -> None:
        def run() -> None:
            try:
                work(*arguments)
            finally:
                self._lab.database.close()
                with self._lock:
                    self._threads.discard(threading.current_thread())

        thread = threading.Thread(target=run, name=work.__name__.strip("_"), daemon=True)
        with self._lock:
            self._threads.add(thread)
        thread.start()

    def _linger(self, began: float) -> bool:
        """As `Lab.linger`, but False at once when the gateway stops."""
        return not self._stopping.wait(max(began + TAKES * self._lab.pace - time.monotonic(), 0.0))

    # Making and removing.

    def make(self, arn: str) -> None:
        """A new share becomes available in a while; it shows what the bucket holds, as at the first access."""
        self._in_background(self._make, arn)

    def _make(self, arn: str) -> None:
        if self._linger(time.monotonic()):
            self.refresh_now(arn, [""], recursive=True, only_new=True)

    def refresh_now(self, arn: str, folders: list[str], *, recursive: bool, only_new: bool = False) -> None:
        """Refresh without ceremony; `only_new`: a share that is available already is left alone."""
        share, uploads = self.get(arn)
        with share.lock:
            document = self._lab.database.get(SHARE, arn)
            new = document is not None and document["FileShareStatus"] == "CREATING"
            if only_new and not new:
                return
            share.refresh(folders, recursive=recursive)
            if new:
                self._lab.database.update(SHARE, arn, FileShareStatus="AVAILABLE")
        uploads.scan()

    def remove(self, arn: str) -> None:
        """A share that is DELETING goes once everything is uploaded, one that is FORCE_DELETING without that."""
        self._in_background(self._remove, arn)

    def _remove(self, arn: str) -> None:
        share, uploads = self.get(arn)
        document = self._lab.database.get(SHARE, arn)
        if document is None or not self._linger(time.monotonic()):
            return
        while document["FileShareStatus"] == "DELETING" and not uploads.settle(EVERY):
            if self._stopping.wait(1.0):
                return
            document = self._lab.database.get(SHARE, arn) or document
        uploads.stop()
        share.empty()
        if share.root != self._lab.folder.share.resolve():
            share.root.rmdir()
        with self._lock, self._lab.database.writing():
            for kind in (REFRESH, NOTICE):
                for job in self._lab.database.all(kind):
                    if job["FileShareARN"] == arn:
                        self._lab.database.delete(kind, job["NotificationId"])
            self._lab.database.delete(SHARE, arn)
            self._open.pop(arn, None)
            self._figures.pop(arn, None)

    # Refreshing.

    def accept_refresh(self, arn: str, folders: list[str], recursive: bool, spacing: float) -> str | None:
        """Take on a refresh and answer its notification id; None when two are in flight.

        A repeat within `spacing` seconds of the one before is taken on and evicts nothing (API, RefreshCache).
        """
        identity, now = str(uuid.uuid4()), time.time()
        with self._lock, self._lab.database.writing():
            if sum(job["FileShareARN"] == arn for job in self._lab.database.all(REFRESH)) >= 2:
                return None
            document = self._lab.database.get(SHARE, arn) or {}
            job = {
                "NotificationId": identity,
                "FileShareARN": arn,
                "Folders": folders,
                "Recursive": recursive,
                "Evicts": now - document.get("RefreshedAt", 0.0) >= spacing,
                "Started": now,
            }
            self._lab.database.put(REFRESH, identity, job)
            self._lab.database.update(SHARE, arn, RefreshedAt=now)
        self._in_background(self._refresh, job)
        return identity

    def _refresh(self, job: dict[str, Any]) -> None:
        began = time.monotonic()
        share, uploads = self.get(job["FileShareARN"])
        settings = share.settings
        done = True
        if job["Evicts"]:
            try:
                if self._lab.objects.bucket(settings.bucket) is None:
                    raise StoreRefusal("NoSuchBucket", f"There is no bucket {settings.bucket}.")
                share.refresh([folder.strip("/") for folder in job["Folders"]], recursive=job["Recursive"])
            except (OSError, StoreRefusal) as error:  # nobody waits for this thread: the health log is where to look
                settings.health(self._lab.bus, "RefreshFailed", job["Folders"], "RefreshCache", str(error))
                done = False
        uploads.scan()
        if not self._linger(began):
            return
        if done and self._lab.fault("refresh-event-lost") is None:
            detail = {
                "event-type": "refresh-complete",
                "notification-id": job["NotificationId"],
                "started": _iso(job["Started"]),
                "completed": _iso(time.time()),
                "folderList": job["Folders"],
            }
            settings.emit(self._lab.bus, "Storage Gateway Refresh Cache Event", detail)
        self._lab.database.delete(REFRESH, job["NotificationId"])

    # Upload notices.

    def accept_notice(self, arn: str) -> str:
        """Tell when everything that is in the share now has been uploaded; answers the notification id."""
        identity = str(uuid.uuid4())
        job = {"NotificationId": identity, "FileShareARN": arn, "Received": time.time()}
        self._lab.database.put(NOTICE, identity, job)
        self._in_background(self._notify, job)
        return identity

    def _notify(self, job: dict[str, Any]) -> None:
        share, uploads = self.get(job["FileShareARN"])
        waiting = uploads.scan()
        while not uploads.wait_for(waiting, EVERY, uploaded=True):
            if self._stopping.is_set() or self._lab.database.get(NOTICE, job["NotificationId"]) is None:
                return
        detail = {
            "event-type": "upload-complete",
            "notification-id": job["NotificationId"],
            "request-received": _iso(job["Received"]),
            "completed": _iso(time.time()),
        }
        share.settings.emit(self._lab.bus, "Storage Gateway File Upload Event", detail)
        self._lab.database.delete(NOTICE, job["NotificationId"])

    # Measuring.

    def cache(self, gateway_arn: str) -> tuple[int, int]:
        """Bytes known, and bytes that wait to be uploaded, of a gateway's shares."""
        shares = [d["FileShareARN"] for d in self._lab.database.all(SHARE) if d["GatewayARN"] == gateway_arn]
        opened = [self.get(arn) for arn in shares]
        dirty = sum(uploads.dirty_bytes() for _, uploads in opened)
        return sum(share.known.used() for share, _ in opened) + dirty, dirty

    def settle(self, timeout: float) -> bool:
        """Wait until every share's changes are in the bucket; False when time is up or something cannot be."""
        deadline = time.monotonic() + timeout
        opened = [self.get(document["FileShareARN"]) for document in self._lab.database.all(SHARE)]
        return all([uploads.settle(deadline - time.monotonic()) for _, uploads in opened])

    def _measure(self, share: Share, uploads: Uploads) -> None:
        """Publish a share's metrics, and its gateway's, when they changed and once in a while."""
        settings = share.settings
        figures = (float(uploads.dirty_bytes()), len(uploads.failing))
        with self._lock:
            self._figures[share.arn] = figures
            of_gateway = [
                self._figures[d["FileShareARN"]]
                for d in self._lab.database.all(SHARE)
                if d["GatewayARN"] == settings.gateway_arn and d["FileShareARN"] in self._figures
            ]
        total = (sum(dirty for dirty, _ in of_gateway), sum(failing for _, failing in of_gateway))
        self._publish(settings, share.share_id, {"ShareId": share.share_id}, figures)
        names = {"GatewayId": settings.gateway_id, "GatewayName": settings.gateway_name}
        self._publish(settings, settings.gateway_id, names, total)

    def _publish(
        self, settings: ShareSettings, of: str, dimensions: dict[str, str], figures: tuple[float, int]
    ) -> None:
        now, before = time.monotonic(), self._published.get(of)
        if before is not None and before[1:] == figures and now - before[0] < EVERY - 1:
            return
        self._published[of] = (now, *figures)
        dirty, failing = figures
        for name, value, unit in (
            ("CachePercentDirty", 100 * dirty / CACHE, "Percent"),
            ("FilesFailingUpload", float(failing), "Count"),
        ):
            self._lab.bus.metric(
                region=settings.region, namespace=NAMESPACE, name=name, value=value, unit=unit, dimensions=dimensions
            )


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
