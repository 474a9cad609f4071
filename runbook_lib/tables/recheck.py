"""Do rows that differed still differ, after what was under way has arrived? And what do they hold?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from ..databases import Database
from .dialect import Dialect, Statement
from .finding import Findings, Found, Row, differing
from .model import Difference, Key, Options, Pair, Progress, Span, View
from .narrow import both, narrowed
from .reading import Sides, opened, read

Report = Callable[[Progress], object]
BATCH = 1_000  # keys looked up at a time
NOTED = 10_000  # keys of which it is noted what the source holds: of more, nobody asks which rows never rest
LOOKS = 100  # at the target, for rows that never rest
Shown = dict[str, list[Difference]]


@dataclass(frozen=True)
class Chase:
    """For how long a row that never rests is waited for: for longer than what was written took to arrive."""

    seconds: float
    statement_timeout: float  # seconds


def set_aside(sides: Sides, pairs: Sequence[Pair], found: Mapping[str, Findings]) -> None:
    """Rows that cannot be found by their key, still in the first look, are only counted: never to be seen again is no
    proof that they have arrived."""
    for pair in pairs:
        if pair.key and pair.name in found:
            findings = found[pair.name]
            seen = set(_by_key(sides, pair, findings))
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
    began = time.monotonic()
    if options.settle is not None:
        options.settle()
    else:
        time.sleep(options.pause)
    chase = Chase(max(1.0, 2 * (time.monotonic() - began)), options.statement_timeout)
    with opened(source, target, options) as sides:
        for pair in open_ones:
            findings = found[pair.name]
            if pair.key:
                before = findings.held
                findings.kept = list(_by_key(sides, pair, findings))
                moved = {key for key, held in findings.held.items() if before.get(key, held) != held}
                findings.kept = _chased(sides, pair, findings, moved, chase)
                findings.moving = sum(one.times for one in findings.kept if one.key in moved)
            else:  # nothing to look a row up by: the table is read again
                again = narrowed(sides, 0, pair, Span(rows=findings.source), options.method)
                found[pair.name] = again.still(findings)
        return values(sides, open_ones, found, options.sample)


def _by_key(sides: Sides, pair: Pair, findings: Findings) -> Iterator[Found]:
    """Those that differ in these snapshots; what the source holds is noted."""
    keys = list(dict.fromkeys(one.key for one in findings.kept))
    findings.held = {}
    for start in range(0, len(keys), BATCH):
        here, there = sides.ask(0, both(pair), _lookup(sides, keys[start : start + BATCH], False))
        rows, others = (_rows(side) for side in (here, there))
        if len(keys) <= NOTED:
            findings.held |= _held(keys[start : start + BATCH], rows)
        yield from differing(rows, others)


def _rows(answer: Sequence[tuple[Key, bytes, object]]) -> list[Row]:
    return [(key, md5, 1) for key, md5, _ in answer]


def _held(keys: Sequence[Key], rows: Sequence[Row]) -> dict[Key, frozenset[bytes]]:
    """What is there at each of these keys."""
    found: dict[Key, set[bytes]] = {key: set() for key in keys}
    for key, md5, _ in rows:
        if key in found:
            found[key].add(md5)
    return {key: frozenset(held) for key, held in found.items()}


def _chased(sides: Sides, pair: Pair, findings: Findings, moved: Set[Key], how: Chase) -> list[Found]:
    """Those left when the target is looked at again and again: a row that never rests has to come by there.

    What the source held in this round's snapshot, taken when all before it had arrived, is still to come or just gone.
    """
    left = list(findings.kept)
    keys = sorted({one.key for one in left} & moved)[:BATCH]
    if not keys:
        return left
    view, target = both(pair)[1], sides.target
    with target.database.session(statement_timeout=how.statement_timeout) as session:  # each statement's own moment
        target.dialect.prepare(session)
        for _ in range(LOOKS):
            statement = target.dialect.lookup(view, sides.common, keys, False)
            there = _held(keys, _rows(read(target.database, session, statement)))
            came = {key for key in keys if there[key] == findings.held[key]}
            left = [one for one in left if one.key not in came]
            keys = [key for key in keys if key not in came]
            if not keys:
                break
            time.sleep(how.seconds / LOOKS)
    return left


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
