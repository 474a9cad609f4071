"""What do DMS's own statistics say: is every table loaded, was what was captured applied, what did it validate?"""

from __future__ import annotations

from dataclasses import dataclass

from ..aws.dms import LOADED, TableStatistics
from ..display import Shown, Table, plural

SETTLING = ("Pending records", "Pending validation", "Preparing table", "Pending revalidation")
KEYLESS = "No primary key"


@dataclass(frozen=True, repr=False)
class Loaded(Shown):
    """The tables of the mapping beside those that DMS knows."""

    expected: tuple[str, ...]  # what the source has and the mapping includes
    statistics: tuple[TableStatistics, ...]

    @property
    def ok(self) -> bool:
        """A finding: there are tables, and each one that is expected is loaded."""
        return bool(self.expected) and not self._missing and not self._unloaded

    @property
    def _missing(self) -> list[str]:
        return sorted(set(self.expected) - {table.name for table in self.statistics})

    @property
    def _unloaded(self) -> list[str]:
        return [f"{table.name}: {table.state}" for table in self.statistics if table.state != LOADED]

    @property
    def reason(self) -> str:
        """What is missing or not loaded."""
        if not self.expected:
            return "the mapping includes no table of the source"
        said = [f"DMS does not know {', '.join(self._missing)}"] if self._missing else []
        said += self._unloaded[:10]
        loaded = len(self.statistics) - len(self._unloaded)
        return "; ".join(said) or f"all {plural(loaded, 'table')} of the mapping are loaded"

    def headline(self) -> str:
        """How many rows came with the full load."""
        rows = sum(table.loaded_rows for table in self.statistics)
        return f"{plural(len(self.statistics), 'table')}, {plural(rows, 'row')} in the full load."

    def tables(self) -> list[Table]:
        """Each table."""
        rows = [(table.name, table.state, f"{table.loaded_rows:,}") for table in self.statistics]
        return [Table(("Table", "State", "Rows loaded"), rows, rest=": the task's table statistics")]


@dataclass(frozen=True, repr=False)
class Applied(Shown):
    """Changes captured at the source beside those applied to the target, and what DMS could not apply."""

    statistics: tuple[TableStatistics, ...]
    exceptions: tuple[tuple[str, str], ...]  # table and error, of awsdms_apply_exceptions
    exception_count: int
    on_record: bool = True  # awsdms_apply_exceptions is there: DMS always makes it
    captures: bool = True  # the task replicates changes

    @property
    def ok(self) -> bool:
        """A finding: something was captured, all of it was applied, and no exception is on record."""
        return self._captured > 0 and not self._gaps and not self.exception_count and self.on_record

    @property
    def _captured(self) -> int:
        return sum(table.captured.total for table in self.statistics)

    @property
    def _gaps(self) -> list[TableStatistics]:
        return [table for table in self.statistics if table.captured != table.applied]

    @property
    def reason(self) -> str:
        """Where captured and applied differ."""
        said = [f"{table.name}: captured {table.captured}, applied {table.applied}" for table in self._gaps[:5]]
        if self.exception_count:
            first = "; ".join(f"{table}: {error}" for table, error in self.exceptions[:3])
            said.append(f"awsdms_apply_exceptions holds {plural(self.exception_count, 'change')}: {first}")
        if not self.on_record:
            said.append("the target has no awsdms_apply_exceptions where the task's settings say: nothing can be read")
        if said:
            return "; ".join(said)
        if not self.captures:
            return "a full load alone captures no changes"
        if not self._captured:
            return "no change was captured since the full load, so nothing is proven: write a row, and run this again"
        return f"{plural(self._captured, 'change')} captured, as many applied, of the same kinds, in every table"

    def headline(self) -> str:
        """The sums."""
        applied = sum(table.applied.total for table in self.statistics)
        return f"{plural(self._captured, 'change')} captured, {applied:,} applied (inserts / updates / deletes)."

    def tables(self) -> list[Table]:
        """Each table with changes."""
        rows = [
            (table.name, table.captured, table.applied, table.ddl)
            for table in self.statistics
            if table.captured.total or table.applied.total or table.ddl
        ]
        return [Table(("Table", "Captured", "Applied", "DDL"), rows)] if rows else []


@dataclass(frozen=True, repr=False)
class Validation(Shown):
    """DMS's own row validation, by its state; zero failures say nothing where it is not enabled."""

    statistics: tuple[TableStatistics, ...]
    failures: tuple[tuple[str, ...], ...]  # of awsdms_validation_failures: table, key, kind

    @property
    def ok(self) -> bool:
        """A finding: every table is Validated; one without a key, which DMS cannot validate, is left to us."""
        states = [table.validation for table in self.statistics]
        return "Validated" in states and all(state in ("Validated", KEYLESS) for state in states)

    @property
    def settled(self) -> bool:
        """Whether nothing is pending."""
        return not any(table.validation in SETTLING for table in self.statistics)

    @property
    def reason(self) -> str:
        """Which tables are in another state."""
        others = [
            f"{table.name}: {table.validation or 'Not enabled'}"
            + (f" ({table.validation_failed:,} failed)" if table.validation_failed else "")
            for table in self.statistics
            if table.validation not in ("Validated", KEYLESS)
        ]
        if others:
            return "; ".join(others[:10])
        keyless = [table.name for table in self.statistics if table.validation == KEYLESS]
        if len(keyless) == len(self.statistics):
            return "DMS validates no table without a key, and no table in scope has one"
        validated = plural(len(self.statistics) - len(keyless), "table") + " Validated"
        return validated + (f"; without a key, so compared by us below: {', '.join(keyless)}" if keyless else "")

    def headline(self) -> str:
        """The verdict in DMS's words."""
        return f"DMS says: {self.reason}."

    def tables(self) -> list[Table]:
        """Each table, and the first failures on record."""
        rows = [
            (t.name, t.validation, t.validation_pending, t.validation_failed, t.validation_suspended)
            for t in self.statistics
        ]
        shown = [Table(("Table", "Validation", "Pending", "Failed", "Suspended"), rows)]
        if self.failures:
            title = "On record in awsdms_validation_failures (history: a later success does not remove a line)"
            shown.append(Table(("Table", "Key", "Failure"), self.failures, limit=10, title=title))
        return shown
