"""What becomes of a change that cannot be applied? It is written down, left out, and replication goes on.

DMS's default (ErrorBehavior, LOG_ERROR) leaves out the one row. PostgreSQL stops its apply and can leave out only the
whole transaction of the source: so does the lab, and says in `awsdms_apply_exceptions` how many changes went with it. A
change whose row is missing on the target stops nothing, in PostgreSQL as in DMS: an update is written down, a delete is
not (ApplyErrorDeletePolicy IGNORE_RECORD).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from psycopg import sql

from .dms_counters import Changes
from .dms_logs import Unapplied, lsn_text
from .dms_replication import Replication, Subscription
from .dms_reports import Reports
from .dms_target import EXCEPTIONS, Connection

_ROW = re.compile(r"remote row (\(.*?\))(?:[;.]|$)", re.DOTALL)
_IDENTITY = re.compile(r"(?i:replica identity(?: full)?|key) (?:\(.*?\)=)?(\(.*?\))(?:[;.]|$)", re.DOTALL)


class Exceptions:
    """The changes of one task that were not applied."""

    def __init__(self, changes: Changes, reports: Reports) -> None:
        self._changes = changes
        self._reports = reports

    def handle(self, fact: Unapplied, replication: Replication, subscription: Subscription) -> None:
        """Write a change down, once, and have its transaction left out when it stops the others."""
        if fact.origin != f"pg_{subscription.oid}":
            return
        schema, _, table = fact.table.replace('"', "").partition(".")
        error = self._error(fact)
        if fact.kind != "delete_missing":
            self._record(replication.target, schema, table, _statement(fact), error, fact.at)
        new = self._changes.leave_out(
            fact.lsn, f"{schema}.{table}", fact.operation, fact.detail[:500], stops=fact.stops
        )
        if new and fact.stops:
            self._reports.say("TARGET_APPLY", f"Failed to apply {fact.operation} to {fact.table}: {error}", "E")
        elif new:
            said = (
                f"{fact.operation} of {fact.table} had no impact: {fact.message}. Some changes from the source "
                f"database had no impact when applied to the target database. See {EXCEPTIONS} table for details."
            )
            self._reports.say("TARGET_APPLY", said, "W")
        if fact.stops and subscription.applied <= fact.lsn:
            replication.skip(fact.lsn)

    def _error(self, fact: Unapplied) -> str:
        where = f"finished at {lsn_text(fact.lsn)}"
        said = " ".join(f"{fact.message} {fact.detail}".split())
        if not fact.stops:
            return f"0 rows affected; {said}; {where}"
        return (
            f"{said}; {where}; the whole transaction of the source was left out, {self._changes.of(fact.lsn)} changes"
        )

    def _record(self, target: Connection, schema: str, table: str, statement: str, error: str, at: float) -> None:
        mark = error.partition("; the whole")[0]  # the same whoever asks again after a crash
        insert = sql.SQL(
            'insert into public.{} ("TASK_NAME", "TABLE_OWNER", "TABLE_NAME", "ERROR_TIME", "STATEMENT", "ERROR")'
            " select %s, %s, %s, %s, %s, %s where not exists (select from public.{}"
            ' where "TASK_NAME" = %s and "STATEMENT" = %s and starts_with("ERROR", %s))'
        ).format(sql.Identifier(EXCEPTIONS), sql.Identifier(EXCEPTIONS))
        task = self._reports.resource
        when = datetime.fromtimestamp(at, UTC).replace(tzinfo=None)
        target.execute(insert, [task, schema, table, when, statement, error, task, statement, mark])


def _statement(fact: Unapplied) -> str:
    """What DMS would have executed, as far as PostgreSQL's log has it."""
    row, identity = _ROW.search(fact.detail), _IDENTITY.search(fact.detail)
    match fact.operation:
        case "INSERT":
            return f"INSERT INTO {fact.table} VALUES {row.group(1) if row else '(…)'}"
        case "UPDATE":
            values, which = (row.group(1) if row else "(…)"), (identity.group(1) if identity else "(…)")
            return f"UPDATE {fact.table} SET {values} WHERE key = {which}"
        case other:
            return f"{other} {fact.table} WHERE key = {identity.group(1) if identity else '(…)'}"
