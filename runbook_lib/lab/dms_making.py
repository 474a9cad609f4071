"""What does a task make in both databases before it runs, and what is taken off them when it is deleted?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .dms_counters import Changes
from .dms_endpoints import Address
from .dms_mappings import read_mappings
from .dms_replication import Replication
from .dms_resources import TASK, Document
from .dms_runner import TaskFailed
from .dms_tables import COMPLETED, Tables
from .dms_target import SourceTable, end_stand_ins, make_control_tables, prepare, source_tables
from .dms_watch import log_ends

if TYPE_CHECKING:
    from .core import Lab

IMPATIENT = "-c lock_timeout=10s"  # somebody reads a table for long: try again later


def slot_name(task_arn: str) -> str:
    """The name of a task's publication, subscription and slot; PostgreSQL allows slots small letters only."""
    return "awsdms_" + task_arn.rpartition(":")[2].lower().replace("-", "_")


def make(lab: Lab, task: Document, replication: Replication, source: Address) -> None:
    """Target tables, publication, slots and subscription, not yet enabled. What an earlier try left is removed."""
    arn, kind = task["ReplicationTaskArn"], task["MigrationType"]
    settings = task["ReplicationTaskSettings"]
    chosen = _chosen(task, replication)
    if not chosen and settings["ErrorBehavior"]["FailOnNoTablesCaptured"]:
        raise TaskFailed(
            "No tables were found at task initialization. Either the selected table(s) or schema(s) no longer exist or "
            "no match was found for the table selection pattern(s)."
        )
    replication.drop()
    end_stand_ins(replication.target)
    make_control_tables(replication.target)
    if kind != "cdc":
        first = task["Intent"] == "start-replication"
        mode = settings["FullLoadSettings"]["TargetTablePrepMode"] if first else "TRUNCATE_BEFORE_LOAD"
        prepare(replication.source, replication.target, chosen, mode)
    Changes(lab.database, arn).forget()
    lab.database.update(TASK, arn, LogsRead=log_ends(lab))
    tables = Tables(lab.database, arn)
    with lab.database.writing():
        tables.forget()
        for table in chosen:
            validated = bool(settings["ValidationSettings"]["EnableValidation"])
            tables.begin(table.schema, table.name, table.oid, validated=validated)
    position = replication.create(chosen, source, copy=kind != "cdc")
    if kind == "cdc":
        for table in chosen:
            tables.change(table.key, Snapshot=position, TableState=COMPLETED)


def _chosen(task: Document, replication: Replication) -> list[SourceTable]:
    mappings = read_mappings(task["TableMappings"])
    return [table for table in source_tables(replication.source) if mappings.select(table.schema, table.name)]


def remove(lab: Lab, task_arn: str) -> None:
    """Take what a task has made off both databases; the rows stay."""
    with (
        lab.databases.connect("source", options=IMPATIENT) as source,
        lab.databases.connect("target", options=IMPATIENT) as target,
    ):
        Replication(source, target, slot_name(task_arn)).drop()
        end_stand_ins(target)
    Changes(lab.database, task_arn).forget()
