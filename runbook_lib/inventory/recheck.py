"""Does a difference still hold when we look again? What changed meanwhile is named so, what is equal now is settled.

A file that seems equal now is settled at level `content` only once its content was read, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from . import differences as d
from .pairing import joined
from .rules import COLUMNS, Judge, Level, Rules, known, unlike
from .runs import by_key, conform
from .sampling import Sample

Both = tuple[pa.RecordBatch, pa.RecordBatch]
Recheck = Callable[[list[str]], Both]  # keys -> rows of both sides now
# Rows of both sides -> the same with checksums that can be compared, of all files or of some sorted keys
Digest = Callable[[pa.RecordBatch, pa.RecordBatch, Sequence[str] | None], Both]
AT_ONCE = 1000  # keys
STAYS = {d.CONTENT, d.NO_EVIDENCE, d.UNREADABLE}  # looking again at an entry that differs does not read its content
NEVER = {d.SPECIAL, d.NOT_UTF8, d.TOO_LONG}  # nothing that another look would change
ALONE = {d.MISSING, d.EXTRA}  # of these, nothing was compared at first
UNREAD = {d.KIND, d.SIZE, d.CHANGED}  # … and of these, no content
WITHOUT_CONTENT: dict[Level, Level] = {"content": "metadata", "sample": "size"}


class SecondLook:
    """Looks again at differing keys, a batch at a time."""

    def __init__(
        self,
        recheck: Recheck,
        level: Level,
        rules: Rules,
        *,
        digest: Digest | None = None,
        sample: Sample | None = None,
        scanned: bool = True,
    ) -> None:
        """`scanned`: the source's rows are a scan's, so that another row now means that the source changed."""
        self._recheck, self._digest, self._rules, self._sample = recheck, digest, rules, sample
        self._level: Level = level
        self._scanned = scanned
        self.looked = 0  # keys
        self.settled = 0  # … that are equal now
        self.unlooked = 0  # … beyond the most that are looked at again
        self.compared: Counter[str] = Counter()  # what had not been compared at first
        self.not_compared: Counter[str] = Counter()

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
        before, after = (by_key(conform(rows)) for rows in self._recheck(keys))
        now = before, after
        today = self._judged(WITHOUT_CONTENT.get(self._level, self._level), now)[0]
        held = _held(lines, today, now)
        kept = {key for key, _ in held}
        today = pa.concat_tables([today, self._settling(set(keys) - kept - _keys(today), lines, now)])
        differing = _keys(today)
        changed = _changed(keys, scanned, now[0]) if self._scanned else set()
        self.looked += len(keys)
        self.settled += len(set(keys) - differing - kept)
        return pa.concat_tables(
            [
                _which(lines, lambda line: line in held and line[0] not in changed),
                _which(today, lambda line: line not in held and line[0] not in changed),
                _changing(_of(lines, changed & (differing | kept))),
            ]
        )

    def _judged(self, level: Level, now: Both) -> tuple[pa.Table, Judge]:
        judge = Judge(level, self._rules, datetime.now(UTC), self._sample)
        parts = joined(*(iter([rows.select(COLUMNS[level])]) for rows in now))
        found = [table for part in parts for table in judge.differences(part)]
        return pa.concat_tables(found) if found else d.DIFFERENCES.empty_table(), judge

    def _settling(self, equal: set[str], lines: pa.Table, now: Both) -> pa.Table:
        """What differs all the same in entries that seem equal; what is compared here for the first time is counted."""
        alone, unread = (equal & _keys(_named(lines, names)) for names in (ALONE, UNREAD))
        found = [d.DIFFERENCES.empty_table()]
        for keys, counted in ((alone, None), (unread - alone, {d.CONTENT}), (equal - alone - unread, set())):
            if keys:
                ours, theirs = (_of(side, keys) for side in now)
                if self._digest is not None and self._level in WITHOUT_CONTENT:
                    ours, theirs = self._digest(ours, theirs, None if self._sample is None else self._sample.keys)
                table, judge = self._judged(self._level, (ours, theirs))
                found.append(table)
                self.not_compared += judge.not_compared
                compared = judge.compared
                self.compared.update({name: compared[name] for name in compared if counted is None or name in counted})
        return pa.concat_tables(found)


def _held(lines: pa.Table, today: pa.Table, now: Both) -> set[tuple[str, str]]:
    """Lines, as key and difference, that the second look at their entries does not refute."""
    gone = _keys(_named(today, ALONE))
    apart: set[str] = set()
    for part in joined(*(iter([rows]) for rows in now)):
        ours, theirs = part.source, part.other
        both = known(ours, "mtime_ns") & known(theirs, "mtime_ns") & unlike(ours, theirs, "mtime_ns")
        apart |= set(ours.filter(pa.array(both)).column("key").to_pylist())
    return {
        (key, name)
        for key, name in _pairs(lines)
        if (name in STAYS and key not in gone) or (name == d.STALE and key in apart)
    }


def _keys(lines: pa.Table) -> set[str]:
    return set(lines["key"].to_pylist())


def _pairs(lines: pa.Table) -> list[tuple[str, str]]:
    return list(zip(lines["key"].to_pylist(), lines["difference"].to_pylist(), strict=True))


def _of(rows: Any, keys: set[str]) -> Any:
    """The lines or rows of some keys."""
    return rows.filter(pc.is_in(rows.column("key"), value_set=pa.array(sorted(keys), pa.string())))


def _named(lines: pa.Table, names: set[str]) -> pa.Table:
    return lines.filter(pc.is_in(lines["difference"], value_set=pa.array(sorted(names))))


def _which(lines: pa.Table, wanted: Callable[[tuple[str, str]], bool]) -> pa.Table:
    return lines.filter(pa.array([wanted(line) for line in _pairs(lines)], pa.bool_()))


def _changed(keys: list[str], before: pa.RecordBatch, now: pa.RecordBatch) -> set[str]:
    """Keys whose entry at the source is not the one that was scanned."""
    sides = []
    for rows in (before, now):
        some = _of(rows.select(["key", "kind", "size", "mtime_ns", "mtime_step_ns", "problem"]), set(keys))
        sides.append({row["key"]: row for row in some.to_pylist()})
    return {key for key in keys if not _same(sides[0].get(key), sides[1].get(key))}


def _same(before: dict[str, Any] | None, now: dict[str, Any] | None) -> bool:
    if _unknown(before) or _unknown(now):
        return True
    if before is None or now is None:
        return before is now
    step = max(row["mtime_step_ns"] or 1 for row in (before, now))
    values = [(row["kind"], row["size"], row["mtime_ns"] and row["mtime_ns"] // step) for row in (before, now)]
    return all(a == b or a is None or b is None for a, b in zip(*values, strict=True))


def _unknown(row: dict[str, Any] | None) -> bool:
    """Whether the entry could not be looked at: then nobody knows whether it changed."""
    return row is not None and row["problem"] is not None and row["size"] is None and row["mtime_ns"] is None


def _changing(lines: pa.Table) -> pa.Table:
    """One line for each key instead of all its differences."""
    seen: set[str] = set()
    first = [key not in seen and not seen.add(key) for key in lines["key"].to_pylist()]  # type: ignore[func-returns-value]
    lines = lines.filter(pa.array(first, pa.bool_()))
    at = lines.schema.get_field_index("difference")
    return lines.set_column(at, lines.schema.field(at), pa.repeat(d.CHANGED, lines.num_rows))
