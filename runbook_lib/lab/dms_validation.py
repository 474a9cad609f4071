"""Are the rows the same on both sides? DMS's own row validation: by primary key, and again when a table has changed.

Both sides are read whole and compared by a hash of each row. A row that differs is read again while changes are still
on their way; what differs then goes to `awsdms_validation_failures_v1`. As in DMS, a row that somebody alters on the
target later is not noticed before its table is validated again, and a table without primary key is never validated.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from ..errors import LabError
from .dms_counters import Changes
from .dms_reports import Reports
from .dms_resources import Document
from .dms_tables import COMPLETED, COUNTERS, Tables
from .dms_target import FAILURES, Connection

if TYPE_CHECKING:
    from .core import Lab

PAUSE = 0.2  # seconds between two looks
QUIET = 0.4  # seconds without a change after which a table is validated again
BUSY = 8.0  # seconds after which a table that never rests is validated again
ROUNDS, ROUND = 5, 0.4  # how often, and after how many seconds, a row that differs is read again
DETAILED = 20  # failures of a table whose values are written down
WAITING = ("Pending validation", "Pending revalidation", "Preparing table")
_KEY = """
select a.attname from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any(i.indkey)
where i.indrelid = %s and i.indisprimary order by array_position(i.indkey::int2[], a.attnum)
"""
_COLUMNS = """
select attname from pg_attribute where attrelid = %s and attnum > 0 and not attisdropped order by attnum
"""
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shape:
    """What a table's rows are compared by."""

    name: sql.Identifier
    key: tuple[str, ...]
    columns: tuple[str, ...]

    def rows(self, *, only: bool) -> sql.Composed:
        """The query of (key as a JSON array of text, hash of the row), of all rows or of some keys only."""
        columns = sql.SQL(", ").join(map(sql.Identifier, self.columns))
        query = sql.SQL("select {}, md5(row({})::text) from {}").format(self.identity, columns, self.name)
        return sql.SQL("{} where {} = any(%s)").format(query, self.identity) if only else query

    @property
    def identity(self) -> sql.Composed:
        """The key of a row as one text."""
        texts = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in self.key)
        return sql.SQL("json_build_array({})::text").format(texts)

    def row(self) -> sql.Composed:
        """The query of one row's values as text, by its key."""
        columns = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in self.columns)
        return sql.SQL("select {} from {} where {} = %s").format(columns, self.name, self.identity)


class Validator:
    """A thread beside a running task that validates its tables."""

    def __init__(self, lab: Lab, task_arn: str, reports: Reports) -> None:
        self._lab, self._reports = lab, reports
        self._tables = Tables(lab.database, task_arn)
        self._changes = Changes(lab.database, task_arn)
        self._over = threading.Event()
        self._sides: tuple[Connection, Connection] | None = None
        self._seen: dict[str, tuple[list[int], float]] = {}  # a table's counters, and since when they are so
        self._done: dict[str, float] = {}  # when a table was validated
        self._thread = threading.Thread(target=self._run, name="dms-validator", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; a table that is being validated stays pending."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(PAUSE):
            try:
                for table in self._tables.all():
                    if not self._over.is_set() and self._due(table):
                        self._validate(table)
            except (psycopg.Error, LabError) as error:
                _logger.warning("The validation was interrupted: %s", " ".join(str(error).split()))
                self._disconnect()
                self._over.wait(1.0)
            except Exception:
                _logger.exception("The validation failed")
                self._over.wait(5.0)
        self._disconnect()
        self._lab.database.close()

    def all(self) -> None:
        """Validate every loaded table now: a full load does so before it ends. The thread must not run."""
        for table in self._tables.all():
            if table["TableState"] == COMPLETED:
                self._validate(table)
        self._disconnect()

    def _due(self, table: Document) -> bool:
        """Whether a table has to be validated (again)."""
        key, now = table["Key"], time.monotonic()
        if table["TableState"] != COMPLETED or table["ValidationState"] == "No primary key":
            return False
        if table["ValidationState"] in WAITING:
            return True
        counters = [table[f"{prefix}{name}"] for prefix in ("", "Applied") for name in COUNTERS]
        if self._seen.get(key, ([], 0.0))[0] != counters:
            self._seen[key] = (counters, now)
        if table["ValidationState"] == "Pending records":  # changes were on their way the last time
            return now - self._done.get(key, 0.0) > ROUND
        if table.get("ValidatedCounters") == counters:
            return False
        return now - self._seen[key][1] > QUIET or now - self._done.get(key, now) > BUSY

    def _connect(self) -> tuple[Connection, Connection]:
        if self._sides is None:
            databases = self._lab.databases
            self._sides = databases.connect("source"), databases.connect("target")
        return self._sides

    def _disconnect(self) -> None:
        for connection in self._sides or ():
            connection.close()
        self._sides = None

    # One table.

    def _validate(self, table: Document) -> None:
        key = table["Key"]
        source, target = self._connect()
        counters = [table[f"{prefix}{name}"] for prefix in ("", "Applied") for name in COUNTERS]
        shape = _shape(source, table)
        if not shape.key:
            self._tables.change(key, ValidationState="No primary key")
            return
        first = table["ValidationState"] in WAITING
        self._tables.change(key, ValidationState="Preparing table" if first else "Pending records")
        differing = _differing(source, target, shape, None)
        for _ in range(ROUNDS):
            if not differing or self._over.wait(ROUND):
                break
            differing = _differing(source, target, shape, list(differing))
        if self._over.is_set() and differing:
            return
        self._conclude(table, shape, differing, counters)

    def _conclude(self, table: Document, shape: Shape, differing: dict[str, str], counters: list[int]) -> None:
        """Write down what a table's validation found."""
        key = table["Key"]
        self._done[key] = time.monotonic()
        if differing and self._changes.waiting().changes:
            self._tables.change(key, ValidationState="Pending records", ValidationPendingRecords=len(differing))
            return
        if differing:
            self._record(table, shape, differing)
        now = self._tables.get(key)
        if now is None or now["TableState"] != COMPLETED:
            return  # dropped, or loaded again, meanwhile
        self._tables.change(
            key,
            ValidationState="Mismatched records" if differing else "Validated",
            ValidationFailedRecords=len(differing),
            ValidationPendingRecords=0,
            ValidatedCounters=counters,
        )

    def _record(self, table: Document, shape: Shape, differing: dict[str, str]) -> None:
        """Write the failures down, each once: they are history, and stay when a later validation succeeds."""
        source, target = self._connect()
        task, schema, name = self._reports.resource, table["SchemaName"], table["TableName"]
        insert = sql.SQL(
            "insert into public.{} select %s, %s, %s, %s, 'Row', %s, %s, %s where not exists (select from public.{}"
            ' where "TASK_NAME" = %s and "TABLE_OWNER" = %s and "TABLE_NAME" = %s and "KEY" = %s'
            ' and "FAILURE_TYPE" = %s)'
        ).format(sql.Identifier(FAILURES), sql.Identifier(FAILURES))
        for number, (identity, kind) in enumerate(sorted(differing.items())):
            key = json.dumps({"key": json.loads(identity)}, ensure_ascii=False)
            details = _details(source, target, shape, identity) if number < DETAILED else "[[]]"
            when = datetime.now(UTC).replace(tzinfo=None)
            which = [task, schema, name, key, kind]
            new = target.execute(insert, [task, schema, name, when, key, kind, details[:8000], *which]).rowcount
            if new and number < DETAILED:
                said = f"Validation Failed key - Table : '{schema}'.'{name}', Partition : 1, Key : {key}, {kind}"
                self._reports.say("VALIDATOR", said)
        self._reports.say("VALIDATOR", f"Table '{schema}'.'{name}': {len(differing)} records are mismatched.", "W")


def _shape(source: Connection, table: Document) -> Shape:
    oid = [table["SourceOid"]]
    key = tuple(row[0] for row in source.execute(_KEY, oid))
    columns = tuple(row[0] for row in source.execute(_COLUMNS, oid))
    return Shape(sql.Identifier(table["SchemaName"], table["TableName"]), key, columns)


def _differing(source: Connection, target: Connection, shape: Shape, keys: list[str] | None) -> dict[str, str]:
    """The keys whose rows differ, with DMS's word for how; of the given keys only, when there are some."""
    query, parameters = shape.rows(only=keys is not None), None if keys is None else [keys]
    here: dict[str, str] = dict(source.execute(query, parameters).fetchall())
    differing = {}
    for identity, digest in target.execute(query, parameters):
        if (other := here.pop(identity, None)) != digest:
            differing[identity] = "MISSING_SOURCE" if other is None else "RECORD_DIFF"
    return differing | dict.fromkeys(here, "MISSING_TARGET")


def _details(source: Connection, target: Connection, shape: Shape, identity: str) -> str:
    """The values that differ, as DMS writes them: a list as Python would."""
    sides: list[Any] = [side.execute(shape.row(), [identity]).fetchone() for side in (source, target)]
    if None in sides:
        return "[[]]"
    pairs = zip(shape.columns, *sides, strict=True)
    return str([[{column: here}, {column: there}] for column, here, there in pairs if here != there])
