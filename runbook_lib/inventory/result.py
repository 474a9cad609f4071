"""Is every file accounted for? The verdict, the counts of either side and of each difference, and where the rest is."""

from __future__ import annotations

import io
import unicodedata
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ..display import Plot, Shown, Table, plural, size
from . import differences as d
from .entries import METADATA_KEY
from .reading import Inventory
from .rules import Level
from .sampling import Sample
from .schema import FILE
from .scope import Scope
from .tops import Top

WIDEST = 60  # characters of a key or value on the screen
SHOWN_TOPS = 10
FONTS = ("DejaVu Sans", "Noto Sans CJK JP", "Noto Sans CJK KR", "Apple SD Gothic Neo", "Hiragino Sans", "Malgun Gothic")
LEVELS: dict[str, str] = {
    "names": "Names and kinds",
    "size": "Names, kinds and sizes",
    "metadata": "Names, kinds, sizes and metadata",
    "content": "Names, kinds, sizes, metadata and content",
    "sample": "Names, kinds and sizes of all, and the content of a sample",
}


@dataclass(frozen=True)
class SideSeen:
    """One side, as its inventory has it."""

    label: str
    root: str
    entries: int
    files: int
    bytes: int
    left_out: int  # entries that the task's filters leave out
    datasync_objects: int  # DataSync's own object at the top
    began: datetime
    ended: datetime
    skipped: int = 0  # snapshot folders at the top, which were left out
    vanished: int = 0  # entries that went away during the scan
    not_looked_into: int = 0  # folders that the task's filters leave out

    @classmethod
    def of(cls, inventory: Inventory, label: str, scope: Scope) -> SideSeen:
        """The side of an inventory, after its rows went through the scope."""
        return cls(
            label, inventory.root, inventory.rows, inventory.kinds.get(FILE, 0), inventory.bytes,
            scope.left_out, scope.datasync_objects, inventory.began, inventory.ended,
            *(inventory.facts.get(name, 0) for name in ("skipped", "vanished", "not looked into")),
        )  # fmt: skip

    def remarks(self) -> list[str]:
        """What its counts do not show."""
        notes = []
        if self.datasync_objects:
            notes.append(f"{METADATA_KEY} in {self.label} is DataSync's own, and no difference.")
        if self.skipped:
            notes.append(f"{plural(self.skipped, 'snapshot folder')} at the top of {self.label} left out.")
        if self.vanished:
            entries = plural(self.vanished, "entry")
            notes.append(f"{entries} of {self.label} went away while it was scanned.")
        if self.not_looked_into:
            folders = plural(self.not_looked_into, "folder")
            notes.append(f"{folders} of {self.label} not looked into: the task's filters leave all of it out.")
        return notes


@dataclass(frozen=True)
class Count:
    """How many lines of the result are of one difference, and the bytes of their files."""

    difference: str
    lines: int
    bytes: int
    fails: bool


@dataclass(frozen=True)
class Difference:
    """One line of the result."""

    key: str
    difference: str
    fails: bool
    kind: str
    source: str | None
    other: str | None
    source_bytes: int | None
    other_bytes: int | None


@dataclass(frozen=True)
class Looked:
    """What a second look at the differing keys brought."""

    keys: int
    settled: int  # equal now
    not_looked: int  # beyond the most that are looked at again


@dataclass(frozen=True, repr=False)
class Comparison(Shown):
    """Two inventories, compared. Nothing compared is not the same."""

    level: Level
    source: SideSeen
    other: SideSeen
    compared: dict[str, int]  # entries on both sides, by what was compared; 'files' among them
    not_compared: dict[str, int]  # … because the inventory does not say
    counts: tuple[Count, ...]
    first: tuple[Difference, ...]
    tops: dict[str, Top]
    again: Looked | None
    sample: Sample | None
    hard_links: int
    sparse: int
    parquet: Path
    csv: Path
    decomposed: int = 0  # names at the source that are not in NFC

    @property
    def files(self) -> int:
        """Files that are on both sides."""
        return self.compared.get("files", 0)

    @property
    def failing(self) -> int:
        """Lines that are differences; others are only worth knowing."""
        return sum(count.lines for count in self.counts if count.fails)

    @property
    def ok(self) -> bool:
        """Whether files were compared, and nothing differs, is unreadable or without evidence."""
        return self.files > 0 and not self.failing and not self.not_compared and self._sampled_all

    @property
    def _sampled_all(self) -> bool:
        return self.sample is None or 0 < len(self.sample.keys) == self.compared.get(d.CONTENT, 0)

    @property
    def reason(self) -> str:
        """What was found, in a sentence."""
        if self.failing:
            found = ", ".join(f"{count.lines:,} {count.difference}" for count in self.counts if count.fails)
            return f"{plural(self.failing, 'difference')} between {self._sides}: {found}.{self._sample_taken}"
        if not self.files:
            return f"Not one file was compared: none is in both {self._sides}."
        if self.not_compared:
            lacking = ", ".join(f"{name} of {count:,}" for name, count in self.not_compared.items())
            return f"Not everything could be compared, for an inventory does not have it: {lacking}."
        if not self._sampled_all:
            taken = 0 if self.sample is None else len(self.sample.keys)
            return f"Of a sample of {plural(taken, 'file')}, {self.compared.get(d.CONTENT, 0):,} were compared."
        return f"{LEVELS[self.level]}: the same for {plural(self.files, 'file')}.{self._sample_says}"

    @property
    def _sides(self) -> str:
        return f"{self.source.label} and {self.other.label}"

    @property
    def _sample_says(self) -> str:
        if self.sample is None:
            return ""
        if len(self.sample.keys) == self.sample.of:
            return f"{self._sample_taken[:-1]}, and is the same: that is all of them."
        sure = f"with 95 % confidence fewer than {self.sample.fewer_than:,} of all differ"
        return f"{self._sample_taken[:-1]}, and is the same: {sure}."

    @property
    def _sample_taken(self) -> str:
        if self.sample is None:
            return ""
        of = f"{len(self.sample.keys):,} of {plural(self.sample.of, 'file')}"
        return f" Content was compared of {of}, chosen at random (seed {self.sample.seed})."

    def headline(self) -> str:
        """Verdict first."""
        verdict = "Every file is accounted for." if self.ok else "Not every file is accounted for."
        return "\n".join([f"{verdict} {self.reason}", *self.remarks()])

    def remarks(self) -> list[str]:
        """What a reader has to know beside the verdict."""
        notes = [f"{count.lines:,} {count.difference}, no failure." for count in self.counts if not count.fails]
        if self.again is not None and self.again.keys:
            notes.append(f"{plural(self.again.keys, 'entry')} looked at again, {self.again.settled:,} settled.")
        if self.again is not None and self.again.not_looked:
            notes.append(f"{plural(self.again.not_looked, 'entry')} not looked at again: there are too many.")
        for side in (self.source, self.other):
            notes += side.remarks()
        if self.hard_links:
            notes.append(f"{plural(self.hard_links, 'file')} with several hard links: each name has its own object.")
        if self.sparse:
            notes.append(f"{plural(self.sparse, 'sparse file')} at the source.")
        if self.decomposed:
            names = f"{plural(self.decomposed, 'name')} at the source"
            notes.append(f"{names} not in Unicode's composed form (NFC): S3 keeps the bytes as they are.")
        if self.source.left_out or self.other.left_out:
            notes.append(f"The task's filters leave out {self.source.left_out:,} and {self.other.left_out:,}.")
        return notes

    def tables(self) -> list[Table]:
        """The sides, the differences by kind and by top-level folder, and the first ones."""
        tables = [self._both()]
        if self.counts:
            rows = [(c.difference, f"{c.lines:,}", size(c.bytes), "yes" if c.fails else "no") for c in self.counts]
            tables.append(Table(("Difference", "Entries", "Bytes", "Fails"), rows, limit=len(rows)))
        tops = [(_short(name), *top.lines()) for name, top in self.spread()]
        columns = ("Top-level folder", self.source.label, self.other.label, "Fails", "Most of it")
        if tops:
            tables.append(Table(columns, tops, limit=SHOWN_TOPS, rest=": the largest 100 are in comparison.json"))
        if self.first:
            lines = [
                (_short(line.key), line.difference, _short(line.source or ""), _short(line.other or ""))
                for line in self.first
            ]
            total = sum(count.lines for count in self.counts)
            title = f"{len(lines)} of {total:,}, failing first; all are in {self.csv.name} and {self.parquet.name}"
            tables.append(Table(("Key", "Difference", *self._labels), lines, limit=len(lines), title=title))
        return tables

    @property
    def _labels(self) -> tuple[str, str]:
        return self.source.label, self.other.label

    def _both(self) -> Table:
        rows = [
            (
                side.label, side.root, f"{side.entries:,}", f"{side.files:,}", size(side.bytes),
                side.began.isoformat(timespec="seconds"), side.ended.isoformat(timespec="seconds"),
            ) for side in (self.source, self.other)
        ]  # fmt: skip
        return Table(("Side", "Root", "Entries", "Files", "Bytes", "Looked at from", "until"), rows)

    def spread(self) -> list[tuple[str, Top]]:
        """Top-level folders, those with most that fails first, then the largest of the source."""
        return sorted(
            self.tops.items(), key=lambda one: (-sum(one[1].failing.values()), -one[1].bytes[0], one[0])
        )  # fmt: skip

    def worst(self) -> list[tuple[str, Top]]:
        """Top-level folders in which something fails, the worst first."""
        bad = [(name, top) for name, top in self.tops.items() if top.failing]
        return sorted(bad, key=lambda one: (-sum(one[1].failing.values()), one[0]))

    def body(self) -> dict[str, Any]:
        """The same for machines."""
        sides = {
            name: asdict(side) | {"began": side.began.isoformat(), "ended": side.ended.isoformat()}
            for name, side in (("source", self.source), ("other", self.other))
        }
        sampled = self.sample and {
            "files": len(self.sample.keys), "of": self.sample.of, "seed": self.sample.seed,
            "fewer_than": self.sample.fewer_than if self.ok else None,
        }  # fmt: skip
        return {
            "ok": self.ok, "reason": self.reason, "level": self.level, **sides,
            "compared": self.compared, "not_compared": self.not_compared,
            "counts": [asdict(count) for count in self.counts], "first": [asdict(line) for line in self.first],
            "top_level_folders": {name: asdict(top) for name, top in self.spread()[:100]},
            "again": self.again and asdict(self.again), "sample": sampled,
            "hard_links": self.hard_links, "sparse": self.sparse, "decomposed": self.decomposed,
            "files": {"parquet": self.parquet.name, "csv": self.csv.name},
        }  # fmt: skip

    def plot(self) -> Plot:
        """Where the differences are: a bar for each top-level folder, in parts by difference."""
        return plotted(self.worst())


def plotted(worst: list[tuple[str, Top]]) -> Plot:
    """Bars of the worst folders."""
    from matplotlib import font_manager
    from matplotlib.figure import Figure

    shown = worst[:SHOWN_TOPS]
    figure = Figure(figsize=(6.4, 1.0 + 0.45 * max(len(shown), 1)), layout="constrained")
    axes = figure.subplots()
    done = [0] * len(shown)
    fonts = [name for name in FONTS if name in {font.name for font in font_manager.fontManager.ttflist}]
    drawable = ord("\uffff") if len(fonts) > 1 else 0x2E7F  # below are the alphabets that the first font has
    labels = [
        _short(name).replace("$", r"\$") if all(ord(letter) <= drawable for letter in name) else f"folder {at}"
        for at, (name, _) in enumerate(shown, 1)
    ]
    for difference in sorted({name for _, top in shown for name in top.failing}):
        counts = [top.failing.get(difference, 0) for _, top in shown]
        axes.barh(range(len(shown)), counts, left=done, label=difference)
        done = [before + count for before, count in zip(done, counts, strict=True)]
    axes.set_yticks(range(len(shown)), labels, fontfamily=fonts)
    axes.invert_yaxis()
    axes.set_xlabel("entries that differ")
    if shown:
        axes.legend(fontsize="small")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    said = ", ".join(
        (
            f"{name} {sum(top.failing.values()):,}"
            if label != f"folder {at}"
            else f"{label} is {name} {sum(top.failing.values()):,}"
        )
        for at, (label, (name, top)) in enumerate(zip(labels, shown, strict=True), 1)
    )
    more = f", and {len(worst) - len(shown):,} further folders" if len(worst) > len(shown) else ""
    sentence = f"Differences by top-level folder: {said}{more}." if shown else "No differences: the plot is empty."
    return Plot(sentence, picture.getvalue())


def _short(text: str) -> str:
    """A text on one line, with what cannot be printed written out; spellings that look alike are told apart."""
    plain = text if text.isprintable() else text.encode("unicode_escape").decode()
    if not unicodedata.is_normalized("NFC", plain):
        plain = f"(decomposed) {plain}"
    return plain if len(plain) <= WIDEST else plain[: WIDEST - 1] + "…"
