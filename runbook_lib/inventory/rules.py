"""When is an entry the same on both sides? The rules of each level, applied to whole columns.

Folders have a kind and metadata, and no size. Times are compared at the coarser step of the two sides. What the source
has and the other side did not keep is `not recorded`: a difference of its own. What the source's own inventory does not
say is counted as not compared, and then the two sides are not the same either.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import InventoryError
from ..filters import Filters
from . import differences as d
from .differences import Mask
from .pairing import Joined
from .runs import below
from .sampling import Sample
from .schema import FILE, FOLDER, KINDS, LINK, LONGEST_KEY, OTHER

Level = Literal["names", "size", "metadata", "content", "sample"]
BASE = ["key", "kind", "size", "mtime_ns", "mtime_step_ns", "mode", "problem", "last_modified_us"]
METADATA = ["uid", "gid", "target"]
CHECKSUM = ["checksum_algorithm", "checksum_type", "checksum"]
COLUMNS: dict[str, list[str]] = {
    "names": BASE,
    "size": BASE,
    "metadata": BASE + METADATA,
    "content": BASE + METADATA + CHECKSUM,
    "sample": BASE + CHECKSUM,
}
PROBLEMS = {d.NOT_UTF8: d.NOT_UTF8, "target not UTF-8": d.NOT_UTF8, d.CHANGED: d.CHANGED}  # by how `problem` begins
CODES = {name: KINDS.index(name).as_py() for name in (FILE, FOLDER, LINK, OTHER)}


@dataclass(frozen=True)
class Rules:
    """What is compared, and what is let pass."""

    filters: Filters | None = None  # what they leave out is counted apart
    fields: frozenset[str] = frozenset(d.FIELDS)
    labels: tuple[str, str] = ("the source", "the bucket")
    prefix: str = ""  # of the destination: it counts for the length of a key
    special_fails: bool = False  # sockets, devices and pipes, which DataSync does not copy
    skew: float = 2.0  # seconds by which clocks may differ, and S3's whole seconds
    rechecked: int = 100_000  # keys that are looked at again at most


@dataclass
class Judge:
    """Goes through ranges of keys in order, and says what differs."""

    level: Level
    rules: Rules
    until: datetime  # when the source was looked at: later modification times prove nothing
    sample: Sample | None = None
    compared: Counter[str] = field(default_factory=Counter)  # entries, by what was compared
    not_compared: Counter[str] = field(default_factory=Counter)
    _unreadable: tuple[list[str], list[str]] = field(default_factory=lambda: ([], []))  # folders of either side

    def differences(self, part: Joined) -> list[pa.Table]:
        """The differences of one range of keys, not in order."""
        found: list[pa.Table] = []
        for folders, side in zip(
            self._unreadable, ((part.source, part.missing), (part.other, part.extra)), strict=True
        ):
            for batch in side:
                folders += _unreadable_folders(batch)
        if part.source.num_rows:
            found += self._pairs(part.source, part.other)
        if part.missing.num_rows:
            found += self._missing(part.missing)
        if part.extra.num_rows:
            found += self._extra(part.extra)
        return [table for table in found if table.num_rows]

    def _pairs(self, source: pa.RecordBatch, other: pa.RecordBatch) -> list[pa.Table]:
        here, there = codes(source), codes(other)
        self.compared["names"] += source.num_rows
        self.compared["files"] += int(np.count_nonzero(here == CODES[FILE]))
        bad = known(source, "problem") | known(other, "problem")
        special = (here == CODES[OTHER]) & (there == CODES[OTHER]) & ~bad  # what cannot be read has no known kind
        apart = here != there
        if self.level in ("names", "size", "sample"):
            # only a HEAD tells that an object is a link: without it, nothing knows its mode
            apart &= ~((here == CODES[LINK]) & (there == CODES[FILE]) & ~known(other, "mode"))
        found = [self._special(source, other, special), *self._problems(source, other, bad)]
        found.append(_rows(d.KIND, source, other, apart & ~bad, "kind"))
        usable = ~(special | apart | bad)
        if self.level != "names":
            sized = usable & (here != CODES[FOLDER])
            wrong = self._differ("size", source, other, sized)
            found.append(_rows(d.SIZE, source, other, wrong, "size"))
            found.append(self._stale(source, other, usable & (here == CODES[FILE])))
            if self.level != "sample" and self.level != "size":
                found += self._metadata(source, other, usable, here == CODES[LINK])
            if self.level in ("content", "sample"):
                found += self._content(source, other, usable & (here == CODES[FILE]) & ~wrong)
        return found

    def _differ(self, name: str, source: pa.RecordBatch, other: pa.RecordBatch, asked: Mask) -> Mask:
        """Where a number differs; rows that one side knows nothing of are counted as not compared."""
        both = asked & known(source, name) & known(other, name)
        self.compared[name] += int(both.sum())
        self.not_compared[name] += int(asked.sum() - both.sum())
        if source.column(name).equals(other.column(name)):
            return np.zeros(len(asked), dtype=bool)
        return np.asarray(both & (numbers(source, name) != numbers(other, name)), dtype=bool)

    def _stale(self, source: pa.RecordBatch, other: pa.RecordBatch, files: Mask) -> pa.Table:
        """Written to S3 before the file was last changed: certain, unless S3 keeps the file's own time."""
        kept = known(other, "mtime_ns")
        asked = files & known(source, "mtime_ns") & known(other, "last_modified_us")
        if self.level in ("metadata", "content") and "mtime" in self.rules.fields:
            asked &= ~kept  # a time that is another is said as such
        elif kept.any():
            asked &= ~kept | unlike(source, other, "mtime_ns")
        if not asked.any():
            return _none()
        self.compared["stale"] += int(asked.sum())
        changed = numbers(source, "mtime_ns") // 1000
        stale = changed > numbers(other, "last_modified_us") + int(self.rules.skew * 1_000_000)
        stale &= changed <= int(self.until.timestamp() * 1_000_000)
        return _rows(d.STALE, source, other, asked & stale, "mtime_ns", "last_modified_us")

    def _metadata(self, source: pa.RecordBatch, other: pa.RecordBatch, usable: Mask, links: Mask) -> list[pa.Table]:
        found, lost = [], np.zeros(len(usable), dtype=np.int64)
        for bit, (column, name) in enumerate(d.FIELDS.items()):
            if column not in self.rules.fields:
                continue
            column = "mtime_ns" if column == "mtime" else column
            asked = usable & (links if column == "target" else ~links if column == "mode" else usable)
            here, there = known(source, column), known(other, column)
            self.compared[name] += int((asked & here & there).sum())
            self.not_compared[name] += int((asked & ~here).sum())
            lost |= (asked & here & ~there).astype(np.int64) << bit
            if not source.column(column).equals(other.column(column)):
                wrong = asked & here & there & unlike(source, other, column)
                found.append(_rows(name, source, other, wrong, column))
        if lost.any():
            text = {code: ", ".join(_names(code)) for code in np.unique(lost[lost > 0]).tolist()}
            at = pa.array(np.flatnonzero(lost))
            values = [text[code] for code in lost[lost > 0].tolist()]
            found.append(d.said(d.NOT_RECORDED, source.take(at), other.take(at), (values, None)))
        return found

    def _content(self, source: pa.RecordBatch, other: pa.RecordBatch, files: Mask) -> list[pa.Table]:
        """By checksums of one algorithm and type; unlike ones are the caller's mistake, and say nothing of the file."""
        if self.level == "sample":
            files = files & self._in_sample(source.column("key"))
        here, there = known(source, "checksum"), known(other, "checksum")
        both = files & here & there
        self.compared[d.CONTENT] += int(both.sum())
        for name in ("checksum_algorithm", "checksum_type"):
            apart = both & unlike(source, other, name)
            if apart.any():
                raise InventoryError(_unlike_sums(source, other, int(np.flatnonzero(apart)[0])))
        wrong = both & unlike(source, other, "checksum")
        found = [_rows(d.CONTENT, source, other, wrong, "checksum")]
        without = files & ~(here & there)
        if without.any():
            at = pa.array(np.flatnonzero(without))
            values = [["a checksum" if has else "no checksum" for has in side[without]] for side in (here, there)]
            found.append(d.said(d.NO_EVIDENCE, source.take(at), other.take(at), (values[0], values[1])))
        return found

    def _in_sample(self, keys: pa.Array) -> Mask:
        chosen = [] if self.sample is None else self.sample.keys
        return within(keys, chosen)

    def _special(self, source: pa.RecordBatch, other: pa.RecordBatch | None, which: Mask) -> pa.Table:
        if not which.any():
            return _none()
        at = pa.array(np.flatnonzero(which))
        there = None if other is None else other.take(at)
        return d.said(d.SPECIAL, source.take(at), there, fails=self.rules.special_fails)

    def _problems(self, source: pa.RecordBatch | None, other: pa.RecordBatch | None, bad: Mask) -> list[pa.Table]:
        """Rows that a side could not read, or that have a name which cannot match."""
        if not bad.any():
            return []
        at = pa.array(np.flatnonzero(bad))
        sides = [None if side is None else side.take(at) for side in (source, other)]
        texts = [None if side is None else side.column("problem").to_pylist() for side in sides]
        first = [next(filter(None, both)) for both in zip(*(side for side in texts if side is not None), strict=True)]
        names = [next((PROBLEMS[it] for it in PROBLEMS if text.startswith(it)), d.UNREADABLE) for text in first]
        lines = d.said(d.UNREADABLE, sides[0], sides[1], (texts[0], texts[1]))
        return [lines.set_column(1, d.DIFFERENCES.field("difference"), pa.array(names))]

    def _missing(self, rows: pa.RecordBatch) -> list[pa.Table]:
        bad = known(rows, "problem")
        special = (codes(rows) == CODES[OTHER]) & ~bad
        long = _lengths(rows.column("key")) > LONGEST_KEY - len(self.rules.prefix.encode())
        long &= ~special & ~bad
        hidden = self._below_unreadable(rows, 1) & ~special & ~bad & ~long
        found = [self._special(rows, None, special), *self._problems(rows, None, bad)]
        found.append(_rows(d.TOO_LONG, rows, None, long))
        found.append(_hidden(rows, None, hidden, self.rules.labels[1]))
        found.append(_rows(d.MISSING, rows, None, ~(special | bad | long | hidden)))
        return found

    def _extra(self, rows: pa.RecordBatch) -> list[pa.Table]:
        bad = known(rows, "problem")
        hidden = self._below_unreadable(rows, 0) & ~bad
        found = self._problems(None, rows, bad)
        found.append(_hidden(None, rows, hidden, self.rules.labels[0]))
        found.append(_rows(d.EXTRA, None, rows, ~(bad | hidden)))
        return found

    def _below_unreadable(self, rows: pa.RecordBatch, side: int) -> Mask:
        """Rows in a folder that the other side could not read: nobody knows whether it has them."""
        keys, mask = rows.column("key"), np.zeros(rows.num_rows, dtype=bool)
        for folder in self._unreadable[side]:
            mask[below(keys, folder) : below(keys, folder[:-1] + "0")] = True  # '0' comes after '/'
        return mask


def codes(batch: pa.RecordBatch) -> Any:
    """The kinds as numbers."""
    return batch.column("kind").indices.to_numpy()


def numbers(batch: pa.RecordBatch, name: str) -> Any:
    """A column's numbers; 0 where it is not known."""
    return pc.fill_null(batch.column(name), 0).to_numpy(zero_copy_only=False)


def within(keys: pa.Array, chosen: Sequence[str]) -> Mask:
    """Which of the sorted keys are among the sorted chosen ones."""
    if not len(keys):
        return np.zeros(0, dtype=bool)
    few = chosen[bisect_left(chosen, keys[0].as_py()) : bisect_right(chosen, keys[-1].as_py())]
    return np.asarray(pc.is_in(keys, value_set=pa.array(few, pa.string())).to_numpy(zero_copy_only=False), dtype=bool)


def known(batch: pa.RecordBatch, name: str) -> Mask:
    """Which rows have a value."""
    column = batch.column(name)
    if column.null_count in (0, len(column)):
        return np.full(len(column), column.null_count == 0)
    return np.asarray(column.is_valid().to_numpy(zero_copy_only=False), dtype=bool)


def unlike(source: pa.RecordBatch, other: pa.RecordBatch, name: str) -> Mask:
    """Where a value differs; rows of which a side knows nothing may be either."""
    here, there = source.column(name), other.column(name)
    if name == "mtime_ns":
        step = np.maximum(numbers(source, "mtime_step_ns"), numbers(other, "mtime_step_ns")).astype(np.int64)
        step = np.maximum(step, 1)
        return np.asarray(numbers(source, name) // step != numbers(other, name) // step, dtype=bool)
    apart = pc.fill_null(pc.not_equal(here, there), True)
    return np.asarray(apart.to_numpy(zero_copy_only=False), dtype=bool)


def _lengths(keys: pa.Array) -> Any:
    return pc.binary_length(keys).to_numpy()


def _names(code: int) -> list[str]:
    return [name for bit, name in enumerate(d.FIELDS.values()) if code >> bit & 1]


@cache
def _none() -> pa.Table:
    return d.DIFFERENCES.empty_table()


def _rows(
    name: str,
    source: pa.RecordBatch | None,
    other: pa.RecordBatch | None,
    which: Mask,
    here: str | None = None,
    there: str | None = None,
) -> pa.Table:
    """A line for each row of the mask, with the values of a column."""
    if not which.any():
        return _none()
    at = pa.array(np.flatnonzero(which))
    sides = [None if side is None else side.take(at) for side in (source, other)]
    values = [
        None if column is None or side is None else d.written(column, side.column(column))
        for side, column in zip(sides, (here, there or here), strict=True)
    ]
    return d.said(name, sides[0], sides[1], (values[0], values[1]))


def _hidden(source: pa.RecordBatch | None, other: pa.RecordBatch | None, which: Mask, where: str) -> pa.Table:
    at = pa.array(np.flatnonzero(which))
    why = [f"in a folder that could not be read in {where}"] * len(at)
    sides = [None if side is None else side.take(at) for side in (source, other)]
    return d.said(d.UNREADABLE, sides[0], sides[1], (None, why) if other is None else (why, None))


def _unreadable_folders(batch: pa.RecordBatch) -> list[str]:
    if not batch.num_rows or batch.column("problem").null_count == batch.num_rows:
        return []
    which = known(batch, "problem") & (codes(batch) == CODES[FOLDER])
    rows = batch.filter(pa.array(which))
    texts = zip(rows.column("key").to_pylist(), rows.column("problem").to_pylist(), strict=True)
    return [key for key, problem in texts if not problem.startswith(d.NOT_UTF8)]


def _unlike_sums(source: pa.RecordBatch, other: pa.RecordBatch, row: int) -> str:
    kinds = [" ".join(str(side.column(name)[row]) for name in CHECKSUM[:2]) for side in (source, other)]
    return (
        f"The checksums of {source.column('key')[row].as_py()!r} are {kinds[0]} and {kinds[1]}: these cannot be "
        "compared. Have the source's computed with the algorithm and the parts of the other side's."
    )
