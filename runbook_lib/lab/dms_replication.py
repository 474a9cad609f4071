"""How do rows get to the target? By PostgreSQL's own logical replication: a publication there, a subscription here.

The lab copies no row itself. A second slot of the same publication is what a task counts changes from
(dms_counters.py); it is made before the subscription, so that it misses nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from ..errors import LabError
from .dms_endpoints import Address
from .dms_logs import lsn_text
from .dms_target import SourceTable

PATIENCE = 30.0  # seconds for a worker of PostgreSQL to end
_STATES = """
select n.nspname || '.' || c.relname, c.oid, r.srsubstate, pg_wal_lsn_diff(r.srsublsn, '0/0')::bigint,
  coalesce(p.tuples_processed, 0)
from pg_subscription s join pg_subscription_rel r on r.srsubid = s.oid
join pg_class c on c.oid = r.srrelid join pg_namespace n on n.oid = c.relnamespace
left join pg_stat_progress_copy p on p.relid = c.oid and p.datid = s.subdbid
where s.subname = %s
"""
_SUBSCRIPTION = """
select s.oid::int8, s.subenabled, pg_wal_lsn_diff(o.remote_lsn, '0/0')::bigint,
  exists (select from pg_stat_subscription w where w.subid = s.oid and w.pid is not null)
from pg_subscription s left join pg_replication_origin_status o on o.external_id = 'pg_' || s.oid where s.subname = %s
"""

Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class Copy:
    """How far a subscription has a table: PostgreSQL's state letter, and while it copies the rows so far."""

    key: str
    relation: int
    state: str  # i, d, f, s, r
    position: int  # where it was in step with the others, in states s and r
    rows: int

    @property
    def complete(self) -> bool:
        """Loaded, and in step with the changes."""
        return self.state in "sr"


@dataclass(frozen=True)
class Subscription:
    """A subscription as it is now."""

    oid: int
    enabled: bool
    applied: int  # everything up to this position of the source is applied
    working: bool  # some worker of it lives


class Replication:
    """One task's publication, slots and subscription, by one name. Connections are the superuser's."""

    def __init__(self, source: Connection, target: Connection, name: str) -> None:
        self.source, self.target, self.name = source, target, name
        self.counting_slot = f"{name}_counting"
        self._id = sql.Identifier(name)

    def create(self, tables: Sequence[SourceTable], address: Address, *, copy: bool) -> int:
        """Everything, not yet enabled; the source's position from which on changes come."""
        names = sql.SQL(", ").join(table.identifier for table in tables)
        publish = "create publication {} for table {}" if tables else "create publication {}"
        self.source.execute(sql.SQL(publish).format(self._id, names))
        self.source.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", [self.counting_slot])
        create = sql.SQL(
            "create subscription {} connection {} publication {}"
            " with (enabled = false, copy_data = {}, streaming = off, synchronous_commit = local)"
        )  # with `off`, its default, a killed target forgets that a table was loaded, whose slot is gone by then
        where = sql.Literal(_conninfo(address))
        self.target.execute(create.format(self._id, where, self._id, sql.Literal(copy)))
        found = self.source.execute(
            "select pg_wal_lsn_diff(confirmed_flush_lsn, '0/0')::bigint from pg_replication_slots where slot_name = %s",
            [self.name],
        ).fetchone()
        if found is None:
            raise LabError(f"The source has no slot {self.name}.")
        return int(found[0])

    def drop(self) -> None:
        """Remove it all, also what is half made or half gone."""
        if self.subscription() is not None:
            self.disable()
            if not self.has_slot(self.name):
                self.target.execute(sql.SQL("alter subscription {} set (slot_name = none)").format(self._id))
            self.target.execute(sql.SQL("drop subscription {}").format(self._id))
        for slot in (self.name, self.counting_slot):
            self.source.execute(
                "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = %s", [slot]
            )
        self.source.execute(sql.SQL("drop publication if exists {}").format(self._id))

    def subscription(self) -> Subscription | None:
        """As it is now; None when there is none."""
        row = self.target.execute(_SUBSCRIPTION, [self.name]).fetchone()
        return None if row is None else Subscription(row[0], row[1], int(row[2] or 0), row[3])

    def connect(self, address: Address) -> None:
        """Tell the subscription where the source is now."""
        alter = sql.SQL("alter subscription {} connection {}")
        self.target.execute(alter.format(self._id, sql.Literal(_conninfo(address))))

    def enable(self) -> None:
        """Apply from now on what has been waiting, and what comes."""
        self.target.execute(sql.SQL("alter subscription {} enable").format(self._id))

    def disable(self) -> None:
        """Apply nothing more; returns when the workers are gone. The source keeps what comes."""
        self.target.execute(sql.SQL("alter subscription {} disable").format(self._id))
        deadline = time.monotonic() + PATIENCE
        while True:
            found = self.subscription()
            if found is None or not found.working:
                return
            if time.monotonic() > deadline:
                raise LabError(f"The workers of the subscription {self.name} do not end.")
            time.sleep(0.02)

    def skip(self, position: int) -> None:
        """Leave out the transaction that was committed there."""
        alter = sql.SQL("alter subscription {} skip (lsn = {})")
        self.target.execute(alter.format(self._id, sql.Literal(lsn_text(position))))

    def copies(self) -> dict[str, Copy]:
        """How far each table is, by `schema.table`."""
        rows = self.target.execute(_STATES, [self.name])
        return {row[0]: Copy(row[0], row[1], row[2], int(row[3] or 0), int(row[4])) for row in rows}

    def published(self) -> set[int]:
        """The source's tables in the publication, by OID."""
        rows = self.source.execute(
            "select r.prrelid::int8 from pg_publication p join pg_publication_rel r on r.prpubid = p.oid"
            " where p.pubname = %s",
            [self.name],
        )
        return {row[0] for row in rows}

    def leave(self, tables: Sequence[SourceTable]) -> None:
        """Replicate tables no more."""
        names = sql.SQL(", ").join(table.identifier for table in tables)
        self.source.execute(sql.SQL("alter publication {} drop table {}").format(self._id, names))
        self.refresh()

    def join(self, tables: Sequence[SourceTable]) -> None:
        """Replicate further tables: each is copied first."""
        names = sql.SQL(", ").join(table.identifier for table in tables)
        self.source.execute(sql.SQL("alter publication {} add table {}").format(self._id, names))
        self.refresh()

    def refresh(self) -> None:
        """Have the subscription see which tables are published."""
        self.target.execute(sql.SQL("alter subscription {} refresh publication").format(self._id))

    def position(self) -> int:
        """Where the source's log ends now."""
        row = self.source.execute("select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint").fetchone()
        return int(row[0]) if row else 0

    def has_slot(self, name: str) -> bool:
        """Whether the source has a slot."""
        found = self.source.execute("select 1 from pg_replication_slots where slot_name = %s", [name])
        return found.fetchone() is not None

    def lost(self) -> bool:
        """Whether the source has removed log that this task has not read."""
        row = self.source.execute(
            "select bool_or(wal_status = 'lost') from pg_replication_slots where slot_name = any(%s)",
            [[self.name, self.counting_slot]],
        ).fetchone()
        return bool(row and row[0])

    def retained(self) -> int:
        """Bytes that the source keeps for this task."""
        row = self.source.execute(
            "select coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)), 0)::bigint"
            " from pg_replication_slots where slot_name = any(%s)",
            [[self.name, self.counting_slot]],
        ).fetchone()
        return int(row[0]) if row else 0


def _conninfo(address: Address) -> str:
    return psycopg.conninfo.make_conninfo(
        host=address.host, port=address.port, dbname=address.database, user=address.user, password=address.password,
        connect_timeout=10,
    )  # fmt: skip
