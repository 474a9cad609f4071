"""Would the target's next key collide? Replication copies keys and never moves a sequence, so the first insert after
the cutover takes a key that is already there. Looks without advancing anything; `repair` sets what is behind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from ..databases import Database
from ..display import Shown, Table, plural
from ..errors import DatabaseError
from .catalog import require_tables

Column = tuple[str, str, str]  # schema, table, column
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


@dataclass
class _Found:
    """A sequence (of MySQL: an AUTO_INCREMENT) as one side has it."""

    schema: str
    name: str
    path: str  # as SQL has it
    last: int
    begun: bool  # whether `last` was given out
    increment: int = 1
    lowest: int = 1
    highest: int = 2**63 - 1
    cycles: bool = False
    columns: list[Column] = field(default_factory=list)
    called: set[Column] = field(default_factory=set)  # the columns whose default or identity asks it

    @property
    def used(self) -> int:
        """The last value given out; before the first one, the one before it."""
        return self.last if self.begun else self.last - (1 if self.increment > 0 else -1)

    @property
    def next(self) -> int:
        """What it would give out; beyond its end when it has nothing left."""
        following = self.last + self.increment if self.begun else self.last
        if self.cycles and not self.lowest <= following <= self.highest:
            return self.lowest if self.increment > 0 else self.highest
        return following


def positions(source: Database, target: Database, schemas: Sequence[str], headroom: int = 1000) -> Sequences:
    """Every sequence that the source's schemas hold, on both sides. Looks only: no `nextval`.

    `headroom`: values that the proposed `setval` leaves free beyond the furthest one in use, so that a source that is
    still live does not put the target behind again at once.
    """
    if target.engine != "postgresql":
        raise DatabaseError(f"{target}: sequences that may be behind are known of PostgreSQL targets only.")
    if source.engine == "mysql":  # DMS and conversion tools change the case of its names
        here = _read_mysql(source, schemas)
        there = _read_postgresql(target, schemas, folded=True, used=here.used)
    else:
        here = _read_postgresql(source, schemas)
        there = _read_postgresql(target, [*schemas, *{found.schema for found in here.sequences}], used=here.used)
    require_tables(source, schemas, here.schemas)
    found = [
        _position(ours, theirs, columns, here, there, headroom)
        for ours in here.sequences for theirs, columns in there.counterparts(ours)
    ]  # fmt: skip
    return Sequences(tuple(found), tuple(schemas))


def _position(
    ours: _Found, theirs: _Found | None, columns: Sequence[Column], here: _Side, there: _Side, headroom: int
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


def _setval(ours: _Found, theirs: _Found, furthest: int, end: int, headroom: int) -> str:
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


@dataclass
class _Side:
    """What one side has: its sequences, and the least and the greatest key of the columns that use them."""

    schemas: set[str]
    sequences: list[_Found]
    ends: dict[Column, tuple[int, int]]

    @property
    def used(self) -> set[Column]:
        """The columns that take their values from a sequence."""
        return {column for found in self.sequences for column in found.columns}

    def counterparts(self, ours: _Found) -> list[tuple[_Found | None, list[Column]]]:
        """Each sequence that gives keys to one of its columns, and to which; else the one of the same name, or none.

        What a column's default asks counts, and what a column merely owns only where its default asks none.
        """
        shared: list[tuple[_Found | None, list[Column]]] = []
        for found in self.sequences:
            columns = [
                column for column in ours.columns
                if column in found.called or (column in found.columns and column not in self.called)
            ]  # fmt: skip
            shared += [(found, columns)] if columns else []
        if len(shared) > 1:
            return shared
        named = [found for found in self.sequences if (found.schema, found.name) == (ours.schema, ours.name)]
        return [(next(iter([*(found for found, _ in shared), *named]), None), ours.columns)]

    @property
    def called(self) -> set[Column]:
        """The columns whose default or identity asks a sequence."""
        return {column for found in self.sequences for column in found.called}

    def outermost(self, columns: Sequence[Column], up: bool) -> int | None:
        """The furthest key in some columns."""
        ends = [self.ends[column] for column in columns if column in self.ends]
        if not ends:
            return None
        return max(high for _, high in ends) if up else min(low for low, _ in ends)


def _read_postgresql(
    database: Database, schemas: Sequence[str], *, folded: bool = False, used: set[Column] | None = None
) -> _Side:
    """Positions come from the sequences themselves: `pg_sequences` is silent where a privilege is missing."""

    def name(text: str) -> str:
        return text.lower() if folded else text

    parameters = {"schemas": [*schemas, *(name(schema) for schema in schemas)]}
    found: dict[str, _Found] = {}
    with database.session(snapshot=True) as session:
        session.execute("set local search_path = ''; set local row_security = off")  # rather an error than fewer keys
        for schema, own, path, *options, table, column, calls in session.execute(SEQUENCES, parameters):
            sequence = found.setdefault(path, _Found(name(schema), name(own), path, 0, False, *options))
            if column:
                place = (name(table[0]), name(table[1]), name(column))
                sequence.columns.append(place)
                sequence.called |= {place} if calls else set()
        for sequence in found.values():
            query = f"select last_value, is_called from {sequence.path}"
            sequence.last, sequence.begun = session.execute(query).fetchone()
        side = _Side(set(), list(found.values()), {})
        wanted = side.used | (used or set())
        parameters["schemas"] += sorted({schema for schema, _, _ in wanted})
        for schema, table, column, path, quoted, integral in session.execute(COLUMNS, parameters).fetchall():
            side.schemas.add(schema)
            key = (name(schema), name(table), name(column))
            if key in wanted and integral:
                low, high = session.execute(f"select min({quoted}), max({quoted}) from {path}").fetchone()
                side.ends |= {key: (int(low), int(high))} if high is not None else {}
    return side


def _read_mysql(database: Database, schemas: Sequence[str]) -> _Side:
    """AUTO_INCREMENT columns; MySQL 8 tells their position from a cache of a day unless told not to."""
    side = _Side(set(), [], {})
    with database.session(snapshot=True) as session, session.cursor() as cursor:
        cursor.execute("show variables like 'information_schema_stats_expiry'")
        if cursor.fetchone():
            cursor.execute("set session information_schema_stats_expiry = 0")
        cursor.execute(AUTO_INCREMENTS, (list(schemas),))
        for schema, table, column, following in cursor.fetchall():
            side.schemas.add(schema)
            if column is None:
                continue
            key = (schema.lower(), table.lower(), column.lower())
            path = ".".join(f"`{part.replace('`', '``')}`" for part in (schema, table))
            quoted = f"`{column.replace('`', '``')}`"
            cursor.execute(f"select min({quoted}), max({quoted}) from {path}")
            low, high = cursor.fetchone()
            side.ends |= {key: (int(low), int(high))} if high is not None else {}
            side.sequences.append(_Found(key[0], f"{key[1]}.{key[2]}", path, int(following or 1), False, columns=[key]))
    return side


# A sequence gives keys to the column that owns it, and to each column whose default asks it.
SEQUENCES = """
select n.nspname, c.relname, s.seqrelid::regclass::text, s.seqincrement, s.seqmin, s.seqmax, s.seqcycle,
       array[tn.nspname, t.relname], a.attname, coalesce(users.calls, false)
from pg_sequence s join pg_class c on c.oid = s.seqrelid join pg_namespace n on n.oid = c.relnamespace
left join lateral (
    select relation, number, bool_or(calls) as calls from (
        select d.refobjid as relation, d.refobjsubid as number, d.deptype = 'i' as calls from pg_depend d
        where d.classid = 'pg_class'::regclass and d.objid = s.seqrelid and d.deptype in ('a', 'i')
          and d.refobjsubid > 0
        union all
        select e.adrelid, e.adnum, true from pg_depend d join pg_attrdef e on e.oid = d.objid
        where d.classid = 'pg_attrdef'::regclass and d.refclassid = 'pg_class'::regclass and d.refobjid = s.seqrelid
    ) every group by relation, number
) users on true
left join pg_class t on t.oid = users.relation left join pg_namespace tn on tn.oid = t.relnamespace
left join pg_attribute a on a.attrelid = t.oid and a.attnum = users.number
where n.nspname = any(%(schemas)s) or tn.nspname = any(%(schemas)s) order by 1, 2, 8, 9
"""
COLUMNS = """
select n.nspname, c.relname, a.attname, c.oid::regclass::text, quote_ident(a.attname),
       a.atttypid in ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'numeric'::regtype)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where n.nspname = any(%(schemas)s) and c.relkind in ('r', 'p')
"""
AUTO_INCREMENTS = """
select t.table_schema, t.table_name, c.column_name, t.auto_increment
from information_schema.tables t left join information_schema.columns c
     on c.table_schema = t.table_schema and c.table_name = t.table_name and c.extra like '%%auto_increment%%'
where t.table_schema in %s and t.table_type = 'BASE TABLE' order by 1, 2
"""


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
