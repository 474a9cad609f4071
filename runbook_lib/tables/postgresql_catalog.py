"""Which tables does a PostgreSQL database have, with which columns, types and keys?"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from .model import Column, Kind, Table

KINDS: dict[str, Kind] = {
    "int2": "integer", "int4": "integer", "int8": "integer", "numeric": "numeric",
    "float4": "float", "float8": "float", "bool": "boolean", "bytea": "bytes", "date": "date", "time": "time",
    "timestamp": "timestamp", "timestamptz": "timestamptz", "uuid": "uuid", "jsonb": "json", "json": "json text",
    "text": "text", "varchar": "text", "bpchar": "text", "name": "text", "citext": "text",
}  # fmt: skip
# Exact in their own text, and told apart by it; they can be compared with the same type only.
EXACT = frozenset({
    "interval", "timetz", "inet", "cidr", "macaddr", "macaddr8", "bit", "varbit", "xml", "tsvector", "tsquery",
    "pg_lsn", "oid", "char", "point", "line", "lseg", "box", "path", "polygon", "circle",
})  # fmt: skip
# Types whose order is the same on every server, text by its bytes: their keys can be split into ranges.
ORDERED = frozenset({
    "int2", "int4", "int8", "numeric", "date", "time", "timestamp", "timestamptz", "uuid", "bytea", "text", "varchar",
})  # fmt: skip
TYPES = """
select t.oid, typname, typtype, typbasetype, case when typcategory = 'A' then typelem else 0 end, nspname,
       format_type(t.oid, -1)
from pg_type t join pg_namespace n on n.oid = typnamespace where typtype in ('b', 'd', 'e', 'r', 'm')"""
LABELS = "select enumtypid, array_agg(enumlabel::text order by enumsortorder) from pg_enum group by enumtypid"
# NOT NULL that is not valid: attnotnull is set, and rows that were there before may hold NULL (PostgreSQL 18).
UNPROVEN = """from pg_constraint v
       where v.conrelid = a.attrelid and v.contype = 'n' and not v.convalidated and v.conkey = array[a.attnum]"""
# Rows of a child or partition are rows of the table: NOT NULL may not reach them, and is not enforced of foreign ones.
LOOSE = f"""
with recursive heirs (top, relation) as (
    select inhparent, inhrelid from pg_inherits
    union select heirs.top, i.inhrelid from heirs join pg_inherits i on i.inhparent = heirs.relation),
loose (top, name) as (
    select heirs.top, a.attname from heirs join pg_class c on c.oid = heirs.relation
    join pg_attribute a on a.attrelid = heirs.relation and a.attnum > 0 and not a.attisdropped
    where c.relkind = 'f' or not a.attnotnull or exists (select {UNPROVEN}))"""
MAY_BE_NULL = f"""(not a.attnotnull or exists (select {UNPROVEN})
       or (a.attrelid, a.attname) in (select top, name from loose))"""
COLUMNS = f"""{LOOSE}
select c.oid, n.nspname, c.relname, c.relkind = 'f', a.attnum, a.attname, format_type(a.atttypid, a.atttypmod),
       a.atttypid, {MAY_BE_NULL},
       coalesce(l.collname in ('C', 'POSIX', 'ucs_basic', 'pg_c_utf8')
                or l.collname = 'default' and d.datcollate in ('C', 'POSIX', 'C.UTF-8', 'C.utf8')
                   and coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') in ('c', 'b'), true)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
left join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
left join pg_collation l on l.oid = a.attcollation
join pg_database d on d.datname = current_database()
where c.relkind in ('r', 'p', 'f') and not c.relispartition and c.relpersistence <> 't'
  and n.nspname not in ('information_schema', 'pg_catalog', 'pg_toast')
order by n.nspname, c.relname, a.attnum"""
KEYS = f"""{LOOSE}
select i.indrelid, i.indkey::int2[], i.indnkeyatts
from pg_index i
where i.indisunique and i.indisvalid and i.indimmediate and i.indpred is null and i.indexprs is null
  and not exists (select from pg_attribute a where a.attrelid = i.indrelid
                  and a.attnum = any ((i.indkey::int2[])[0 : i.indnkeyatts - 1])
                  and {MAY_BE_NULL})
order by i.indrelid, not i.indisprimary, i.indnkeyatts, i.indexrelid"""


def describe(session: Any) -> list[Table]:
    """Every table of the database's own schemas; partitions are part of their table."""
    types = {row[0]: row[1:] for row in session.execute(TYPES).fetchall()}
    labels = {enum: tuple(found) for enum, found in session.execute(LABELS).fetchall()}
    columns: dict[int, dict[int, Column]] = defaultdict(dict)
    names = {}
    for relation, schema, table, foreign, number, name, shown, type_id, nullable, bytewise in session.execute(COLUMNS):
        names[relation] = schema, table, foreign
        if number is None:
            continue
        own = _below_domains(type_id, types)
        base, kind = _kind(own, types)
        columns[relation][number] = Column(
            name, shown, kind, nullable, base, types[own][-1] if own in types else "", bytewise, base in ORDERED,
            labels=labels.get(own),
        )  # fmt: skip
    keys: dict[int, tuple[str, ...]] = {}
    for relation, numbers, count in session.execute(KEYS):
        if relation in names:
            keys.setdefault(relation, tuple(columns[relation][number].name for number in numbers[:count]))
    return [
        Table(schema, name, tuple(columns[found].values()), keys.get(found, ()), foreign)
        for found, (schema, name, foreign) in names.items()
    ]


def _below_domains(type_id: int, types: dict[int, tuple[Any, ...]]) -> int:
    """The type that domains were made of."""
    while type_id in types and types[type_id][1] == "d":
        type_id = types[type_id][2]
    return type_id


def _kind(type_id: int, types: dict[int, tuple[Any, ...]]) -> tuple[str, Kind | None]:
    """A type's name, and what it is compared as; None for what has no canonical text."""
    if type_id not in types:
        return "", None
    name, sort, _, element, schema, _ = types[type_id]
    if sort == "e":
        return name, "text"
    if sort in ("r", "m"):
        return name, "other" if schema == "pg_catalog" else None
    if element:
        return name, "other" if _kind(_below_domains(element, types), types)[1] else None
    if name in KINDS and (schema == "pg_catalog" or name == "citext"):
        return name, KINDS[name]
    return name, "other" if name in EXACT and schema == "pg_catalog" else None
