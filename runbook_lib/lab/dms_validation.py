"""Are the rows the same on both sides? DMS's own row validation: by primary key, and again when a table has changed.

Both sides are read whole (dms_rows.py). A row that differs is read again while changes are still on their way; what
differs then goes to `awsdms_validation_failures_v1`. As in DMS, a row that somebody alters on the target later is not
noticed before its table is validated again, and a table without primary key is never validated.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import psycopg
import pymysql
from psycopg import sql

from ..errors import LabError
from .dms_counters import Changes
from .dms_reports import Reports
from .dms_resources import Document
from .dms_rows import Rows
from .dms_tables import COMPLETED, COUNTERS, Tables
from .dms_target import FAILURES

if TYPE_CHECKING:
    from .core import Lab

PAUSE = 0.2  # seconds between two looks
QUIET = 0.4  # seconds without a change after which a table is validated again
BUSY = 8.0  # seconds after which a table that never rests is validated again
ROUNDS, ROUND = 5, 0.4  # how often, and after how many seconds, a row that differs is read again
DETAILED = 20  # failures of a table whose values are written down
WAITING = ("Pending validation", "Pending revalidation", "Preparing table")
_logger = logging.getLogger(__name__)


class Validator:
    """A thread beside a running task that validates its tables."""

    def __init__(self, lab: Lab, task_arn: str, reports: Reports, connect: Callable[[], Rows]) -> None:
        """`connect` opens sessions to both sides, for a thread that may be another one."""
        self._lab, self._reports, self._connect = lab, reports, connect
        self._tables = Tables(lab.database, task_arn)
        self._changes = Changes(lab.database, task_arn)
        self._over = threading.Event()
        self._open: Rows | None = None
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
            except (psycopg.Error, pymysql.MySQLError, LabError) as error:
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
        try:
            for table in self._tables.all():
                if table["TableState"] == COMPLETED:
                    self._validate(table)
        finally:
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

    @property
    def _rows(self) -> Rows:
        if self._open is None:
            self._open = self._connect()
        return self._open

    def _disconnect(self) -> None:
        if self._open is not None:
            self._open.close()
        self._open = None

    # One table.

    def _validate(self, table: Document) -> None:
        key = table["Key"]
        rows = self._rows
        counters = [table[f"{prefix}{name}"] for prefix in ("", "Applied") for name in COUNTERS]
        if not rows.keyed(table):
            self._tables.change(key, ValidationState="No primary key")
            return
        first = table["ValidationState"] in WAITING
        self._tables.change(key, ValidationState="Preparing table" if first else "Pending records")
        differing = rows.differing(table, None)
        for _ in range(ROUNDS):
            if not differing or self._over.wait(ROUND):
                break
            differing = rows.differing(table, list(differing))
        if self._over.is_set() and differing:
            return
        self._conclude(table, differing, counters)

    def _conclude(self, table: Document, differing: dict[str, str], counters: list[int]) -> None:
        """Write down what a table's validation found."""
        key = table["Key"]
        self._done[key] = time.monotonic()
        if differing and self._changes.waiting().changes:
            self._tables.change(key, ValidationState="Pending records", ValidationPendingRecords=len(differing))
            return
        if differing:
            self._record(table, differing)
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

    def _record(self, table: Document, differing: dict[str, str]) -> None:
        """Write the failures down, each once: they are history, and stay when a later validation succeeds."""
        rows = self._rows
        task, schema, name = self._reports.resource, table["SchemaName"], table["TableName"]
        insert = sql.SQL(
            "insert into public.{} select %s, %s, %s, %s, 'Row', %s, %s, %s where not exists (select from public.{}"
            ' where "TASK_NAME" = %s and "TABLE_OWNER" = %s and "TABLE_NAME" = %s and "KEY" = %s'
            ' and "FAILURE_TYPE" = %s)'
        ).format(sql.Identifier(FAILURES), sql.Identifier(FAILURES))
        for number, (identity, kind) in enumerate(sorted(differing.items())):
            key = json.dumps({"key": json.loads(identity)}, ensure_ascii=False)
            details = rows.details(table, identity) if number < DETAILED else "[[]]"
            when = datetime.now(UTC).replace(tzinfo=None)
            which = [task, schema, name, key, kind]
            new = rows.target.execute(insert, [task, schema, name, when, key, kind, details[:8000], *which]).rowcount
            if new and number < DETAILED:
                said = f"Validation Failed key - Table : '{schema}'.'{name}', Partition : 1, Key : {key}, {kind}"
                self._reports.say("VALIDATOR", said)
        self._reports.say("VALIDATOR", f"Table '{schema}'.'{name}': {len(differing)} records are mismatched.", "W")
