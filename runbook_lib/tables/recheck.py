"""Do rows that differed still differ, after what was under way has arrived? And what do they hold?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from ..databases import Database
from .dialect import Dialect, Statement
from .finding import Findings, Found, differing
from .model import Difference, Key, Options, Pair, Progress, Span, View
from .narrow import both, narrowed
from .reading import Sides, opened

Report = Callable[[Progress], object]
BATCH = 1_000  # keys looked up at a time
Shown = dict[str, list[Difference]]


def set_aside(sides: Sides, pairs: Sequence[Pair], found: Mapping[str, Findings]) -> None:
    """Rows that cannot be found by their key, still in the first look, are only counted: never to be seen again is no
    proof that they have arrived."""
    for pair in pairs:
        if pair.key and pair.name in found:
            findings = found[pair.name]
            seen = set(_by_key(sides, pair, findings.kept))
            for one in findings.kept:
                if one not in seen:
                    findings.more[one.kind] += one.times
            findings.kept = [one for one in findings.kept if one in seen]


def look_again(
    source: Database,
    target: Database,
    pairs: Sequence[Pair],
    found: dict[str, Findings],
    options: Options,
    number: int,
    report: Report | None,
) -> Shown:
    """One round: wait, look in new snapshots at what differed, keep what still does. Answers with the first rows."""
    open_ones = [pair for pair in pairs if pair.name in found and found[pair.name].kept]
    if report is not None:
        left = sum(found[pair.name].differing for pair in open_ones)
        report(Progress(open_ones[0].name, number, options.rounds, 0, left, left, "checking again"))
    if options.settle is not None:
        options.settle()
    else:
        time.sleep(options.pause)
    with opened(source, target, options) as sides:
        for pair in open_ones:
            findings = found[pair.name]
            if pair.key:
                findings.kept = list(_by_key(sides, pair, findings.kept))
            else:  # nothing to look a row up by: the table is read again
                again = narrowed(sides, 0, pair, Span(rows=findings.source), options.method)
                found[pair.name] = again.still(findings)
        return values(sides, open_ones, found, options.sample)


def _by_key(sides: Sides, pair: Pair, found: Sequence[Found]) -> Iterator[Found]:
    keys = list(dict.fromkeys(one.key for one in found))
    for start in range(0, len(keys), BATCH):
        here, there = sides.ask(0, both(pair), _lookup(sides, keys[start : start + BATCH], False))
        rows, others = ([(key, md5, 1) for key, md5, _ in side] for side in (here, there))
        yield from differing(rows, others)


def _lookup(sides: Sides, keys: Sequence[Key], asked: bool) -> Callable[[Dialect, View], Statement]:
    return lambda by, view: by.lookup(view, sides.common, keys, asked)


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
