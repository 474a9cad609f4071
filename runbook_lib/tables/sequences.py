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
    setval: str = ""  # the statement that sets it; '' when there is nothing to set or no room left
    room: bool = True  # whether the target's sequence reaches as far

    @property
    def furthest(self) -> int:
        """The furthest value in use on either side."""
        values = [value for value in (self.source_last, self.source_max, self.target_max) if value is not None]
        return max(values) if self.increment > 0 else min(values)

    @property
    def verdict(self) -> str:
        """'ahead' is how it should be; else 'missing', 'behind' or 'used up'."""
        if self.target_next is None:
            return "missing"
        if (self.target_next - self.furthest) * (1 if self.increment > 0 else -1) > 0:
            return "ahead"
        return "behind" if self.room else "used up"


@dataclass(frozen=True, repr=False)
class Sequences(Shown):
    """Every sequence of the source beside its counterpart."""

    positions: tuple[Position, ...]
    schemas: tuple[str, ...]

    @property
    def wrong(self) -> tuple[Position, ...]:
        """Those that would collide, or are not there."""
        return tuple(position for position in self.positions if position.verdict != "ahead")

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
            return f"all {plural(len(self.positions), 'sequence')} {where} are beyond every key in use"
        said = []
        for position in self.wrong:
            state = {
                "missing": "is missing on the target",
                "behind": f"is behind on the target: it would give out {position.target_next} next, and "
                f"{position.furthest} is in use",
                "used up": f"has no value left on the target: its type ends before {position.furthest}",
            }[position.verdict]
            said.append(f"{position.schema}.{position.name} {state}")
        more = f"; and {len(said) - 3} more" if len(said) > 3 else ""
        return "; ".join(said[:3]) + more

    def headline(self) -> str:
        """The verdict."""
        return f"{'No sequence is behind' if self.ok else 'The next insert would fail'}: {self.reason}."

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


@dataclass
class _Found:
    """A sequence (of MySQL: an AUTO_INCREMENT) as one side has it."""

    schema: str
    name: str
    path: str  # as SQL has it
    last: int
    called: bool
    increment: int = 1
    lowest: int = 1
    highest: int = 2**63 - 1
    columns: list[Column] = field(default_factory=list)

    @property
    def used(self) -> int:
        """The last value given out; before the first one, the one before it."""
        return self.last if self.called else self.last - (1 if self.increment > 0 else -1)

    @property
    def next(self) -> int:
        """What it would give out."""
        return self.last + self.increment if self.called else self.last


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
        there = _read_postgresql(target, schemas, used=here.used)
    require_tables(source, schemas, here.schemas)
    return Sequences(tuple(_position(found, here, there, headroom) for found in here.sequences), tuple(schemas))


def _position(ours: _Found, here: _Side, there: _Side, headroom: int) -> Position:
    theirs = there.counterpart(ours)
    seen = Position(
        ours.schema, ours.name, tuple(f"{table}.{column}" for _, table, column in ours.columns), ours.increment,
        ours.used, here.outermost(ours), there.outermost(ours), theirs.next if theirs else None,
    )  # fmt: skip
    if theirs is None:
        return seen
    steps = -((ours.used - seen.furthest) // ours.increment)  # in step with the source: what is odd there stays odd
    value = ours.used + (steps + headroom) * ours.increment
    value = max(theirs.lowest, min(value, theirs.highest))
    room = theirs.lowest <= seen.furthest + ours.increment <= theirs.highest
    name, behind = theirs.path.replace("'", "''"), "<" if ours.increment > 0 else ">"
    setval = f"select setval('{name}', {value}) from {theirs.path} where last_value {behind} {value}" if room else ""
    return replace(seen, setval=setval, room=room)


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

    def counterpart(self, ours: _Found) -> _Found | None:
        """The sequence that gives keys to the same column, or has the same name."""
        shared = [found for found in self.sequences if set(found.columns) & set(ours.columns)]
        named = [found for found in self.sequences if (found.schema, found.name) == (ours.schema, ours.name)]
        return next(iter([*shared, *named]), None)

    def outermost(self, ours: _Found) -> int | None:
        """The furthest key in the columns of a sequence of the source."""
        ends = [self.ends[column] for column in ours.columns if column in self.ends]
        if not ends:
            return None
        return max(high for _, high in ends) if ours.increment > 0 else min(low for low, _ in ends)


def _read_postgresql(
    database: Database, schemas: Sequence[str], *, folded: bool = False, used: set[Column] | None = None
) -> _Side:
    """Positions come from the sequences themselves: `pg_sequences` is silent where a privilege is missing."""

    def name(text: str) -> str:
        return text.lower() if folded else text

    parameters = {"schemas": [*schemas, *(name(schema) for schema in schemas)]}
    found: dict[str, _Found] = {}
    with database.session(snapshot=True) as session:
        session.execute("set local search_path = ''")
        for schema, own, path, *options, table, column in session.execute(SEQUENCES, parameters):
            sequence = found.setdefault(path, _Found(name(schema), name(own), path, 0, False, *options))
            sequence.columns += [(name(table[0]), name(table[1]), name(column))] if column else []
        for sequence in found.values():
            query = f"select last_value, is_called from {sequence.path}"
            sequence.last, sequence.called = session.execute(query).fetchone()
        side = _Side(set(), list(found.values()), {})
        wanted = side.used | (used or set())
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
select n.nspname, c.relname, s.seqrelid::regclass::text, s.seqincrement, s.seqmin, s.seqmax,
       array[tn.nspname, t.relname], a.attname
from pg_sequence s join pg_class c on c.oid = s.seqrelid join pg_namespace n on n.oid = c.relnamespace
left join lateral (
    select d.refobjid as relation, d.refobjsubid as number from pg_depend d
    where d.classid = 'pg_class'::regclass and d.objid = s.seqrelid and d.deptype in ('a', 'i') and d.refobjsubid > 0
    union
    select e.adrelid, e.adnum from pg_depend d join pg_attrdef e on e.oid = d.objid
    where d.classid = 'pg_attrdef'::regclass and d.refclassid = 'pg_class'::regclass and d.refobjid = s.seqrelid
) users on true
left join pg_class t on t.oid = users.relation left join pg_namespace tn on tn.oid = t.relnamespace
left join pg_attribute a on a.attrelid = t.oid and a.attnum = users.number
where n.nspname = any(%(schemas)s) order by 1, 2, 7, 8
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
    behind = [position for position in positions if position.verdict != "ahead"]
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
