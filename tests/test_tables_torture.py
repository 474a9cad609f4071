"""Two values that are not the same are never taken for the same, however alike they look."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Literal

import pytest

from runbook_lib import tables
from runbook_lib.databases import Database
from runbook_lib.lab import postgres
from runbook_lib.tables import reading
from runbook_lib.tables.result import TableResult
from tests.servers import in_postgresql, postgresql

Method = Literal["md5", "native"]

# What it is: type, value at the source, value at the target.
UNLIKE = {
    "NULL and nothing": ("text", "null", "''"),
    "NULL and its name": ("text", "null", "'NULL'"),
    "NULL and a placeholder": ("text", "null", "'<null>'"),
    "NULL and -1": ("text", "null", "'-1'"),
    "NULL and the separator": ("text", "null", "chr(31)"),
    "NULL and zero": ("int", "null", "0"),
    "NULL and false": ("boolean", "null", "false"),
    "NULL and its mark": ("text", "null", "'!1'"),
    "NULL and no time": ("time", "null", "'00:00'"),
    "NULL and an epoch": ("timestamp", "null", "'2000-01-01'"),
    "NULL and a float of nothing": ("float8", "null", "0"),
    "NULL and a uuid of nothing": ("uuid", "null", "'00000000-0000-0000-0000-000000000000'"),
    "NULL and an empty array": ("int[]", "null", "'{}'"),
    "NULL and an empty bytea": ("bytea", "null", "''"),
    "NULL and json null": ("jsonb", "null", "'null'"),
    "NULL and an empty range": ("int4range", "null", "'empty'"),
    "NULL and no bits": ("bit varying", "null", "''"),
    "NULL and no words": ("tsvector", "null", "''"),
    "the last bit of a float": ("float8", "0.1::float8 + 0.2", "0.3"),
    "the last bit of a small float": ("float4", "'1.1'", "'1.1000001'"),
    "a tiny float": ("float8", "2e-12", "1e-12"),
    "minus zero": ("float8", "'-0'", "'0'"),
    "not a number": ("float8", "'NaN'", "'Infinity'"),
    "NaN and NULL": ("float8", "'NaN'", "null"),
    "the scale of a numeric": ("numeric", "1.5", "1.500"),
    "numerics far apart in size": ("numeric", "1e30", "1e30 + 1e-30"),
    "numeric NaN": ("numeric", "'NaN'", "'Infinity'"),
    "the sign of a numeric": ("numeric", "1.5", "-1.5"),
    "the sign of a numeric with a scale": ("numeric(10,2)", "1.5", "-1.5"),
    "the sign of an infinity": ("numeric", "'infinity'", "'-infinity'"),
    # PostgreSQL's own hashes of these are equal: it folds 64 bits into 32, and the next ones are such halves
    "the halves of a bigint": ("bigint", "1", "4294967296"),
    "the halves of a negative bigint": ("bigint", "-1", "4294967295"),
    "the halves of a time": ("time", "'00:00:00.000001'", "'01:11:34.967296'"),
    "the halves of a timestamp": ("timestamp", "'2000-01-01 00:00:00.000001'", "'2000-01-01 01:11:34.967296'"),
    "the halves of a moment": ("timestamptz", "'2000-01-01 00:00:00.000001Z'", "'2000-01-01 01:11:34.967296Z'"),
    "big integers": ("bigint", "9223372036854775807", "9223372036854775806"),
    "json nesting": ("jsonb", "'[[1],2]'", "'[[1,2]]'"),
    "empty json object and array": ("jsonb", "'{}'", "'[]'"),
    "empty json nested": ("jsonb", "'[[]]'", "'[]'"),
    "json number and text": ("jsonb", "'1'", "'\"1\"'"),
    "json scale": ("jsonb", "'1.0'", "'1'"),
    "json text's blanks": ("json", "'{\"a\": 1}'", "'{\"a\":1}'"),
    "json text's order": ("json", '\'{"a":1,"b":2}\'', '\'{"b":2,"a":1}\''),
    "a trailing space": ("text", "'a '", "'a'"),
    "a trailing space in varchar": ("varchar(9)", "'a '", "'a'"),
    "case": ("text", "'A'", "'a'"),
    "composed and decomposed": ("text", "U&'\\00e9'", "U&'e\\0301'"),
    "line ends": ("text", "E'a\\r\\n'", "E'a\\n'"),
    "a control character": ("text", "chr(31)", "chr(30)"),
    "beyond the basic plane": ("text", "U&'\\+01F600'", "U&'\\+01F601'"),
    "a microsecond": ("timestamptz", "'2024-05-01 12:00:00.000001Z'", "'2024-05-01 12:00:00Z'"),
    "a microsecond without zone": ("timestamp", "'2024-05-01 12:00:00.000001'", "'2024-05-01 12:00:00.000002'"),
    "infinity": ("timestamptz", "'infinity'", "'-infinity'"),
    "before Christ": ("date", "'0044-03-15 BC'", "'0044-03-15'"),
    "infinite date": ("date", "'infinity'", "null"),
    "a time's microsecond": ("time", "'12:00:00.000001'", "'12:00'"),
    "midnight, both": ("time", "'24:00'", "'00:00'"),
    "the zone of a time": ("timetz", "'12:00+00'", "'13:00+01'"),
    "a month and thirty days": ("interval", "'1 month'", "'30 days'"),
    "a day and its hours": ("interval", "'1 day'", "'24 hours'"),
    "bytes": ("bytea", "'\\x00'", "'\\x0000'"),
    "bytes that spell it": ("bytea", "'\\x61'", "'\\x41'"),
    "enum": ("public.mood", "'happy'", "'sad'"),
    "an enum of nothing": ("public.mood", "''", "null"),
    "array nesting": ("int[]", "'{{1,2}}'", "'{1,2}'"),
    "array bounds": ("int[]", "'[0:1]={1,2}'", "'{1,2}'"),
    "NULL in an array": ("text[]", "'{NULL}'", "'{\"NULL\"}'"),
    "minus zero in an array": ("float8[]", "'{-0}'", "'{0}'"),
    "scale in an array": ("numeric[]", "'{1.0}'", "'{1}'"),
    "separators in an array": ("text[]", "array['a,b']", "array['a','b']"),
    "range bounds": ("numrange", "'[1,2)'", "'[1,2]'"),
    "scale in a range": ("numrange", "'[1.0,2)'", "'[1,2)'"),
    "bits": ("bit varying", "'01'", "'1'"),
    "network": ("inet", "'192.0.2.1/24'", "'192.0.2.1'"),
    "uuid": ("uuid", "'00000000-0000-0000-0000-000000000001'", "'00000000-0000-0000-0000-000000000002'"),
    "boolean": ("boolean", "true", "false"),
    "a domain's value": ("public.code", "'a'", "'A'"),
    "a text of another collation": ('text collate "C"', "'a'", "'A'"),
    "minus zero in a point": ("point", "'(0,-0)'", "'(0,0)'"),
    "NULL in a record of many": ("public.mood[]", "'{happy,NULL}'", "'{happy}'"),
}
# Not the same, and of two types: type and value at the source, at the target.
UNLIKE_TYPES = {
    "a fraction and an integer": ("numeric(12,2)", "2.50", "bigint", "2"),
    "an integer and a fraction": ("int", "0", "numeric", "0.004"),
    "an integer and its negative": ("int", "3", "numeric(12,2)", "-3"),
    "json with what jsonb cannot hold": ("json", """E'{"a":"\\\\u0000"}'""", "jsonb", """'{"a":""}'"""),
    "json with half a surrogate": ("json", """E'{"a":"\\\\ud800"}'""", "jsonb", """'{"a":"?"}'"""),
}
TOLD = {**{what: (kind, one, kind, other) for what, (kind, one, other) in UNLIKE.items()}, **UNLIKE_TYPES}
# The same although the types are not: type and value at the source, at the target.
ALIKE = {
    "widths of integers": ("int", "5", "bigint", "5"),
    "a narrow integer": ("smallint", "-5", "integer", "-5"),
    "texts": ("varchar(10)", "'a b '", "text", "'a b '"),
    "padded text": ("char(5)", "'a'", "text", "'a'"),
    "padded text of other lengths": ("char(5)", "'a'", "char(9)", "'a'"),
    "an enum made text": ("public.mood", "'sad'", "text", "'sad'"),
    "json made jsonb": ("json", '\'{"b":1,"a":[2, 3]}\'', "jsonb", '\'{"a":[2,3],"b":1}\''),
    "a uuid made text": (
        "uuid", "'6F9619FF-8B86-D011-B42D-00CF4FC964FF'", "text", "'6f9619ff-8b86-d011-b42d-00cf4fc964ff'",
    ),
    "a boolean made a number": ("boolean", "true", "smallint", "1"),
    "json that only looks like what jsonb cannot hold": (
        "json", """E'{"a":"\\\\\\\\u0000"}'""", "jsonb", """E'{"a":"\\\\\\\\u0000"}'""",
    ),
    "a scale beside an integer": ("numeric(12,2)", "100", "bigint", "100"),
    "an integer beside a scale": ("int", "-7", "numeric(12,3)", "-7"),
    "a number widened": ("bigint", "12", "numeric", "12"),
    "widths of floats": ("float4", "'1.1'", "float8", "1.1"),
    "a moment without zone": (
        "timestamp", "'2024-05-01 12:00:00.000001'", "timestamptz", "'2024-05-01 12:00:00.000001Z'",
    ),
    "a domain": ("public.code", "'x'", "varchar(3)", "'x'"),
    "constrained numerics": ("numeric(10,2)", "1.5", "numeric(12,2)", "1.50"),
    "NULLs": ("int", "null", "bigint", "null"),
    "a zone shown otherwise": ("timestamptz", "'2024-05-01 14:00+02'", "timestamptz", "'2024-05-01 12:00Z'"),
    "json of one meaning": ("jsonb", '\'{"a": 1, "b": 2}\'', "jsonb", '\'{"b":2,"a":1}\''),
    "a long text": ("text", "repeat('ü', 100000)", "text", "repeat('ü', 100000)"),
}  # fmt: skip
SETUP = """
create schema shop;
create type public.mood as enum ('happy', 'sad', '');
create domain public.code as varchar(3);
"""
numbers = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[postgres.Server]:
    with postgresql(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def sides(server: postgres.Server) -> tuple[Database, Database]:
    """Two databases with a table for each pair of values, with a key and without."""
    scripts = [SETUP, SETUP.replace("'happy', 'sad', ''", "'', 'sad', 'happy'")]
    pairs = [*TOLD.values(), *ALIKE.values()]
    for number, (kind, one, other_kind, other) in enumerate(pairs):
        for side, (type_, value) in enumerate(((kind, one), (other_kind, other))):
            for key, column in (("key", "id int primary key"), ("none", "id int")):
                table = f"shop.{key}{number}"
                scripts[side] += f"create table {table} ({column}, v {type_}, w text default 'w');"
                scripts[side] += f"insert into {table} values (1, {value}), (2, null);"
    source, target = (in_postgresql(server, name, script) for name, script in zip("ab", scripts, strict=True))
    return source, target


@pytest.fixture(scope="module", params=["md5", "md5 before PostgreSQL 13", "native", "native before PostgreSQL 18"])
def compared(request: pytest.FixtureRequest, sides: tuple[Database, Database]) -> dict[str, TableResult]:
    method, _, older = request.param.partition(" ")
    with pytest.MonkeyPatch.context() as patch:
        if older:
            patch.setattr(reading, "TRIMS" if older.endswith("13") else "BYTES_HASHED", 99)
        options = tables.Options(method=method, rounds=1, pause=0)
        found = tables.compare(*sides, tables.pairs(*sides, ["shop.%"]), options)
    return {table.name: table for table in found.compared}


@pytest.mark.parametrize("what", TOLD)
def test_what_is_not_the_same_is_told_with_its_values(compared: dict[str, TableResult], what: str) -> None:
    number = list(TOLD).index(what)
    found = compared[f"shop.key{number}"]
    assert (found.ok, found.different, found.missing, found.extra) == (False, 1, 0, 0)
    (difference,) = found.differences
    assert (difference.key, difference.columns) == ({"id": "1"}, ("v",))


@pytest.mark.parametrize("what", TOLD)
def test_what_is_not_the_same_is_told_without_a_key(compared: dict[str, TableResult], what: str) -> None:
    found = compared[f"shop.none{list(TOLD).index(what)}"]
    assert (found.ok, found.different, found.missing, found.extra) == (False, 0, 1, 1)


@pytest.mark.parametrize("what", ALIKE)
def test_what_is_the_same_is_not_reported(compared: dict[str, TableResult], what: str) -> None:
    number = len(TOLD) + list(ALIKE).index(what)
    for table in (f"shop.key{number}", f"shop.none{number}"):
        assert compared[table].ok, compared[table]
        assert compared[table].source_rows == 2


@pytest.mark.parametrize("method", ["md5", "native"])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("'x|y'", "'z'"), ("'x'", "'y|z'")),
        (("'x' || chr(31) || 'y'", "'z'"), ("'x'", "'y' || chr(31) || 'z'")),
        (("chr(31)", "''"), ("''", "chr(31)")),
        (("null", "'a'"), ("'a'", "null")),
        (("null", "''"), ("''", "null")),
        (("'1' || chr(31) || '1'", "'a'"), ("'1'", "chr(31) || 'a1'")),
        (("'-1'", "null"), ("null", "'-1'")),
    ],
)
def test_a_value_does_not_leak_into_its_neighbour(
    server: postgres.Server, one: tuple[str, str], other: tuple[str, str], method: Method
) -> None:
    table = "create table t (id int primary key, a text, b text); insert into t values (1, {}, {})"
    source, target = (in_postgresql(server, f"leak{next(numbers)}", table.format(*values)) for values in (one, other))
    options = tables.Options(method=method, rounds=0)
    found = tables.compare(source, target, tables.pairs(source, target, ["public.t"]), options)
    assert (found.ok, found.compared[0].different) == (False, 1)
    assert tables.compare(source, source, tables.pairs(source, source, ["public.t"]), options).ok


ROWS = "(id int primary key, a bytea, b timestamp, c text, d float8, e date, f uuid, g bytea, h text, i int)"
UUID = "'33333333-3333-3333-3333-333333333333'"  # as bytes it spells 3333333333333333


@pytest.mark.parametrize("method", ["md5", "native", "native before PostgreSQL 18"])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("'ab', null, 'x', null, null, null, '', 'y', 1", "'a', null, 'x', null, null, null, 'b', 'y', 1"),
        ("null, null, 'x', null, null, null, 'ab', 'y', 1", "'ab', null, 'x', null, null, null, null, 'y', 1"),
        ("null, null, 'x', null, null, null, '', 'y', 1", "'', null, 'x', null, null, null, null, 'y', 1"),
        (
            "null, null, 'x', 1.5, null, null, null, 'y', 1",
            "null, '2034-04-26 06:33:33', 'x', null, null, null, null, 'y', 1",
        ),
        (
            f"null, null, 'x', null, null, {UUID}, null, 'y', 1",
            "null, null, 'x', null, null, null, null, 'y3333333333333333', 1",
        ),
        (
            f"null, null, 'x', null, null, {UUID}, null, null, 1",
            "null, null, 'x', null, null, null, '3333333333333333', null, 1",
        ),
        ("null, null, 'x', null, null, null, null, null, 1", "null, null, null, null, null, null, null, 'x', 1"),
        ("null, null, '', null, null, null, null, null, 1", "null, null, '1', null, null, null, null, null, null"),
        ("null, null, '!3', null, null, null, null, '', 1", "null, null, null, null, null, null, null, '!3', 1"),
    ],
)
def test_bytes_do_not_pass_for_those_of_another_column(
    server: postgres.Server, one: str, other: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if method not in ("md5", "native"):
        monkeypatch.setattr(reading, "BYTES_HASHED", 99)
    table = f"create table t {ROWS}; insert into t values (1, {{}})"
    source, target = (in_postgresql(server, f"leak{next(numbers)}", table.format(row)) for row in (one, other))
    options = tables.Options(method="md5" if method == "md5" else "native", rounds=0)
    found = tables.compare(source, target, tables.pairs(source, target, ["public.t"]), options)
    assert (found.ok, found.compared[0].different) == (False, 1)


@pytest.mark.parametrize("method", ["md5", "native"])
def test_a_table_of_many_columns_is_compared_to_the_last(server: postgres.Server, method: Method) -> None:
    columns = [*(f"c{number} text" for number in range(70)), *(f"d{number} float8" for number in range(70)), "z text"]
    table = f"create table t (id int primary key, {', '.join(columns)}); insert into t (id, c0, z) values (1, '', {{}})"
    source, target = (in_postgresql(server, f"wide{next(numbers)}", table.format(z)) for z in ("'a'", "'b'"))
    options = tables.Options(method=method, rounds=0)
    found = tables.compare(source, target, tables.pairs(source, target, ["public.t"]), options)
    assert [difference.columns for difference in found.compared[0].differences] == [("z",)]
    assert tables.compare(source, source, tables.pairs(source, source, ["public.t"]), options).ok


def test_what_the_environment_says_about_encodings_does_not_matter(
    server: postgres.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = "create table t (id int primary key, a text); insert into t values (1, 'ü日')"
    source, target = (in_postgresql(server, f"coded{next(numbers)}", table) for _ in range(2))
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    assert tables.compare(source, target, tables.pairs(source, target, ["public.t"]), tables.Options(rounds=0)).ok


# A constraint that is not valid yet: the catalog says NOT NULL, and the rows that were there before hold NULL.
UNPROVEN = """
create table t (id int primary key, a timestamp, b bytea, c int, d text);
insert into t values (1, null, null, null, '{}');
alter table t add constraint a not null a not valid, add constraint b not null b not valid,
    add constraint c not null c not valid;
"""


@pytest.mark.parametrize("method", ["md5", "native"])
def test_a_column_that_is_not_null_only_from_now_on_hides_no_difference(
    server: postgres.Server, method: Method
) -> None:
    source, target = (in_postgresql(server, f"unproven{next(numbers)}", UNPROVEN.format(d)) for d in "xy")
    options = tables.Options(method=method, rounds=1, pause=0)
    found = tables.compare(source, target, tables.pairs(source, target, ["public.t"]), options)
    assert [difference.columns for difference in found.compared[0].differences] == [("d",)]
    assert tables.compare(source, source, tables.pairs(source, source, ["public.t"]), options).ok


# Rows of a child are rows of the table, and NOT NULL does not reach them.
CHILD = """
create table t (id int primary key, a timestamp not null no inherit, b bytea not null no inherit,
    c int not null no inherit, d text not null no inherit, e text);
create table child () inherits (t);
insert into child values (1, null, null, {}, '{}');
"""


@pytest.mark.parametrize("method", ["md5", "native"])
@pytest.mark.parametrize(
    ("one", "other", "columns"),
    [(("null, null", "x"), ("null, null", "y"), ("e",)), (("null, '1'", "x"), ("1, null", "x"), ("c", "d"))],
)
def test_a_child_without_not_null_hides_no_difference(
    server: postgres.Server, method: Method, one: tuple[str, str], other: tuple[str, str], columns: tuple[str, ...]
) -> None:
    source, target = (in_postgresql(server, f"child{next(numbers)}", CHILD.format(*side)) for side in (one, other))
    options = tables.Options(method=method, rounds=1, pause=0)
    found = tables.compare(source, target, tables.pairs(source, target, ["public.t"]), options)
    assert [difference.columns for difference in found.compared[0].differences] == [columns]
    assert tables.compare(source, source, tables.pairs(source, source, ["public.t"]), options).ok


DOMAINS = """create domain whole as {}; create domain broken as {};
create table t (id whole primary key, a whole, b broken); insert into t values (7, 5, 1.5);"""


@pytest.mark.parametrize("method", ["md5", "native"])
def test_domains_of_one_name_over_other_types_are_compared_as_what_they_are(
    server: postgres.Server, method: Method
) -> None:
    scripts = (DOMAINS.format("int", "real"), DOMAINS.format("bigint", "float8"))
    source, target = (in_postgresql(server, f"domain{next(numbers)}", script) for script in scripts)
    options = tables.Options(method=method, rounds=1, pause=0)
    assert tables.compare(source, target, tables.pairs(source, target, ["public.t"]), options).ok


@pytest.mark.parametrize("method", ["md5", "native"])
def test_values_that_change_places_between_rows_are_not_the_same(server: postgres.Server, method: Method) -> None:
    """Of tables without a key: the same values in every column, in other rows."""
    script = "create table t (a int, b text, c timestamp); insert into t select i, i::text, timestamp '2024-01-01' + {}"
    script += " * interval '1 s' from generate_series(0, 199) i"
    source, target = (
        in_postgresql(server, f"places{next(numbers)}", script.format(which)) for which in ("i", "(i + i % 2 * 2 - 1)")
    )
    found = tables.compare(
        source, target, tables.pairs(source, target, ["public.t"]), tables.Options(method=method, rounds=0)
    )
    assert (found.ok, found.compared[0].missing, found.compared[0].extra) == (False, 200, 200)


@pytest.mark.parametrize("method", ["md5", "native"])
def test_a_key_that_is_not_null_only_from_now_on_is_no_key(server: postgres.Server, method: Method) -> None:
    script = """create table t (k int, d text); insert into t select g, 'x' from generate_series(1, 90000) g;
        insert into t values (null, '{}'); create unique index on t (k);
        alter table t add constraint k not null k not valid"""
    source, target = (in_postgresql(server, f"unproven{next(numbers)}", script.format(d)) for d in "xy")
    options = tables.Options(method=method, rounds=1, pause=0)
    (found,) = tables.compare(source, target, tables.pairs(source, target, ["public.t"]), options).compared
    assert (found.source_rows, found.missing, found.extra) == (90_001, 1, 1)
