"""What can be broken on purpose, what does the runbook then say, and how is it mended?"""

from __future__ import annotations

import difflib
import os
import shutil
import time
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, BinaryIO, cast

from ..errors import LabError
from .core import Lab
from .dms_faults import DMS_FAULTS
from .dms_resources import TASK
from .fault import Fault, Planted
from .objects import StoredObject
from .protocol import Service
from .world import BUCKET

MEETS = 15.0  # seconds that a busy task has for meeting a fault; it is planted all the same


def plant(lab: Lab, services: dict[str, Service], name: str, path: str | None = None) -> Planted:
    """Break something; LabError for an unknown name or a path that cannot be. A planted fault is planted anew."""
    fault = named(name)
    if path is not None and not fault.takes_path:
        raise LabError(f"The fault {name} takes no path.")
    if name in lab.database.setting("faults", {}):
        mend(lab, services, name)
    chosen = path or fault.default_path
    planted: Planted = {} if chosen is None else {"path": _relative(chosen)}
    if fault.plant is not None:
        planted |= fault.plant(lab, planted.get("path", ""))
    elif chosen is not None:
        _export_file(lab, planted["path"])
    with lab.database.writing():
        lab.database.set("faults", {**lab.database.setting("faults", {}), name: planted})
    _let_tasks_meet(lab, fault)
    return planted


def _let_tasks_meet(lab: Lab, fault: Fault) -> None:
    """Return when every task that replicates has met what it looks for now and then: who breaks, looks at once."""
    until = time.monotonic() + MEETS
    while unmet(lab, fault.name) and time.monotonic() < until:
        time.sleep(0.05)


def unmet(lab: Lab, name: str) -> list[str]:
    """The names of the running DMS tasks that have not met a fault yet, and will."""
    met = FAULTS[name].met
    if met is None:
        return []
    running = [task for task in lab.database.all(TASK) if task["Status"] == "running"]
    replicating = [task for task in running if task["MigrationType"] != "full-load"]
    return [task["ReplicationTaskIdentifier"] for task in replicating if not met(lab, task)]


def mend(lab: Lab, services: dict[str, Service], name: str | None = None) -> list[str]:
    """Repair one fault, or all; the names of those that were planted. LabError for an unknown name."""
    if name is not None:
        named(name)
    planted: dict[str, Planted] = lab.database.setting("faults", {})
    mended = [found for found in planted if name in (None, found)]
    for found in mended:
        undo = FAULTS[found].mend
        if undo is not None:
            undo(lab, planted[found])
        with lab.database.writing():
            left = lab.database.setting("faults", {})
            lab.database.set("faults", {other: left[other] for other in left if other != found})
    return mended


def named(name: str) -> Fault:
    """The fault of that name; LabError with the nearest one and all of them."""
    if name in FAULTS:
        return FAULTS[name]
    close = difflib.get_close_matches(name, FAULTS, 1, 0.4)
    nearest = f" Did you mean {close[0]}?" if close else ""
    raise LabError(f"There is no fault {name[:60]!r}.{nearest} Faults: {', '.join(FAULTS)}.")


def _relative(path: str) -> str:
    """A path as keys and the export have it; LabError when it could lead elsewhere."""
    parts = path.split("/")
    if path.startswith("/") or "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise LabError(f"{path!r} must be a path below the export, such as images/00003.jpg.")
    return path


def _export_file(lab: Lab, path: str) -> Path:
    """A regular file of the export, reached without a symbolic link; LabError when there is none."""
    file = lab.folder.export
    for part in path.split("/"):
        file = file / part
        if file.is_symlink():
            raise LabError(f"{path} goes over a symbolic link: give the file itself.")
    if not file.is_file():
        raise LabError(f"The export has no file {path}.")
    return file


def _alter_object(lab: Lab, path: str) -> Planted:
    """Append a byte to an object; its metadata stays, so only size and content tell."""
    found = lab.objects.read(BUCKET, path)
    if found is None:
        raise LabError(f"The bucket {BUCKET} has no object {path}.")
    stored, source = found
    with source, TemporaryFile(dir=lab.folder.root) as altered:
        shutil.copyfileobj(source, altered, 1 << 20)
        altered.write(b"!")
        return {"etag": _replace(lab, stored, altered).etag}


def _restore_object(lab: Lab, planted: Planted) -> None:
    """Take the byte off again, unless somebody has replaced or deleted the object since."""
    found = lab.objects.read(BUCKET, planted["path"])
    if found is None:
        return
    stored, source = found
    with source, TemporaryFile(dir=lab.folder.root) as restored:
        if stored.etag == planted["etag"]:
            shutil.copyfileobj(source, restored, 1 << 20)
            restored.truncate(stored.size - 1)
            _replace(lab, stored, restored)


def _replace(lab: Lab, stored: StoredObject, content: IO[bytes]) -> StoredObject:
    """Other bytes below the same metadata."""
    content.seek(0)
    kept = {"content_type": stored.content_type, "storage_class": stored.storage_class, "tags": stored.tags}
    return lab.objects.put(stored.bucket, stored.key, cast(BinaryIO, content), stored.metadata, **kept)


def _lock_file(lab: Lab, path: str) -> Planted:
    """Take the read permission away. The time changes too: DataSync opens only what seems to have changed."""
    file = _export_file(lab, path)
    before = file.stat()
    now = time.time_ns()
    os.utime(file, ns=(before.st_atime_ns, now))
    if os.geteuid() != 0:  # permissions don't stop root; for root DataSync's worker looks at the setting
        file.chmod(0)
    return {"mode": before.st_mode & 0o7777, "mtime": before.st_mtime_ns, "planted": file.stat().st_mtime_ns}


def _unlock_file(lab: Lab, planted: Planted) -> None:
    """Give the permission back, and the old time unless somebody has written to the file since."""
    file = lab.folder.export / planted["path"]
    if file.is_symlink() or not file.is_file():
        return
    seen = file.stat()
    if seen.st_mode & 0o7777 == 0:
        file.chmod(planted["mode"])
    if seen.st_mtime_ns == planted["planted"]:
        os.utime(file, ns=(seen.st_atime_ns, planted["mtime"]))


_ALL = (
    Fault(
        "agent-offline",
        "The DataSync agent does not answer: its status is OFFLINE and its tasks are UNAVAILABLE.",
        "00: The DataSync agent is online",
        "runbook run 00",
        "Start the agent again: `runbook lab mend agent-offline`.",
    ),
    Fault(
        "file-changes-during-copy",
        "Somebody appends a byte to a file between its copy and its verification. With a path: only when that file "
        "is copied; without: the first file that is copied.",
        "02: The execution succeeded and nothing failed",
        "runbook lab reset --at 02, plant it again, runbook run 02",
        "Stop writing to the source (`runbook lab mend file-changes-during-copy`) and run 02 once more.",
        takes_path=True,
    ),
    Fault(
        "object-altered",
        "An object in the bucket is one byte longer than what DataSync wrote; its metadata is the same. 02 would find "
        "that it differs and copy the file again, all green; what reads the share meanwhile gets the wrong content. "
        "03 finds it too, in the bucket.",
        "05: Every file of the NFS server is on the share",
        "runbook lab reset --at 04, plant it again, runbook run 04 05",
        "Run 02 once more, it copies the file again, then 04; or `runbook lab mend object-altered`, then 04.",
        takes_path=True,
        default_path="images/00002.jpg",
        plant=_alter_object,
        mend=_restore_object,
    ),
    Fault(
        "refresh-event-lost",
        "RefreshCache does its work, and its refresh-complete event never arrives.",
        "04: The refresh is complete, or none was needed",
        "runbook lab reset --at 04, plant it again, runbook run 04 -p timeout_minutes=0.2",
        "`ls` shows that the refresh was done; `runbook lab mend refresh-event-lost`, and run 04 once more.",
    ),
    Fault(
        "events-denied",
        "EventBridge refuses every call: the permission to make a rule is missing.",
        "none; 04 says that no event can be heard, and `ls` decides",
        "runbook lab reset --at 04, plant it again, runbook run 04",
        "Grant what `runbook doctor --iam` prints; `runbook lab mend events-denied`.",
    ),
    Fault(
        "unreadable-file",
        "A file of the export has changed and cannot be read by the agent.",
        "02: The execution succeeded and nothing failed",
        "runbook run 02",
        "Give the agent the permission to read it (`runbook lab mend unreadable-file`) and run 02 once more.",
        takes_path=True,
        default_path="images/00003.jpg",
        plant=_lock_file,
        mend=_unlock_file,
    ),
    Fault(
        "application-server-unreachable",
        "SSM has lost the application server: its ping status is ConnectionLost and commands are refused.",
        "00: The application server answers and sees both mounts",
        "runbook run 00",
        "Start its SSM agent again: `runbook lab mend application-server-unreachable`.",
    ),
)
FAULTS = {fault.name: fault for fault in (*_ALL, *DMS_FAULTS)}
