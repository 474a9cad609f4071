"""How many rows were inserted, updated and deleted, and how many of these changes reached the target?

PostgreSQL's own counters are statistics: a crash loses them, and they count what was rolled back. The lab reads a
second slot of the task's publication instead. Each committed transaction is written down once, with its position, and
is captured if its table's first copy did not have it; it is applied when the subscription's position on the target has
passed it, unless it was left out (dms_exceptions.py). Positions and counts are stored together, so that neither a
killed lab nor a killed server makes a change count twice, or not at all.
"""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from .database import Database
from .dms_logs import lsn_text
from .dms_replication import Copy, Replication, Subscription
from .dms_resources import Document
from .dms_tables import COUNTERS, Tables

_SCHEMA = """
create table if not exists dms_changes (
    task text not null, position integer not null, ends integer not null, at real not null, key text not null,
    inserts integer not null, updates integer not null, deletes integer not null, ddls integer not null,
    primary key (task, position, key)) without rowid;
create table if not exists dms_read (task text primary key, position integer not null) without rowid;
create table if not exists dms_unapplied (
    task text not null, position integer not null, key text not null, operation text not null, detail text not null,
    stops integer not null, primary key (task, position, key, operation, detail)) without rowid;
"""
_READ = """
select substr(data, 1, 200) from pg_logical_slot_peek_binary_changes(
    %s, %s::pg_lsn, %s, 'proto_version', '1', 'publication_names', %s)
"""
_ADVANCE = """
select pg_replication_slot_advance(slot_name, least(%s::pg_lsn, pg_current_wal_flush_lsn()))
from pg_replication_slots where slot_name = %s and confirmed_flush_lsn < %s::pg_lsn
"""
_AT_A_TIME = 20_000  # changes read at once; a transaction is never cut
_EPOCH_2000 = 946_684_800  # where PostgreSQL's times begin
_KINDS = {b"I": 0, b"U": 1, b"D": 2}
_APPLIED = tuple(f"Applied{name}" for name in COUNTERS)


@dataclass
class Transaction:
    """A committed transaction of the source: changes by table, as (inserts, updates, deletes, truncations)."""

    position: int = 0
    ends: int = 0
    at: float = 0.0
    changes: Counter[tuple[int, int]] = field(default_factory=Counter)  # (table's OID, kind) -> number


@dataclass(frozen=True)
class Waiting:
    """Changes that were captured and are not applied; `since` is the oldest one's commit time, 0.0 when none waits."""

    changes: int
    since: float


def decode(messages: list[bytes]) -> list[Transaction]:
    """The transactions of a pgoutput stream (PostgreSQL, Logical Replication Message Formats, version 1)."""
    done: list[Transaction] = []
    current = Transaction()
    for message in messages:
        kind = message[:1]
        if kind == b"B":
            current = Transaction()
        elif kind == b"C":
            current.position, current.ends, stamp = struct.unpack_from("!qqq", message, 2)
            current.at = stamp / 1e6 + _EPOCH_2000
            done.append(current)
        elif kind in _KINDS:
            (oid,) = struct.unpack_from("!I", message, 1)
            current.changes[oid, _KINDS[kind]] += 1
        elif kind == b"T":
            (number,) = struct.unpack_from("!I", message, 1)
            for oid in struct.unpack_from(f"!{number}I", message, 6):
                current.changes[oid, 3] += 1
    return done


class Changes:
    """What one task captured and applied."""

    def __init__(self, database: Database, task_arn: str) -> None:
        self._database = database
        self._task = task_arn
        self._tables = Tables(database, task_arn)
        self._seen = ""
        for statement in _SCHEMA.split(";\n"):
            database.connection.execute(statement)

    def forget(self) -> None:
        """Begin anew: a fresh start, or the end of the task."""
        with self._database.writing() as cursor:
            for table in ("dms_changes", "dms_read", "dms_unapplied"):
                cursor.execute(f"delete from {table} where task = ?", (self._task,))
        self._seen = ""

    def read(self, replication: Replication, upto: int | None = None) -> int:
        """Write down what was committed at the source since the last time; how many transactions that was."""
        (here,) = replication.source.execute("select pg_current_wal_flush_lsn()").fetchone() or ("",)
        if here == self._seen:
            return 0
        limit = None if upto is None else lsn_text(upto)
        total = 0
        while True:
            asked = [replication.counting_slot, limit or here, _AT_A_TIME, replication.name]
            messages = [bytes(row[0]) for row in replication.source.execute(_READ, asked)]
            transactions = decode(messages)
            if transactions:
                self._write(transactions)
                total += len(transactions)
            reached = transactions[-1].ends if transactions and len(messages) >= _AT_A_TIME else None
            to = limit or here if reached is None else lsn_text(reached)
            replication.source.execute(_ADVANCE, [to, replication.counting_slot, to])
            if reached is None:
                self._seen = here if upto is None else ""
                return total

    def _write(self, transactions: list[Transaction]) -> None:
        keys = {table["SourceOid"]: table["Key"] for table in self._tables.all()}
        with self._database.writing() as cursor:
            found = cursor.execute("select position from dms_read where task = ?", (self._task,)).fetchone()
            before = found["position"] if found else 0
            for transaction in transactions:
                if transaction.ends <= before:  # the slot went back: the source was killed
                    continue
                rows: dict[str, list[int]] = {}
                for (oid, kind), number in transaction.changes.items():
                    if oid in keys:
                        rows.setdefault(keys[oid], [0, 0, 0, 0])[kind] += number
                cursor.executemany(
                    "insert into dms_changes values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    [
                        (self._task, transaction.position, transaction.ends, transaction.at, key, *counts)
                        for key, counts in rows.items()
                    ],
                )
            last = max(before, transactions[-1].ends)
            cursor.execute("insert or replace into dms_read values (?, ?)", (self._task, last))

    def settle(self, copies: dict[str, Copy], subscription: Subscription) -> None:
        """Count what is captured and what is applied, and write it into the statistics of tables with changes."""
        with self._database.writing() as cursor:
            rows = cursor.execute("select distinct key from dms_changes where task = ?", (self._task,)).fetchall()
            for key in [row["key"] for row in rows]:
                table = self._tables.get(key)
                if table is None:
                    cursor.execute(f"{_DROP} true", (self._task, key))
                elif table.get("Gone"):
                    self._give_up(cursor, table)
                elif table["Snapshot"] is not None:
                    self._settle(cursor, table, copies.get(key), subscription)

    def _settle(self, cursor: Any, table: Document, copy: Copy | None, subscription: Subscription) -> None:
        mine = (self._task, table["Key"])
        cursor.execute(f"{_DROP} position <= ?", (*mine, table["Snapshot"]))
        passed = max(subscription.applied, copy.position) if copy is not None and copy.complete else 0
        settled = _sum(cursor, "ends <= ?", (*mine, passed))
        left_out = _sum(cursor, f"ends <= ? and {_LEFT_OUT}", (*mine, passed))
        cursor.execute(f"{_DROP} ends <= ?", (*mine, passed))
        self._publish(table, settled, left_out, _sum(cursor, "true", mine))

    def _give_up(self, cursor: Any, table: Document) -> None:
        """The target has lost the table: what was captured is never applied, and nothing waits for it."""
        mine = (self._task, table["Key"])
        captured = _sum(cursor, "true", mine)
        cursor.execute(f"{_DROP} true", mine)
        self._publish(table, captured, captured, [0] * 4)

    def _publish(self, table: Document, settled: list[int], left_out: list[int], waiting: list[int]) -> None:
        counted = [a + b for a, b in zip(table.get("Settled", [0] * 4), settled, strict=True)]
        applied = [
            table[name] + more - less for name, more, less in zip(_APPLIED, settled, left_out, strict=True)
        ]  # fmt: skip
        captured = [a + b for a, b in zip(counted, waiting, strict=True)]
        self._tables.change(
            table["Key"],
            Settled=counted,
            **dict(zip(COUNTERS, captured, strict=True)),
            **dict(zip(_APPLIED, applied, strict=True)),
        )

    def leave_out(self, position: int, key: str, operation: str, detail: str, *, stops: bool) -> bool:
        """Note that a change was not applied; False when that is known. `stops`: its whole transaction is left out.

        What stands alone was counted as applied when the target passed it, or will be: it is taken off here.
        """
        with self._database.writing() as cursor:
            row = (self._task, position, key, operation, detail, stops)
            if cursor.execute("insert or ignore into dms_unapplied values (?, ?, ?, ?, ?, ?)", row).rowcount == 0:
                return False
            table = self._tables.get(key)
            if not stops and table is not None:
                member = {"UPDATE": "AppliedUpdates", "DELETE": "AppliedDeletes"}[operation]
                self._tables.change(key, **{member: table[member] - 1})
        return True

    def of(self, position: int) -> int:
        """How many changes the transaction that was committed there has, of this task's tables."""
        row = self._database.read(
            "select coalesce(sum(inserts + updates + deletes + ddls), 0) as n from dms_changes"
            " where task = ? and position = ?",
            (self._task, position),
        )
        return int(row[0]["n"])

    def waiting(self) -> Waiting:
        """What was captured and is not applied, of tables that are loaded."""
        rows = self._database.read(
            "select coalesce(sum(inserts + updates + deletes), 0) as n, coalesce(min(at), 0.0) as since"
            " from dms_changes where task = ?",
            (self._task,),
        )
        return Waiting(int(rows[0]["n"]), float(rows[0]["since"]))

    def waits(self, until: int, keys: set[str]) -> bool:
        """Whether something of these tables that was committed until a position is captured and not applied."""
        rows = self._database.read(
            "select distinct key from dms_changes where task = ? and position <= ?", (self._task, until)
        )
        return any(row["key"] in keys for row in rows)


_DROP = "delete from dms_changes where task = ? and key = ? and"
_LEFT_OUT = "position in (select position from dms_unapplied u where u.task = dms_changes.task and u.stops)"


def _sum(cursor: Any, condition: str, parameters: tuple[Any, ...]) -> list[int]:
    found = cursor.execute(
        "select coalesce(sum(inserts), 0), coalesce(sum(updates), 0), coalesce(sum(deletes), 0),"
        f" coalesce(sum(ddls), 0) from dms_changes where task = ? and key = ? and {condition}",
        parameters,
    ).fetchone()
    return list(found)
