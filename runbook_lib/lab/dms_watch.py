"""How far is each table, and is the task as a whole through its full load? One look at both servers and their logs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from psycopg import sql

from .dms_counters import Changes
from .dms_exceptions import Exceptions
from .dms_logs import UNFIT, Copied, CopyFailed, CopyPoint, Fact, PlaceLost, ServerLog, Unapplied, size_of
from .dms_mappings import read_mappings
from .dms_replication import Copy, Replication, Subscription
from .dms_reports import Reports
from .dms_resources import TASK, Document
from .dms_tables import COMPLETED, FAILED, LOADING, Tables, load_again
from .dms_target import (
    SourceTable,
    end_stand_ins,
    exists,
    ignore_load,
    prepare,
    source_tables,
    stand_in,
    stand_ins,
    watch_load,
)

if TYPE_CHECKING:
    from .core import Lab

LATE = 2.0  # seconds that a server's log may lag behind what its views say
LOOK_FOR_TABLES = 2.0  # seconds between two looks for tables that came or went at the source


class Watch:
    """What a running task looks at, again and again. Whatever it finds out is stored, so a killed lab loses nothing."""

    def __init__(self, lab: Lab, task: Document, replication: Replication, reports: Reports) -> None:
        self._lab = lab
        self._arn: str = task["ReplicationTaskArn"]
        self._replication, self._reports = replication, reports
        self._tables = Tables(lab.database, self._arn)
        self.changes = Changes(lab.database, self._arn)
        self._exceptions = Exceptions(self.changes, reports)
        self._validated = bool(task["ReplicationTaskSettings"]["ValidationSettings"]["EnableValidation"])
        read = task.get("LogsRead") or log_ends(lab)
        self._logs = [
            ServerLog(lab.databases.source.log, read["source"]),
            ServerLog(lab.databases.target.log, read["target"]),
        ]
        self._complete_since: dict[str, float] = {}
        self._looked = 0.0

    def look(self, task: Document, *, reading: bool) -> dict[str, Copy]:
        """One look; what it saw is in the tables' statistics. `reading`: count what the source committed."""
        copies, subscription = self._seen()
        if subscription.enabled:  # PostgreSQL changes the tables of no other
            self._miss_tables(copies)
            self._find_tables(task)
            copies, subscription = self._seen()
        self._read_logs(copies, subscription)
        self._end_stand_ins(subscription)
        for table in self._tables.all():
            self._advance(table, copies.get(table["Key"]))
        if reading:
            self.changes.read(self._replication)
        self.changes.settle(copies, subscription)
        return copies

    def _seen(self) -> tuple[dict[str, Copy], Subscription]:
        subscription = self._replication.subscription()
        if subscription is None:
            raise RuntimeError(f"The subscription {self._replication.name} is gone from the target.")
        return self._replication.copies(), subscription

    def catch_up(self) -> None:
        """Count as captured what was applied, and no more: the task has stopped reading."""
        copies, subscription = self._seen()
        positions = [copy.position for copy in copies.values() if copy.complete]
        self.changes.read(self._replication, max([subscription.applied, *positions]))
        copies, subscription = self._seen()
        self._read_logs(copies, subscription)
        self.changes.settle(copies, subscription)

    # Tables that come and go.

    def _find_tables(self, task: Document) -> None:
        """Take up tables that were made at the source since, and drop those that were dropped there, as DMS does."""
        if time.monotonic() - self._looked < LOOK_FOR_TABLES or task["MigrationType"] == "full-load":
            return
        self._looked = time.monotonic()
        mappings = read_mappings(task["TableMappings"])
        there = {
            table.oid: table
            for table in source_tables(self._replication.source)
            if mappings.select(table.schema, table.name)
        }
        known = {table["SourceOid"]: table["Key"] for table in self._tables.all()}
        for oid in known.keys() - there.keys():
            self._let_go(oid, known[oid])
        new = [there[oid] for oid in there.keys() - known.keys()]
        if new:
            self._take_up(new)

    def _let_go(self, oid: int, key: str) -> None:
        """Replicate a table no more that was dropped, or is no longer selected."""
        if oid in self._replication.published():
            schema, _, name = key.partition(".")
            self._replication.leave([SourceTable(oid, schema, name)])
            self._reports.say("TASK_MANAGER", f"Table {key} is no longer selected.")
        else:
            self._replication.refresh()
            self._reports.say("SOURCE_CAPTURE", f"Table {key} was dropped at the source.")
        self._tables.forget(key)

    def _take_up(self, tables: list[SourceTable]) -> None:
        prepare(self._replication.source, self._replication.target, tables, "TRUNCATE_BEFORE_LOAD")
        for table in tables:
            self._reports.say("SOURCE_CAPTURE", f"Table {table.key} was created at the source; it is loaded.")
        missing = [table for table in tables if table.oid not in self._replication.published()]
        if missing:
            self._replication.join(missing)
        else:
            self._replication.refresh()  # killed in between
        for table in tables:
            self._tables.begin(table.schema, table.name, table.oid, validated=self._validated)

    def reload(self, key: str) -> None:
        """Load one table again: empty it and have it copied, while the others go on.

        DMS truncates, which fails when a foreign key refers to the table. The lab deletes, which no key keeps it from.
        """
        copies, subscription = self._seen()
        self._miss_tables(copies)
        self._read_logs(copies, subscription)
        known = self._tables.get(key)
        if known is None:
            return
        table = SourceTable(known["SourceOid"], known["SchemaName"], known["TableName"])
        if table.oid in self._replication.published():
            self._replication.leave([table])
        target = self._replication.target
        end_stand_ins(target, key)
        if not exists(target, table):
            prepare(self._replication.source, target, [table], "DO_NOTHING")
        else:
            with target.transaction():
                target.execute("set local session_replication_role = replica")
                target.execute(sql.SQL("delete from {}").format(table.identifier))
            watch_load(target, table)
        self._tables.begin(table.schema, table.name, table.oid, validated=self._validated, reloaded=True)
        self._replication.join([table])
        self._complete_since.pop(key, None)

    # Tables that the target loses.

    def _miss_tables(self, copies: dict[str, Copy]) -> None:
        """Put tables in error that are no longer subscribed to: somebody has dropped or renamed them on the target."""
        gone = [table for table in self._tables.all() if table["Key"] not in copies and not table.get("Gone")]
        if gone:
            self._give_up(gone, "The target does not have this table any more")

    def _give_up(self, tables: list[Document], why: str) -> None:
        """Replicate tables no more that the target lacks, so that the others go on; ReloadTables takes them up again.

        What was committed at the source until now is sent all the same, and finds a stand-in.
        """
        source, published = self._replication.source, self._replication.published()
        left = [SourceTable(table["SourceOid"], table["SchemaName"], table["TableName"]) for table in tables]
        left = [table for table in left if table.oid in published]
        for table in left:
            stand_in(source, self._replication.target, table)
        if left:
            self._replication.leave(left)
        here = self._replication.position()
        for known in tables:
            if not known.get("Gone"):
                self._suspend(known["Key"], why, "TARGET_APPLY", f"Failed to apply to table {known['Key']}: {why}")
            self._tables.change(known["Key"], Gone=True, StandIn=here)

    def _unfit(self, fact: Unapplied, subscription: Subscription) -> None:
        """A change whose table is not on the target, or lacks a column there: the table is in error.

        A transaction is left out when no stand-in can take its changes.
        """
        if not subscription.enabled:
            return  # PostgreSQL says it again when it goes on
        known = self._tables.get(fact.table)
        if known is not None and not known.get("Gone"):
            self._give_up([known], fact.message)
        elif known is not None and subscription.applied < fact.lsn:  # it was longer under way than the stand-in lasted
            table = SourceTable(known["SourceOid"], known["SchemaName"], known["TableName"])
            stand_in(self._replication.source, self._replication.target, table)
            self._tables.change(fact.table, StandIn=fact.lsn)
        if fact.table not in stand_ins(self._replication.target):
            self._exceptions.handle(fact, self._replication, subscription)

    def _end_stand_ins(self, subscription: Subscription) -> None:
        for table in self._tables.all():
            if table.get("StandIn") is not None and subscription.applied >= table["StandIn"]:
                end_stand_ins(self._replication.target, table["Key"])
                self._tables.change(table["Key"], StandIn=None)

    # What the logs say.

    def _read_logs(self, copies: dict[str, Copy], subscription: Subscription) -> None:
        keys = {copy.relation: copy.key for copy in copies.values()}
        before = [log.offset for log in self._logs]
        for log in self._logs:
            for fact in log.facts():
                self._learn(fact, keys, subscription)
        if [log.offset for log in self._logs] != before:
            read = {"source": self._logs[0].offset, "target": self._logs[1].offset}
            self._lab.database.update(TASK, self._arn, LogsRead=read)

    def _learn(self, fact: Fact, keys: dict[int, str], subscription: Subscription) -> None:
        match fact:
            case CopyPoint(oid, relation, lsn, at) if oid == subscription.oid and relation in keys:
                self._tables.change(keys[relation], Snapshot=lsn, FullLoadStartTime=at, Copied=None)
            case Copied(relation, rows, at) if relation in keys:
                self._tables.change(keys[relation], Copied=rows, FullLoadEndTime=at)
            case CopyFailed(name, why, _):
                self._failed(name.replace('"', ""), why)
            case PlaceLost(relation, slot) if relation in keys and not self._replication.has_slot(slot):
                said = f"The load of table {keys[relation]} was interrupted at its end; it is loaded again."
                self._reports.say("TASK_MANAGER", said, "W")
                load_again(self._lab.database, self._arn, [keys[relation]])
            case Unapplied(kind=kind) if kind == UNFIT:
                self._unfit(fact, subscription)
            case Unapplied():
                self._exceptions.handle(fact, self._replication, subscription)

    def _failed(self, name: str, why: str) -> None:
        """A table's copy was refused. The source names the schema, the target does not."""
        found = [table for table in self._tables.all() if name in (table["Key"], table["TableName"])]
        table = next((table for table in found if table["TableState"] != COMPLETED), None)
        if table is None:
            return
        key = table["Key"]
        if table["TableState"] != FAILED:  # PostgreSQL says it again with every try
            self._suspend(key, why, "SOURCE_UNLOAD", f"Table {key} cannot be unloaded: {why}")

    def _suspend(self, key: str, why: str, component: str, said: str) -> None:
        """One table is in error."""
        self._reports.say(component, said, "E")
        self._reports.say("TASK_MANAGER", f"Table {key} was errored/suspended (subtask 0 thread 1). {why}", "W")
        self._tables.change(key, TableState=FAILED, ValidationState=self._validation("Table error"))

    def _validation(self, state: str) -> str:
        return state if self._validated else "Not enabled"

    # One table.

    def _advance(self, table: Document, copy: Copy | None) -> None:
        """Write down how far a table is."""
        key, state = table["Key"], table["TableState"]
        if copy is None or state == COMPLETED or table.get("Gone"):
            return
        if copy.complete:
            since = self._complete_since.setdefault(key, time.monotonic())
            told = table["Snapshot"] is not None and table.get("Copied") is not None
            if told or time.monotonic() - since > LATE:
                self._complete(table)
        elif state == FAILED:
            if copy.state == "f" or copy.rows:  # somebody has granted what was missing
                self._tables.change(key, TableState=LOADING, ValidationState=self._validation("Pending validation"))
        elif copy.state in "df":
            if state != LOADING:
                self._reports.say("TASK_MANAGER", f"Start loading table '{table['SchemaName']}'.'{table['TableName']}'")
            rows = table.get("Copied") if copy.state == "f" else copy.rows
            self._tables.change(key, TableState=LOADING, FullLoadRows=max(table["FullLoadRows"], rows or 0))

    def _complete(self, table: Document) -> None:
        key = table["Key"]
        rows = table.get("Copied")
        done = self._tables.change(
            key,
            TableState=COMPLETED,
            FullLoadRows=table["FullLoadRows"] if rows is None else rows,
            ValidationState=self._validation("Pending validation"),
        )
        ignore_load(self._replication.target, SourceTable(0, table["SchemaName"], table["TableName"]))
        name, loaded = f"'{table['SchemaName']}'.'{table['TableName']}'", done["FullLoadRows"]
        self._reports.say("SOURCE_UNLOAD", f"Unload finished for table {name}. {loaded} rows sent.")
        self._reports.say("TARGET_LOAD", f"Load finished for table {name}. {loaded} rows received. 0 rows skipped.")


def log_ends(lab: Lab) -> dict[str, int]:
    """Where the two servers' logs end now, in bytes."""
    return {"source": size_of(lab.databases.source.log), "target": size_of(lab.databases.target.log)}
