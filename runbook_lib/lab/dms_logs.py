"""What do the two servers' own logs say about a replication? Facts that no view of PostgreSQL keeps.

Where a table's first copy was taken, how many rows it had, why a copy failed, and which transaction of the source could
not be applied are said once, in the log.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

COPIED = "awsdms: loaded"  # what the load's trigger says (dms_target.py)
_SLOT = re.compile(r"pg_(\d+)_sync_(\d+)_\d+$")
_POINT = re.compile(r"logical decoding found consistent point at ([0-9A-F]+/[0-9A-F]+)")
_COPIED = re.compile(re.escape(COPIED) + r" (\d+), (\d+) rows")
_COPYING = re.compile(r"COPY (\S+?)(?:,|$)")
_COPY_FAILED = re.compile(r'could not start initial contents copy for table "(.+)": ERROR:\s*(.*)', re.DOTALL)
_REMOTE = re.compile(
    r'processing remote data for replication origin "(pg_\d+)(?:_\d+)?" during message type "(\w+)"'
    r'(?: for replication target relation "(.+?)")?.* in transaction \d+, finished at ([0-9A-F]+/[0-9A-F]+)'
)
_UNFIT = re.compile(r'logical replication target relation "(.+?)" (?:does not exist|is missing replicated column)')
_PLACE_LOST = re.compile(
    r'could not start WAL streaming: ERROR:\s+replication slot "(pg_\d+_sync_(\d+)_\d+)" does not exist'
)
_CONFLICT = re.compile(r"conflict=(\w+)")
UNFIT = "55000"  # the kind of a change whose table the target does not have, or not with all its columns
_DATA_ERRORS = ("22", "23", "42", "P0")  # classes that a second try does not cure


@dataclass(frozen=True)
class CopyPoint:
    """A table's copy was begun: changes that were committed after `lsn` are not in it."""

    subscription: int
    relation: int
    lsn: int
    at: float


@dataclass(frozen=True)
class Copied:
    """A table's copy was complete, with that many rows; it counts once its transaction was committed."""

    relation: int
    rows: int
    at: float


@dataclass(frozen=True)
class CopyFailed:
    """A table's copy was refused; PostgreSQL tries again."""

    table: str
    why: str
    at: float


@dataclass(frozen=True)
class PlaceLost:
    """A table's copy is complete, and its slot gone: the target was killed between the two ends of its load."""

    relation: int
    slot: str


@dataclass(frozen=True)
class Unapplied:
    """A change that could not be applied as it came. `stops`: PostgreSQL applies nothing more before it is skipped."""

    origin: str
    operation: str  # INSERT, UPDATE, DELETE, …
    table: str
    lsn: int  # of the transaction's commit at the source
    kind: str  # insert_exists, update_missing, … or an SQLSTATE
    message: str
    detail: str
    stops: bool
    at: float


Fact = CopyPoint | Copied | CopyFailed | PlaceLost | Unapplied


class ServerLog:
    """A server's JSON log, read on from where it was read to; the reader of a copied or emptied log begins anew."""

    def __init__(self, path: Path, offset: int) -> None:
        self._path = path
        self.offset = offset
        self._creating: set[str] = set()  # sessions that have just made a slot

    def facts(self) -> Iterator[Fact]:
        """What was said since the last time."""
        for record in self._records():
            found = self._fact(record)
            if found is not None:
                yield found

    def _records(self) -> Iterator[dict[str, Any]]:
        if size_of(self._path) < self.offset:
            self.offset = 0
        if not self._path.exists():
            return
        with self._path.open("rb") as lines:
            lines.seek(self.offset)
            for line in lines:
                if not line.endswith(b"\n"):
                    return  # still being written
                self.offset += len(line)
                if line.startswith(b"{"):
                    yield json.loads(line)

    def _fact(self, record: dict[str, Any]) -> Fact | None:
        message, at = str(record.get("message", "")), _moment(record)
        slot = _SLOT.match(str(record.get("application_name", "")))
        if slot is not None:
            return self._point(message, record["session_id"], int(slot.group(1)), int(slot.group(2)), at)
        if copied := _COPIED.match(message):
            return Copied(int(copied.group(1)), int(copied.group(2)), at)
        if failed := _COPY_FAILED.match(message):
            return CopyFailed(failed.group(1), failed.group(2), at)
        if lost := _PLACE_LOST.match(message):
            return PlaceLost(int(lost.group(2)), lost.group(1))
        copying = _COPYING.match(str(record.get("context", "")))
        if copying and record["error_severity"] == "ERROR" and "tablesync" in record.get("backend_type", ""):
            return CopyFailed(copying.group(1), message, at)
        remote = _REMOTE.search(str(record.get("context", "")))
        return None if remote is None else _unapplied(record, remote, message, at)

    def _point(self, message: str, session: str, subscription: int, relation: int, at: float) -> CopyPoint | None:
        """A slot's first consistent point; the later ones of the same slot are of readers that come back."""
        if message.startswith("received replication command: CREATE_REPLICATION_SLOT"):
            self._creating.add(session)
        point = _POINT.match(message)
        if point is None or session not in self._creating:
            return None
        self._creating.discard(session)
        return CopyPoint(subscription, relation, lsn(point.group(1)), at)


def _unapplied(record: dict[str, Any], remote: re.Match[str], message: str, at: float) -> Unapplied | None:
    origin, operation, table, finished = remote.groups()
    stops = record["error_severity"] == "ERROR"
    state = str(record.get("state_code", ""))
    conflict = _CONFLICT.search(message)
    kind = conflict.group(1) if conflict else state
    if unfit := _UNFIT.match(message):
        table = unfit.group(1)
    elif stops and conflict is None and not state.startswith(_DATA_ERRORS):
        return None  # a lost connection, a deadlock: the next try may succeed
    if not stops and kind not in ("update_missing", "delete_missing"):
        return None
    return Unapplied(
        origin, operation, table or "", lsn(finished), kind, message, str(record.get("detail", "")), stops, at
    )


def size_of(path: Path) -> int:
    """Bytes of a log; 0 when there is none yet."""
    return path.stat().st_size if path.exists() else 0


def lsn(text: str) -> int:
    """A position in the source's log, as a number."""
    high, low = text.split("/")
    return (int(high, 16) << 32) + int(low, 16)


def lsn_text(position: int) -> str:
    """A position as PostgreSQL writes it."""
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


def _moment(record: dict[str, Any]) -> float:
    written = datetime.strptime(record["timestamp"].removesuffix(" UTC"), "%Y-%m-%d %H:%M:%S.%f")
    return written.replace(tzinfo=UTC).timestamp()
