"""What must an engine be able to say? Descriptions of tables, and statements that digest rows the same way everywhere.

The canonical text of a row is the same on every engine. Its fields stand in the order of the view. First come the
fields of kinds that are never empty and hold no control character, NULL as nothing; then the length in bytes of every
free field, -1 for NULL; then the free fields themselves, NULL left out. All are joined by the character 31. So no
value can pass for another, for NULL, or for two. The row's md5 is taken of that text in UTF-8. Where both sides are
PostgreSQL it is taken of bytes that are quicker to make and as unmistakable (`postgresql_row`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ..databases import Database
from .model import Field, Key, Span, Table, View

Method = Literal["md5", "native"]
SEPARATOR = 31
MODERN = 14  # of PostgreSQL: hash_record_extended
TRIMS = 13  # of PostgreSQL: trim_scale
ASKS = 16  # of PostgreSQL: pg_input_is_valid
BYTES_HASHED = 18  # of PostgreSQL: hashbyteaextended


@dataclass(frozen=True)
class Server:
    """What answered."""

    engine: str
    version: int  # major
    encoding: str
    standby: bool = False


@dataclass(frozen=True)
class Common:
    """What both sides can do alike."""

    portable: bool  # the engines differ: the canonical text that both can write
    method: Method = field(default="md5", kw_only=True)  # what rows are known by
    utf8: bool = field(default=True, kw_only=True)  # both keep text in UTF-8
    bytes_alike: bool = field(default=True, kw_only=True)  # the bytes of text are in the same order on both
    trims: bool = field(default=False, kw_only=True)  # PostgreSQL can take zeros from a numeric's end
    asks: bool = field(default=False, kw_only=True)  # PostgreSQL tells whether a text is a value of a type
    modern: bool  # both are PostgreSQL 14 or newer of one major version: they hash alike
    bytes_hashed: bool = field(default=False, kw_only=True)  # and 18 or newer


@dataclass(frozen=True)
class Statement:
    """SQL with its parameters, and how a row of the answer is read; None: it is taken as it comes."""

    sql: str
    parameters: tuple[Any, ...]
    read: Callable[[Any], Any] | None = None

    def taken(self, rows: list[Any]) -> list[Any]:
        """Rows of the answer, read."""
        return rows if self.read is None else [self.read(row) for row in rows]


@dataclass(frozen=True)
class Sample:
    """Some keys, in the order of ranges, and about how many rows there are."""

    keys: list[Key]
    rows: int


class Dialect(Protocol):
    """One engine's way to say it. Every statement is a single read."""

    def server(self, session: Any) -> Server:
        """Which version answers, and whether it is a standby."""

    def prepare(self, session: Any) -> None:
        """Set what the canonical texts and the plans depend on."""

    def share(self, session: Any, server: Server) -> str | None:
        """The name under which other sessions can see this session's snapshot; None when they cannot."""

    def cancel(self, session: Any) -> None:
        """Make a statement that runs in another thread end."""

    def tables(self, session: Any) -> list[Table]:
        """The tables that are there, with columns and keys."""

    def whole(self, session: Any, table: Table) -> bool:
        """Whether the table was described with all of its columns: an engine may hide those that may not be read."""

    def sample(self, session: Any, view: View, wanted: int) -> Sample:
        """About `wanted` keys spread over the table, sorted as ranges are: numbers by value, text by its bytes."""

    def digest(self, view: View, span: Span, common: Common) -> Statement:
        """One row: (count, digest). Equal digests and counts mean equal rows, duplicates counted."""

    def buckets(self, view: View, span: Span, common: Common, modulus: int) -> Statement:
        """Rows of (bucket, count, digest), in any order.

        Buckets are key / width where the span has a width, else the key's hash modulo `modulus`; of a table without
        key it is the row's own hash modulo `modulus`. Both engines put a key into the same bucket.
        """

    def rows(self, view: View, span: Span, common: Common, modulus: int, buckets: Sequence[int]) -> Statement:
        """Rows of (key, hash, count) in these buckets; without key: (), hash and how many are equal."""

    def lookup(self, view: View, common: Common, keys: Sequence[Key], values: bool) -> Statement:
        """Rows of (key, hash, values) with these keys, `values` empty unless asked for.

        Of a table without key, `keys` are (hash in hex,), and one row of each is enough.
        """

    def holds(self, part: Field, text: str) -> bool:
        """Whether a key's column can hold a value with this canonical text. Where not, no range can begin with it,
        and no row has it: the other side's type is wider, as with text beside uuid."""

    def keyless(self, view: View) -> Statement:
        """One row: how many rows lack a part of their key. They are in no range, and nothing would look at them."""


def of(database: Database) -> Dialect:
    """The dialect that a database speaks."""
    if database.engine == "mysql":
        from .mysql import MySQL

        return MySQL()
    from .postgresql import PostgreSQL

    return PostgreSQL()
