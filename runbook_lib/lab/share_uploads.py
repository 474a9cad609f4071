"""What has the application changed in a share, and is it in the bucket yet?

Events of the file system only say where to look. Whether something is to be uploaded is decided by comparing the file
with what the gateway knows, so the gateway's own work is never mistaken for the application's, and what was changed
while nobody watched is found by a scan.
"""

from __future__ import annotations

import logging
import mimetypes
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver
from watchdog.observers.polling import PollingObserver

from .objects import Blob, NewObject, StoredObject, StoreRefusal
from .share import Share
from .share_known import Entry, identity, signature
from .share_metadata import metadata_of
from .share_settings import ShareSettings

QUIET = 0.2  # seconds without a change before a file is taken
EVERY = 60.0  # seconds between scans and datapoints
LONGEST_KEY = 1024  # bytes (S3)
LOOKED_AT = {"created", "modified", "attrib", "moved", "deleted", "closed"}

log = logging.getLogger(__name__)


class CannotUpload(Exception):
    """It stays in the share; `kind` is the health log's type."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class Uploads:
    """Brings a share's changes into the bucket. `changed` is told whenever what is dirty may have changed."""

    def __init__(self, share: Share, changed: Callable[[], None]) -> None:
        self._share, self._lab, self._changed = share, share.lab, changed
        self._condition = threading.Condition()
        self._pending: dict[str, float] = {}  # path -> when to look (time.monotonic)
        self._busy: set[str] = set()
        self._notices: dict[str, tuple[float, dict[str, Any]]] = {}  # key -> when to say it, the event's detail
        self.failing: dict[str, str] = {}  # path -> why it cannot be uploaded
        self._stopped = False
        self._thread: threading.Thread | None = None
        self._observer: BaseObserver | None = None

    # Life.

    def start(self) -> None:
        """Watch and upload in the background; begins with a scan."""
        self._observer = self._watch()
        self._thread = threading.Thread(target=self._run, name=f"uploads {self._share.share_id}", daemon=True)
        self._thread.start()

    def _watch(self) -> BaseObserver:
        handler = _Handler(self._share.root, self.look_at)
        observer: BaseObserver = Observer()
        try:
            observer.schedule(handler, str(self._share.root), recursive=True)
            observer.start()
        except OSError as error:  # other programs have taken all of the system's watches
            log.warning("The share is polled, for it cannot be watched: %s", error)
            observer = PollingObserver(timeout=1)
            observer.schedule(handler, str(self._share.root), recursive=True)
            observer.start()
        return observer

    def stop(self) -> None:
        """Stop; what is not uploaded is found again at the next start."""
        with self._condition:
            self._stopped = True
            self._condition.notify_all()
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()
        if self._thread is not None:
            self._thread.join()
        for _, detail in self._notices.values():
            self._say(detail)
        self._notices.clear()

    def look_at(self, path: str) -> None:
        """Something may have happened at a path."""
        with self._condition:
            self._pending[path] = time.monotonic() + QUIET
            self._condition.notify_all()

    def _run(self) -> None:
        scan_at = 0.0
        while True:
            now = time.monotonic()
            if now >= scan_at:
                self.scan()
                self._changed()
                scan_at = now + EVERY
            with self._condition:
                due = [path for path, when in self._pending.items() if when <= now]
                moments = [scan_at, *self._pending.values(), *(when for when, _ in self._notices.values())]
                if self._stopped:
                    break
                if not due and min(moments) > now:
                    self._condition.wait(min(moments) - now)
                    continue
                self._busy = {path for path in due if self._pending.pop(path)}
            self._work(due)
            self._give_notices()
        self._lab.database.close()

    def _work(self, paths: Iterable[str]) -> None:
        before = dict(self.failing)
        touched = 0
        for path in sorted(paths):
            touched += self._reconcile(path)
            with self._condition:
                self._busy.discard(path)
                self._condition.notify_all()
        if touched or before != self.failing:
            self._changed()

    # Looking.

    def scan(self) -> set[str]:
        """Every path that is not as the gateway knows it; those not yet waiting are put in the queue."""
        found = self.differences()
        with self._condition:
            for path in found:
                self._pending.setdefault(path, time.monotonic() + QUIET)
            self._condition.notify_all()
        return found

    def differences(self) -> set[str]:
        """Every path that is not as the gateway knows it; none in a read-only share."""
        if self._share.settings.read_only:
            return set()
        with self._share.lock:  # not in the middle of a refresh
            seen = dict(_walk(self._share.root, ""))
            known = self._share.known.all()
        changed = {path for path, look in seen.items() if path not in known or known[path].signature != look}
        return changed | (known.keys() - seen.keys())

    def dirty_bytes(self) -> int:
        """How much waits to be uploaded."""
        size = 0
        for path in self.differences():
            with suppress(OSError):  # what cannot be looked at counts among those that fail
                seen = self._share.look(path)
                size += seen.st_size if seen is not None and stat.S_ISREG(seen.st_mode) else 0
        return size

    def settle(self, timeout: float) -> bool:
        """Wait until everything is in the bucket; False when that took too long or something cannot be uploaded."""
        deadline = time.monotonic() + timeout
        while found := self.scan():
            if self._thread is None:
                self._pending.clear()
                self._work(found)
            elif not self.wait_for(found, deadline - time.monotonic()):
                return False
            if self.differences() <= self.failing.keys():
                return not self.failing
        return True

    def wait_for(self, paths: set[str], timeout: float, *, uploaded: bool = False) -> bool:
        """Wait until paths were looked at (or are in the bucket: `uploaded`); False after `timeout` seconds."""

        def done() -> bool:
            waiting = self._pending.keys() | self._busy | (self.failing.keys() if uploaded else set())
            return self._stopped or not paths & waiting

        with self._condition:
            return self._condition.wait_for(done, max(timeout, 0.0)) and not self._stopped

    # Deciding.

    def _reconcile(self, path: str) -> bool:
        """Bring one path into the bucket if it has to be; True when something was done."""
        try:
            with self._share.lock:
                settings = self._share.settings
                touched = False if settings.read_only else self._bring(path, settings)
        except CannotUpload as error:
            self._fail(path, error.kind, str(error))
            return True
        except (OSError, StoreRefusal, sqlite3.Error, UnicodeEncodeError) as error:
            self._fail(path, "UploadFailed", f"{type(error).__name__}: {error}")
            return True
        return self.failing.pop(path, None) is not None or touched

    def _fail(self, path: str, kind: str, reason: str) -> None:
        if self.failing.get(path) != reason:
            key = "/" + path.encode("utf-8", "backslashreplace").decode()
            self._share.settings.health(self._lab.bus, kind, [key], "S3Upload", reason)
        self.failing[path] = reason

    def _bring(self, path: str, settings: ShareSettings) -> bool:
        path.encode()  # a name that is not UTF-8 is not a key
        entry, seen = self._share.known.get(path), self._share.look(path)
        if seen is None:
            return self._remove(entry, settings) if entry else False
        if entry is not None and entry.signature == signature(seen):
            return False
        folder = stat.S_ISDIR(seen.st_mode)
        if entry is not None and entry.folder != folder:
            self._remove(entry, settings)
            entry = None
        if folder and entry is None:  # its content may have come before anyone watched it
            for child, _ in _walk(self._share.root, path):
                self.look_at(child)
        self._upload(path, seen, entry, settings)
        return True

    def _upload(self, path: str, seen: os.stat_result, entry: Entry | None, settings: ShareSettings) -> None:
        folder = stat.S_ISDIR(seen.st_mode)
        key = f"{settings.prefix}{path}/" if folder else settings.prefix + path
        if len(key.encode()) > LONGEST_KEY:
            raise CannotUpload("UploadFailed", f"The key would be longer than {LONGEST_KEY} bytes.")
        blob = self._stage(self._share.root / path, seen)
        again = self._share.look(path)
        if again is None or signature(again) != signature(seen):
            self._lab.objects.discard(blob)
            self.look_at(path)
            return
        kind = mimetypes.guess_type(path)[0] if settings.guess_type and not folder else None
        new = NewObject(
            settings.bucket, key, blob, metadata_of(seen), kind or "application/octet-stream", settings.storage_class
        )
        try:
            with self._lab.database.writing():  # the object and what is known of it, or neither
                stored = self._lab.objects.commit([new], lambda current: _check(current, entry, blob))[0]
                size = seen.st_size if not folder else 0
                self._share.known.put([Entry(path, folder, identity(stored), signature(seen), size)])
        except BaseException:
            self._lab.objects.discard(blob)
            raise
        self._note(settings, key, stored.size)

    def _stage(self, full: Path, seen: os.stat_result) -> Blob:
        store = self._lab.objects
        if stat.S_ISDIR(seen.st_mode):
            return store.stage(b"")
        if stat.S_ISLNK(seen.st_mode):
            return store.stage(os.fsencode(os.readlink(full)))
        if not stat.S_ISREG(seen.st_mode):
            raise CannotUpload("UploadFailed", "It is neither a file, a folder nor a link.")
        descriptor = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as source:
            return store.stage(source)

    def _remove(self, entry: Entry, settings: ShareSettings) -> bool:
        for path in reversed(self._share.known.below(entry.path) if entry.folder else []):
            child = self._share.known.get(path)
            assert child is not None
            self._remove_one(child, settings)
        self._remove_one(entry, settings)
        return True

    def _remove_one(self, entry: Entry, settings: ShareSettings) -> None:
        key = f"{settings.prefix}{entry.path}/" if entry.folder else settings.prefix + entry.path
        store = self._lab.objects
        with self._lab.database.writing():
            current = store.head(settings.bucket, key)
            if current is not None:
                if identity(current) != entry.object:
                    raise CannotUpload("InvalidObjectState", WRITTEN_BY_ANOTHER)
                store.delete(settings.bucket, key)
            self._share.known.forget([entry.path])

    # Telling.

    def _note(self, settings: ShareSettings, key: str, size: int) -> None:
        if settings.settling is None:
            return
        detail = {
            "event-type": "object-upload-complete",
            "object-key": key,
            "object-size": size,
            "modification-time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "bucket-name": settings.bucket,
            "prefix": f"/{settings.prefix}",
        }
        with self._condition:
            self._notices[key] = (time.monotonic() + settings.settling * self._lab.pace, detail)

    def _give_notices(self) -> None:
        with self._condition:
            due = [key for key, (when, _) in self._notices.items() if when <= time.monotonic()]
            notices = [self._notices.pop(key) for key in due]
        for _, detail in notices:
            self._say(detail)

    def _say(self, detail: dict[str, Any]) -> None:
        self._share.settings.emit(self._lab.bus, "Storage Gateway Object Upload Event", detail)


WRITTEN_BY_ANOTHER = "The object in the bucket was written by someone else: refresh the share, then it is uploaded."


def _check(current: StoredObject | None, entry: Entry | None, blob: Blob) -> None:
    """Nobody else's bytes are overwritten unseen (File Gateway user guide, InvalidObjectState)."""
    if identity(current) != (entry.object if entry else "") and (current is None or current.etag != blob.md5):
        raise CannotUpload("InvalidObjectState", WRITTEN_BY_ANOTHER)


def _walk(root: Path, below: str) -> Iterator[tuple[str, str]]:
    """Paths below a folder of the share with their signatures, links not followed."""
    try:
        entries = list(os.scandir(root / below))
    except (FileNotFoundError, PermissionError):  # removed meanwhile, or closed to us: `look` says which
        return
    for entry in entries:
        path = f"{below}/{entry.name}" if below else entry.name
        try:
            yield path, signature(entry.stat(follow_symlinks=False))
        except FileNotFoundError:
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(root, path)


class _Handler(FileSystemEventHandler):
    """Turns events into paths to look at."""

    def __init__(self, root: Path, look_at: Callable[[str], None]) -> None:
        self._top = f"{root}{os.sep}"
        self._look_at = look_at

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Both ends of a rename, the one path of anything else that changes something."""
        if event.event_type not in LOOKED_AT:
            return
        for place in (event.src_path, event.dest_path):
            full = os.fsdecode(place)
            if full.startswith(self._top):
                self._look_at(full[len(self._top) :])
