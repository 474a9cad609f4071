"""How do MySQL and MariaDB digest their rows? The same canonical texts as PostgreSQL's, in SQL that only reads.

Strings are never compared as strings: under most collations 'a', 'A', 'á' and 'a ' are equal. What is compared is
bytes, and digests of bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any

from ..errors import DatabaseError
from . import portable
from .dialect import SEPARATOR, Common, Sample, Server, Statement
from .model import FREE, Field, Key, Span, Table, View
from .mysql_catalog import describe, may_read

SAMPLED = 4_096  # keys
NO_FUNCTION = (1305, 1046)  # no such function; none in this database, and no database was chosen
SETTINGS = (
    "set names utf8mb4",
    "set session time_zone = '+00:00'",
    "set session sql_mode = 'allow_invalid_dates'",  # zero dates can be read, and others asked for; no char is padded
)
# Every text of these becomes another in UTF-8. Of others some do not come back as they were: they are told in hex.
WHOLE = frozenset({"utf8mb4", "utf8mb3", "utf8", "latin1"})
DATE = re.compile("[0-9]{4}-")
NUMBERS = ("integer", "number", "numeric", "boolean")
NUMBER = re.compile("-?[0-9]+([.][0-9]+)?")
SEP = f"char({SEPARATOR} using utf8mb4)"


class MySQL:
    """The dialect of MySQL and MariaDB."""

    def server(self, session: Any) -> Server:
        """Which one answers; the two write JSON differently, so they are told apart."""
        version, standby = _fetch(session, "select version(), @@global.read_only")[0]
        engine = "mariadb" if "mariadb" in version.lower() else "mysql"
        _need_md5(session, version)
        return Server(engine, int(version.partition(".")[0]), "utf8mb4", bool(standby))

    def prepare(self, session: Any) -> None:
        """Set what the canonical texts depend on."""
        for setting in SETTINGS:
            _fetch(session, setting)

    def share(self, session: Any, server: Server) -> str | None:
        """No session can see another's snapshot, so one reads."""
        return None

    def cancel(self, session: Any) -> None:
        """Make a statement that runs in another thread end; of a server that is gone none runs."""
        import pymysql

        how = {"ssl": session.ctx} if session._secure else {"ssl_disabled": True}
        with suppress(pymysql.OperationalError):
            other = pymysql.connect(
                host=session.host, port=session.port, user=session.user, password=session.password, **how
            )
            with other:
                _fetch(other, f"kill query {session.thread_id()}")

    def tables(self, session: Any) -> list[Table]:
        """The tables that are there, with columns and keys."""
        return describe(session, mariadb=self.server(session).engine == "mariadb")

    def whole(self, session: Any, table: Table) -> bool:
        """Whether this user may read all of the table's columns."""
        return may_read(session, table)

    def sample(self, session: Any, view: View, wanted: int) -> Sample:
        """Keys drawn by chance in one pass over the key, sorted as ranges are, and how many rows there are."""
        rows = _fetch(session, f"select count(*) from {_name(view)}")[0][0]
        if not rows or not view.key or not all(part.column.ordered for part in view.key):
            return Sample([], rows)
        texts = ", ".join(
            _number(part)
            if part.kind == "number" and part.column.base == "decimal"
            else f"cast({_plain(part)} as char)"
            for part in view.key
        )
        order = ", ".join(_ordered(part) for part in view.key)
        share = min(1.0, SAMPLED / rows)
        found = _fetch(session, f"select {texts} from {_name(view)} t where rand(1) < {share:.9f} order by {order}")
        return Sample([key for key in found if not any(part.startswith("0000-") for part in key)], rows)

    def digest(self, view: View, span: Span, common: Common) -> Statement:
        """One row: (count, digest)."""
        where, parameters = _within(view, span)
        sql = f"select count(*), {_fold(view, common)} from {_name(view)} t{where}"
        return Statement(sql, parameters, lambda row: (row[0], _folded(view, row[1:])))

    def buckets(self, view: View, span: Span, common: Common, modulus: int) -> Statement:
        """Rows of (bucket, count, digest)."""
        where, parameters = _within(view, span)
        bucket = _bucket(view, span, common, modulus)
        sql = f"select {bucket}, count(*), {_fold(view, common)} from {_name(view)} t{where} group by 1"
        return Statement(sql, parameters, lambda row: (int(row[0]), row[1], _folded(view, row[2:])))

    def rows(self, view: View, span: Span, common: Common, modulus: int, buckets: Sequence[int]) -> Statement:
        """Rows of (key, md5, count)."""
        where, parameters = _within(view, span)
        where += f"{' and' if where else ' where'} {_bucket(view, span, common, modulus)} in %s"
        parameters += (list(buckets),)
        count = len(view.key)
        keys = "".join(f"{_cast(part, common)}, " for part in view.key)
        if portable.by_client(view, common):
            sql = f"select {keys}{_values(view, common)} from {_name(view)} t{where}"
            return Statement(sql, parameters, lambda row: (*portable.keyed(view, row)[:2], 1))
        if count:
            sql = f"select {keys}{_md5(view, common)}, 1 from {_name(view)} t{where}"
        else:
            sql = f"select {_md5(view, common)}, count(*) from {_name(view)} t{where} group by 1"
        return Statement(sql, parameters, lambda row: (tuple(row[:-2]), _bytes(view, row[-2]), row[-1]))

    def holds(self, part: Field, text: str) -> bool:
        """Whether a key's column can hold a value with this canonical text."""
        if part.column.base in ("date", "datetime", "timestamp"):
            return DATE.match(text) is not None and not text.endswith("BC")
        return part.kind not in NUMBERS or NUMBER.fullmatch(text) is not None

    def keyless(self, view: View) -> Statement:
        """How many rows lack a part of their key."""
        missing = " or ".join(f"t.{_quoted(part.column.name)} is null" for part in view.key)
        return Statement(f"select count(*) from {_name(view)} t where {missing}", (), lambda row: int(row[0]))

    def lookup(self, view: View, common: Common, keys: Sequence[Key], values: bool) -> Statement:
        """Rows of (key, md5, values) with these keys."""
        md5, count = _md5(view, common), len(view.key)
        keys = [key for key in keys if not count or all(map(self.holds, view.key, key))]
        if not count:
            sql = f"select {md5}{', ' + _values(view, common) if values else ''} from {_name(view)} t where {md5} in %s"
            wanted: tuple[Any, ...] = ([key[0] for key in keys],)
            return Statement(f"{sql} group by 1", wanted, lambda row: ((row[0],), _bytes(view, row[0]), tuple(row[1:])))
        texts = ", ".join(_cast(part, common) for part in view.key)
        where, parameters = _among(view, keys)
        if portable.by_client(view, common):
            sql = f"select {texts}, {_values(view, common)} from {_name(view)} t where {where}"
            return Statement(sql, parameters, lambda row: portable.keyed(view, row))
        asked = f"{md5}{', ' + _values(view, common) if values else ''}"
        sql = f"select {texts}, {asked} from {_name(view)} t where {where}"
        return Statement(
            sql, parameters, lambda row: (tuple(row[:count]), _bytes(view, row[count]), tuple(row[count + 1 :]))
        )


def _need_md5(session: Any, version: str) -> None:
    """DatabaseError where there is no md5(): MySQL has it in a component of its own since 9.6."""
    import pymysql

    try:
        _fetch(session, "select md5('')")
    except pymysql.MySQLError as error:
        if error.args[0] not in NO_FUNCTION:
            raise
        raise DatabaseError(
            f"MySQL {version} at {session.host}:{session.port} has no md5(), by which rows are digested here. Have its "
            "administrator run: install component 'file://component_classic_hashing'"
        ) from error


def _fetch(session: Any, sql: str) -> list[Any]:
    with session.cursor() as cursor:
        cursor.execute(sql, ())
        return list(cursor.fetchall())


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``").replace("%", "%%") + "`"


def _name(view: View) -> str:
    return f"{_quoted(view.schema)}.{_quoted(view.name)}"


def _plain(part: Field) -> str:
    """The column; a number that is padded with zeros for display without them."""
    own = f"t.{_quoted(part.column.name)}"
    padded = "zerofill" in part.column.type or part.column.base in ("year", "bit")
    return f"({own} + 0)" if padded else own


def _binary(own: str) -> str:
    """Text as its bytes in UTF-8, which have one order and no collation."""
    return f"cast(convert({own} using utf8mb4) as binary)"


def _ordered(part: Field) -> str:
    return _binary(_plain(part)) if part.column.base in ("char", "varchar") else _plain(part)


def _bound(part: Field, value: str) -> tuple[str, Any]:
    """A key's canonical text as a value that can be compared with the column, without a detour over floats."""
    base = part.column.base
    if part.kind == "bytes":
        return "unhex(%s)", value
    if base in ("date", "datetime", "timestamp"):
        kind = "date" if base == "date" else "datetime(6)"
        return f"cast(%s as {kind})", value.removesuffix("+00")
    if base in ("float", "double"):
        return "%s", float(value)
    return "%s", Decimal(value) if part.kind in NUMBERS else value


def _within(view: View, span: Span) -> tuple[str, tuple[Any, ...]]:
    """The WHERE clause of a range; the first column alone is said again, as only that is looked up in an index."""
    clauses, parameters = [], []
    for key, sign, loose in ((span.lower, ">=", ">="), (span.upper, "<", "<=")):
        if key is None:
            continue
        bounds = [_bound(part, value) for part, value in zip(view.key, key, strict=True)]
        marks = [
            f"cast({mark} as binary)" if part.column.base in ("char", "varchar") else mark
            for part, (mark, _) in zip(view.key, bounds, strict=True)
        ]
        own = [_ordered(part) for part in view.key]
        clauses.append(f"({', '.join(own)}) {sign} ({', '.join(marks)})")
        parameters += [value for _, value in bounds]
        if len(own) > 1:
            clauses.append(f"{own[0]} {loose} {marks[0]}")
            parameters.append(bounds[0][1])
    return (" where " if clauses else "") + " and ".join(clauses), tuple(parameters)


def _among(view: View, keys: Sequence[Key]) -> tuple[str, tuple[Any, ...]]:
    """The condition for these keys: found by an index, whose collation may find more, then told apart by bytes."""
    if not keys:
        return "false", ()
    bounds = [[_bound(part, value) for part, value in zip(view.key, key, strict=True)] for key in keys]
    listed = ", ".join(f"({', '.join(mark for mark, _ in row)})" for row in bounds)
    own = ", ".join(f"t.{_quoted(part.column.name)}" for part in view.key)
    where, parameters = f"({own}) in ({listed})", tuple(value for row in bounds for _, value in row)
    for number, part in enumerate(view.key):
        if part.kind == "text":
            where += (
                f" and {_binary('t.' + _quoted(part.column.name))} in ({', '.join(['cast(%s as binary)'] * len(keys))})"
            )
            parameters += tuple(key[number] for key in keys)
    return where, parameters


def _bucket(view: View, span: Span, common: Common, modulus: int) -> str:
    """The expression that puts a row into its bucket."""
    if span.width:
        return f"{_plain(view.key[0])} div {span.width}"
    text = _text(view.key or view.fields, common)
    return f"cast(conv(left(md5({text}), 8), 16, 10) as unsigned) & {modulus - 1}"


def _fold(view: View, common: Common) -> str:
    """The aggregates that fold the rows' digests, and how many rows have none."""
    md5 = _md5(view, common)
    halves = ", ".join(f"sum(cast(conv(substr({md5}, {start}, 16), 16, 10) as unsigned))" for start in (1, 17))
    return f"{halves}, sum({md5} is null)"


def _folded(view: View, row: Sequence[Any]) -> tuple[int, int]:
    first, second, without = (int(value or 0) for value in row)
    if without:
        raise _too_long(view)
    return first % 2**64, second % 2**64


def _bytes(view: View, md5: str | None) -> bytes:
    if md5 is None:
        raise _too_long(view)
    return bytes.fromhex(md5)


def _too_long(view: View) -> DatabaseError:
    """A server answers NULL instead of a text that is longer than it may send; nothing may be concluded from that."""
    return DatabaseError(
        f"{view.schema}.{view.name} has a row that is longer than the server's max_allowed_packet when written as "
        "text: raise it on the server, or leave the long column out (columns=…)."
    )


def _values(view: View, common: Common) -> str:
    return ", ".join(_cast(part, common) for part in view.fields)


def _md5(view: View, common: Common) -> str:
    return f"md5({_text(view.fields, common)})"


def _text(fields: Sequence[Field], common: Common) -> str:
    """The canonical text of a row, as `dialect` describes it; NULL when a part of it was too long to be written."""
    fixed = [part for part in fields if part.kind not in FREE]
    free = [part for part in fields if part.kind in FREE]
    own = {part.column.name: f"t.{_quoted(part.column.name)}" for part in fields}
    terms = [f"if({own[part.column.name]} is null, '', {_cast(part, common)})" for part in fixed]
    terms += [f"if({own[part.column.name]} is null, -1, octet_length({_cast(part, common)}))" for part in free]
    texts = "".join(f", if({own[part.column.name]} is null, '', concat({SEP}, {_cast(part, common)}))" for part in free)
    return f"concat({f', {SEP}, '.join(terms)}{texts})"


def _cast(part: Field, common: Common) -> str:
    """The canonical text of one value."""
    own, column = f"t.{_quoted(part.column.name)}", part.column
    match part.kind:
        case "bytes":
            return f"lower(hex({own}))"
        case "float":
            return portable.mysql_float(part, own)
        case "number" | "numeric" if (common.portable or part.kind == "number") and column.base == "decimal":
            return _number(part)
        case "timestamp" | "timestamptz" | "time":
            zone = f", '{'+00' if part.kind == 'timestamptz' else ''}'"
            return f"concat({_trimmed(f'cast({own} as char)', '(' in column.type)}{zone})"
        case "json":
            shown = f"coalesce(json_loose({own}), {own})" if column.base == "longtext" and common.portable else own
            return f"replace(convert({shown} using utf8mb4), {SEP}, '\\\\u001f')"
        case "text" | "json text" | "uuid":
            text = f"convert({own} using utf8mb4)"
            if column.charset in ("", *WHOLE):
                return text
            back = f"cast(convert({text} using {column.charset}) as binary) = cast({own} as binary)"
            return f"if({back}, {text}, concat('{column.charset} ', hex({own})))"
    return f"cast({_plain(part)} as char)"


def _number(part: Field) -> str:
    """A decimal by its value: without zeros at the end, where its type has a fraction, as decimal(9,2) does."""
    return _trimmed(f"cast({_plain(part)} as char)", re.search(",[1-9]", part.column.type) is not None)


def _trimmed(text: str, fraction: bool) -> str:
    return f"trim(trailing '.' from trim(trailing '0' from {text}))" if fraction else text
