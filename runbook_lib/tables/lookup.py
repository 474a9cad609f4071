"""What do both sides hold at these keys? Asked of an index, a batch of keys at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from .dialect import Dialect, Statement
from .finding import Findings, Found, Row, differing, held
from .model import Difference, Key, Pair, View
from .narrow import both
from .reading import Sides

BATCH = 1_000  # keys looked up at a time
Shown = dict[str, list[Difference]]


def set_aside(sides: Sides, number: int, pair: Pair, part: Findings, room: int) -> None:
    """Only count what there is no room for, and rows that their key does not find again in the very snapshot that
    they were found in: never to be seen again is no proof that they have arrived. What the source holds is noted."""
    left = Findings(kept=part.kept[:room])
    seen = set(by_key(sides, number, pair, left) if pair.key else left.kept)
    part.note(left.held)
    for one in part.kept:
        if one not in seen:
            part.more[one.kind] += one.times
    part.kept = [one for one in part.kept if one in seen]


def by_key(sides: Sides, number: int, pair: Pair, findings: Findings) -> Iterator[Found]:
    """Those that differ in these snapshots; what the source holds is noted."""
    findings.held = {}
    for keys in batches([one.key for one in findings.kept]):
        here, there = sides.ask(number, both(pair), _lookup(sides, keys, False))
        asked = set(keys)  # an index may find more: to some types and collations 'a' and 'a ' are one
        rows, others = ([row for row in counted(side) if row[0] in asked] for side in (here, there))
        findings.note(held(keys, rows))
        yield from differing(rows, others)


def batches(keys: Sequence[Key]) -> Iterator[list[Key]]:
    """Each key once, so many at a time as one statement looks up."""
    once = list(dict.fromkeys(keys))
    return (once[start : start + BATCH] for start in range(0, len(once), BATCH))


def counted(answer: Sequence[tuple[Key, bytes, object]]) -> list[Row]:
    """The rows of a lookup, which has each for itself."""
    return [(key, hashed, 1) for key, hashed, _ in answer]


def values(sides: Sides, pairs: Sequence[Pair], found: Mapping[str, Findings], count: int) -> Shown:
    """The first rows that differ in each table, with what both sides hold."""
    return {
        pair.name: _differences(sides, pair, sorted(found[pair.name].kept, key=_order)[:count])
        for pair in pairs if pair.name in found and found[pair.name].kept
    }  # fmt: skip


def _order(found: Found) -> tuple[tuple[int, str], ...]:
    """By key, numbers by value."""
    return tuple((int(part), "") if part.isascii() and part.isdigit() else (-1, part) for part in found.key)


def _differences(sides: Sides, pair: Pair, found: Sequence[Found]) -> list[Difference]:
    keys = list(dict.fromkeys(one.key for one in found))
    here, there = (
        {key: dict(zip(pair.columns, row, strict=True)) for key, _, row in side}
        for side in sides.ask(0, both(pair), _lookup(sides, keys, True))
    )
    return [
        Difference(
            one.kind,
            dict(zip(pair.key, one.key, strict=True)) if pair.key else {},
            here.get(one.key) if one.kind != "extra on target" else None,
            there.get(one.key) if one.kind != "missing on target" else None,
            one.times,
        )
        for one in found
    ]


def _lookup(sides: Sides, keys: Sequence[Key], asked: bool) -> Callable[[Dialect, View], Statement]:
    return lambda by, view: by.lookup(view, sides.common, keys, asked)
