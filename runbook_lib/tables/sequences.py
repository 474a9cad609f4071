"""Would the target's next key collide? Replication copies keys and never moves a sequence, so the first insert after
the cutover takes a key that is already there. Looks without advancing anything; `repair` sets what is behind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ..databases import Database
from ..display import Shown, Table, plural
from ..errors import DatabaseError
from .catalog import require_tables
from .sequence_sides import Column, KeySequence, SequenceSide, read_mysql, read_postgresql

FINE = ("ahead", "cycles")


@dataclass(frozen=True)
class Position:
    """Where a sequence of the source and its counterpart on the target stand."""

    schema: str
    name: str
    columns: tuple[str, ...]  # table.column, which take their values from it
    increment: int
    source_last: int  # the last value given out on the source; the one before the first when none was
    source_max: int | None  # the furthest key that is there; None without rows or without a column
    target_max: int | None
    target_next: int | None  # what the target would give out next; None when it has no such sequence
    target_end: int | None = None  # the last value that the target's sequence can give out
    counterpart: str = ""  # the target's sequence, as SQL has it
    setval: str = ""  # the statement that sets it; '' when there is nothing to set or no room left
    cycles: bool = False  # on the source: it gives its values out again by design

    @property
    def furthest(self) -> int:
        """The furthest value in use on either side."""
        values = [value for value in (self.source_last, self.source_max, self.target_max) if value is not None]
        return max(values) if self.increment > 0 else min(values)

    @property
    def verdict(self) -> str:
        """'ahead' is how it should be, 'cycles' is not judged; else 'missing', 'behind' or 'used up'."""
        if self.target_next is None or self.target_end is None:
            return "missing"
        if self.cycles:
            return "cycles"
        direction = 1 if self.increment > 0 else -1
        if (self.target_next - self.target_end) * direction > 0:
            return "used up"
        if (self.target_next - self.furthest) * direction > 0:
            return "ahead"
        return "behind" if self.setval else "used up"


@dataclass(frozen=True, repr=False)
class Sequences(Shown):
    """Every sequence of the source beside its counterpart."""

    positions: tuple[Position, ...]
    schemas: tuple[str, ...]

    @property
    def wrong(self) -> tuple[Position, ...]:
        """Those that would collide, or are not there."""
        return tuple(position for position in self.positions if position.verdict not in FINE)

    @property
    def ok(self) -> bool:
        """A finding: no sequence is behind. A schema whose tables use none is fine."""
        return not self.wrong

    @property
    def reason(self) -> str:
        """Which are behind, and by how much."""
        where = f"of the schema {', '.join(self.schemas)}"
        if not self.positions:
            return f"no table {where} takes keys from a sequence"
        if self.ok:
            judged = [position for position in self.positions if position.verdict == "ahead"]
            if not judged:
                return f"every sequence {where} cycles, and none was judged"
            return f"all {plural(len(judged), 'sequence')} {where} are beyond every key in use"
        said = [_said(position) for position in self.wrong]
        more = f"; and {len(said) - 3} more" if len(said) > 3 else ""
        return "; ".join(said[:3]) + more

    def headline(self) -> str:
        """The verdict, and what was not judged."""
        notes = [
            f"Note: {p.schema}.{p.name} cycles: it gives its values out again by design, so it was not judged."
            for p in self.positions if p.verdict == "cycles"
        ]  # fmt: skip
        verdict = "No sequence is behind" if self.ok else "The next insert would fail"
        return "\n".join([f"{verdict}: {self.reason}.", *notes])

    def tables(self) -> list[Table]:
        """Positions, and the statements that mend what is behind."""
        rows = [
            (f"{p.schema}.{p.name}", ", ".join(p.columns), p.source_last, p.source_max, p.target_max,
             p.target_next, p.verdict) for p in self.positions
        ]  # fmt: skip
        heads = ("Sequence", "Gives keys to", "Source last", "Source max", "Target max", "Target next", "Verdict")
        found = [Table(heads, rows, limit=40)] if rows else []
        statements = [(p.setval,) for p in self.wrong if p.setval]
        return [*found, Table(("To run on the target",), statements, limit=40)] if statements else found


def _said(position: Position) -> str:
    """What is wrong with one, with the target's own name for it."""
    name = f"{position.schema}.{position.name}"
    where = "on the target"
    if position.counterpart.replace('"', "") != name:
        where += f", where it is {position.counterpart}"
    stands = f"it would give out {position.target_next} next, and {position.furthest} is in use"
    state = {
        "missing": "is missing on the target",
        "behind": f"is behind {where}: {stands}",
        "used up": f"has no value left {where}: it ends at {position.target_end}, {stands}",
    }[position.verdict]
    return f"{name} {state}"


def positions(source: Database, target: Database, schemas: Sequence[str], headroom: int = 1000) -> Sequences:
    """Every sequence that the source's schemas hold, on both sides. Looks only: no `nextval`.

    `headroom`: values that the proposed `setval` leaves free beyond the furthest one in use, so that a source that is
    still live does not put the target behind again at once.
    """
    if target.engine != "postgresql":
        raise DatabaseError(f"{target}: sequences that may be behind are known of PostgreSQL targets only.")
    if source.engine == "mysql":  # DMS and conversion tools change the case of its names
        here = read_mysql(source, schemas)
        there = read_postgresql(target, schemas, folded=True, used=here.used)
    else:
        here = read_postgresql(source, schemas)
        there = read_postgresql(target, [*schemas, *{found.schema for found in here.sequences}], used=here.used)
    require_tables(source, schemas, here.schemas)
    found = [
        _position(ours, theirs, columns, here, there, headroom)
        for ours in here.sequences for theirs, columns in there.counterparts(ours)
    ]  # fmt: skip
    return Sequences(tuple(found), tuple(schemas))


def _position(
    ours: KeySequence,
    theirs: KeySequence | None,
    columns: Sequence[Column],
    here: SequenceSide,
    there: SequenceSide,
    headroom: int,
) -> Position:
    up = ours.increment > 0
    seen = Position(
        ours.schema, ours.name, tuple(f"{table}.{column}" for _, table, column in columns), ours.increment,
        ours.used, here.outermost(columns, up), there.outermost(columns, up), None, cycles=ours.cycles,
    )  # fmt: skip
    if theirs is None:
        return seen
    end = theirs.highest if up else theirs.lowest
    setval = _setval(ours, theirs, seen.furthest, end, headroom)
    return replace(seen, target_next=theirs.next, target_end=end, counterpart=theirs.path, setval=setval)


def _setval(ours: KeySequence, theirs: KeySequence, furthest: int, end: int, headroom: int) -> str:
    """The statement that sets it beyond the furthest value; '' when nothing would be left to give out after it."""
    steps = -((ours.used - furthest) // ours.increment)  # in step with the source: what is odd there stays odd
    value = ours.used + steps * ours.increment
    left = (end - value) // ours.increment
    value += min(headroom, max(left, 0) // 2) * ours.increment
    value = max(theirs.lowest, min(value, theirs.highest))
    if (value - furthest) * ours.increment < 0 or not theirs.lowest <= value + theirs.increment <= theirs.highest:
        return ""
    name, behind = theirs.path.replace("'", "''"), "<" if ours.increment > 0 else ">"
    return (
        f"select setval('{name}', {value}) from {theirs.path} "
        f"where last_value {behind} {value} or last_value = {value} and not is_called"
    )


def repair(target: Database, positions: Iterable[Position], *, execute: bool = True) -> list[str]:
    """Set those that are behind; the statements that ran (with `execute=False`: that would run).

    A sequence that has moved on by itself meanwhile is not set back. DatabaseError for one that is missing or used up.
    """
    behind = [position for position in positions if position.verdict not in FINE]
    for position in behind:
        if not position.setval:
            what = "missing: make it first (`objects.missing`)" if position.verdict == "missing" else "used up"
            raise DatabaseError(f"{target}: the sequence {position.schema}.{position.name} is {what}. Nothing was set.")
    statements = [position.setval for position in behind]
    if execute and behind:
        with target.session(read_only=False) as session:
            for statement in statements:
                session.execute(statement)
    return statements
