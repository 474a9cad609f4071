"""What does a task know of each of its tables? Documents, so that DescribeTableStatistics only reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .dms_resources import TABLE, TASK, Document, chosen, now

if TYPE_CHECKING:
    from .database import Database

QUEUED, LOADING, COMPLETED, FAILED = "Before load", "Full load", "Table completed", "Table error"
RELOADING, CANCELLED = "Table is being reloaded", "Table cancelled"
COUNTERS = ("Inserts", "Updates", "Deletes", "Ddls")
_ZERO = {name: 0 for counter in COUNTERS for name in (counter, f"Applied{counter}")}
_SHOWN = (
    "SchemaName", "TableName", *_ZERO, "FullLoadRows", "FullLoadStartTime", "FullLoadEndTime", "FullLoadReloaded",
    "LastUpdateTime", "TableState", "ValidationPendingRecords", "ValidationFailedRecords",
    "ValidationSuspendedRecords", "ValidationState",
)  # fmt: skip
_NONE_COUNTED = {"FullLoadCondtnlChkFailedRows": 0, "FullLoadErrorRows": 0}  # DynamoDB's only (DMS API)
_DETAILS = {  # the lab's own words: DMS's are written down nowhere
    "Not enabled": "Validation is not enabled for this task.",
    "Pending validation": "The table is not validated yet.",
    "Pending revalidation": "The table is to be validated again.",
    "Preparing table": "The records of both sides are being compared.",
    "Pending records": "Records have changed since, and are to be compared again.",
    "Mismatched records": "Records differ; awsdms_validation_failures_v1 has their keys.",
    "No primary key": "The table has no primary key, and its records cannot be compared.",
    "Table error": "The table is in error, and its records are not compared.",
    "Validated": "All records were the same when they were compared.",
}


class Tables:
    """The tables of one task, as stored."""

    def __init__(self, database: Database, task_arn: str) -> None:
        self._database = database
        self._task = task_arn

    def all(self) -> list[Document]:
        """All, by name; a table of DMS's statistics outlives a stop."""
        return sorted(
            (table for table in self._database.all(TABLE) if table["Task"] == self._task),
            key=lambda table: str(table["Key"]),
        )

    def get(self, key: str) -> Document | None:
        """One table by `schema.table`."""
        return self._database.get(TABLE, f"{self._task} {key}")

    def begin(self, schema: str, table: str, source_oid: int, *, validated: bool, reloaded: bool = False) -> Document:
        """A table that is to be loaded (again): nothing loaded, nothing captured, validation to come."""
        document = {
            "Task": self._task,
            "Key": f"{schema}.{table}",
            "SourceOid": source_oid,
            "SchemaName": schema,
            "TableName": table,
            **_ZERO,
            "FullLoadRows": 0,
            "FullLoadReloaded": reloaded,
            "TableState": RELOADING if reloaded else QUEUED,
            "ValidationState": "Pending validation" if validated else "Not enabled",
            "ValidationPendingRecords": 0,
            "ValidationFailedRecords": 0,
            "ValidationSuspendedRecords": 0,
            "LastUpdateTime": now(),
            "Snapshot": None,  # the source's position from which on changes are captured, as a number
        }
        self._database.put(TABLE, f"{self._task} {schema}.{table}", document)
        return document

    def change(self, key: str, **changes: Any) -> Document:
        """Write down what was seen of a table; nothing is written when it is known already."""
        known = self.get(key)
        if known is not None and all(known.get(name) == value for name, value in changes.items()):
            return known
        return self._database.update(TABLE, f"{self._task} {key}", **changes, LastUpdateTime=now())

    def forget(self, key: str | None = None) -> None:
        """Drop one table, or all."""
        with self._database.writing():
            for table in self.all():
                if key in (None, table["Key"]):
                    self._database.delete(TABLE, f"{self._task} {table['Key']}")


def load_again(database: Database, task_arn: str, keys: list[str]) -> None:
    """Have tables loaded again, now or when the task runs again."""
    with database.writing():
        asked = (database.get(TASK, task_arn) or {}).get("Reloads") or []
        database.update(TASK, task_arn, Reloads=list(dict.fromkeys([*asked, *keys])))


def shown(table: Document) -> Document:
    """A table as DescribeTableStatistics tells it."""
    return {
        **chosen(table, *_SHOWN),
        **_NONE_COUNTED,
        "ValidationStateDetails": _DETAILS[table["ValidationState"]],
    }


def counted(tables: list[Document]) -> Document:
    """The members of ReplicationTaskStats that count tables. Progress is an estimate on AWS; here it is by tables."""
    states = [table["TableState"] for table in tables]
    loaded = states.count(COMPLETED)
    return {
        "FullLoadProgressPercent": 100 * loaded // len(states) if states else 0,
        "TablesLoaded": loaded,
        "TablesLoading": states.count(LOADING) + states.count(RELOADING),
        "TablesQueued": states.count(QUEUED),
        "TablesErrored": states.count(FAILED),
    }
