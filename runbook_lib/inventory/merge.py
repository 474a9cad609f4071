"""What differs between two inventories? Both are read once, in order, in memory that does not grow with them."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ..errors import InventoryError
from . import differences as d
from . import names
from .lines import Lines, Spreadsheet, read
from .pairing import Joined, joined
from .progress import Progress
from .reading import Inventory
from .recheck import Digest, Recheck, SecondLook
from .result import Comparison, Count, Difference, Looked, SideSeen
from .rules import COLUMNS, Judge, Level, Rules
from .runs import ahead, gathered, one
from .sampling import Sample
from .scope import Scope
from .tops import Tops

PROGRESS = Callable[[Progress], None]
FOUND, PARQUET, CSV = "differences.found.parquet", "differences.parquet", "differences.csv"
ROWS = 32_768  # of a batch, at least
FIRST = 10  # differences that are shown


def compare(
    source: Inventory,
    other: Inventory,
    *,
    level: Level,
    rules: Rules,
    out: Path,
    recheck: Recheck | None = None,
    digest: Digest | None = None,
    sample: Sample | None = None,
    progress: PROGRESS = lambda said: None,
) -> Comparison:
    """Compare two inventories at a level; the differences go to `out` as Parquet and CSV, at any number.

    `recheck` looks again at what differs; `digest` reads the content of what is equal then, at levels that ask for it.
    """
    if (level == "sample") != (sample is not None):
        raise InventoryError("A sample and the level 'sample' go together: give both, or another level alone.")
    out.mkdir(parents=True, exist_ok=True)
    second = None
    if recheck is not None:
        second = SecondLook(recheck, level, rules, digest=digest, sample=sample, scanned=source.side == "source")
    run = _Run(source, other, level, rules, out, second, sample, progress)
    # Arrow's own allocators keep what they no longer need: a quarter more memory, for nothing
    usual = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        run.look()
    finally:
        pa.set_memory_pool(usual)
    return run.result()


class _Run:
    """One comparison under way."""

    def __init__(
        self, source: Inventory, other: Inventory, level: Level, rules: Rules, out: Path,
        second: SecondLook | None, sample: Sample | None, progress: PROGRESS,
    ) -> None:  # fmt: skip
        self.source, self.other, self.level, self.rules, self.out = source, other, level, rules, out
        self.sample, self.progress = sample, progress
        self.judge = Judge(level, rules, source.ended, sample)
        self.second = second
        self.spill = out / "spill"  # for what does not fit in memory
        self.scopes = (Scope(rules.filters), Scope(rules.filters))
        self.tops = Tops()
        self.hard_links = self.sparse = self.decomposed = self.entries = 0
        self.kinds: set[str] = set()  # of differences
        self.may_collide = False
        self.counts: dict[tuple[str, bool], Count] = {}
        self.first: dict[bool, list[Difference]] = {True: [], False: []}  # that fail, and that do not

    def look(self) -> None:
        """Write what differs, in order, then tell what is the same otherwise spelled and count it all."""
        found = self.out / FOUND
        try:
            with Lines(found) as lines:
                self._differences(lines)
            pa.default_memory_pool().release_unused()
            self._put(self._told(found))
        finally:
            found.unlink(missing_ok=True)
            if self.spill.exists():
                shutil.rmtree(self.spill)

    def _told(self, found: Path) -> Iterator[pa.RecordBatch]:
        """The lines, by other spellings too."""
        twins = names.twins(self.source, self.spill) if self.may_collide else iter(())
        scope = Scope(self.rules.filters)
        both = {d.MISSING, d.EXTRA} <= self.kinds
        pairs = names.pairs(found, self.spill) if both else iter(())
        return names.told(read(found), map(scope.inside, twins), pairs)

    def _differences(self, lines: Lines) -> None:
        columns = COLUMNS[self.level]
        began, expected = time.monotonic(), self.source.rows
        with (
            closing(ahead(gathered(self.source.batches([*columns, "links", "allocated"]), ROWS))) as ours,
            closing(ahead(gathered(self.other.batches(columns), ROWS))) as theirs,
        ):
            for part in joined(self._side(0, ours, columns), self._side(1, theirs, columns)):
                found = self.judge.differences(part)
                if found:
                    table = pa.concat_tables(found).sort_by(d.ORDER)
                    table = table if self.second is None else self.second.at(table, _scanned(part))
                    self.kinds |= set(pc.unique(table["difference"]).to_pylist())
                    lines.write(table)
                self.progress(Progress("both sides", "comparing", self.entries, 0, 0, expected, began))

    def _side(self, side: int, batches: Iterator[pa.RecordBatch], columns: list[str]) -> Iterator[pa.RecordBatch]:
        """One side's rows that take part, counted on their way."""
        for whole in batches:
            batch = self.scopes[side].inside(whole)
            self.tops.add(side, batch)
            if side == 0:
                self.entries += batch.num_rows
                self.hard_links += batch.num_rows - batch.column("links").null_count
                self.sparse += batch.num_rows - batch.column("allocated").null_count
                self.decomposed += names.decomposed(batch.column("key"))
                self.may_collide = self.may_collide or names.may_collide(batch.column("key"))
            yield batch.select(columns)

    def _put(self, batches: Iterator[pa.RecordBatch]) -> None:
        """Write the result's two files, and count."""
        with Lines(self.out / PARQUET) as lines, Spreadsheet(self.out / CSV) as sheet:
            for batch in batches:
                lines.write(batch)
                sheet.write(batch)
                self._count(batch)

    def _count(self, batch: pa.RecordBatch) -> None:
        self.tops.fail(batch)
        for fails, first in self.first.items():
            if len(first) < FIRST:
                chosen = batch.filter(pc.equal(batch["fails"], fails)).slice(0, FIRST - len(first))
                first += [Difference(**line) for line in chosen.to_pylist()]
        sizes = pc.fill_null(pc.coalesce(batch["source_bytes"], batch["other_bytes"]), 0)
        table = pa.table({"difference": batch["difference"], "fails": batch["fails"], "size": sizes})
        grouped = table.group_by(["difference", "fails"]).aggregate([("size", "sum"), ([], "count_all")])
        for row in grouped.to_pylist():
            before = self.counts.get((row["difference"], row["fails"]), Count(row["difference"], 0, 0, row["fails"]))
            count, size = before.lines + row["count_all"], before.bytes + row["size_sum"]
            self.counts[row["difference"], row["fails"]] = Count(row["difference"], count, size, row["fails"])

    def result(self) -> Comparison:
        """What was found."""
        second, compared, lacking = self.second, Counter(self.judge.compared), Counter(self.judge.not_compared)
        if second is not None:
            compared.update(second.compared)
            lacking.update(second.not_compared)
        return Comparison(
            level=self.level,
            source=SideSeen.of(self.source, self.rules.labels[0], self.scopes[0]),
            other=SideSeen.of(self.other, self.rules.labels[1], self.scopes[1]),
            compared=dict(compared),
            not_compared={name: count for name, count in lacking.items() if count},
            counts=tuple(sorted(self.counts.values(), key=lambda count: (not count.fails, -count.lines))),
            first=tuple((self.first[True] + self.first[False])[:FIRST]),
            tops=dict(self.tops.of),
            again=None if second is None else Looked(second.looked, second.settled, second.unlooked),
            sample=self.sample,
            hard_links=self.hard_links,
            sparse=self.sparse,
            decomposed=self.decomposed,
            parquet=self.out / PARQUET,
            csv=self.out / CSV,
        )


def _scanned(part: Joined) -> pa.RecordBatch:
    """The source's rows of a range."""
    rows = [batch for batch in (part.source, part.missing) if batch.num_rows]
    return one(rows) if rows else part.source
