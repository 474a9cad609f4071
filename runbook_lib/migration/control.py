"""What did DMS write down on the target: changes that it could not apply, rows that it found different?"""

from __future__ import annotations

from typing import Any

from ..aws.dms import DmsTask
from ..databases import Database
from ..errors import DatabaseError
from .source import rows

SCHEMAS = {"postgresql": "public", "mysql": "awsdms_control"}  # DMS user guide, control tables
ABSENT = ("42P01", "3F000", 1146, 1049)  # no such table or schema: SQLSTATE and MySQL's numbers

Rows = list[tuple[Any, ...]]


def exceptions(target: Database, task: DmsTask) -> Rows | None:
    """Changes that could not be applied: owner, table, error; newest first. None: DMS has not made the table."""
    return _read(target, task, "awsdms_apply_exceptions", ("TABLE_OWNER", "TABLE_NAME", "ERROR"), "ERROR_TIME")


def failures(target: Database, task: DmsTask) -> Rows:
    """Rows that DMS's validation found different: owner, table, key, kind; newest first. It is a history.

    DMS writes into version 2 of the table from 3.6.1 on (DMS user guide, data validation).
    """
    names = ("TABLE_OWNER", "TABLE_NAME", "KEY", "FAILURE_TYPE")
    for table in ("awsdms_validation_failures_v2", "awsdms_validation_failures_v1"):
        found = _read(target, task, table, names, "FAILURE_TIME")
        if found:
            return found
    return []


def _read(target: Database, task: DmsTask, table: str, columns: tuple[str, ...], order: str) -> Rows | None:
    """The rows of one task, or None when there is no such table. Some names are reserved words."""
    schema = task.setting("ControlTablesSettings", "ControlSchema") or SCHEMAS[target.engine]
    quote = '"' if target.engine == "postgresql" else "`"
    names = ", ".join(f"{quote}{name}{quote}" for name in columns)
    where = f"{quote}TASK_NAME{quote} = %s order by {quote}{order}{quote} desc"
    sql = f"select {names} from {quote}{schema}{quote}.{table} where {where}"
    try:
        return rows(target, sql, (task.resource_id,))
    except DatabaseError as error:
        cause = error.__cause__
        code = getattr(cause, "sqlstate", None) or (cause.args[0] if cause is not None and cause.args else None)
        if code in ABSENT:
            return None
        raise
