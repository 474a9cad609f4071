"""What does a MySQL schema hold whose counterpart a PostgreSQL target lacks? Compared by signature, not by text.

The engines print definitions each in its own words, and DMS and conversion tools rename freely. So an index is there
when one that begins with the same columns (unique: exactly these) is, a foreign key when one over the same columns is;
names are compared without regard to case. What has no translation that can be trusted (expressions, prefixes,
defaults, checks, views, triggers, routines) is told by its name, without DDL.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..databases import Database
from .catalog import Item, require_tables

Columns = tuple[str, ...]


@dataclass
class Known:
    """What the target has, by lower-case names; values are the names as the target's SQL has them."""

    tables: dict[tuple[str, str], str] = field(default_factory=dict)
    columns: dict[tuple[str, str, str], str] = field(default_factory=dict)
    defaults: set[tuple[str, str, str]] = field(default_factory=set)
    generators: set[tuple[str, str, str]] = field(default_factory=set)
    indexes: dict[tuple[str, str], list[tuple[Columns, bool]]] = field(default_factory=dict)
    foreign_keys: set[tuple[str, str, Columns, str, Columns]] = field(default_factory=set)
    names: set[tuple[str, str, str]] = field(default_factory=set)  # kind, schema, name of views, checks, …

    def full(self, schema: str, table: str) -> str:
        """The table's name as SQL has it."""
        known = self.tables.get((schema.lower(), table.lower()))
        return known or f"{quoted(schema)}.{quoted(table)}"

    def column(self, schema: str, table: str, column: str) -> str:
        """The column's name as SQL has it."""
        return self.columns.get((schema.lower(), table.lower(), column.lower())) or quoted(column)

    def listed(self, schema: str, table: str, columns: Columns) -> str:
        """Columns as SQL lists them."""
        return ", ".join(self.column(schema, table, column) for column in columns)


def quoted(name: str) -> str:
    """A name as PostgreSQL's SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def missing(source: Database, target: Database, schemas: Sequence[str]) -> tuple[list[Item], int]:
    """What the target lacks, and how many objects of the source were looked at."""
    known = _known(target, [name.lower() for name in schemas])
    lost: list[Item] = []
    looked_at = 0
    with source.session(snapshot=True) as session:
        found = list(_objects(_Reader(session, list(schemas)), known))
    require_tables(source, schemas, {item.schema for item, _ in found if item.kind == "table"})
    gone = {(item.schema, item.name) for item, there in found if item.kind == "table" and not there}
    for item, there in found:
        if item.kind != "table" and (item.schema, item.table) in gone:
            continue
        looked_at += 1
        lost += [] if there else [item]
    return lost, looked_at


class _Reader:
    """The information schema of a MySQL server, for some of its databases."""

    def __init__(self, session: Any, schemas: list[str]) -> None:
        self.session = session
        self.schemas = schemas

    def __call__(self, query: str) -> list[tuple[Any, ...]]:
        """The rows of a query; `%s` stands for the schemas."""
        with self.session.cursor() as cursor:
            cursor.execute(query, (self.schemas,))
            return list(cursor.fetchall())


def _objects(read: _Reader, known: Known) -> Iterator[tuple[Item, bool]]:
    """Every object of the source and whether the target has its counterpart."""
    tables = read("select table_schema, table_name, table_type from information_schema.tables where table_schema in %s")
    for schema, name, kind in tables:
        if kind == "VIEW":
            yield Item("view", schema, "", name, ""), ("view", schema.lower(), name.lower()) in known.names
        elif kind == "BASE TABLE":
            yield Item("table", schema, "", name, ""), (schema.lower(), name.lower()) in known.tables
    yield from _columns(read, known, {(schema, name) for schema, name, kind in tables if kind == "BASE TABLE"})
    yield from _indexes(read, known)
    yield from _foreign_keys(read, known)
    for kind, query in (("check", CHECKS), ("trigger", TRIGGERS), ("function", ROUTINES)):
        for schema, table, name in sorted(set(read(query))):
            yield Item(kind, schema, table, name, ""), (kind, schema.lower(), name.lower()) in known.names


def _columns(read: _Reader, known: Known, tables: set[tuple[str, str]]) -> Iterator[tuple[Item, bool]]:
    for schema, table, name, default, extra in read(COLUMNS):
        if (schema, table) not in tables:
            continue
        place = (schema.lower(), table.lower(), name.lower())
        yield Item("column", schema, table, name, ""), place in known.columns
        if "auto_increment" in extra:
            alter = f"alter table {known.full(schema, table)} alter column {known.column(schema, table, name)}"
            ddl = f"{alter} add generated by default as identity"
            yield Item("default", schema, table, name, "", ddl), place in known.generators
        elif default is not None and str(default).upper() != "NULL":
            yield Item("default", schema, table, name, ""), place in known.defaults


def _indexes(read: _Reader, known: Known) -> Iterator[tuple[Item, bool]]:
    grouped: dict[tuple[str, str, str], list[tuple[Any, ...]]] = {}
    for schema, table, name, *part in read(INDEXES):
        grouped.setdefault((schema, table, name), []).append(tuple(part))
    for (schema, table, name), parts in grouped.items():
        unique = not parts[0][0]
        kind = "primary key" if name == "PRIMARY" else "unique index" if unique else "index"
        columns: Columns = tuple(str(column) for _, column, _, _ in parts)
        plain = all(column is not None and prefix is None and how == "BTREE" for _, column, prefix, how in parts)
        listed = known.listed(schema, table, columns)
        ddl = f"CREATE {kind.upper()} {quoted(f'{table}_{name}')} ON {known.full(schema, table)} ({listed})"
        if kind == "primary key":
            ddl = f"alter table {known.full(schema, table)} add primary key ({listed})"
        wanted = tuple(column.lower() for column in columns)
        there = any(
            others == wanted if unique else others[: len(wanted)] == wanted
            for others, also_unique in known.indexes.get((schema.lower(), table.lower()), [])
            if also_unique or not unique
        )
        yield Item(kind, schema, table, name, "", ddl if plain else ""), there and plain


def _foreign_keys(read: _Reader, known: Known) -> Iterator[tuple[Item, bool]]:
    grouped: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for *key, column, other in read(FOREIGN_KEYS):
        grouped.setdefault(tuple(key), []).append((column, other))
    for (schema, table, name, to_schema, to_table, on_update, on_delete), pairs in grouped.items():
        columns, others = tuple(column for column, _ in pairs), tuple(other for _, other in pairs)
        rules = "".join(
            f" on {event} {rule.lower()}" for event, rule in (("update", on_update), ("delete", on_delete))
            if rule not in ("NO ACTION", "RESTRICT")
        )  # fmt: skip
        ddl = (
            f"alter table {known.full(schema, table)} add constraint {quoted(name)} foreign key "
            f"({known.listed(schema, table, columns)}) references {known.full(to_schema, to_table)} "
            f"({known.listed(to_schema, to_table, others)}){rules}"
        )
        lower = tuple(c.lower() for c in columns), tuple(o.lower() for o in others)
        wanted = (schema.lower(), table.lower(), lower[0], f"{to_schema}.{to_table}".lower(), lower[1])
        yield Item("foreign key", schema, table, name, "", ddl), wanted in known.foreign_keys


def _known(target: Database, schemas: list[str]) -> Known:
    known = Known()
    with target.session(snapshot=True) as session:
        session.execute("set local search_path = ''")
        for schema, table, path, column, quoted_column, has_default, generated in session.execute(
            TARGET_COLUMNS, (schemas,)
        ):
            known.tables[schema, table] = path
            known.columns[schema, table, column] = quoted_column
            known.defaults |= {(schema, table, column)} if has_default else set()
            known.generators |= {(schema, table, column)} if generated else set()
        for schema, table, unique, columns in session.execute(TARGET_INDEXES, (schemas,)):
            known.indexes.setdefault((schema, table), []).append((tuple(columns), unique))
        for schema, table, columns, other, others in session.execute(TARGET_FOREIGN_KEYS, (schemas,)):
            known.foreign_keys.add((schema, table, tuple(columns), other, tuple(others)))
        known.names |= {tuple(row) for row in session.execute(TARGET_NAMES, (schemas,) * 4)}
    return known


COLUMNS = """
select table_schema, table_name, column_name, column_default, extra from information_schema.columns
where table_schema in %s order by table_schema, table_name, ordinal_position
"""
INDEXES = """
select table_schema, table_name, index_name, non_unique, column_name, sub_part, index_type
from information_schema.statistics where table_schema in %s
order by table_schema, table_name, index_name, seq_in_index
"""
FOREIGN_KEYS = """
select k.table_schema, k.table_name, k.constraint_name, k.referenced_table_schema, k.referenced_table_name,
       r.update_rule, r.delete_rule, k.column_name, k.referenced_column_name
from information_schema.key_column_usage k join information_schema.referential_constraints r
     on r.constraint_schema = k.constraint_schema and r.constraint_name = k.constraint_name
     and r.table_name = k.table_name
where k.table_schema in %s and k.referenced_table_name is not null
order by k.table_schema, k.table_name, k.constraint_name, k.ordinal_position
"""
# MariaDB makes a check of its own for each json column.
CHECKS = """
select t.table_schema, t.table_name, t.constraint_name
from information_schema.table_constraints t join information_schema.check_constraints c
     on c.constraint_schema = t.constraint_schema and c.constraint_name = t.constraint_name
where t.table_schema in %s and t.constraint_type = 'CHECK' and c.check_clause not like 'json_valid(%%'
"""
TRIGGERS = """
select trigger_schema, event_object_table, trigger_name from information_schema.triggers where trigger_schema in %s
"""
ROUTINES = "select routine_schema, '', routine_name from information_schema.routines where routine_schema in %s"

TARGET_COLUMNS = """
select lower(n.nspname), lower(c.relname), c.oid::regclass::text, lower(a.attname), quote_ident(a.attname),
       d.oid is not null or a.attidentity <> '',
       a.attidentity <> '' or coalesce(pg_get_expr(d.adbin, d.adrelid), '') like 'nextval(%%'
from pg_class c join pg_namespace n on n.oid = c.relnamespace
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
where lower(n.nspname) = any(%s) and c.relkind in ('r', 'p')
"""
TARGET_INDEXES = """
select lower(n.nspname), lower(c.relname), i.indisunique and i.indimmediate,
       array(select lower(a.attname) from unnest(i.indkey::int[]) with ordinality k (attnum, place)
             join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
             where k.place <= i.indnkeyatts order by k.place)
from pg_index i join pg_class c on c.oid = i.indrelid join pg_namespace n on n.oid = c.relnamespace
where lower(n.nspname) = any(%s) and i.indisvalid and i.indpred is null and i.indexprs is null
"""
TARGET_FOREIGN_KEYS = """
select lower(n.nspname), lower(c.relname),
       array(select lower(a.attname) from unnest(k.conkey) with ordinality u (attnum, place)
             join pg_attribute a on a.attrelid = k.conrelid and a.attnum = u.attnum order by u.place),
       lower(fn.nspname || '.' || fc.relname),
       array(select lower(a.attname) from unnest(k.confkey) with ordinality u (attnum, place)
             join pg_attribute a on a.attrelid = k.confrelid and a.attnum = u.attnum order by u.place)
from pg_constraint k join pg_class c on c.oid = k.conrelid join pg_namespace n on n.oid = c.relnamespace
join pg_class fc on fc.oid = k.confrelid join pg_namespace fn on fn.oid = fc.relnamespace
where lower(n.nspname) = any(%s) and k.contype = 'f'
"""
TARGET_NAMES = """
select 'view', lower(n.nspname), lower(c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace
where lower(n.nspname) = any(%s) and c.relkind in ('v', 'm')
union select 'check', lower(n.nspname), lower(k.conname) from pg_constraint k
join pg_namespace n on n.oid = k.connamespace where lower(n.nspname) = any(%s) and k.contype = 'c'
union select 'trigger', lower(n.nspname), lower(g.tgname) from pg_trigger g join pg_class c on c.oid = g.tgrelid
join pg_namespace n on n.oid = c.relnamespace where lower(n.nspname) = any(%s) and not g.tgisinternal
union select 'function', lower(n.nspname), lower(p.proname) from pg_proc p
join pg_namespace n on n.oid = p.pronamespace where lower(n.nspname) = any(%s)
"""
