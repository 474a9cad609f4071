"""What is a table of the source called on the target? A task's transformation rules may give it another name.

Followed are the rules whose outcome is plain: a new name, and upper or lower case. Columns are followed where a rule
names one; what other rules do to columns is found, and told, when the columns are compared.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..aws.dms import DmsTask, Transformation
from ..errors import DatabaseError
from .source import SourceTable, like


def renamed(task: DmsTask, tables: Iterable[SourceTable]) -> dict[str, str]:
    """The tables and columns that have another name on the target, as `tables.pairs` takes them.

    DatabaseError for a table whose name there cannot be told from the rules.
    """
    found = {}
    for table in tables:
        schema = _called(task, table, "schema", table.schema)
        there = f"{schema}.{_called(task, table, 'table', table.table)}"
        if there != table.name:
            found[table.name] = there
        for rule in _rules(task, table, "column"):
            if rule.action == "rename" and rule.column and "%" not in rule.column:
                found[f"{table.name}.{rule.column}"] = rule.value
    return found


def _rules(task: DmsTask, table: SourceTable, target: str) -> list[Transformation]:
    return [
        rule for rule in task.transformations
        if rule.target == target and like(rule.schema, table.schema)
        and (target == "schema" or like(rule.table, table.table))
    ]  # fmt: skip


def _called(task: DmsTask, table: SourceTable, target: str, name: str) -> str:
    rules = _rules(task, table, target)
    if not rules:
        return name
    outcomes = {"rename": rules[0].value, "convert-lowercase": name.lower(), "convert-uppercase": name.upper()}
    if len(rules) > 1 or not outcomes.get(rules[0].action):
        what = " and ".join(f"{rule.action} {rule.value}".strip() for rule in rules)
        raise DatabaseError(
            f"The DMS task {task.name} gives the {target} of {table.name} another name ({what}), and only a single "
            "rename, convert-lowercase or convert-uppercase is followed here. Leave the table out (`exclude`) and "
            f"compare it with: runbook compare-tables … --rename {table.name}=schema.table"
        )
    return outcomes[rules[0].action]
