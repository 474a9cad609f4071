"""How far behind is a task? Measured, for CloudWatch and `awsdms_status`.

Changes that wait while a worker applies them count as memory; while none does they wait in the source's log, and count
as disk. Latencies are ages of commits, in whole seconds (DMS user guide, monitoring).
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import psutil
from psycopg import sql

from .dms_counters import Changes, decode
from .dms_logs import lsn_text
from .dms_replication import Replication, Subscription
from .dms_reports import Reports
from .dms_tables import Tables
from .dms_target import STATUS

if TYPE_CHECKING:
    from .core import Lab

PERIOD = 3.0  # seconds between two datapoints
_MOST = 20_000  # changes that are looked at while the reader is paused
_PEEK = """
select substr(data, 1, 40) from pg_logical_slot_peek_binary_changes(
    %s, null, %s, 'proto_version', '1', 'publication_names', %s)
"""
_STATUS = sql.SQL("""
insert into public.{} as s values ('localhost.localdomain', %(task)s, %(status)s, %(now)s, %(pending)s, %(swap)s,
  %(memory)s, %(current)s, %(now)s, %(tail)s, %(applied)s, %(applied)s)
on conflict ("TASK_NAME") do update set "TASK_STATUS" = excluded."TASK_STATUS",
  "STATUS_TIME" = excluded."STATUS_TIME", "PENDING_CHANGES" = excluded."PENDING_CHANGES",
  "DISK_SWAP_SIZE" = excluded."DISK_SWAP_SIZE", "TASK_MEMORY" = excluded."TASK_MEMORY",
  "SOURCE_CURRENT_POSITION" = excluded."SOURCE_CURRENT_POSITION",
  "SOURCE_CURRENT_TIMESTAMP" = excluded."SOURCE_CURRENT_TIMESTAMP",
  "SOURCE_TAIL_POSITION" = excluded."SOURCE_TAIL_POSITION",
  "SOURCE_TAIL_TIMESTAMP" = excluded."SOURCE_TAIL_TIMESTAMP",
  "SOURCE_TIMESTAMP_APPLIED" = excluded."SOURCE_TIMESTAMP_APPLIED"
""").format(sql.Identifier(STATUS))


class Meter:
    """What is measured of one running task, every few seconds."""

    def __init__(self, lab: Lab, replication: Replication, reports: Reports, changes: Changes) -> None:
        self._lab, self._replication, self._reports, self._changes = lab, replication, reports, changes
        self._tables = Tables(lab.database, reports.arn)
        self._last = 0.0
        self._totals: tuple[int, int, int] | None = None  # captured, applied, loaded rows

    def measure(self, *, reading: bool, loading: bool, status_table: bool) -> None:
        """Publish, when it is time again."""
        now = time.monotonic()
        if now - self._last < PERIOD:
            return
        subscription = self._replication.subscription()
        if subscription is None:
            return
        unread, unread_since = (0, 0.0) if reading else self._unread()
        waiting = self._changes.waiting()
        ages = [time.time() - since if since else 0.0 for since in (unread_since, waiting.since)]
        on_disk = not subscription.enabled
        values = {
            "CDCLatencySource": (float(int(max(0.0, ages[0]))), "Seconds"),
            "CDCLatencyTarget": (float(int(max(0.0, *ages))), "Seconds"),
            "CDCIncomingChanges": (float(waiting.changes), "Count"),
            "CDCChangesMemorySource": (0.0, "Count"),  # a change that is read is written down at once
            "CDCChangesDiskSource": (float(unread), "Count"),
            "CDCChangesMemoryTarget": (0.0 if on_disk else float(waiting.changes), "Count"),
            "CDCChangesDiskTarget": (float(waiting.changes) if on_disk else 0.0, "Count"),
            **self._rates(now),
            **self._validation(),
        }
        self._reports.measure(values)
        if status_table:
            self._write_status("FULL LOAD" if loading else "CHANGE PROCESSING", subscription)
        self._last = now

    def _rates(self, now: float) -> dict[str, tuple[float, str]]:
        """Rows a second since the last time; nothing the first time."""
        tables = self._tables.all()
        names = ("Inserts", "Updates", "Deletes")
        captured = sum(table[name] for table in tables for name in names)
        applied = sum(table[f"Applied{name}"] for table in tables for name in names)
        totals = captured, applied, sum(table["FullLoadRows"] for table in tables)
        before, self._totals = self._totals, totals
        if before is None:
            return {}
        seconds = now - self._last
        rates = [max(0.0, (after - early) / seconds) for after, early in zip(totals, before, strict=True)]
        rows = ("CDCThroughputRowsSource", "CDCThroughputRowsTarget", "FullLoadThroughputRowsTarget")
        return {name: (rate, "Count/Second") for name, rate in zip(rows, rates, strict=True)}

    def _validation(self) -> dict[str, tuple[float, str]]:
        kinds, tables = ("Failed", "Suspended", "Pending"), self._tables.all()
        return {
            f"Validation{kind}OverallCount": (float(sum(t[f"Validation{kind}Records"] for t in tables)), "Count")
            for kind in kinds
        }

    def _unread(self) -> tuple[int, float]:
        """How many changes the paused reader has not read, and when the oldest was committed."""
        asked = [self._replication.counting_slot, _MOST, self._replication.name]
        transactions = decode([bytes(row[0]) for row in self._replication.source.execute(_PEEK, asked)])
        changes = sum(sum(transaction.changes.values()) for transaction in transactions)
        return changes, min((transaction.at for transaction in transactions), default=0.0)

    def _write_status(self, status: str, subscription: Subscription) -> None:
        (position,) = self._replication.source.execute("select pg_current_wal_lsn()::text").fetchone() or ("",)
        waiting, now = self._changes.waiting(), datetime.now(UTC).replace(tzinfo=None)
        oldest = datetime.fromtimestamp(waiting.since, UTC).replace(tzinfo=None) if waiting.since else now
        values = {
            "task": self._reports.resource,
            "status": status,
            "now": now,
            "pending": waiting.changes,
            "swap": 0 if subscription.enabled else self._replication.retained() >> 20,
            "memory": psutil.Process().memory_info().rss >> 20,
            "current": position,
            "tail": lsn_text(subscription.applied),
            "applied": oldest,
        }
        self._replication.target.execute(_STATUS, values)

    def stopped(self) -> None:
        """Write into awsdms_status that the task does not run."""
        subscription = self._replication.subscription()
        if subscription is not None:
            self._write_status("NOT RUNNING", subscription)
