"""Which sequences does one side have, where do they stand, and how far are the keys that they gave out? Only looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..databases import Database

Column = tuple[str, str, str]  # schema, table, column


@dataclass
class KeySequence:
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


@dataclass
class SequenceSide:
    """What one side has: its sequences, and the least and the greatest key of the columns that use them."""

    schemas: set[str]
    sequences: list[KeySequence]
    ends: dict[Column, tuple[int, int]]

    @property
    def used(self) -> set[Column]:
        """The columns that take their values from a sequence."""
        return {column for found in self.sequences for column in found.columns}

    def counterparts(self, ours: KeySequence) -> list[tuple[KeySequence | None, list[Column]]]:
        """Each sequence that gives keys to one of its columns, and to which; else the one of the same name, or none.

        What a column's default asks counts, and what a column merely owns only where its default asks none.
        """
        shared: list[tuple[KeySequence | None, list[Column]]] = []
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


def read_postgresql(
    database: Database, schemas: Sequence[str], *, folded: bool = False, used: set[Column] | None = None
) -> SequenceSide:
    """Positions come from the sequences themselves: `pg_sequences` is silent where a privilege is missing."""

    def name(text: str) -> str:
        return text.lower() if folded else text

    parameters = {"schemas": [*schemas, *(name(schema) for schema in schemas)]}
    found: dict[str, KeySequence] = {}
    with database.session(snapshot=True) as session:
        session.execute("set local search_path = ''; set local row_security = off")  # rather an error than fewer keys
        for schema, own, path, *options, table, column, calls in session.execute(SEQUENCES, parameters):
            sequence = found.setdefault(path, KeySequence(name(schema), name(own), path, 0, False, *options))
            if column:
                place = (name(table[0]), name(table[1]), name(column))
                sequence.columns.append(place)
                sequence.called |= {place} if calls else set()
        for sequence in found.values():
            query = f"select last_value, is_called from {sequence.path}"
            sequence.last, sequence.begun = session.execute(query).fetchone()
        side = SequenceSide(set(), list(found.values()), {})
        wanted = side.used | (used or set())
        parameters["schemas"] += sorted({schema for schema, _, _ in wanted})
        for schema, table, column, path, quoted, integral in session.execute(COLUMNS, parameters).fetchall():
            side.schemas.add(schema)
            key = (name(schema), name(table), name(column))
            if key in wanted and integral:
                low, high = session.execute(f"select min({quoted}), max({quoted}) from {path}").fetchone()
                side.ends |= {key: (int(low), int(high))} if high is not None else {}
    return side


def read_mysql(database: Database, schemas: Sequence[str]) -> SequenceSide:
    """AUTO_INCREMENT columns; MySQL 8 tells their position from a cache of a day unless told not to."""
    side = SequenceSide(set(), [], {})
    with database.session(snapshot=True) as session, session.cursor() as cursor:
        cursor.execute("show variables like 'information_schema_stats_expiry'")
        if cursor.fetchone():
            cursor.execute("set session information_schema_stats_expiry = 0")
        cursor.execute(AUTO_INCREMENTS, (list(schemas),))
        for schema, table, column, following in sorted(
            cursor.fetchall(), key=lambda row: (row[0].lower(), row[1].lower())
        ):
            side.schemas.add(schema)
            if column is None:
                continue
            key = (schema.lower(), table.lower(), column.lower())
            path = ".".join(f"`{part.replace('`', '``')}`" for part in (schema, table))
            quoted = f"`{column.replace('`', '``')}`"
            cursor.execute(f"select min({quoted}), max({quoted}) from {path}")
            low, high = cursor.fetchone()
            side.ends |= {key: (int(low), int(high))} if high is not None else {}
            side.sequences.append(
                KeySequence(key[0], f"{key[1]}.{key[2]}", path, int(following or 1), False, columns=[key])
            )
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
where t.table_schema in %s and t.table_type = 'BASE TABLE'
"""
