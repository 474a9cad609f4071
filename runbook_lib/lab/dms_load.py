"""How do the rows of MariaDB get to the target? A full load: read in one consistent snapshot, copied table by table.

Changes are not captured. A load that was interrupted begins its table again, in a new snapshot. While rows are copied,
foreign keys and triggers that somebody has made on the target do not act, as for PostgreSQL's own replication.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
import pymysql
from psycopg import sql
from pymysql.cursors import SSCursor

from ..errors import LabError
from .dms_endpoints import Address
from .dms_making import IMPATIENT
from .dms_mappings import read_mappings
from .dms_mysql import MysqlTable, mysql_tables
from .dms_resources import Document, now
from .dms_rows import compared, told
from .dms_runner import PASSING, Runner, TaskFailed
from .dms_tables import CANCELLED, COMPLETED, FAILED, LOADING, QUEUED, RELOADING
from .dms_target import Connection, make_control_tables, make_ready
from .dms_validation import Validator

if TYPE_CHECKING:
    from .core import Lab

Ends = Callable[[], tuple[Address, Address]]
EVERY = 1000  # rows after which it is written down how far the load is, and looked whether it shall go on
GONE = (0, 1040, 1053, 1158, 1159, 1160, 1161, 1205, 1213, 1412, 1927, 2002, 2003, 2006, 2013)  # MariaDB's error codes
SESSION = (
    "set time_zone = '+00:00'",
    "set session transaction isolation level repeatable read",
)
SNAPSHOT = "start transaction with consistent snapshot, read only"


@dataclass
class Sides:
    """Sessions to both databases; the source's tables, by `schema.table`."""

    source: pymysql.Connection[Any]
    target: Connection
    tables: dict[str, MysqlTable]

    def close(self) -> None:
        """End the sessions."""
        if self.source.open:
            self.source.close()
        self.target.close()


class _Interrupted(Exception):
    """Somebody stops the task, or the lab."""


class Load(Runner):
    """One full-load task with MariaDB as its source."""

    broken = (psycopg.OperationalError, psycopg.InterfaceError, pymysql.MySQLError, LabError)

    def __init__(self, lab: Lab, task_arn: str, ends: Ends, ended: Callable[[Runner], None]) -> None:
        super().__init__(lab, task_arn, ended)
        self._ends = ends
        self._sides: Sides | None = None

    def _pause(self) -> float:
        return 0.0

    def _may_pass(self, error: Exception) -> bool:
        held = self._sides
        if held is None or held.target.closed or not held.source.open or isinstance(error, LabError):
            return True
        if isinstance(error, pymysql.MySQLError):
            return bool(error.args) and error.args[0] in GONE
        state = getattr(error, "sqlstate", None)
        return isinstance(error, psycopg.OperationalError) if state is None else state.startswith(PASSING)

    def _disconnect(self) -> None:
        if self._sides is not None:
            self._sides.close()
        self._sides = None

    def _step(self, task: Document) -> bool:
        if self._sides is None:
            self._sides = connect(self._lab, self._ends())
            self._reports.say("SOURCE_UNLOAD", "The source is read as it is now, in one snapshot.")
        if task.get("Intent"):
            self._begin(task, self._sides)
            return True
        if task["Status"] == "stopping":
            self._stop()
            return False
        for key in task.get("Reloads") or []:
            self._tables.change(key, TableState=RELOADING, FullLoadReloaded=True)
            self._change(Reloads=[other for other in self._document()["Reloads"] if other != key])
        waiting = [table for table in self._tables.all() if table["TableState"] in (QUEUED, LOADING, RELOADING)]
        if not waiting:
            self._finish(task)
            return False
        self._load(waiting[0], self._sides)
        return True

    def _begin(self, task: Document, sides: Sides) -> None:
        """Do what StartReplicationTask asked for; a resumed load has its unfinished tables to do again."""
        began, date = time.monotonic(), now()
        self._greet(task)
        known = self._tables.all()
        resumed = task["Intent"] == "resume-processing" and bool(known)
        if resumed:
            for table in known:
                if table["TableState"] != COMPLETED:
                    self._tables.change(table["Key"], TableState=QUEUED)
        else:
            self._make(task, sides)
        self._running(task, began, date, fresh=not resumed)

    def _make(self, task: Document, sides: Sides) -> None:
        """The target's tables and the statistics. A table with a column of an unknown type is in error at once."""
        settings, mappings = task["ReplicationTaskSettings"], read_mappings(task["TableMappings"])
        chosen = [table for table in sides.tables.values() if mappings.select(table.schema, table.name)]
        if not chosen and settings["ErrorBehavior"]["FailOnNoTablesCaptured"]:
            raise TaskFailed("No tables were found at task initialization: the mappings select none of the source's.")
        make_control_tables(sides.target)
        mode = settings["FullLoadSettings"]["TargetTablePrepMode"]
        mode = mode if task["Intent"] == "start-replication" else "TRUNCATE_BEFORE_LOAD"
        loadable = [table.there for table in chosen if not table.unknown]
        make_ready(sides.target, loadable, mode, lambda it: sides.target.execute(sides.tables[it.key].create()))
        self._tables.forget()
        for table in chosen:
            validated = bool(settings["ValidationSettings"]["EnableValidation"])
            self._tables.begin(table.schema, table.name, 0, validated=validated)
            if table.unknown:
                self._failed(table.there.key, f"the lab has no type on the target for {table.unknown}")

    # One table.

    def _load(self, table: Document, sides: Sides) -> None:
        """Copy all rows of a table, or none of them."""
        key = table["Key"]
        shape = sides.tables.get(key)
        if shape is None:
            self._tables.change(key, TableState="Table does not exist")
            return
        state = RELOADING if table["TableState"] == RELOADING else LOADING
        again = state == RELOADING or bool(table.get("Begun"))  # it may be there: its end was not written down
        self._tables.change(key, TableState=state, Begun=True, FullLoadRows=0, FullLoadStartTime=now())
        name = f"'{shape.schema}'.'{shape.name}'"
        self._reports.say("TASK_MANAGER", f"Start loading table {name}")
        try:
            rows = self._copy(key, shape, sides, again=again)
        except _Interrupted:
            return
        except (psycopg.Error, pymysql.MySQLError) as error:
            if self._may_pass(error):
                raise
            self._failed(key, " ".join(str(error).split()))
            return
        validation = "Not enabled" if table["ValidationState"] == "Not enabled" else "Pending validation"
        done = {"TableState": COMPLETED, "FullLoadRows": rows, "FullLoadEndTime": now(), "ValidationState": validation}
        self._tables.change(key, Begun=False, **done)
        self._reports.say("SOURCE_UNLOAD", f"Unload finished for table {name}. {rows} rows sent.")
        self._reports.say("TARGET_LOAD", f"Load finished for table {name}. {rows} rows received. 0 rows skipped.")

    def _copy(self, key: str, shape: MysqlTable, sides: Sides, *, again: bool) -> int:
        there, number = shape.there.identifier, 0
        into = sql.SQL("copy {} ({}) from stdin").format(there, shape.names())
        with sides.target.transaction(), sides.source.cursor(Streamed) as rows:
            sides.target.execute("set local session_replication_role = replica")
            if again:
                sides.target.execute(sql.SQL("delete from {}").format(there))
            rows.execute(shape.select())
            with sides.target.cursor() as cursor, cursor.copy(into) as copy:
                for number, row in enumerate(rows, 1):
                    copy.write_row(row)
                    if number % EVERY == 0:
                        self._tables.change(key, FullLoadRows=number)
                        if self._closing.is_set() or self._document()["Status"] == "stopping":
                            raise _Interrupted
        return number

    def _failed(self, key: str, why: str) -> None:
        known = self._tables.get(key) or {}
        validation = "Not enabled" if known.get("ValidationState") == "Not enabled" else "Table error"
        self._tables.change(key, TableState=FAILED, ValidationState=validation, FullLoadRows=0)
        self._reports.say("TASK_MANAGER", f"Table {key} was errored/suspended (subtask 0 thread 1). {why}", "W")

    # The end.

    def _finish(self, task: Document) -> None:
        began = time.monotonic()
        self._change(FullLoadFinishDate=now())
        self._reports.say("TASK_MANAGER", "All tables are loaded.")
        if task["ReplicationTaskSettings"]["ValidationSettings"]["EnableValidation"]:
            rows = lambda: MysqlRows(connect(self._lab, self._ends()))  # noqa: E731
            Validator(self._lab, self._arn, self._reports, rows).all()
        self._stopped(began, "FULL_LOAD_ONLY_FINISHED")

    def _stop(self) -> None:
        began = time.monotonic()
        for table in self._tables.all():
            if table["TableState"] in (LOADING, RELOADING):
                self._tables.change(table["Key"], TableState=CANCELLED)
        self._stopped(began, "NORMAL")


class Streamed(SSCursor):
    """Rows as the server sends them. PyMySQL's own reads what is left at the end, of a connection that is gone too."""

    def close(self) -> None:
        """Read what is left, if anything can be."""
        result: Any = self.__dict__.get("_result")
        if self.connection is not None and result is not None and not self.connection.open:
            result.unbuffered_active = False
        super().close()

    __del__ = close


def connect(lab: Lab, ends: tuple[Address, Address]) -> Sides:
    """Sessions to both ends; the source's sees what is committed now and nothing later."""
    here, there = ends
    source = lab.databases.connect_mariadb(here.user, password=here.password)
    with source.cursor() as cursor:
        for statement in SESSION:
            cursor.execute(statement)
        cursor.execute(SNAPSHOT)
        tables = mysql_tables(cursor)
    return Sides(source, lab.databases.connect("target", database=there.database, options=IMPATIENT), tables)


class MysqlRows:
    """`Rows` between MariaDB and PostgreSQL: values are compared here, as the two drivers read them."""

    def __init__(self, sides: Sides) -> None:
        self._sides, self.target = sides, sides.target

    def keyed(self, table: Document) -> bool:
        """Whether a table has a primary key."""
        return bool(self._sides.tables[table["Key"]].primary)

    def differing(self, table: Document, keys: list[str] | None) -> dict[str, str]:
        """Reads both sides whole, in the moment it is asked."""
        shape = self._sides.tables[table["Key"]]
        return compared(_by_key(shape, self._source(shape), keys), _by_key(shape, self._target(shape), keys))

    def details(self, table: Document, identity: str) -> str:
        """Reads the row on both sides."""
        shape = self._sides.tables[table["Key"]]
        sides = (_by_key(shape, rows, [identity]) for rows in (self._source(shape), self._target(shape)))
        return told(tuple(column.name for column in shape.columns), *(rows.get(identity) for rows in sides))

    def close(self) -> None:
        """End the sessions."""
        self._sides.close()

    def _source(self, shape: MysqlTable) -> Any:
        """In a new snapshot: a row that differs is looked at again, later."""
        with self._sides.source.cursor() as cursor:
            cursor.execute(SNAPSHOT)
            cursor.execute(shape.select())
            return cursor.fetchall()

    def _target(self, shape: MysqlTable) -> list[tuple[Any, ...]]:
        query = sql.SQL("select {} from {}").format(shape.names(), shape.there.identifier)
        return self.target.execute(query).fetchall()


def _by_key(shape: MysqlTable, rows: Any, keys: list[str] | None) -> dict[str, tuple[Any, ...]]:
    """Rows by the JSON array of their key's parts as text; of the given keys only, when there are some."""
    places = [[column.name for column in shape.columns].index(part) for part in shape.primary]
    found = {json.dumps([str(row[place]) for place in places], ensure_ascii=False): tuple(row) for row in rows}
    return found if keys is None else {key: found[key] for key in keys if key in found}
