"""What does DMS make of MariaDB's tables on PostgreSQL? Columns of its default types, NOT NULL, primary keys: no more.

MySQL's types become DMS's own, and these become PostgreSQL's (DMS user guide, "Source data types for MySQL" and
"Target data types for PostgreSQL"). The length of a text is counted in bytes there, three for a character, and above
21845 characters it is 65535. An unsigned bigint becomes a bigint: a value above 2^63-1 cannot be loaded.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from psycopg import sql
from pymysql.cursors import Cursor

from .dms_target import SourceTable

LONGEST, LONG = 21845, "varchar(65535)"
_INTEGERS = {
    "tinyint": ("smallint", "smallint"), "smallint": ("smallint", "integer"), "mediumint": ("integer", "bigint"),
    "int": ("integer", "bigint"), "bigint": ("bigint", "bigint"), "year": ("smallint", "smallint"),
}  # fmt: skip  # signed, unsigned
_OTHERS = {
    "float": "double precision", "double": "double precision", "date": "date", "time": "varchar(30)",
    "mediumtext": "text", "longtext": "text", "json": "text", "bit": "bytea", "binary": "bytea", "varbinary": "bytea",
    "tinyblob": "bytea", "blob": "bytea", "mediumblob": "bytea", "longblob": "bytea",
}  # fmt: skip
_TEXTS = ("char", "varchar", "tinytext", "text", "enum", "set")
_READ = {"bit(1)": "({} + 0)", "time": "cast({} as char)", "float": "({} * 1e0)"}  # what the wire would tell less of
_COLUMNS = """
select c.table_schema, c.table_name, c.column_name, c.data_type, c.column_type, c.is_nullable = 'NO',
  c.character_maximum_length, c.numeric_precision, c.numeric_scale, c.datetime_precision
from information_schema.columns c join information_schema.tables t using (table_schema, table_name)
where t.table_type = 'BASE TABLE' and c.table_schema not in ('mysql', 'sys', 'information_schema', 'performance_schema')
order by c.table_schema, c.table_name, c.ordinal_position
"""
_KEYS = """
select table_schema, table_name, column_name from information_schema.statistics where index_name = 'PRIMARY'
order by table_schema, table_name, seq_in_index
"""


@dataclass(frozen=True)
class Column:
    """A column of the source."""

    name: str
    base: str  # without length
    type: str  # with all
    not_null: bool
    length: int | None  # of a text, in characters
    precision: int | None
    scale: int | None
    fraction: int | None  # digits of a second

    @property
    def target(self) -> str | None:
        """The type on the target; None where the lab knows none."""
        if self.base in _INTEGERS:
            return _INTEGERS[self.base]["unsigned" in self.type]
        if self.base in _TEXTS:
            length = self.length or 1
            return f"varchar({3 * length})" if length <= LONGEST else LONG
        if self.base == "decimal":
            return f"numeric({self.precision}, {self.scale})"
        if self.base in ("datetime", "timestamp"):
            return f"timestamp({self.fraction})"
        return "boolean" if self.type == "bit(1)" else _OTHERS.get(self.base)

    @property
    def expression(self) -> str:
        """How it is selected, so that nothing of its value is lost on the way."""
        return _READ.get(self.type, _READ.get(self.base, "{}")).format(quoted(self.name))


@dataclass(frozen=True)
class MysqlTable:
    """A table of the source."""

    schema: str
    name: str
    columns: tuple[Column, ...]
    primary: tuple[str, ...]

    @property
    def there(self) -> SourceTable:
        """As the target's tables are spoken of; MySQL has no OIDs."""
        return SourceTable(0, self.schema, self.name)

    @property
    def unknown(self) -> str:
        """The columns that cannot be loaded, with their types; '' when all can."""
        return ", ".join(f"{column.name} {column.type}" for column in self.columns if column.target is None)

    def select(self) -> str:
        """The query of all its rows."""
        columns = ", ".join(column.expression for column in self.columns)
        return f"select {columns} from {quoted(self.schema)}.{quoted(self.name)}"

    def create(self) -> sql.Composed:
        """The statement that makes it on the target."""
        parts = [
            sql.SQL("{} {}").format(
                sql.Identifier(column.name), sql.SQL(f"{column.target}{' not null' if column.not_null else ''}")
            )
            for column in self.columns
        ]
        if self.primary:
            parts.append(sql.SQL("primary key ({})").format(sql.SQL(", ").join(map(sql.Identifier, self.primary))))
        return sql.SQL("create table {} ({})").format(self.there.identifier, sql.SQL(", ").join(parts))

    def names(self) -> sql.Composed:
        """Its columns, as PostgreSQL lists them."""
        return sql.SQL(", ").join(sql.Identifier(column.name) for column in self.columns)


def quoted(name: str) -> str:
    """A name as MySQL's SQL has it."""
    return "`" + name.replace("`", "``") + "`"


def mysql_tables(cursor: Cursor) -> dict[str, MysqlTable]:
    """The tables that this user may see, by `schema.table`."""
    cursor.execute(_COLUMNS)
    columns: dict[tuple[str, str], list[Column]] = defaultdict(list)
    for schema, table, name, base, shown, not_null, *numbers in _rows(cursor):
        columns[schema, table].append(Column(name, base, shown, bool(not_null), *numbers))
    cursor.execute(_KEYS)
    keys: dict[tuple[str, str], list[str]] = defaultdict(list)
    for schema, table, name in _rows(cursor):
        keys[schema, table].append(name)
    found = [MysqlTable(*place, tuple(listed), tuple(keys[place])) for place, listed in columns.items()]
    return {table.there.key: table for table in found}


def _rows(cursor: Cursor) -> list[tuple[Any, ...]]:
    return list(cursor.fetchall())
