"""Are the rows the same, and if not, which and how? The verdict per table and over all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..display import Shown, Table, plural
from .finding import KEPT
from .model import Difference

WIDEST = 60  # characters of a value or key in a table
EVIDENCE = {
    "md5": "by md5 of every row's canonical text",
    "native": "by PostgreSQL's own 64-bit hash: a fast look, md5 is the evidence of record",
}


@dataclass(frozen=True)
class TableResult:
    """One table, compared. Counts are exact; `differences` are the first ones, with values."""

    name: str
    source_rows: int = 0
    target_rows: int = 0
    different: int = 0
    missing: int = 0  # on the target
    extra: int = 0  # on the target
    method: str = ""
    differences: tuple[Difference, ...] = ()
    problem: str = ""  # what keeps the tables from being the same whatever their rows are
    may_be_empty: bool = False
    rechecked: bool = True  # False: more rows differ than are looked at again, or their keys do not find them
    keyed: bool = True
    moving: int = 0  # of those that are not the same: changed at the source between the last two looks

    @property
    def differing(self) -> int:
        """Rows that are not the same."""
        return self.different + self.missing + self.extra

    @property
    def counts(self) -> tuple[int, int, int, int, int]:
        """Rows of the source and the target, then those that are different, missing and extra."""
        return self.source_rows, self.target_rows, self.different, self.missing, self.extra

    @property
    def counted(self) -> bool:
        """Whether its rows were looked at: a table that only one side has is not."""
        return not self.problem or any(self.counts)

    @property
    def empty(self) -> bool:
        """Whether neither side has a row."""
        return not self.problem and self.source_rows == self.target_rows == self.differing == 0

    @property
    def ok(self) -> bool:
        """Whether the rows are the same, and there are rows, or none are expected."""
        return not self.problem and self.differing == 0 and (self.may_be_empty or not self.empty)

    @property
    def verdict(self) -> str:
        """In a few words."""
        if self.problem:
            return self.problem
        if self.differing:
            return "not the same"
        return "empty on both sides" if self.empty else "the same"

    @property
    def reason(self) -> str:
        """In a sentence."""
        if not self.differing:
            return f"{self.name}: {self.verdict}"
        parts = [
            f"{count:,} {what}"
            for count, what in (
                (self.different, "different"), (self.missing, "missing on target"), (self.extra, "extra on target"),
            ) if count
        ]  # fmt: skip
        problem = f"{self.problem}; " if self.problem else ""
        return f"{self.name}: {problem}{', '.join(parts)}"


@dataclass(frozen=True, repr=False)
class Comparison(Shown):
    """Every table that was compared. Nothing compared is not the same."""

    compared: tuple[TableResult, ...]
    method: str
    rounds: int = 0  # in which differing rows were looked at again
    moments: int = 1  # snapshots of each side: more than one when it was continued from a checkpoint
    left_out: tuple[str, ...] = ()  # tables that the caller did not want to be compared

    @property
    def ok(self) -> bool:
        """Whether there are rows and all are the same."""
        return self.rows > 0 and all(table.ok for table in self.compared)

    @property
    def rows(self) -> int:
        """Rows of the source that were compared."""
        return sum(table.source_rows for table in self.compared)

    @property
    def reason(self) -> str:
        """What was found, in a sentence."""
        if not self.compared:
            return "No table was compared."
        when = f"As each part was when it was read, at {self.moments} moments: " if self.moments > 1 else ""
        return when + self._found + (f" Left out: {', '.join(self.left_out)}." if self.left_out else "")

    @property
    def _found(self) -> str:
        how = EVIDENCE[self.method]
        bad = [table for table in self.compared if not table.ok]
        if not bad and self.rows:
            same = f"{plural(self.rows, 'row')} in {plural(len(self.compared), 'table')} are the same, {how}."
            later = f"had arrived when it was looked at again ({plural(self.rounds, 'round')}); counts are of the first"
            return f"{same} What differed at first {later} look." if self.rounds else same
        if not self.rows and not any(table.differing or table.problem for table in bad):
            return f"Not one row was compared: {plural(len(self.compared), 'table')}, all empty on both sides."
        again = f" It still held after {plural(self.rounds, 'round')} of looking again." if self.rounds else ""
        if moving := sum(table.moving for table in bad):
            were = "was" if moving == 1 else "were"
            again += f" {moving:,} of these rows {were} changed at the source between the last two looks: pause "
            again += f"{'its' if moving == 1 else 'their'} writer and compare again."
        if not all(table.rechecked for table in bad):
            again += (
                f" Some rows were counted in the first look only: more than {KEPT:,} of a table, or no key finds them."
            )
        rest = f"; and {len(bad) - 3} more" if len(bad) > 3 else ""
        return "; ".join(table.reason for table in bad[:3]) + rest + "." + again

    def headline(self) -> str:
        """Verdict first."""
        were = "were" if self.moments > 1 else "are"
        return f"The rows {were} {'' if self.ok else 'not '}the same. {self.reason}"

    def tables(self) -> list[Table]:
        """Counts per table, then the rows that differ."""
        columns = ("Table", "Rows source", "Rows target", "Different", "Missing", "Extra", "Verdict")
        rows = [
            (
                table.name, *([f"{count:,}" for count in table.counts] if table.counted else ["not counted"] * 5),
                table.verdict,
            )
            for table in self.compared
        ]  # fmt: skip
        return [Table(columns, rows, limit=len(rows)), *(_details(t) for t in self.compared if t.differences)]

    def counts(self) -> dict[str, Any]:
        """The same for machines, without a value of any row."""
        return {
            "ok": self.ok, "reason": self.reason, "method": self.method, "rounds": self.rounds,
            "moments": self.moments, "left_out": list(self.left_out),
            "tables": [
                {
                    "name": table.name, "verdict": table.verdict, "ok": table.ok, "source_rows": table.source_rows,
                    "target_rows": table.target_rows, "different": table.different, "missing": table.missing,
                    "extra": table.extra, "rechecked": table.rechecked, "moving": table.moving,
                }
                for table in self.compared
            ],
        }  # fmt: skip

    def body(self) -> dict[str, Any]:
        """The counts, and with each table the rows that differ."""
        whole = self.counts()
        for said, table in zip(whole["tables"], self.compared, strict=True):
            said["differences"] = [
                {"kind": d.kind, "key": d.key, "source": d.source, "target": d.target, "times": d.times}
                for d in table.differences
            ]
        return whole


def _details(table: TableResult) -> Table:
    rows: list[tuple[str, ...]] = []
    for found in table.differences:
        key = _short(", ".join(f"{name}={_value(value)}" for name, value in found.key.items()) or "(no key)")
        times = f" × {found.times}" if found.times > 1 else ""
        if found.source is not None and found.target is not None:
            for name in found.columns:
                values = _apart(_value(found.source[name]), _value(found.target[name]))
                rows.append((key, found.kind + times, name, *values))
        else:
            row = found.source if found.source is not None else found.target or {}
            text = _short(", ".join(f"{name}={_value(value)}" for name, value in row.items() if name not in found.key))
            there = (text, "") if found.source is not None else ("", text)
            rows.append((key, found.kind + times, "(the row)", *there))
    left = table.differing - sum(found.times for found in table.differences)
    hidden = f", the first of {table.differing:,} rows" if left > 0 else ""
    return Table(("Key", "What", "Column", "Source", "Target"), rows, limit=len(rows), title=f"{table.name}{hidden}")


def _value(value: str | None) -> str:
    """A value so that NULL, blanks and control characters can be seen."""
    if value is None:
        return "NULL"
    plain = value.isprintable() and value == value.strip() and value not in ("", "NULL")
    return value if plain else repr(value)


def _short(text: str) -> str:
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"


def _apart(source: str, target: str) -> tuple[str, str]:
    """Two long values from a little before the place where they part."""
    place = next((i for i, (a, b) in enumerate(zip(source, target, strict=False)) if a != b), 0)
    start = max(0, min(place, min(len(source), len(target))) - 10) if max(len(source), len(target)) > WIDEST else 0
    source, target = (_short(("…" if start else "") + text[start:]) for text in (source, target))
    return source, target
