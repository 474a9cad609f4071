"""Do rows that differed still differ, after what was under way has arrived? And what do they hold?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ..databases import Database
from .chase import Restless, chase, live
from .finding import Findings
from .lookup import Shown, by_key, values
from .model import Options, Pair, Progress, Span
from .narrow import narrowed
from .reading import Sides, opened

Report = Callable[[Progress], object]


def look_again(
    source: Database,
    target: Database,
    pairs: Sequence[Pair],
    found: dict[str, Findings],
    options: Options,
    number: int,
    report: Report | None,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> Shown:
    """One round: wait, look in new snapshots at what differed, keep what still does. Answers with the first rows."""
    open_ones = [pair for pair in pairs if pair.name in found and found[pair.name].kept]
    if report is not None:
        left = sum(found[pair.name].differing for pair in open_ones)
        report(Progress(open_ones[0].name, number, options.rounds, 0, left, left, "checking again"))
    began = clock()
    if options.settle is not None:
        options.settle()
    else:
        sleep(options.pause)
    longest = max(1.0, 2 * (clock() - began))  # for longer than what was written took to arrive
    with (
        live(target, options.statement_timeout) as session,
        opened(source, target, replace(options, workers=1)) as sides,
    ):
        restless = [_restless(sides, pair, found[pair.name]) for pair in open_ones if pair.key]
        chase(target, session, sides.common, restless, longest, clock, sleep)
        for table in restless:
            findings = found[table.pair.name]
            findings.kept = [one for one in findings.kept if one.key not in table.came]
            findings.moving = sum(one.times for one in findings.kept if one.key in table.expected)
        for pair in open_ones:
            if not pair.key:  # nothing to look a row up by: the table is read again
                again = narrowed(sides, 0, pair, Span(rows=found[pair.name].source))
                found[pair.name] = again.still(found[pair.name])
        return values(sides, open_ones, found, options.sample)


def _restless(sides: Sides, pair: Pair, findings: Findings) -> Restless:
    """Rows that still differ and that were changed at the source since the last look."""
    before = findings.held
    findings.kept = list(by_key(sides, 0, pair, findings))
    seen = ((one.key, findings.held.get(one.key)) for one in findings.kept)
    return Restless(pair, {key: now for key, now in seen if now is not None and now != before.get(key, now)})
