"""Which rows differ between two lists of keys and hashes?"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .model import Key, Why

KEPT = 100_000  # differing rows of a table that are remembered and looked at again; more are counted only
NOTED = 10_000  # keys of a table of which it is noted what the source holds: of more, nobody asks which never rest

Row = tuple[Key, bytes, int]  # key, hash, how many
Held = tuple[bytes, ...]  # the hashes of the rows at a key, sorted, as often as they are there


@dataclass(frozen=True)
class Found:
    """A key whose rows are not the same."""

    key: Key
    kind: Why
    times: int = 1


@dataclass
class Findings:
    """What a table's ranges brought so far."""

    source: int = 0  # rows
    target: int = 0
    kept: list[Found] = field(default_factory=list)
    more: Counter[str] = field(default_factory=Counter)  # by kind, beyond those that are kept
    held: dict[Key, Held] = field(default_factory=dict)  # by the source at these keys, when it was last seen
    moving: int = 0  # of the kept ones: what the source holds was changed between the last two looks

    def add(self, other: Findings) -> None:
        """Take in another range's."""
        self.source += other.source
        self.target += other.target
        self.more.update(other.more)
        self.take(other.kept)
        self.note(other.held)

    def take(self, found: Iterable[Found]) -> None:
        """Keep what there is room for, count the rest."""
        for one in found:
            if self.room:
                self.kept.append(one)
            else:
                self.more[one.kind] += one.times

    @property
    def room(self) -> int:
        """How many more are remembered."""
        return KEPT - len(self.kept)

    def note(self, source: Mapping[Key, Held]) -> None:
        """Remember what the source holds at these keys, as far as there is room."""
        if len(self.held) < NOTED:
            self.held |= source

    def still(self, earlier: Findings) -> Findings:
        """Those that an earlier look found too: what was under way then has arrived, what is under way now will.

        All of them where a look found more than is kept: which of these are the same nobody knows.
        """
        if self.more or earlier.more:
            return self
        before = {(one.key, one.kind): one.times for one in earlier.kept}
        self.kept = [
            replace(one, times=min(one.times, before[one.key, one.kind]))
            for one in self.kept if (one.key, one.kind) in before
        ]  # fmt: skip
        return self

    def count(self, kind: Why) -> int:
        """How many rows are of a kind."""
        return sum(found.times for found in self.kept if found.kind == kind) + self.more[kind]

    @property
    def differing(self) -> int:
        """Rows that are not the same."""
        return sum(found.times for found in self.kept) + self.more.total()


def unlike(source: Sequence[Any], target: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """What is on one side only; all of it where a side has equal ones, as how many there are counts."""
    first, second = set(source), set(target)
    if len(first) < len(source) or len(second) < len(target):
        return list(source), list(target)
    return list(first - second), list(second - first)


def differing(source: Sequence[Row], target: Sequence[Row]) -> list[Found]:
    """What is not on both sides alike, by key. A key may occur more than once: a target without its primary key."""
    source, target = unlike(source, target)
    here = {(key, hashed): count for key, hashed, count in _added(source)}
    left: dict[Key, list[int]] = defaultdict(lambda: [0, 0])
    for key, hashed, count in _added(target):
        there = here.pop((key, hashed), 0)
        if count > there:
            left[key][1] += count - there
        elif there > count:
            left[key][0] += there - count
    for (key, _), count in here.items():
        left[key][0] += count
    found = []
    for key, (missing, extra) in left.items():
        both = min(missing, extra)
        kinds: tuple[tuple[Why, int], ...] = (
            ("different", both), ("missing on target", missing - both), ("extra on target", extra - both),
        )  # fmt: skip
        found += [Found(key, kind, times) for kind, times in kinds if times]
    return found


def held(keys: Collection[Key], rows: Iterable[Row]) -> dict[Key, Held]:
    """What one side's rows hold at each of these keys."""
    found: dict[Key, list[bytes]] = {key: [] for key in keys}
    for key, hashed, times in rows:
        if key in found:
            found[key] += [hashed] * times
    return {key: tuple(sorted(hashes)) for key, hashes in found.items()}


def _added(rows: Iterable[Row]) -> Iterable[Row]:
    counts: Counter[tuple[Key, bytes]] = Counter()
    for key, hashed, count in rows:
        counts[key, hashed] += count
    return ((key, hashed, count) for (key, hashed), count in counts.items())
