"""What does the gateway know about a share: which object each file shows, and how that file looked then?

A refresh writes what it plans before it renames the first file, so that a scan in the middle, or after a SIGKILL,
can tell the gateway's own work from the application's.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .database import Database
from .objects import StoredObject

TABLES = """
create table if not exists share_entries (
    share text not null, path text not null,  -- relative to the share, no trailing slash
    folder integer not null,
    object text not null,                     -- the object's identity; '' for a folder that only its content implies
    signature text not null,                  -- how the file looked; '' when the gateway never saw it as it is
    size integer not null,                    -- bytes
    planned_object text, planned_signature text, planned_size integer,  -- '' as signature: it is being removed
    primary key (share, path)
) without rowid;
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One path that the gateway knows."""

    path: str
    folder: bool
    object: str
    signature: str
    size: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a refresh is about to make of a path; no signature: nothing."""

    path: str
    folder: bool
    object: str
    signature: str
    size: int


def identity(stored: StoredObject | None) -> str:
    """Which write of an object this is; '' for none. Equal bytes written again are another write."""
    return "" if stored is None else f"{stored.version_id} {stored.etag} {stored.last_modified!r}"


def signature(seen: os.stat_result) -> str:
    """What changes when the application writes, renames over, chmods, chowns or touches a file.

    A folder's time is left out: it changes with every child.
    """
    owner = f"{stat.S_IMODE(seen.st_mode):o} {seen.st_uid} {seen.st_gid}"
    if stat.S_ISDIR(seen.st_mode):
        return f"folder {owner}"
    kind = "link" if stat.S_ISLNK(seen.st_mode) else "file"
    return f"{kind} {owner} {seen.st_size} {seen.st_mtime_ns} {seen.st_ino}"


class Known:
    """The entries of one share."""

    def __init__(self, database: Database, share: str) -> None:
        self._database = database
        self._share = share

    @staticmethod
    def prepare(database: Database, shares: Iterable[str]) -> None:
        """Make the table, and forget shares that are no more."""
        with database.writing() as cursor:
            cursor.execute(TABLES)
            kept = list(shares)
            marks = ", ".join("?" * len(kept))
            cursor.execute(f"delete from share_entries where share not in ({marks})", kept)

    def all(self) -> dict[str, Entry]:
        """Every entry by path, in the paths' order."""
        query = "select path, folder, object, signature, size from share_entries where share = ? order by path"
        rows = self._database.read(query, (self._share,))
        return {row[0]: Entry(row[0], bool(row[1]), row[2], row[3], row[4]) for row in rows}

    def get(self, path: str) -> Entry | None:
        """One entry."""
        query = "select path, folder, object, signature, size from share_entries where share = ? and path = ?"
        rows = self._database.read(query, (self._share, path))
        return Entry(rows[0][0], bool(rows[0][1]), *rows[0][2:]) if rows else None

    def below(self, path: str) -> list[str]:
        """Known paths below a folder, deepest last."""
        query = "select path from share_entries where share = ? and path > ? and path < ? order by path"
        return [row[0] for row in self._database.read(query, (self._share, f"{path}/", f"{path}0"))]

    def used(self) -> int:
        """Bytes of all that is known."""
        query = "select coalesce(sum(size), 0) from share_entries where share = ?"
        return int(self._database.read(query, (self._share,))[0][0])

    def put(self, entries: Iterable[Entry]) -> None:
        """Know these."""
        with self._database.writing() as cursor:
            cursor.executemany(
                "insert or replace into share_entries (share, path, folder, object, signature, size)"
                " values (?, ?, ?, ?, ?, ?)",
                [(self._share, e.path, e.folder, e.object, e.signature, e.size) for e in entries],
            )

    def forget(self, paths: Iterable[str]) -> None:
        """Know these no more."""
        with self._database.writing() as cursor:
            rows = [(self._share, path) for path in paths]
            cursor.executemany("delete from share_entries where share = ? and path = ?", rows)

    def clear(self) -> None:
        """Know nothing."""
        with self._database.writing() as cursor:
            cursor.execute("delete from share_entries where share = ?", (self._share,))

    def plan(self, plans: list[Plan]) -> None:
        """Write down what a refresh is about to do."""
        with self._database.writing() as cursor:
            cursor.executemany(
                "insert into share_entries values (:share, :path, :folder, '', '', 0, :object, :signature, :size)"
                " on conflict (share, path) do update set planned_object = excluded.planned_object,"
                " planned_signature = excluded.planned_signature, planned_size = excluded.planned_size",
                [
                    {
                        "share": self._share, "path": p.path, "folder": p.folder,
                        "object": p.object, "signature": p.signature, "size": p.size,
                    }
                    for p in plans
                ],
            )  # fmt: skip

    def recover(self, root: Path) -> None:
        """Settle what a killed refresh had planned: what it had done is known, what it had not is as before."""
        query = "select * from share_entries where share = ? and planned_signature is not null"
        for row in self._database.read(query, (self._share,)):
            path, known = row["path"], Entry(row["path"], bool(row["folder"]), *row[3:6])
            seen = os.lstat(root / path) if os.path.lexists(root / path) else None
            if seen is None and row["planned_signature"] == "":
                self.forget([path])
            elif seen is not None and signature(seen) == row["planned_signature"]:
                self.put([Entry(path, known.folder, row["planned_object"], signature(seen), row["planned_size"])])
            elif known.signature:
                self.put([known])
            elif seen is not None and stat.S_ISDIR(seen.st_mode):  # made, and not yet given its mode
                self.put([Entry(path, True, "", signature(seen), 0)])
            else:
                self.forget([path])
