"""Does a difference still hold when we look again? What changed meanwhile is named so, what is equal now is settled."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from . import differences as d
from .pairing import joined
from .rules import COLUMNS, Judge, Level, Rules
from .runs import by_key, conform

Recheck = Callable[[list[str]], tuple[pa.RecordBatch, pa.RecordBatch]]  # keys -> rows of both sides now
AT_ONCE = 1000  # keys
# A second look at an entry does not read its content again.
STAYS = {d.CONTENT, d.NO_EVIDENCE, d.UNREADABLE}
NEVER = {d.SPECIAL, d.NOT_UTF8, d.TOO_LONG}  # nothing that another look would change


class SecondLook:
    """Looks again at differing keys, a batch at a time."""

    def __init__(self, recheck: Recheck, level: Level, rules: Rules) -> None:
        self._recheck, self._rules = recheck, rules
        self._level: Level = {"content": "metadata", "sample": "size"}.get(level, level)  # type: ignore[assignment]
        self.looked = 0  # keys
        self.settled = 0  # … that are equal now
        self.unlooked = 0  # … beyond the most that are looked at again

    def at(self, lines: pa.Table, scanned: pa.RecordBatch) -> pa.Table:
        """The lines that still hold; `scanned` has the source's rows of their range."""
        stays = pc.is_in(lines["difference"], value_set=pa.array(sorted(NEVER)))
        kept, doubtful = [lines.filter(stays)], lines.filter(pc.invert(stays))
        keys = sorted(set(doubtful["key"].to_pylist()))
        room = max(self._rules.rechecked - self.looked, 0)
        self.unlooked += len(keys[room:])
        if keys[room:]:
            kept.append(_of(doubtful, set(keys[room:])))
        keys = keys[:room]
        for start in range(0, len(keys), AT_ONCE):
            some = keys[start : start + AT_ONCE]
            kept.append(self._still(_of(doubtful, set(some)), some, scanned))
        return pa.concat_tables(kept).sort_by(d.ORDER)

    def _still(self, lines: pa.Table, keys: list[str], scanned: pa.RecordBatch) -> pa.Table:
        now = [by_key(conform(rows)) for rows in self._recheck(keys)]
        columns = COLUMNS[self._level]
        judge = Judge(self._level, self._rules, datetime.now(UTC))
        found = [
            table
            for part in joined(*(iter([rows.select(columns)]) for rows in now))
            for table in judge.differences(part)
        ]
        today = pa.concat_tables(found) if found else d.DIFFERENCES.empty_table()
        changed = _changed(keys, scanned, now[0])
        sticky = {row["key"] for row in lines.select(["key", "difference"]).to_pylist() if row["difference"] in STAYS}
        differing = set(today["key"].to_pylist())
        self.looked += len(keys)
        moved = changed & (differing | sticky)
        self.settled += len(set(keys) - differing - sticky)
        return pa.concat_tables(
            [
                _of(lines, sticky - changed).filter(pc.is_in(pc.field("difference"), pa.array(sorted(STAYS)))),
                _of(today, differing - changed),
                _changing(_of(lines, moved)),
            ]
        )


def _of(lines: pa.Table, keys: set[str]) -> pa.Table:
    return lines.filter(pc.is_in(lines["key"], value_set=pa.array(sorted(keys), pa.string())))


def _changed(keys: list[str], before: pa.RecordBatch, now: pa.RecordBatch) -> set[str]:
    """Keys whose entry at the source is not the one that was scanned."""
    wanted = pa.array(keys, pa.string())
    sides: list[dict[str, tuple[Any, ...]]] = []
    for rows in (before, now):
        some = rows.select(["key", "kind", "size", "mtime_ns"]).filter(pc.is_in(rows.column("key"), value_set=wanted))
        sides.append({row["key"]: (row["kind"], row["size"], row["mtime_ns"]) for row in some.to_pylist()})
    return {key for key in keys if not _same(sides[0].get(key), sides[1].get(key))}


def _same(before: tuple[Any, ...] | None, now: tuple[Any, ...] | None) -> bool:
    if before is None or now is None:
        return before is now
    return all(a == b or a is None or b is None for a, b in zip(before, now, strict=True))


def _changing(lines: pa.Table) -> pa.Table:
    """One line for each key instead of all its differences."""
    seen: set[str] = set()
    first = [key not in seen and not seen.add(key) for key in lines["key"].to_pylist()]  # type: ignore[func-returns-value]
    lines = lines.filter(pa.array(first, pa.bool_()))
    at = lines.schema.get_field_index("difference")
    return lines.set_column(at, lines.schema.field(at), pa.repeat(d.CHANGED, lines.num_rows))
