"""Which tables does a MySQL or MariaDB server have, with which columns, types and keys?"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from .model import Column, Kind, Table

KINDS: dict[str, Kind] = {
    "tinyint": "integer", "smallint": "integer", "mediumint": "integer", "int": "integer", "bigint": "integer",
    "year": "integer", "bit": "integer", "decimal": "numeric", "float": "float", "double": "float", "char": "text",
    "varchar": "text", "tinytext": "text", "text": "text", "mediumtext": "text", "longtext": "text", "enum": "text",
    "set": "text", "binary": "bytes", "varbinary": "bytes", "tinyblob": "bytes", "blob": "bytes", "mediumblob": "bytes",
    "longblob": "bytes", "date": "date", "time": "time", "datetime": "timestamp", "timestamp": "timestamptz",
    "json": "json", "uuid": "uuid",
}  # fmt: skip
# Their order is the same on every server, text by its bytes; MariaDB orders a uuid by its parts, an enum by its number.
ORDERED = frozenset({
    "tinyint", "smallint", "mediumint", "int", "bigint", "decimal", "char", "varchar", "date", "datetime", "timestamp",
})  # fmt: skip
COLUMNS = """
select c.table_schema, c.table_name, c.column_name, c.column_type, c.data_type, c.is_nullable = 'YES',
       coalesce(c.character_set_name, ''), coalesce(t.engine, '')
from information_schema.columns c join information_schema.tables t
     on t.table_schema = c.table_schema and t.table_name = c.table_name
where t.table_type in ('BASE TABLE', 'SYSTEM VERSIONED')
  and c.table_schema not in ('mysql', 'information_schema', 'performance_schema', 'sys')
order by c.table_schema, c.table_name, c.ordinal_position
"""
KEYS = """
select table_schema, table_name, index_name, group_concat(column_name order by seq_in_index separator '\n')
from information_schema.statistics
where table_schema not in ('mysql', 'information_schema', 'performance_schema', 'sys')
group by table_schema, table_name, index_name
having max(non_unique) = 0 and count(column_name) = count(*) and sum(sub_part is not null or nullable = 'YES') = 0
order by table_schema, table_name, index_name <> 'PRIMARY', count(*), index_name
"""
STEADY = frozenset({"innodb", "rocksdb", "tokudb"})  # engines whose tables a snapshot shows as of one moment
REFUSED = 1142, 1143  # for the table, for a column
# MariaDB's json is a longtext with a check of its own.
DOCUMENTS = """
select constraint_schema, table_name, check_clause from information_schema.check_constraints
where check_clause like 'json_valid(%'
"""


def describe(session: Any, *, mariadb: bool) -> list[Table]:
    """Every table of the databases that this user may see."""
    with session.cursor() as cursor:
        documents: set[tuple[str, str, str]] = set()
        if mariadb:
            cursor.execute(DOCUMENTS)
            documents = set(cursor.fetchall())
        cursor.execute(COLUMNS)
        columns: dict[tuple[str, str], list[Column]] = defaultdict(list)
        engines: dict[tuple[str, str], str] = {}
        for schema, table, name, shown, base, nullable, charset, engine in cursor.fetchall():
            engines[schema, table] = engine.lower()
            kind = KINDS.get(base)
            if (schema, table, f"json_valid(`{name}`)") in documents:
                kind = "json"
            if shown == "bit(1)":
                kind = "boolean"
            column = Column(
                name, shown, kind, bool(nullable), base, bytewise=kind != "text", ordered=base in ORDERED,
                charset=charset,
            )  # fmt: skip
            columns[schema, table].append(column)
        cursor.execute(KEYS)
        keys: dict[tuple[str, str], tuple[str, ...]] = {}
        for schema, table, _, names in cursor.fetchall():
            keys.setdefault((schema, table), tuple(names.split("\n")))
    return [
        Table(schema, name, tuple(found), keys.get((schema, name), ()), steady=engines[schema, name] in STEADY)
        for (schema, name), found in columns.items()
    ]


def may_read(session: Any, table: Table) -> bool:
    """Whether this user may read the whole table, whoever granted it: only the columns that it may read are shown."""
    import pymysql

    names = ".".join("`" + name.replace("`", "``") + "`" for name in (table.schema, table.name))
    with session.cursor() as cursor:
        try:
            cursor.execute(f"select * from {names} limit 0")
        except pymysql.MySQLError as error:
            if error.args[0] not in REFUSED:
                raise
            return False
    return True
