"""Are the rows of these tables the same on both sides? Counted and digested in the databases, looked at where not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import replace

from ..databases import Database, translated
from ..display import plural
from ..errors import DatabaseError
from . import ranges
from .checkpoint import Checkpoint
from .dialect import Sample
from .finding import Findings
from .lookup import Shown, set_aside, values
from .model import Options, Pair, Progress, Span
from .narrow import both, narrowed
from .pairing import may_be_empty
from .reading import Sides, opened
from .recheck import Report, look_again
from .result import Comparison, TableResult


def compare(
    source: Database,
    target: Database,
    pairs: Sequence[Pair],
    options: Options | None = None,
    progress: Report | None = None,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Comparison:
    """Compare every pair; changes nothing. Both sides are read of one moment each, then what differs again, live."""
    options = options or Options()
    with ExitStack() as held:
        with opened(source, target, options) as sides:
            how = (sides.common, sides.source.server.version, sides.target.server.version)
            checkpoint = held.enter_context(Checkpoint(options.checkpoint, source, target, pairs, how))
            pairs = [_keyed(sides, pair) for pair in pairs]
            for number, pair in enumerate(pairs, 1):
                if _comparable(pair):
                    told = Progress(pair.name, number, len(pairs), 0, 0, 0)
                    _Table(pair, sides, options, checkpoint, told, progress).compare()
            found = {pair.name: checkpoint.findings[pair.name] for pair in pairs if _comparable(pair)}
            shown = {} if options.rounds else values(sides, pairs, found, options.sample)
        rounds = 0
        while rounds < options.rounds and any(findings.kept for findings in found.values()):
            rounds += 1
            shown = look_again(source, target, pairs, found, options, rounds, progress, clock, sleep)
        checkpoint.end()
    results = [_result(pair, found.get(pair.name), shown, options) for pair in pairs]
    return Comparison(tuple(results), options.method, rounds, checkpoint.moments)


def _result(pair: Pair, findings: Findings | None, shown: Shown, options: Options) -> TableResult:
    result = TableResult(pair.name, method=options.method, problem=_problem(pair), keyed=bool(pair.key))
    if findings is None:
        return result
    return replace(
        result,
        source_rows=findings.source, target_rows=findings.target,
        different=findings.count("different"), missing=findings.count("missing on target"),
        extra=findings.count("extra on target"), differences=tuple(shown.get(pair.name, ())),
        rechecked=not findings.more, moving=findings.moving,
        may_be_empty=may_be_empty(pair.name, options.empty),
    )  # fmt: skip


def refuse_itself(source: Database, target: Database, pairs: Sequence[Pair]) -> None:
    """DatabaseError when a table would be compared with itself, as after a mistyped address: that proves nothing."""
    if (source.host, source.port, source.name) != (target.host, target.port, target.name):
        return
    for pair in pairs:
        here, there = pair.source, pair.target
        if here and there and (here.schema, here.name) == (there.schema, there.name):
            raise DatabaseError(f"{source} is the source and the target: {pair.name} would be compared with itself.")


def _keyed(sides: Sides, pair: Pair) -> Pair:
    """The pair, with a problem when rows lack their key, as on a target that has lost its primary key."""
    if not _comparable(pair):
        return pair
    said = []
    for label, side, view in zip(("source", "target"), (sides.source, sides.target), both(pair), strict=True):
        if any(part.column.nullable for part in view.key):
            (count,) = side.ask(0, side.dialect.keyless(view))
            if count:
                names = ", ".join(part.column.name for part in view.key)
                said.append(f"{plural(count, 'row')} on the {label} without a key ({names} is NULL)")
    return replace(pair, problem="; ".join(said)) if said else pair


def _comparable(pair: Pair) -> bool:
    return not pair.problem and pair.source is not None and pair.target is not None and bool(pair.columns)


def _problem(pair: Pair) -> str:
    """What keeps a pair from being the same whatever its rows are."""
    if pair.problem:
        return pair.problem
    if pair.source is None:
        return "not on the source"
    if pair.target is None:
        return "not on the target"
    columns = [
        f"{', '.join(names)} only on the {side}"
        for side, names in (("source", pair.only_source), ("target", pair.only_target)) if names
    ]  # fmt: skip
    return f"columns differ: {'; '.join(columns)}" if columns else ""


class _Table:
    """One table while it is compared."""

    def __init__(
        self, pair: Pair, sides: Sides, options: Options, checkpoint: Checkpoint, told: Progress, report: Report | None
    ) -> None:
        self.pair, self.sides, self.options, self.checkpoint, self.report = pair, sides, options, checkpoint, report
        self.told = told
        self.findings = checkpoint.findings[pair.name]
        self.lock = threading.Lock()
        self.stop = threading.Event()

    def compare(self) -> None:
        """All ranges that are left, by as many workers as they are worth."""
        name = self.pair.name
        if name not in self.checkpoint.spans:
            self.checkpoint.begin(name, self._split())
        spans = self.checkpoint.spans[name]
        todo = ranges.Ranges(spans, self.checkpoint.finished[name], 1 if self.options.gentle else ranges.LARGEST)
        self.told = replace(self.told, expected=sum(span.rows for span in spans))
        self._tell()
        workers = self.sides.workers(self.told.expected - self.findings.source)
        with ThreadPoolExecutor(workers, "compare") as pool:
            try:
                working = [pool.submit(self._work, number, todo) for number in range(workers)]
                for done in as_completed(working):
                    done.result()
            except BaseException:
                self.stop.set()
                self.sides.cancel()
                raise

    def _split(self) -> list[Span]:
        gentle, alike = self.options.gentle, self.sides.common.bytes_alike
        return ranges.split(self.pair, self._sample(), gentle, bytes_alike=alike)

    def _sample(self) -> Sample:
        """Keys of the source that both sides' columns can hold."""
        source, views = self.sides.source, both(self.pair)
        with translated(source.database):
            sample = source.dialect.sample(source.sessions[0], views[0], ranges.SAMPLED)
        dialects = (source.dialect, self.sides.target.dialect)
        keys = [
            key for key in ranges.candidates(self.pair, sample, self.options.gentle)
            if all(all(map(by.holds, view.key, key)) for by, view in zip(dialects, views, strict=True))
        ]  # fmt: skip
        return replace(sample, keys=keys)

    def _work(self, number: int, todo: ranges.Ranges) -> None:
        """One worker: range after range."""
        while not self.stop.is_set():
            task = todo.take()
            if task is None:
                return
            began = time.monotonic()
            part = self._range(number, task)
            todo.found(task, not part.differing)
            with self.lock:
                self.findings.add(part)
                self.checkpoint.finish(self.pair.name, task.first, task.last, part)
                self._tell()
            if self.options.gentle:
                self.stop.wait(time.monotonic() - began)

    def _range(self, number: int, task: ranges.Task) -> Findings:
        """One range: as a whole first, unless differences are expected; then where it is not the same."""
        if not task.expecting:
            common = self.sides.common
            here, there = self.sides.ask(number, both(self.pair), lambda by, view: by.digest(view, task.span, common))
            if here == there:
                return Findings(here[0][0], there[0][0])
        part = Findings()
        for span in task.parts:
            part.add(narrowed(self.sides, number, self.pair, span))
        set_aside(self.sides, number, self.pair, part, self.findings.room)
        return part

    def _tell(self) -> None:
        if self.report is not None:
            self.report(replace(self.told, rows=self.findings.source, differing=self.findings.differing))
