"""Which files are there, and what differs between two sides: plain values, no AWS in here."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from ..display import Shown, Table, plural

METADATA_KEY = ".aws-datasync-metadata"  # DataSync's own object at the top of the destination
Kind = Literal["file", "folder", "link", "other"]


@dataclass(frozen=True)
class Posix:
    """POSIX metadata as DataSync and the gateway keep it in S3 user metadata; None: not recorded."""

    uid: int | None
    gid: int | None
    mode: int | None  # st_mode with or without its type bits
    mtime_ns: int | None
    mtime_step: int = 1  # nanoseconds: how exactly the time was written down

    @property
    def mtime(self) -> datetime | None:
        """The modification time in UTC."""
        return None if self.mtime_ns is None else datetime.fromtimestamp(self.mtime_ns / 1e9, UTC)


@dataclass(frozen=True)
class Entry:
    """One file, folder or link; `path` is relative to the side's root, '' is the root itself."""

    path: str
    kind: Kind
    size: int  # bytes; 0 for folders
    mtime_ns: int | None
    mode: int | None  # permission bits only
    uid: int | None
    gid: int | None
    ctime_ns: int | None = None  # only where the file system tells
    mtime_step: int = 1  # nanoseconds: how exactly mtime_ns is known

    @property
    def key(self) -> str:
        """Its key below the destination's prefix: a folder's ends in '/'."""
        return f"{self.path}/" if self.kind == "folder" else self.path


def nanoseconds(text: str) -> int:
    """A time in one of the three spellings seen in S3 user metadata: `…ns`, milliseconds, or `seconds/nanoseconds`.

    (FSx for Lustre guide, POSIX metadata; DataSync user guide, enhanced mode log example.)
    """
    if text.endswith("ns"):
        return int(text[:-2])
    if "/" in text:
        seconds, _, rest = text.partition("/")
        return int(seconds) * 1_000_000_000 + int(rest)
    return int(text) * 1_000_000


def posix(metadata: dict[str, str]) -> Posix:
    """POSIX metadata from S3 user metadata (keys in lower case, as boto3 gives them)."""

    def number(key: str, read: Callable[[str], int]) -> int | None:
        return read(metadata[key]) if metadata.get(key) else None

    return Posix(
        uid=number("file-owner", int),
        gid=number("file-group", int),
        mode=number("file-permissions", lambda text: int(text, 8)),
        mtime_ns=number("file-mtime", nanoseconds),
        mtime_step=1_000_000 if metadata.get("file-mtime", "").removeprefix("-").isdigit() else 1,
    )


def entry_of_object(key: str, size: int, metadata: dict[str, str]) -> Entry:
    """The entry that an object stands for: a key that ends in '/' is a folder, a link's mode says so."""
    found = posix(metadata)
    kind: Kind = "file"
    if key.endswith("/"):
        kind = "folder"
    elif found.mode is not None and stat.S_IFMT(found.mode) == stat.S_IFLNK:
        kind = "link"
    mode = None if found.mode is None else stat.S_IMODE(found.mode)
    size = 0 if kind == "folder" else size
    path = key.removesuffix("/")
    return Entry(path, kind, size, found.mtime_ns, mode, found.uid, found.gid, mtime_step=found.mtime_step)


KINDS: dict[str, Kind] = {"f": "file", "d": "folder", "l": "link"}


def parse_scan(data: bytes) -> list[Entry]:
    """Entries from the application server's scan: `type size mtime ctime mode uid gid path`, each ended by NUL."""
    entries = []
    for record in data.split(b"\0"):
        if not record:
            continue
        kind, size, mtime, ctime, mode, uid, gid, path = record.decode("utf-8", "surrogateescape").split(" ", 7)
        folder = kind == "d"
        entries.append(
            Entry(
                path="" if path == "." else path.removeprefix("./"),
                kind=KINDS.get(kind, "other"),
                size=0 if folder else int(size),
                mtime_ns=_decimal_ns(mtime),
                mode=int(mode, 8),
                uid=int(uid),
                gid=int(gid),
                ctime_ns=_decimal_ns(ctime),
            )
        )
    return entries


def _decimal_ns(text: str) -> int:
    """find's %T@ ('1740819600.0000000000') in nanoseconds, without a float's rounding."""
    seconds, _, fraction = text.partition(".")
    return int(seconds) * 1_000_000_000 + int((fraction + "000000000")[:9])


@dataclass(frozen=True, repr=False)
class Pending(Shown):
    """What differs between source and destination: what a DataSync run in CHANGED mode would transfer."""

    files: tuple[str, ...]
    folders: tuple[str, ...]  # '' is the root
    looked_at: int  # entries at the source
    newest_change: datetime | None  # the last change of any entry at the source, UTC
    why_not: str = ""  # why it could not be counted; then files and folders say nothing

    @property
    def items(self) -> int | None:
        """Files and folders; None when it could not be counted."""
        return None if self.why_not else len(self.files) + len(self.folders)

    @property
    def ok(self) -> bool:
        """A finding: there is something at the source besides the top folder (an NFS server that is not mounted)."""
        return self.looked_at > 1

    @property
    def reason(self) -> str:
        """What was looked at."""
        return f"{plural(self.looked_at, 'entry')} found at the source"

    def headline(self) -> str:
        """How many items wait."""
        if self.why_not:
            return f"What differs was not counted: {self.why_not}"
        parts = f"{plural(len(self.files), 'file')} and {plural(len(self.folders), 'folder')}"
        return f"{plural(self.items or 0, 'item')} to transfer: {parts}."

    def tables(self) -> list[Table]:
        """The items."""
        rows = [("file", path) for path in self.files]
        rows += [("folder", f"{path}/" if path else "/ (the top folder itself)") for path in self.folders]
        return [Table(("Kind", "Path"), rows, limit=10)] if rows else []


def pending(
    source: Iterable[Entry],
    destination: Iterable[Entry],
    *,
    root_copied: datetime | None,
    compare: frozenset[str] = frozenset({"mtime", "mode", "uid", "gid"}),
    everything: bool = False,
    never_overwrite: bool = False,
    excluded: Callable[[str], bool] = lambda path: False,
) -> Pending:
    """What is new at the source or differs in size or metadata (DataSync user guide, TransferMode CHANGED).

    The top folder has no object of its own in the bucket, so it counts when it changed after `root_copied`, the
    start of the last successful execution. `everything` is TransferMode ALL, `never_overwrite` OverwriteMode NEVER.
    """
    there = {entry.path: entry for entry in destination if entry.path != METADATA_KEY}
    files: list[str] = []
    folders: list[str] = []
    looked_at = newest = 0
    for entry in source:
        if excluded(entry.path) or entry.kind == "other":
            continue
        looked_at += 1
        newest = max(newest, entry.mtime_ns or 0, entry.ctime_ns or 0)
        if entry.path == "":
            copied = root_copied is not None and (entry.mtime_ns or 0) / 1e9 <= root_copied.timestamp()
            if everything or not copied:
                folders.append("")
            continue
        match = there.get(entry.path)
        if match is not None and not everything and (never_overwrite or not _differs(entry, match, compare)):
            continue
        (folders if entry.kind == "folder" else files).append(entry.path)
    changed = datetime.fromtimestamp(newest / 1e9, UTC) if newest else None
    return Pending(tuple(sorted(files)), tuple(sorted(folders)), looked_at, changed)


def _differs(here: Entry, there: Entry, compare: frozenset[str]) -> bool:
    if here.kind != there.kind or here.size != there.size:
        return True
    step = max(here.mtime_step, there.mtime_step)
    times = [None if entry.mtime_ns is None else entry.mtime_ns // step for entry in (here, there)]
    values = {
        "mtime": (times[0], times[1]),
        "mode": (here.mode, there.mode),
        "uid": (here.uid, there.uid),
        "gid": (here.gid, there.gid),
    }
    return any(values[name][0] != values[name][1] for name in compare)
