"""Which tables does a task migrate? Table mappings are JSON in a string: selection rules with `%` for any text."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from .protocol import Refusal

_ACTIONS = ("include", "exclude", "explicit")
_CONTROL_TABLES = "awsdms_"


@dataclass(frozen=True)
class Selection:
    """One selection rule; `explicit` names one table and takes no wildcards."""

    schema: str
    table: str
    action: str

    def covers(self, schema: str, table: str) -> bool:
        """Whether a table is meant by this rule."""
        if self.action == "explicit":
            return (schema, table) == (self.schema, self.table)
        return _like(self.schema, schema) and _like(self.table, table)


@dataclass(frozen=True)
class Mappings:
    """The selection rules of a task."""

    rules: tuple[Selection, ...]

    def select(self, schema: str, table: str) -> bool:
        """Whether a table is migrated: some rule includes it and none excludes it. DMS's own tables never are."""
        if table.startswith(_CONTROL_TABLES):
            return False
        meant = {rule.action for rule in self.rules if rule.covers(schema, table)}
        return bool(meant) and "exclude" not in meant


def read_mappings(text: str) -> Mappings:
    """The mappings of a task; Refusal when they cannot be read, or ask for what the lab does not do."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise _refused(f"Invalid JSON: {error}") from error
    rules = document.get("rules") if isinstance(document, dict) else None
    if not isinstance(rules, list) or not rules:
        raise _refused("it has no list of rules")
    selections, seen = [], set()
    for number, rule in enumerate(rules, 1):
        if not isinstance(rule, dict):
            raise _refused(f"rule {number} is not an object")
        if rule.get("rule-type") != "selection":
            raise _refused(f"rule {number}: the lab has selection rules only, not {rule.get('rule-type')!r}")
        identity = str(rule.get("rule-id", ""))
        if not identity or not rule.get("rule-name"):
            raise _refused(f"rule {number} needs rule-id and rule-name")
        if identity in seen:
            raise _refused(f"rule-id {identity} is not unique")
        seen.add(identity)
        selections.append(_selection(number, rule))
    if all(rule.action == "exclude" for rule in selections):
        raise _refused("No selection rules with action 'include' were found")
    return Mappings(tuple(selections))


def _selection(number: int, rule: dict[str, Any]) -> Selection:
    locator, action = rule.get("object-locator"), rule.get("rule-action")
    if action not in _ACTIONS:
        raise _refused(f"rule {number}: rule-action is include, exclude or explicit, not {action!r}")
    if not isinstance(locator, dict):
        raise _refused(f"rule {number} has no object-locator")
    schema, table = locator.get("schema-name"), locator.get("table-name")
    if not isinstance(schema, str) or not isinstance(table, str) or not schema or not table:
        raise _refused(f"rule {number}: object-locator needs schema-name and table-name")
    if locator.get("table-type", "table") != "table":
        raise _refused(f"rule {number}: the lab migrates tables, not {locator['table-type']!r}")
    if rule.get("filters"):
        raise _refused(f"rule {number}: the lab has no source filters")
    if action == "explicit" and "%" in schema + table:
        raise _refused(f"rule {number}: explicit takes no wildcards")
    return Selection(schema, table, action)


def _refused(reason: str) -> Refusal:
    return Refusal("InvalidParameterValueException", f"Invalid task table mappings: {reason}.")


def _like(pattern: str, text: str) -> bool:
    return re.fullmatch(".*".join(re.escape(part) for part in pattern.split("%")), text, re.DOTALL) is not None
