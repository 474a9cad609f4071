"""How is what was seen spread over the top-level folders? Counts and bytes of each, of either side."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..display import size
from .runs import below
from .schema import FILE, KINDS

MOST = 10_000  # folders that are counted one by one
REST = "(further folders)"
LOOSE = "(not in a folder)"
FEW = 64  # folders of a batch: finding where each ends is quicker than to ask every key


@dataclass
class Top:
    """One top-level folder: entries and bytes of both sides, and the lines that fail in it, by difference."""

    entries: list[int] = field(default_factory=lambda: [0, 0])
    bytes: list[int] = field(default_factory=lambda: [0, 0])
    failing: dict[str, int] = field(default_factory=dict)
    failing_bytes: dict[str, int] = field(default_factory=dict)

    def lines(self) -> tuple[str, str, str, str]:
        """Entries of either side, what fails, and what most of that is; as texts, with bytes."""
        seen = [f"{count:,} ({size(held)})" for count, held in zip(self.entries, self.bytes, strict=True)]
        if not self.failing:
            return seen[0], seen[1], "nothing", ""
        most = max(self.failing, key=lambda name: self.failing[name])
        held = sum(self.failing_bytes.values())
        return seen[0], seen[1], f"{sum(self.failing.values()):,} ({size(held)})", most


@dataclass
class Tops:
    """Top-level folders, by name."""

    of: dict[str, Top] = field(default_factory=dict)

    def at(self, name: str) -> Top:
        """One folder's; those beyond the most together."""
        if name not in self.of and len(self.of) >= MOST:
            name = REST
        return self.of.setdefault(name, Top())

    def add(self, side: int, batch: pa.RecordBatch) -> None:
        """Count sorted rows with `key`, `kind` and `size` of a side."""
        if not batch.num_rows:
            return
        files = pc.equal(batch.column("kind").indices, KINDS.index(FILE))
        sizes = pc.if_else(files, batch.column("size"), 0)
        runs = _runs(batch.column("key"))
        if runs is not None:
            for name, begin, end in runs:
                self._add(side, name, end - begin, pc.sum(sizes.slice(begin, end - begin)).as_py() or 0)
            return
        names = names_of(batch.column("key"))
        grouped = (
            pa.table({"top": names, "size": sizes}).group_by("top").aggregate([("size", "sum"), ([], "count_all")])
        )
        for row in grouped.to_pylist():
            self._add(side, row["top"], row["count_all"], row["size_sum"] or 0)

    def _add(self, side: int, name: str, entries: int, held: int) -> None:
        top = self.at(name)
        top.entries[side] += entries
        top.bytes[side] += held

    def fail(self, lines: pa.RecordBatch) -> None:
        """Count lines of the result that fail."""
        held = pc.coalesce(lines["source_bytes"], lines["other_bytes"])
        bad = pa.table({"top": names_of(lines["key"]), "difference": lines["difference"], "bytes": held})
        grouped = bad.filter(lines["fails"]).group_by(["top", "difference"])
        for row in grouped.aggregate([([], "count_all"), ("bytes", "sum")]).to_pylist():
            top, name = self.at(row["top"]), row["difference"]
            top.failing[name] = top.failing.get(name, 0) + row["count_all"]
            top.failing_bytes[name] = top.failing_bytes.get(name, 0) + (row["bytes_sum"] or 0)


def _runs(keys: pa.Array) -> list[tuple[str, int, int]] | None:
    """Where each top-level folder of sorted keys begins and ends, found by halving; None: there are many."""
    runs: list[tuple[str, int, int]] = []
    at = 0
    while at < len(keys):
        if len(runs) == FEW:
            return None
        name = _top(keys[at].as_py())
        end = at + 1 if name == LOOSE else below(keys, name[:-1] + "0")  # '0' comes after '/'
        runs.append((name, at, end))
        at = end
    return runs


def names_of(keys: pa.Array) -> pa.Array:
    """The top-level folder of each key."""
    at = pc.find_substring(keys, "/")
    if len(keys) and pc.min(at).as_py() == pc.max(at).as_py() and at[0].as_py() >= 0:
        return pc.binary_slice(keys.cast(pa.binary()), 0, at[0].as_py() + 1).cast(pa.string())
    parts = pc.list_element(pc.split_pattern(keys, "/", max_splits=1), 0)
    inside = np.asarray(at.to_numpy(zero_copy_only=False)) >= 0
    return pc.if_else(pa.array(inside), pc.binary_join_element_wise(parts, "", "/"), LOOSE)


def _top(key: str) -> str:
    name, slash, _ = key.partition("/")
    return name + slash if slash else LOOSE
