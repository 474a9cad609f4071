"""What is compared with what? Tables, their columns and keys, and the differences that were found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal[
    "integer", "numeric", "number", "float", "boolean", "text", "bytes", "date", "time", "timestamp", "timestamptz",
    "uuid", "json", "json text", "other",
]  # fmt: skip
FREE: frozenset[Kind] = frozenset({"text", "bytes", "json text", "other"})  # may be empty, may hold any character

Key = tuple[str, ...]  # a key's values in canonical text
Why = Literal["different", "missing on target", "extra on target"]


@dataclass(frozen=True)
class Column:
    """A column as its database describes it; `kind` is None for a type that has no canonical text."""

    name: str
    type: str  # as the database spells it, with length and scale
    kind: Kind | None
    nullable: bool = True
    base: str = ""  # the type below domains, without length and scale
    bare: str = ""  # PostgreSQL: the same as SQL has it, whatever the search path
    bytewise: bool = True  # text: ordered by its bytes without being told to
    ordered: bool = False  # every server orders its values alike: a key that can be split into ranges
    charset: str = ""  # MySQL: of a text
    labels: tuple[str, ...] | None = None  # of an enum: what it can hold


@dataclass(frozen=True)
class Table:
    """A table as its database describes it. `key` is empty when nothing identifies a row."""

    schema: str
    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    foreign: bool = False  # its rows are in another database
    partial: bool = False  # this user may not read all of its columns, and is not shown which there are
    steady: bool = True  # in a snapshot its rows are those of one moment: not so with MyISAM

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"

    def column(self, name: str) -> Column | None:
        """One of its columns."""
        return next((column for column in self.columns if column.name == name), None)


@dataclass(frozen=True)
class Field:
    """A column on one side together with the kind that both sides are compared as."""

    column: Column
    kind: Kind
    alike: bool = False  # both columns are of the very same type


@dataclass(frozen=True)
class View:
    """One side of a pair, as a dialect reads it: both sides have the same kinds in the same order."""

    schema: str
    name: str
    fields: tuple[Field, ...]
    key: tuple[Field, ...]
    steady: bool = True  # see `Table`


@dataclass(frozen=True)
class Pair:
    """A table of the source and its counterpart; either is None when it does not exist."""

    name: str  # as the source names it, or the target when only that has it
    source: View | None
    target: View | None
    columns: tuple[str, ...] = ()  # the source's names, in the order of the views' fields
    key: tuple[str, ...] = ()
    only_source: tuple[str, ...] = ()  # columns
    only_target: tuple[str, ...] = ()
    problem: str = ""  # why its rows cannot be compared


@dataclass(frozen=True)
class Span:
    """A range of keys: from `lower` up to, but without, `upper`; None is open."""

    lower: Key | None = None
    upper: Key | None = None
    rows: int = 0  # about
    width: int = 0  # integer keys: how much of the range a bucket takes; 0: by the hash of the key


@dataclass(frozen=True)
class Difference:
    """A row that is not the same: values in canonical text, None for NULL; a side that lacks the row is None."""

    kind: Why
    key: dict[str, str | None]  # empty for a table without key
    source: dict[str, str | None] | None
    target: dict[str, str | None] | None
    times: int = 1  # equal rows of a table without key

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns whose values differ; none when one side lacks the row."""
        if self.source is None or self.target is None:
            return ()
        return tuple(name for name, value in self.source.items() if self.target[name] != value)


@dataclass(frozen=True)
class Progress:
    """How far a comparison is."""

    table: str
    number: int  # of this table, from 1; of the round when rows are looked at again
    tables: int  # or rounds
    rows: int  # of this table on the source, so far
    expected: int  # about
    differing: int  # so far
    doing: Literal["comparing", "checking again"] = "comparing"

    def __str__(self) -> str:
        if self.doing == "checking again":
            return f"{self.differing:,} rows differ, looking again ({self.number} of {self.tables})"
        found = f", {self.differing:,} differ" if self.differing else ""
        return f"{self.table} ({self.number} of {self.tables}): {self.rows:,} of about {self.expected:,} rows{found}"


@dataclass(frozen=True)
class Options:
    """How to compare.

    `method` native is PostgreSQL's own hash, 64 bits: a fast look. md5 is 128 bits and the evidence of record.
    `settle` returns when everything that the source had when it was called must have arrived at the target; without
    it there is a pause of `pause` seconds before each of the `rounds` in which what differed is looked at again.
    `workers` are the connections to each side, at most: another one for every two million rows of a table.
    `gentle` takes one connection (of the target one more while it looks again), small ranges, and rests as long as it
    worked. `empty` names tables (patterns as in
    `pairs`) that may have no rows. `checkpoint` is the file that a comparison which ended early goes on from.
    """

    method: Literal["md5", "native"] = "md5"
    workers: int = 2
    rounds: int = 3
    settle: Callable[[], object] | None = None
    pause: float = 0.5  # seconds
    sample: int = 10  # differing rows per table that are shown with their values
    statement_timeout: float = 0  # seconds; 0: none
    gentle: bool = False
    empty: tuple[str, ...] = ()
    checkpoint: Path | None = None
