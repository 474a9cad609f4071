"""Which rows differ between the two sides of a task? All are read, told apart by their keys, and compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from psycopg import sql

from .dms_resources import Document
from .dms_target import Connection

_KEY = """
select a.attname from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any(i.indkey)
where i.indrelid = %s and i.indisprimary order by array_position(i.indkey::int2[], a.attnum)
"""
_COLUMNS = """
select attname from pg_attribute where attrelid = %s and attnum > 0 and not attisdropped order by attnum
"""


class Rows(Protocol):
    """Both sides of a task, as its validation sees them."""

    target: Connection

    def keyed(self, table: Document) -> bool:
        """Whether a table has a primary key."""

    def differing(self, table: Document, keys: list[str] | None) -> dict[str, str]:
        """The keys whose rows differ, with DMS's word for how; of the given keys only, when there are some.

        A key is the JSON array of its parts as text.
        """

    def details(self, table: Document, identity: str) -> str:
        """The values that differ in a row, as DMS writes them: a list as Python would."""

    def close(self) -> None:
        """End the sessions."""


@dataclass(frozen=True)
class Shape:
    """What a table's rows are compared by."""

    name: sql.Identifier
    key: tuple[str, ...]
    columns: tuple[str, ...]

    def rows(self, *, only: bool) -> sql.Composed:
        """The query of (key as a JSON array of text, hash of the row), of all rows or of some keys only."""
        columns = sql.SQL(", ").join(map(sql.Identifier, self.columns))
        query = sql.SQL("select {}, md5(row({})::text) from {}").format(self.identity, columns, self.name)
        return sql.SQL("{} where {} = any(%s)").format(query, self.identity) if only else query

    @property
    def identity(self) -> sql.Composed:
        """The key of a row as one text."""
        texts = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in self.key)
        return sql.SQL("json_build_array({})::text").format(texts)

    def row(self) -> sql.Composed:
        """The query of one row's values as text, by its key."""
        columns = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in self.columns)
        return sql.SQL("select {} from {} where {} = %s").format(columns, self.name, self.identity)


class PostgresRows:
    """`Rows` between two PostgreSQL databases."""

    def __init__(self, source: Connection, target: Connection) -> None:
        self.source, self.target = source, target

    def keyed(self, table: Document) -> bool:
        """Whether a table has a primary key."""
        return bool(self._shape(table).key)

    def differing(self, table: Document, keys: list[str] | None) -> dict[str, str]:
        """Asks both sides for (key, hash)."""
        query = self._shape(table).rows(only=keys is not None)
        parameters = None if keys is None else [keys]
        here: dict[str, str] = dict(self.source.execute(query, parameters).fetchall())
        return compared(here, dict(self.target.execute(query, parameters).fetchall()))

    def details(self, table: Document, identity: str) -> str:
        """Asks both sides for the row."""
        shape = self._shape(table)
        sides: list[Any] = [side.execute(shape.row(), [identity]).fetchone() for side in (self.source, self.target)]
        return told(shape.columns, *sides)

    def close(self) -> None:
        """End the sessions."""
        self.source.close()
        self.target.close()

    def _shape(self, table: Document) -> Shape:
        oid = [table["SourceOid"]]
        key = tuple(row[0] for row in self.source.execute(_KEY, oid))
        columns = tuple(row[0] for row in self.source.execute(_COLUMNS, oid))
        return Shape(sql.Identifier(table["SchemaName"], table["TableName"]), key, columns)


def compared(here: dict[str, Any], there: dict[str, Any]) -> dict[str, str]:
    """What differs between the source's rows and the target's, by key."""
    differing = {}
    for identity, row in there.items():
        if identity not in here:
            differing[identity] = "MISSING_SOURCE"
        elif here[identity] != row:
            differing[identity] = "RECORD_DIFF"
    return differing | {identity: "MISSING_TARGET" for identity in here if identity not in there}


def told(columns: tuple[str, ...], here: tuple[Any, ...] | None, there: tuple[Any, ...] | None) -> str:
    """The values of a row that differ; none when a side lacks it."""
    if here is None or there is None:
        return "[[]]"
    pairs = zip(columns, here, there, strict=True)
    return str([[{column: ours}, {column: theirs}] for column, ours, theirs in pairs if ours != theirs])
