"""How does PostgreSQL digest its rows? Canonical texts, ranges of keys, hashes: SQL that only reads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from typing import Any

from . import portable
from .dialect import Common, Sample, Server, Statement
from .model import Field, Key, Span, Table, View
from .postgresql_catalog import describe
from .postgresql_row import cast, md5, native, quoted, text, trimmed, utf8

SETTINGS = {
    "timezone": "UTC",
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "xmloption": "content",
    "idle_in_transaction_session_timeout": "0",
    "row_security": "off",  # an error, where a policy would silently hide rows
    "max_parallel_workers_per_gather": "0",  # the source has other work to do
    "enable_sort": "off",  # a GROUP BY must hash: sorting whole rows would spill to the server's disk
    "enable_indexscan": "off",  # ranges by bitmap: pages are read once and in order
    "enable_indexonlyscan": "off",
    "work_mem": "64MB",
    "client_encoding": "UTF8",  # in which texts are sent
    "jit": "off",
}
PAGES = """
select (coalesce((select sum(pg_relation_size(relid)) from pg_partition_tree(own)), pg_relation_size(own)) / 8192)::int8
from (select format('%%I.%%I', %s::text, %s::text)::regclass as own) t"""
MORE = 500  # of a large table, one page of so many is sampled
MOST_PAGES = 2_048
INTEGER = re.compile("-?[0-9]{1,19}")
DATE = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}")
DATED = frozenset({"date", "timestamp", "timestamptz"})
FORMS = {
    **dict.fromkeys(("int2", "int4", "int8"), INTEGER),
    "bool": re.compile("[01]"), "time": re.compile("([01][0-9]|2[0-3]):.*|24:00(:00([.]0+)?)?"),
    "uuid": re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
}  # fmt: skip
# Types of keys that can be read from whatever text `holds` lets through.
READABLE = frozenset({"text", "varchar", "bpchar", "name", "citext", "int2", "int4", "int8", "uuid", "time"})
INTERVALS = 64  # of the key in one statement; planning more costs more than reading the range


class PostgreSQL:
    """The dialect of PostgreSQL."""

    def server(self, session: Any) -> Server:
        """Which version answers, and whether it is a standby."""
        version, encoding, standby = session.execute(
            "select current_setting('server_version_num')::int / 10000, current_setting('server_encoding'), "
            "pg_is_in_recovery()"
        ).fetchone()
        return Server("postgresql", version, encoding, standby)

    def prepare(self, session: Any) -> None:
        """Set what the canonical texts and the plans depend on."""
        session.prepare_threshold = None  # a range is planned for its own size
        session.execute("; ".join(f"set {name} = '{value}'" for name, value in SETTINGS.items()))

    def share(self, session: Any, server: Server) -> str | None:
        """The name under which other sessions can see this session's snapshot; old standbys have none."""
        if server.standby and server.version < 10:
            return None
        return str(session.execute("select pg_export_snapshot()").fetchone()[0])

    def cancel(self, session: Any) -> None:
        """Make a statement that runs in another thread end."""
        session.cancel_safe()

    def tables(self, session: Any) -> list[Table]:
        """The tables that are there, with columns and keys."""
        return describe(session)

    def whole(self, session: Any, table: Table) -> bool:
        """Columns are described whether or not they may be read, and reading them then is an error."""
        return True

    def sample(self, session: Any, view: View, wanted: int) -> Sample:
        """Keys from some of the table's pages, sorted as ranges are, and about how many rows there are."""
        pages = session.execute(PAGES, (view.schema, view.name)).fetchone()[0]
        wanted = min(max(wanted, pages // MORE), MOST_PAGES)
        percent = 100.0 if pages <= wanted else 100.0 * wanted / pages
        part = f"from {_name(view)} tablesample system ({percent:.6f}) repeatable (1)"
        if not view.key:
            count = session.execute(f"select count(*) {part}", ()).fetchone()[0]
            return Sample([], round(count * 100 / percent))
        keys = ", ".join(quoted(field.column.name) for field in view.key)
        texts = ", ".join(map(_sampled, view.key))
        order = ", ".join(_ordered(field, "s.") for field in view.key)
        found = session.execute(f"select {texts} from (select {keys} {part}) s order by {order}", ()).fetchall()
        return Sample([tuple(row) for row in found], round(len(found) * 100 / percent))

    def digest(self, view: View, span: Span, common: Common) -> Statement:
        """One row: (count, digest)."""
        where, parameters = _within(view, span)
        rows, hashed = f"from {_name(view)} t{where}", _hash(view, common)
        if common.method != "native":
            rows, hashed = f"from (select {hashed} h {rows} offset 0) s", "h"
        sql = f"select count(*), {_folds(hashed, common)} {rows}"
        return Statement(sql, parameters, lambda row: (row[0], _folded(row[1:], common)))

    def buckets(self, view: View, span: Span, common: Common, modulus: int) -> Statement:
        """Rows of (bucket, count, digest); the digest may be several values."""
        where, parameters = _within(view, span)
        rows, hashed = f"from {_name(view)} t{where}", _hash(view, common)
        bucket = _bucket(view, span, common, modulus, hashed)
        if not view.key:
            rows, hashed, bucket = f"from (select {hashed} h {rows} offset 0) s", "h", _modulo("h", common, modulus)
        elif common.method != "native":
            rows, hashed, bucket = f"from (select {bucket} b, {hashed} h {rows} offset 0) s", "h", "b"
        sql = f"select {bucket}, count(*), {_folds(hashed, common)} {rows} group by 1"
        if common.modern:
            return Statement(sql, parameters)
        return Statement(sql, parameters, lambda row: (row[0], row[1], _folded(row[2:], common)))

    def rows(self, view: View, span: Span, common: Common, modulus: int, buckets: Sequence[int]) -> Statement:
        """Rows of (key, hash, count)."""
        where, parameters = _inside(view, span, common, modulus, buckets)
        keys = "".join(f"{cast(part, common)}, " for part in view.key)
        if portable.by_client(view, common):
            values = ", ".join(cast(part, common) for part in view.fields)
            sql = f"select {keys}{values} from {_name(view)} t{where}"
            return Statement(sql, parameters, lambda row: (*portable.keyed(view, row)[:2], 1))
        if view.key:
            sql = f"select {keys}{_known(view, common)}, 1 from {_name(view)} t{where}"
        else:
            sql = f"select {_known(view, common)}, count(*) from {_name(view)} t{where} group by 1"
        return Statement(sql, parameters, lambda row: (tuple(row[:-2]), bytes.fromhex(row[-2]), row[-1]))

    def holds(self, part: Field, text: str) -> bool:
        """Whether a key's column can hold a value with this canonical text."""
        if part.column.labels is not None:
            return text in part.column.labels
        if part.column.base in DATED:
            return _dated(text)
        form = FORMS.get(part.column.base)
        if form is None:
            return "\0" not in text
        return form.fullmatch(text) is not None and (form is not INTEGER or -(2**63) <= int(text) < 2**63)

    def keyless(self, view: View) -> Statement:
        """How many rows lack a part of their key."""
        missing = " or ".join(f"t.{quoted(part.column.name)} is null" for part in view.key)
        return Statement(f"select count(*) from {_name(view)} t where {missing}", (), lambda row: int(row[0]))

    def lookup(self, view: View, common: Common, keys: Sequence[Key], values: bool) -> Statement:
        """Rows of (key, hash, values) with these keys."""
        hashed = _known(view, common)
        asked = ", ".join([hashed, *(cast(part, common) for part in view.fields if values)])
        if not view.key:
            sql = f"select distinct on (1) {asked} from {_name(view)} t where {hashed} = any(%s)"
            wanted = ([key[0] for key in keys],)
            return Statement(sql, wanted, lambda row: ((row[0],), bytes.fromhex(row[0]), tuple(row[1:])))
        count, here = len(view.key), portable.by_client(view, common)
        keys = [key for key in keys if all(map(self.holds, view.key, key))]
        if here:
            asked = ", ".join(cast(part, common) for part in view.fields)
        texts = ", ".join(cast(part, common) for part in view.key)
        own = ", ".join(map(_sought, view.key))
        typed = ", ".join(_typed(part, f"w.k{number}", common) for number, part in enumerate(view.key))
        arrays, names = ", ".join(["%s::text[]"] * count), ", ".join(f"k{number}" for number in range(count))
        sql = (
            f"select {texts}, {asked} from {_name(view)} t "
            f"where ({own}) in (select {typed} from unnest({arrays}) w({names}))"
        )
        return Statement(
            sql,
            tuple([key[number] for key in keys] for number in range(count)),
            lambda row: (
                portable.keyed(view, row)
                if here
                else (tuple(row[:count]), bytes.fromhex(row[count]), tuple(row[count + 1 :]))
            ),
        )


def _dated(text: str) -> bool:
    """Whether it begins with a day that there was: MySQL has others, such as the 30th of February, or day 0."""
    day = DATE.match(text)
    if day is None or text.endswith("BC"):  # infinity, years of five digits, and before Christ: of PostgreSQL's own
        return True
    try:
        date.fromisoformat(day[0])
    except ValueError:
        return False
    return True


def _name(view: View) -> str:
    return f"{quoted(view.schema)}.{quoted(view.name)}"


def _sampled(part: Field) -> str:
    """The text of a key that a range can begin with on both sides."""
    own = quoted(part.column.name)
    return trimmed(own, False) if part.kind == "number" and part.column.base == "numeric" else f"{own}::text"


def _ordered(part: Field, of: str = "t.") -> str:
    """A key's column in an order that is the same on every server."""
    own = of + quoted(part.column.name)
    return f'{own} collate "C"' if part.kind == "text" and not part.column.bytewise else own


def _sought(part: Field) -> str:
    """A key's column as its bare type: a domain of an enum or of an array has no operators of its own."""
    own = f"t.{quoted(part.column.name)}"
    return f"{own}::{_type(part)}" if part.kind == "other" or part.column.labels is not None else own


def _typed(part: Field, text: str, common: Common) -> str:
    """Canonical text as a value of the key's type; NULL where it is none, if the server tells."""
    if part.kind == "bytes":
        return f"decode({text}, 'hex')"
    kind = _type(part)
    if part.column.base == "bool":
        return f"({text})::int::{kind}"
    if not common.asks or part.column.base in READABLE:
        return f"({text})::{kind}"
    name = kind.replace("'", "''")
    return f"case when pg_input_is_valid({text}, '{name}') then ({text})::{kind} end"


def _type(part: Field) -> str:
    """A key's type; without a length, to which the other side's key would be cut, and of integers the widest."""
    return "int8" if FORMS.get(part.column.base) is INTEGER else part.column.bare.replace("%", "%%")


def _within(view: View, span: Span) -> tuple[str, tuple[Any, ...]]:
    """The WHERE clause of a range, and its parameters."""
    own = ", ".join(_ordered(part) for part in view.key)
    bounds = ", ".join(f"%s::{_type(part)}" for part in view.key)
    clauses = [f"({own}) {sign} ({bounds})" for sign, key in ((">=", span.lower), ("<", span.upper)) if key is not None]
    return (" where " if clauses else "") + " and ".join(clauses), (*(span.lower or ()), *(span.upper or ()))


def _bucket(view: View, span: Span, common: Common, modulus: int, hashed: str) -> str:
    """The expression that puts a row with this hash into its bucket."""
    if span.width:
        return f"t.{quoted(view.key[0].column.name)} / {span.width}::bigint"
    if view.key and common.modern:
        return f"{native(view.key, common)} & {modulus - 1}"
    return _modulo(f"md5({utf8(text(view.key, common), common)})" if view.key else hashed, common, modulus)


def _modulo(hashed: str, common: Common, modulus: int) -> str:
    if common.method == "native":
        return f"{hashed} & {modulus - 1}"
    return f"('x' || left({hashed}, 8))::bit(32)::bigint & {modulus - 1}"


def _inside(
    view: View, span: Span, common: Common, modulus: int, buckets: Sequence[int]
) -> tuple[str, tuple[Any, ...]]:
    """The WHERE clause of some buckets: intervals of the key, which the index finds, unless they are too many."""
    intervals = _intervals(buckets, span) if span.width else []
    if intervals and len(intervals) <= INTERVALS:
        own = f"t.{quoted(view.key[0].column.name)}"
        between = (f"{own} between '{low}'::int8 and '{high}'::int8" for low, high in intervals)
        return f" where {' or '.join(between)}", ()
    where, parameters = _within(view, span)
    chosen = f"{_bucket(view, span, common, modulus, _hash(view, common))} = any(%s::bigint[])"
    here = [bucket for bucket in buckets if -(2**63) <= bucket < 2**63]
    return f"{where}{' and' if where else ' where'} {chosen}", (*parameters, here)


def _intervals(buckets: Sequence[int], span: Span) -> list[tuple[int, int]]:
    """The keys of a range's buckets, neighbours as one. Division cuts towards zero: bucket 0 reaches to both sides."""
    first = int(span.lower[0]) if span.lower else -(2**63)
    last = int(span.upper[0]) - 1 if span.upper else 2**63 - 1
    found: list[tuple[int, int]] = []
    for bucket in sorted(buckets):
        low = max(first, bucket * span.width - (span.width - 1) * (bucket <= 0))
        high = min(last, bucket * span.width + (span.width - 1) * (bucket >= 0))
        if low > high:  # beyond what is a bigint: the other side has unsigned numbers
            continue
        if found and found[-1][1] + 1 == low:
            low = found.pop()[0]
        found.append((low, high))
    return found


def _known(view: View, common: Common) -> str:
    """What a row is known by, in hex."""
    hashed = _hash(view, common)
    return f"encode(int8send({hashed}), 'hex')" if common.method == "native" else hashed


def _hash(view: View, common: Common) -> str:
    """A row's hash: a number, or an md5 in hex. Used twice, it has to be computed once: `offset 0` sees to that."""
    return native(view.fields, common) if common.method == "native" else md5(view, common)


def _folds(hashed: str, common: Common) -> str:
    """The sums that fold hashes: under xor, equal rows of a table without key would cancel each other out.

    An md5 of 128 bits is folded in two sums of 64: of hashes of it where both servers hash alike, which is quicker
    than reading its halves as numbers.
    """
    if common.method == "native":
        return f"sum({hashed})::text"
    if common.modern:
        return f"sum(hashtextextended({hashed}, 0))::text, sum(hashtextextended({hashed}, 1))::text"
    return ", ".join(f"sum(('x' || substr({hashed}, {start}, 16))::bit(64)::bigint)" for start in (1, 17))


def _folded(row: Sequence[Any], common: Common) -> tuple[Any, ...]:
    """The sums; for an engine with unsigned numbers modulo 2^64."""
    return tuple(row) if common.modern else tuple(int(total or 0) % 2**64 for total in row)
