"""What did DMS write down on the target: changes that it could not apply, rows that it found different?"""

from __future__ import annotations

from typing import Any

from ..databases import Database
from ..errors import DatabaseError
from .source import rows

SCHEMAS = {"postgresql": "public", "mysql": "awsdms_control"}  # DMS user guide, control tables


def exceptions(target: Database, task: str) -> list[tuple[Any, ...]]:
    """Changes of a task (by its resource id) that could not be applied: owner, table, error; newest first."""
    return _read(target, "awsdms_apply_exceptions", ("TABLE_OWNER", "TABLE_NAME", "ERROR"), "ERROR_TIME", task)


def failures(target: Database, task: str) -> list[tuple[Any, ...]]:
    """Rows that DMS's validation found different: owner, table, key, kind; newest first. It is a history.

    DMS writes into version 2 of the table from 3.6.1 on (DMS user guide, data validation).
    """
    names = ("TABLE_OWNER", "TABLE_NAME", "KEY", "FAILURE_TYPE")
    found = _read(target, "awsdms_validation_failures_v2", names, "FAILURE_TIME", task)
    return found or _read(target, "awsdms_validation_failures_v1", names, "FAILURE_TIME", task)


def _read(target: Database, table: str, columns: tuple[str, ...], order: str, task: str) -> list[tuple[Any, ...]]:
    """The rows of one task; none while DMS has not made the table. Some names are reserved words."""
    quote = '"' if target.engine == "postgresql" else "`"
    names = ", ".join(f"{quote}{name}{quote}" for name in columns)
    where = f"{quote}TASK_NAME{quote} = %s order by {quote}{order}{quote} desc"
    try:
        return rows(target, f"select {names} from {SCHEMAS[target.engine]}.{table} where {where}", (task,))
    except DatabaseError as error:
        if "does not exist" in str(error) or "doesn't exist" in str(error):
            return []
        raise
