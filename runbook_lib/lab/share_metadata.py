"""What does an object's user metadata say about the file that a share shows for it, and the other way round?

Keys and spellings: Storage Gateway and FSx for Lustre user guides (POSIX metadata), and those that DataSync writes.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass

USER_AGENT = "aws-storage-gateway"
NOBODY = 65534
LONGEST_NAME = 255  # bytes of one component, on the file systems we know
LATEST = 1 << 62  # nanoseconds; later times do not fit a file
_TIME = re.compile(r"(?P<nanoseconds>\d{1,20})ns|(?P<milliseconds>\d{1,17})|(?P<seconds>\d{1,12})/(?P<rest>\d{1,9})")


@dataclass(frozen=True)
class Defaults:
    """What a share shows for objects without metadata; AWS's own NFSFileShareDefaults (API reference)."""

    owner: int = NOBODY
    group: int = NOBODY
    file_mode: int = 0o666
    folder_mode: int = 0o777


@dataclass(frozen=True)
class Attributes:
    """Owner, mode (permission bits only) and times (nanoseconds since the epoch) of a file, folder or link."""

    mode: int
    owner: int
    group: int
    mtime: int
    atime: int
    link: bool = False


def attributes(metadata: Mapping[str, str], last_modified: float, *, folder: bool, defaults: Defaults) -> Attributes:
    """What metadata says; whatever is missing or makes no sense is the default, times are then the object's own."""
    own_time = int(last_modified * 1000) * 1_000_000  # S3 knows milliseconds
    mode = _octal(metadata.get("file-permissions", ""))
    mtime = _nanoseconds(metadata.get("file-mtime", ""), own_time)
    return Attributes(
        mode=stat.S_IMODE(mode) if mode is not None else defaults.folder_mode if folder else defaults.file_mode,
        owner=_identity(metadata.get("file-owner", ""), defaults.owner),
        group=_identity(metadata.get("file-group", ""), defaults.group),
        mtime=mtime,
        atime=_nanoseconds(metadata.get("file-atime", ""), mtime),
        link=mode is not None and stat.S_ISLNK(mode),
    )


def metadata_of(seen: os.stat_result) -> dict[str, str]:
    """The user metadata with which the gateway stores a file: octal type and mode, nanoseconds."""
    return {
        "user-agent": USER_AGENT,
        "file-owner": str(seen.st_uid),
        "file-group": str(seen.st_gid),
        "file-permissions": f"{seen.st_mode:07o}",
        "file-mtime": f"{seen.st_mtime_ns}ns",
        "file-atime": f"{seen.st_atime_ns}ns",
    }


def showable(relative: str) -> str | None:
    """A key's path in the share (without a folder's trailing slash), or None when no file can have that name."""
    path = relative.removesuffix("/")
    if "\0" in path:
        return None
    for part in path.split("/"):
        if part in ("", ".", "..") or len(part.encode()) > LONGEST_NAME:
            return None
    return path


def stays_inside(path: str, target: str) -> bool:
    """Whether a link at `path` can only lead to something in the share.

    `..` may stand only at the beginning: behind a name it would climb from wherever that name, itself a link, leads.
    """
    parts = target.split("/")
    climbs = next((index for index, part in enumerate(parts) if part != ".."), len(parts))
    if not target or target.startswith("/") or "\0" in target or ".." in parts[climbs:]:
        return False
    return climbs <= path.count("/") and all(len(part.encode()) <= LONGEST_NAME for part in parts)


def _octal(text: str) -> int | None:
    return int(text, 8) if re.fullmatch(r"[0-7]{1,8}", text) else None


def _identity(text: str, default: int) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) >= 0xFFFF_FFFF:
        return default
    return int(text)


def _nanoseconds(text: str, default: int) -> int:
    match = _TIME.fullmatch(text)
    if match is None:
        return default
    if match["nanoseconds"] is not None:
        found = int(match["nanoseconds"])
    elif match["milliseconds"] is not None:
        found = int(match["milliseconds"]) * 1_000_000
    else:
        found = int(match["seconds"]) * 1_000_000_000 + int(match["rest"].ljust(9, "0"))
    return found if found < LATEST else default
