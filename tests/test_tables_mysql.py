"""MySQL and MariaDB tables are compared with PostgreSQL's, and with each other's, without a false "same"."""

from __future__ import annotations

import hashlib
import importlib
import itertools
import json
import math
import random
import struct
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, Mock

import pymysql
import pytest

from runbook_lib import tables
from runbook_lib.databases import Database, translated
from runbook_lib.errors import DatabaseError
from runbook_lib.lab import postgres
from runbook_lib.tables import portable, reading
from runbook_lib.tables.mysql import MySQL
from runbook_lib.tables.result import TableResult
from tests.servers import (
    MYSQL,
    MySQLOrMariaDB,
    in_mariadb,
    in_postgresql,
    mariadb_server,
    only_mariadb,
    postgresql,
    series,
)

# What it is: type and value on MariaDB, on PostgreSQL.
ALIKE = {
    "a hundred without a sign": ("decimal(10,0) unsigned", "100", "bigint", "100"),
    "a fraction without a sign": ("decimal(10,2) unsigned", "1.50", "numeric", "1.5"),
    "an integer beside a fraction": ("int", "100", "numeric(12,2)", "100"),
    "an integer": ("int", "-5", "integer", "-5"),
    "the largest unsigned": ("bigint unsigned", "18446744073709551615", "numeric(20)", "18446744073709551615"),
    "an unsigned beyond 2^63": ("bigint unsigned", "9223372036854775808", "numeric", "9223372036854775808"),
    "the largest signed": ("bigint", "9223372036854775807", "bigint", "9223372036854775807"),
    "an integer shown with zeros": ("int(8) zerofill", "42", "bigint", "42"),
    "a true tinyint": ("tinyint(1)", "1", "boolean", "true"),
    "a false tinyint": ("tinyint(1)", "0", "boolean", "false"),
    "a small tinyint": ("tinyint", "-128", "smallint", "-128"),
    "one bit": ("bit(1)", "b'1'", "boolean", "true"),
    "bits as a number": ("bit(10)", "b'1000000001'", "integer", "513"),
    "a year": ("year", "2024", "smallint", "2024"),
    "the year nothing": ("year", "0", "integer", "0"),
    "decimals": ("decimal(10,2)", "1.50", "numeric(12,4)", "1.5"),
    "a round decimal": ("decimal(10,2)", "100.00", "numeric", "100"),
    "a decimal without fraction": ("decimal(10,0)", "100", "numeric(10)", "100"),
    "a decimal made an integer": ("decimal(20,0)", "100", "bigint", "100"),
    "a decimal shown with zeros": ("decimal(10,3) zerofill", "1.5", "numeric", "1.5"),
    "a negative decimal": ("decimal(30,20)", "-0.00000000000000000001", "numeric", "-0.00000000000000000001"),
    "zero with a scale": ("decimal(10,2)", "0.00", "numeric", "0"),
    "a float": ("double", "1.5", "double precision", "1.5"),
    "a third": ("double", "1/3e0", "double precision", "1/3.0::float8"),
    "a large float": ("double", "1e15", "double precision", "1e15"),
    "a larger float": ("double", "-1.7976931348623157e308", "double precision", "-1.7976931348623157e308"),
    "a small float": ("double", "1e-5", "double precision", "1e-5"),
    "the smallest float": ("double", "2.2250738585072014e-308", "double precision", "2.2250738585072014e-308"),
    "the smallest below zero": ("double", "-2.2250738585072014e-308", "double precision", "-2.2250738585072014e-308"),
    "a whole float": ("double", "1234567", "double precision", "1234567"),
    "a float of zero": ("double", "0", "double precision", "0"),
    "a float shown with two digits": ("double(10,2)", "1.5", "double precision", "1.5"),
    "a float of four bytes": ("float", "0.1", "real", "0.1"),
    "the smallest float of four bytes": ("float", "-1.1754943508222875e-38", "real", "-1.1754943508222875e-38"),
    "a float of four bytes with many digits": ("float", "16777216", "real", "16777216"),
    "text": ("varchar(20)", "'Grüße, 東京 😀'", "text", "'Grüße, 東京 😀'"),
    "text of another character set": ("varchar(20) character set latin1", "'Grüße'", "text", "'Grüße'"),
    "padded text": ("char(10)", "'a'", "char(10)", "'a'"),
    "padded text made text": ("char(10)", "'a'", "text", "'a'"),
    "a trailing space": ("varchar(10)", "'a '", "varchar(10)", "'a '"),
    "empty text": ("varchar(10)", "''", "text", "''"),
    "long text": ("mediumtext", "repeat('ü', 100000)", "text", "repeat('ü', 100000)"),
    "an enum": ("enum('a','b')", "'b'", "text", "'b'"),
    "a set": ("set('a','b','c')", "'c,a'", "text", "'a,c'"),
    "bytes": ("varbinary(10)", "x'00ff'", "bytea", "'\\x00ff'"),
    "padded bytes": ("binary(3)", "x'01'", "bytea", "'\\x010000'"),
    "no bytes": ("blob", "''", "bytea", "''"),
    "a date": ("date", "'2024-02-29'", "date", "'2024-02-29'"),
    "a time": ("time", "'23:59:59'", "time", "'23:59:59'"),
    "a time with a fraction": ("time(6)", "'01:02:03.450000'", "time", "'01:02:03.45'"),
    "a datetime": ("datetime", "'2024-05-01 12:00:00'", "timestamp", "'2024-05-01 12:00'"),
    "a datetime's fraction": ("datetime(3)", "'2024-05-01 12:00:00.120'", "timestamp", "'2024-05-01 12:00:00.12'"),
    "a datetime's round fraction": ("datetime(6)", "'2024-05-01 12:00:10'", "timestamp", "'2024-05-01 12:00:10'"),
    "a datetime taken for UTC": ("datetime(6)", "'2024-05-01 12:00:00.1'", "timestamptz", "'2024-05-01 14:00:00.1+02'"),
    "a timestamp": ("timestamp(6)", "'2024-05-01 12:00:00.000001'", "timestamptz", "'2024-05-01 12:00:00.000001Z'"),
    "a timestamp without zone": ("timestamp", "'2024-05-01 12:00:00'", "timestamp", "'2024-05-01 12:00:00'"),
    "json as it came": ("json", '\'{"b": 1, "a": [{"c": null}]}\'', "jsonb", '\'{"a": [{"c": null}], "b": 1}\''),
    "json with blanks": ("json", '\'{"a":1 ,\\n"b":2}\'', "json", '\'{"b": 2, "a": 1}\''),
    "json's numbers": ("json", "'[1.0, 1e2, -0, 0.10]'", "jsonb", "'[1, 100, 0, 0.1]'"),
    "json's escapes": ("json", "'[\"\\\\u00e9\\\\/\"]'", "jsonb", "'[\"é/\"]'"),
    "json that says a key twice": ("json", '\'{"a": 1, "a": 2}\'', "jsonb", '\'{"a": 2}\''),
    "json in text": ("json", "'[1]'", "text", "'[1]'"),
    "a uuid": ("uuid", "'6F9619FF-8B86-D011-B42D-00CF4FC964FF'", "uuid", "'6f9619ff-8b86-d011-b42d-00cf4fc964ff'"),
    "a uuid in text": ("char(36)", f"'{uuid.UUID(int=7)}'", "uuid", f"'{uuid.UUID(int=7).hex}'"),
    "NULL": ("varchar(10)", "null", "text", "null"),
    "a NULL number": ("decimal(10,2)", "null", "numeric", "null"),
    "a NULL float": ("double", "null", "float8", "null"),
    "NULL json": ("json", "null", "jsonb", "null"),
    "a NULL time": ("datetime(6)", "null", "timestamp", "null"),
}  # fmt: skip
UNLIKE = {
    "case": ("varchar(10)", "'A'", "text", "'a'"),
    "an accent": ("varchar(10)", "'é'", "text", "'e'"),
    "composed and decomposed": ("varchar(10)", "'é'", "text", "U&'e\\0301'"),
    "a trailing space": ("varchar(10)", "'a '", "text", "'a'"),
    "a trailing space in an enum": ("varchar(10)", "'a'", "text", "'a '"),
    "NULL and nothing": ("varchar(10)", "null", "text", "''"),
    "nothing and NULL": ("varchar(10)", "''", "text", "null"),
    "NULL and its name": ("varchar(10)", "null", "text", "'NULL'"),
    "NULL and -1": ("varchar(10)", "null", "text", "'-1'"),
    "NULL and zero": ("int", "null", "int", "0"),
    "NULL and false": ("tinyint(1)", "null", "boolean", "false"),
    "NULL bytes": ("varbinary(10)", "null", "bytea", "''"),
    "json null": ("json", "null", "jsonb", "'null'"),
    "a character beyond three bytes": ("varchar(10)", "'😀'", "text", "'?'"),
    "a tinyint of 2 and true": ("tinyint(1)", "2", "boolean", "true"),
    "an unsigned off by one": ("bigint unsigned", "18446744073709551615", "numeric", "18446744073709551614"),
    "a large signed off by one": ("bigint", "9007199254740993", "bigint", "9007199254740992"),
    "decimals": ("decimal(10,2)", "1.50", "numeric", "1.05"),
    "a hundred and one": ("decimal(10,2)", "100.00", "numeric", "1"),
    "a hundred without fraction and one": ("decimal(10,0)", "100", "numeric", "1"),
    "ten without a sign and one": ("decimal(10,0) unsigned", "10", "bigint", "1"),
    "a hundred with zeros before it and one": ("decimal(5,0) zerofill", "100", "numeric", "1"),
    "a sign": ("decimal(10,2)", "-1", "numeric", "1"),
    "not a number": ("decimal(10,2)", "0", "numeric", "'NaN'"),
    "the last bit of a float": ("double", "0.1e0 + 0.2e0", "float8", "0.3"),
    "the last bit of a small float": ("double", "2.2250738585072014e-208", "float8", "2.225073858507201e-208"),
    "the last bit of a float of four bytes": ("float", "1.1", "real", "1.1000001"),
    "a float of four bytes beyond six digits": ("float", "16777216", "real", "16777215"),
    "a float's exponent": ("double", "1e15", "float8", "1e16"),
    "a float's small exponent": ("double", "1e-5", "float8", "1e-6"),
    "a float's sign": ("double", "1.5", "float8", "-1.5"),
    "an infinite float": ("double", "0", "float8", "'Infinity'"),
    "a float and NaN": ("double", "null", "float8", "'NaN'"),
    "a zero date": ("date", "'0000-00-00'", "date", "null"),
    "a zero month": ("date", "'2024-00-01'", "date", "'2024-01-01'"),
    "a zero datetime": ("datetime", "'0000-00-00 00:00:00'", "timestamp", "null"),
    "a zero timestamp": ("timestamp", "'0000-00-00 00:00:00'", "timestamptz", "'epoch'"),
    "before Christ": ("datetime", "'0044-03-15 00:00:00'", "timestamp", "'0044-03-15 BC'"),
    "an infinite timestamp": ("datetime", "null", "timestamp", "'infinity'"),
    "a microsecond": ("datetime(6)", "'2024-05-01 12:00:00.000001'", "timestamp", "'2024-05-01 12:00:00'"),
    "a second's zero": ("datetime", "'2024-05-01 12:00:10'", "timestamp", "'2024-05-01 12:00:01'"),
    "a time of more than a day": ("time", "'25:00:00'", "time", "'01:00:00'"),
    "a negative time": ("time", "'-01:00:00'", "time", "'01:00:00'"),
    "a fraction of a time": ("time(6)", "'01:00:00.1'", "time", "'01:00:00'"),
    "bytes": ("varbinary(10)", "x'00'", "bytea", "'\\x0000'"),
    "json's structure": ("json", "'[[1],2]'", "jsonb", "'[[1,2]]'"),
    "json's empty things": ("json", "'{}'", "jsonb", "'[]'"),
    "json's number and text": ("json", "'1'", "jsonb", "'\"1\"'"),
    "json's number off by one": ("json", "'9007199254740993'", "jsonb", "'9007199254740992'"),
    "json's true and 1": ("json", "'true'", "jsonb", "'1'"),
    "json's keys' case": ("json", '\'{"A": 1}\'', "jsonb", '\'{"a": 1}\''),
    "a set's member": ("set('a','b')", "'a'", "text", "'a,b'"),
    "an enum's nothing": ("enum('a','b')", "0", "text", "null"),
    "a uuid": ("uuid", "'6f9619ff-8b86-d011-b42d-00cf4fc964ff'", "uuid", "'6f9619ff-8b86-d011-b42d-00cf4fc964fe'"),
}  # fmt: skip
if MYSQL:  # it has no such type
    for some in (ALIKE, UNLIKE):
        some.pop("a uuid")
PAIRS = {
    **{("unlike", what): pair for what, pair in UNLIKE.items()},
    **{("alike", what): p for what, p in ALIKE.items()},
}
QUICK = tables.Options(rounds=1, pause=0)
ENDLESS = "select sum(a.id = md5(concat(b.id, c.id, d.id))) from {0} a, {0} b, {0} c, {0} d".format(
    "information_schema.collations"
)
numbers = itertools.count()


@pytest.fixture(scope="module")
def maria(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MySQLOrMariaDB]:
    with mariadb_server(tmp_path_factory.mktemp("maria")) as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[postgres.Server]:
    with postgresql(tmp_path_factory.mktemp("server")) as running:
        yield running


def compared(source: Database, target: Database) -> dict[str, TableResult]:
    """Every table of the source's schema."""
    found = tables.compare(source, target, tables.pairs(source, target, [f"{source.name}.%"]), QUICK)
    return {table.name: table for table in found.compared}


def torture_scripts(schema: str) -> tuple[list[str], str]:
    """A table for each pair of values, with a key and without."""
    here, there = ["set sql_mode = ''"], f"create schema {schema}; set search_path = {schema};"
    for number, (_, pair) in enumerate(PAIRS.items()):
        for key, column in (("key", "id int primary key"), ("none", "id int")):
            if key == "none" and {pair[0], pair[2]} & {"json", "jsonb"} and pair[2] != "text":
                continue  # refused, see below
            name = f"{key}{number}"
            here += [f"create table {name} ({column}, v {pair[0]} null)"]
            here += [f"insert into {name} values (1, {pair[1]}), (2, null)"]
            there += (
                f"create table {name} ({column}, v {pair[2]}); insert into {name} values (1, {pair[3]}), (2, null);"
            )
    return here, there


@pytest.fixture(scope="module")
def torture(maria: MySQLOrMariaDB, server: postgres.Server) -> dict[str, TableResult]:
    here, there = torture_scripts("shop")
    return compared(in_mariadb(maria, "shop", here), in_postgresql(server, "torture", there))


def test_a_table_that_no_snapshot_holds_still_may_be_written_while_it_is_compared(
    maria: MySQLOrMariaDB, server: postgres.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = "(id int primary key, v int)"
    here = [f"create table restless.t {columns} engine=MyISAM", "insert into restless.t values (1, 1), (2, 2), (3, 3)"]
    source = in_mariadb(maria, "restless", here)
    target = in_postgresql(
        server, "restless", f"create schema restless; create table restless.t {columns};"
        "insert into restless.t values (1, 1), (2, 7), (3, 3)",
    )  # fmt: skip
    looked = reading.Sides.unlike

    def meanwhile(self: reading.Sides, *asked: Any) -> Any:
        with source.session(read_only=False) as session, session.cursor() as cursor:
            cursor.execute("insert into restless.t values (4, 4)")
        return looked(self, *asked)

    monkeypatch.setattr(reading.Sides, "unlike", meanwhile)
    (found,) = tables.compare(
        source, target, tables.pairs(source, target, ["restless.t"]), tables.Options(rounds=0)
    ).compared
    assert (found.different, found.missing, found.extra) == (1, 1, 0)


@pytest.mark.parametrize("what", ALIKE)
def test_what_is_the_same_on_both_engines_is_not_reported(torture: dict[str, TableResult], what: str) -> None:
    number = list(PAIRS).index(("alike", what))
    found = [torture[name] for name in (f"shop.key{number}", f"shop.none{number}") if name in torture]
    assert found
    for table in found:
        assert table.ok and table.source_rows == 2, table


@pytest.mark.parametrize("what", UNLIKE)
def test_what_is_not_the_same_on_both_engines_is_told_with_its_values(
    torture: dict[str, TableResult], what: str
) -> None:
    number = list(PAIRS).index(("unlike", what))
    found = torture[f"shop.key{number}"]
    assert (found.ok, found.different, found.missing, found.extra) == (False, 1, 0, 0)
    assert [(one.key, one.columns) for one in found.differences] == [({"id": "1"}, ("v",))]
    if f"shop.none{number}" in torture:
        found = torture[f"shop.none{number}"]
        assert (found.ok, found.different, found.missing, found.extra) == (False, 0, 1, 1)


@pytest.mark.parametrize("what", UNLIKE)
def test_two_servers_of_one_kind_are_told_apart_as_well(what: str, within: dict[str, TableResult]) -> None:
    number = list(UNLIKE).index(what)
    for name in (f"shop_a.t{number}", f"shop_a.n{number}"):
        assert name in within
    assert (within[f"shop_a.t{number}"].ok, within[f"shop_a.t{number}"].different) == (False, 1)
    assert (within[f"shop_a.n{number}"].missing, within[f"shop_a.n{number}"].extra) == (1, 1)
    assert within[f"shop_a.s{number}"].ok


@pytest.fixture(scope="module")
def within(maria: MySQLOrMariaDB) -> dict[str, TableResult]:
    """Each value that is told apart beside another of its type, in two databases of MariaDB."""
    others = {"int": "0", "decimal(10,2)": "7", "decimal(10,0)": "7", "decimal(10,0) unsigned": "7",
              "decimal(5,0) zerofill": "7", "double": "7", "float": "7", "tinyint(1)": "7",
              "bigint": "7", "bigint unsigned": "7", "json": "'[7]'", "varbinary(10)": "x'07'", "varchar(10)": "'7'",
              "date": "'2007-07-07'", "datetime": "'2007-07-07'", "datetime(6)": "'2007-07-07'", "time": "'07:07'",
              "timestamp": "'2007-07-07'", "time(6)": "'07:07'", "set('a','b')": "'b'", "enum('a','b')": "'b'",
              "uuid": "'77777777-7777-7777-7777-777777777777'"}  # fmt: skip
    here, there = ["set sql_mode = ''"], ["set sql_mode = ''"]
    for number, (kind, value, _, _) in enumerate(UNLIKE.values()):
        for name, column in (("t", "id int primary key"), ("n", "id int"), ("s", "id int primary key")):
            for script in (here, there):
                script.append(f"create table {name}{number} ({column}, v {kind} null)")
                seven = others[kind] if script is there and name != "s" else value
                script.append(f"insert into {name}{number} values (1, {seven}), (2, null)")
    source, target = in_mariadb(maria, "shop_a", here), in_mariadb(maria, "shop_b", there)
    renamed = {f"shop_a.{name}{n}": f"shop_b.{name}{n}" for name in "tns" for n in range(len(UNLIKE))}
    found = tables.compare(source, target, tables.pairs(source, target, ["shop_a.%"], renamed=renamed), QUICK)
    return {table.name: table for table in found.compared}


def rows(count: int) -> list[tuple[int, str]]:
    """Keys with gaps, and texts that only their bytes tell apart."""
    return [(number * 7 - 900, "aAáà "[number % 5] + str(number // 5)) for number in range(count)]


@pytest.fixture
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges of fifty rows."""
    monkeypatch.setattr("runbook_lib.tables.ranges.GRAIN", 50)


@pytest.mark.usefixtures("small_ranges")
@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("id bigint primary key, name varchar(20)", "id bigint primary key, name text"),
        ("id decimal(20,2) primary key, name varchar(20)", "id numeric primary key, name text"),
        ("id bigint, name varchar(20) collate utf8mb4_bin, primary key (name)",
         "id bigint, name text, primary key (name)"),
        ("id int, name varchar(20) collate utf8mb4_bin, primary key (name, id)",
         "id int, name varchar(20), primary key (name, id)"),
        pytest.param("id int, name varchar(20) collate utf8mb4_nopad_bin, primary key (id, name)",
                     "id int, name text, primary key (id, name)", marks=only_mariadb),
        ("id bigint, name varchar(20)", "id bigint, name text"),
        pytest.param("id uuid primary key, name varchar(20)", "id uuid primary key, name text", marks=only_mariadb),
        ("id char(36) primary key, name varchar(20)", "id uuid primary key, name text"),
        pytest.param("id uuid, name varchar(20), primary key (id, name)", "id text, name text, primary key (id, name)",
                     marks=only_mariadb),
    ],
)  # fmt: skip
def test_exactly_the_rows_that_differ_are_found_in_every_kind_of_key(
    maria: MySQLOrMariaDB, server: postgres.Server, here: str, there: str
) -> None:
    """On PostgreSQL, and in another database of MariaDB."""
    name, as_uuid = f"shop_keys{next(numbers)}", "uuid" in here + there
    plain = rows(1000)
    changed = [(key + 3, text) if number in (0, 511) else (key, text) for number, (key, text) in enumerate(plain)]
    changed = [row for number, row in enumerate(changed) if number not in (77, 999)] + [(10**6, "extra")]
    old, new = (f"insert into t values {listed(side, as_uuid=as_uuid)}" for side in (plain, changed))
    source = in_mariadb(maria, name, [f"create table t ({here})", old])
    script = f"create schema {name}; set search_path = {name}; create table t ({there}); {new}"
    beside = in_mariadb(maria, f"{name}_too", [f"create table t ({here})", new])
    for target, renamed in ((in_postgresql(server, name, script), {}), (beside, {f"{name}.t": f"{beside.name}.t"})):
        pairs = tables.pairs(source, target, [f"{name}.t"], renamed=renamed)
        (found,) = tables.compare(source, target, pairs, QUICK).compared
        assert (found.source_rows, found.target_rows) == (1000, 999)
        if "primary key (name)" in here:
            assert (found.different, found.missing, found.extra) == (2, 2, 1)
        else:
            assert (found.different, found.missing, found.extra) == (0, 4, 3)
        shown = {(one.source or one.target or {})["name"] for one in found.differences}
        assert shown == {plain[n][1] for n in (0, 511, 77, 999)} | {"extra"}
        back = {new: old for old, new in renamed.items()}
        pairs = tables.pairs(target, source, [f"{target.name}.t"], renamed=back)
        (back_again,) = tables.compare(target, source, pairs, QUICK).compared
        assert (back_again.missing, back_again.extra) == (found.extra, found.missing)
    again = compared(source, source)[f"{name}.t"]
    assert again.ok and again.source_rows == 1000


def listed(values: list[tuple[int, str]], *, as_uuid: bool = False) -> str:
    """Rows as SQL has them; uuids of every version, as MariaDB's order of them depends on that."""
    return ", ".join(f"({_uuid(key) if as_uuid else key}, '{text}')" for key, text in values)


def _uuid(number: int) -> str:
    return f"'{uuid.UUID(hashlib.md5(str(number).encode()).hexdigest(), version=1 + number % 5)}'"


@pytest.mark.usefixtures("small_ranges")
@pytest.mark.parametrize("engines", ["mysql postgresql", "postgresql mysql", "mysql mysql"])
def test_both_sides_are_read_as_of_one_moment(
    maria: MySQLOrMariaDB, server: postgres.Server, monkeypatch: pytest.MonkeyPatch, engines: str
) -> None:
    """Whoever writes meanwhile: the first range is read before, the others after."""
    name, make = f"shop_{next(numbers)}", "create table t (id int primary key, v int)"
    script = f"create schema {name}; set search_path = {name}; {make};"
    script += "insert into t select i, i from generate_series(1, 1000) i"
    made = [make, f"insert into t select seq, seq from {series(1, 1000)}"]
    source, target = (
        in_mariadb(maria, f"{name}{'ab'[number]}", made) if engine == "mysql" else in_postgresql(server, name, script)
        for number, engine in enumerate(engines.split())
    )
    schemas = [side.name + "." for side in (source, target)]
    pairs = tables.pairs(source, target, [f"{schemas[0]}t"], renamed={f"{schemas[0]}t": f"{schemas[1]}t"})
    told: list[tables.Progress] = []

    def meddle(progress: tables.Progress) -> None:
        for side, schema in zip((source, target), schemas, strict=True):
            if len(told) in (0, 3) and side.engine == "mysql":
                with side.session(read_only=False) as session, session.cursor() as cursor:
                    cursor.execute(f"update {schema}t set v = v + 1 + (%s = %s)", (side.name, source.name))
        told.append(progress)

    options = tables.Options(rounds=0)
    assert tables.compare(source, target, pairs, options, meddle).ok
    assert len(told) > 5
    assert tables.compare(source, target, pairs, options).compared[0].different == 1000


@pytest.mark.parametrize("engine", ["mysql", "postgresql"])
@pytest.mark.parametrize("write", ["insert into t values (2)", "delete from t", "create table other (id int)"])
def test_a_session_that_reads_as_of_one_moment_cannot_write(
    maria: MySQLOrMariaDB, server: postgres.Server, engine: str, write: str
) -> None:
    name, script = f"shop_{next(numbers)}", ["create table t (id int primary key)", "insert into t values (1)"]
    made = in_mariadb(maria, name, script) if engine == "mysql" else in_postgresql(server, name, "; ".join(script))
    refused = pytest.raises(DatabaseError, match=r"(?i)in a read.only transaction")
    with refused, made.session(snapshot=True) as session, session.cursor() as cursor:
        cursor.execute(write)
    with made.session() as session, session.cursor() as cursor:
        cursor.execute("select count(*) from t")
        assert cursor.fetchone() == (1,)


@pytest.mark.usefixtures("small_ranges")
def test_keys_beyond_what_a_signed_number_or_a_float_holds(maria: MySQLOrMariaDB, server: postgres.Server) -> None:
    top = 2**64 - 1
    values = ", ".join(f"({top - number}, {number})" for number in range(500))
    source = in_mariadb(maria, "shop_big", ["create table t (id bigint unsigned primary key, v int)",
                                            f"insert into t values {values}"])  # fmt: skip
    target = in_postgresql(server, "shop_big", f"""create schema shop_big;
        create table shop_big.t (id numeric(20) primary key, v int); insert into shop_big.t values {values};
        update shop_big.t set v = -1 where id = {top - 250}""")  # fmt: skip
    found = compared(source, target)["shop_big.t"]
    assert [one.key for one in found.differences] == [{"id": str(top - 250)}]
    assert (found.different, found.missing, found.extra) == (1, 0, 0)


def _doubles() -> tuple[list[float], list[float]]:
    """Of eight bytes and of both signs, and their neighbours."""
    chance = random.Random(1)
    drawn = [struct.unpack("d", chance.randbytes(8))[0] for _ in range(1000)]
    drawn += [chance.uniform(-1, 1) * 10 ** chance.randint(-30, 30) for _ in range(1000)]
    finite = [one for one in drawn if math.isfinite(one)]
    return finite, [math.nextafter(one, math.inf) for one in finite]


def _singles() -> tuple[list[float], list[float]]:
    """Of four bytes and of both signs, and their neighbours."""
    drawn = random.Random(3).sample(range(0x00800000, 0x7F7FFFFF), 1000)  # what MySQL keeps as it came
    drawn += [one | 0x80000000 for one in drawn]
    one, other = ([struct.unpack("f", struct.pack("I", bits + more))[0] for bits in drawn] for more in (0, 1))
    return one, other


@pytest.mark.parametrize(
    ("drawn", "here", "there"), [(_doubles, "double", "float8"), (_singles, "float", "real")], ids=["double", "float"]
)
def test_random_floats_are_the_same_and_their_neighbours_are_not(
    maria: MySQLOrMariaDB, server: postgres.Server, drawn: Any, here: str, there: str
) -> None:
    (floats, near), name = drawn(), f"shop_{next(numbers)}"
    values = [", ".join(f"({n}, {one!r})" for n, one in enumerate(side)) for side in (floats, near)]
    make = f"create table t (id int primary key, v {here})"
    source = in_mariadb(maria, name, [make, f"insert into t values {values[0]}"])
    for number, value in enumerate(values):
        target = in_postgresql(server, f"{name}_{number}", f"create schema {name}; create table {name}.t "
                               f"(id int primary key, v {there}); insert into {name}.t values {value}")  # fmt: skip
        found = compared(source, target)[f"{name}.t"]
        assert (found.different, found.source_rows) == (len(floats) * number, len(floats))
    target = in_mariadb(maria, f"{name}near", [make, f"insert into t values {values[1]}"])
    renamed = {f"{name}.t": f"{name}near.t"}
    (found,) = tables.compare(source, target, tables.pairs(source, target, list(renamed), renamed=renamed)).compared
    assert (found.different, found.source_rows) == (len(floats), len(floats))


def test_every_json_text_that_means_the_same_is_the_same(maria: MySQLOrMariaDB, server: postgres.Server) -> None:
    chance = random.Random(2)

    def drawn(depth: int = 3) -> object:
        kinds = ["number", "text", "word", *(["list", "object"] if depth else [])]
        match chance.choice(kinds):
            case "number":
                return chance.choice([chance.randint(-(10**18), 10**18), chance.random(), 1.0, 0])
            case "text":
                return chance.choice(["", "é", "e\u0301", 'say "so"', "\u001f", "a\\b", "😀"])
            case "word":
                return chance.choice([None, True, False])
            case "list":
                return [drawn(depth - 1) for _ in range(chance.randint(0, 3))]
        return {chance.choice("abc") * chance.randint(1, 3): drawn(depth - 1) for _ in range(chance.randint(0, 3))}

    documents = [drawn() for _ in range(500)]
    source = in_mariadb(maria, "shop_json", ["create table t (id int primary key, v json)"])
    with maria.connect("shop_json") as session, session.cursor() as cursor:
        loose = [
            json.dumps(one, ensure_ascii=chance.random() < 0.5, indent=chance.choice([None, 1])) for one in documents
        ]
        cursor.executemany("insert into t values (%s, %s)", list(enumerate(loose)))
    target = in_postgresql(
        server, "json", "create schema shop_json; create table shop_json.t (id int primary key, v jsonb)"
    )
    with server.connect("json") as other, other.cursor() as cursor:
        cursor.executemany("insert into shop_json.t values (%s, %s)",
                           [(number, json.dumps(one)) for number, one in enumerate(documents)])  # fmt: skip
        other.execute("update shop_json.t set v = '[\"planted\"]' where id in (7, 300)")
    found = compared(source, target)["shop_json.t"]
    assert [one.key["id"] for one in found.differences] == ["7", "300"]
    assert found.different == 2


@pytest.mark.parametrize(
    ("charset", "one", "other"),
    [
        pytest.param("ascii", "80", "81", marks=only_mariadb),
        ("sjis", "815F", "5C"),
        ("cp932", "8790", "81E0"),
        ("greek", "AE", "FF"),
    ],
)
def test_a_text_that_utf8_cannot_give_back_is_told_apart_by_its_bytes(
    maria: MySQLOrMariaDB, server: postgres.Server, charset: str, one: str, other: str
) -> None:
    """In UTF-8 both are the same character, or a question mark; as a key such a row cannot even be looked up."""
    name, make = f"shop_{next(numbers)}", "create table {} ({}, v {} character set {} {})"
    scripts = [
        [
            "set sql_mode = ''",
            make.format("t", "id int primary key", "varchar(9)", charset, ""), f"insert into t values (1, x'{value}')",
            make.format("k", "id int", "varchar(9)", charset, "primary key"), f"insert into k values (1, x'{value}')",
        ] for value in (one, other)
    ]  # fmt: skip
    source, target = in_mariadb(maria, f"{name}a", scripts[0]), in_mariadb(maria, f"{name}b", scripts[1])
    renamed = {f"{name}a.{table}": f"{name}b.{table}" for table in "kt"}
    result = tables.compare(source, target, tables.pairs(source, target, [f"{name}a.%"], renamed=renamed), QUICK)
    assert "counted in the first look only: more than 100,000 of a table, or no key finds them" in result.reason
    keyed, plain = result.compared
    assert (plain.different, plain.missing, plain.extra) == (1, 0, 0)
    (difference,) = plain.differences
    assert difference.source is not None and difference.source["v"] in (f"{charset} {one}", "\\")
    assert (keyed.ok, keyed.missing, keyed.extra) == (False, 1, 1)
    (again,) = tables.compare(source, source, tables.pairs(source, source, [f"{name}a.t"]), QUICK).compared
    assert again.ok
    script = f"create schema {name}a; create table {name}a.t (id int primary key, v text); "
    elsewhere = in_postgresql(server, name, script + f"insert into {name}a.t values (1, '?')")
    assert compared(source, elsewhere)[f"{name}a.t"].different == 1


def test_a_key_that_finds_nothing_is_still_told_when_a_comparison_goes_on(
    maria: MySQLOrMariaDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"shop_{next(numbers)}"
    made = ["set sql_mode = ''", "create table k (v varchar(9) character set sjis primary key)"]
    source = in_mariadb(maria, f"{name}a", [*made, "insert into k values ('a'), ('late')"])
    target = in_mariadb(maria, f"{name}b", [*made, "insert into k values ('a'), (x'5C')"])
    pairs = tables.pairs(source, target, [f"{name}a.%"], renamed={f"{name}a.k": f"{name}b.k"})
    options = tables.Options(rounds=2, pause=0, checkpoint=tmp_path / "done.jsonl")
    comparing = importlib.import_module("runbook_lib.tables.compare")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(comparing, "look_again", Mock(side_effect=KeyboardInterrupt))
        tables.compare(source, target, pairs, options)
    with target.session(read_only=False) as session, session.cursor() as cursor:
        cursor.execute("insert into k values ('late')")
    found = tables.compare(source, target, pairs, options)
    assert (found.ok, found.moments, found.compared[0].missing, found.compared[0].extra) == (False, 2, 0, 1), found


def test_keys_that_only_one_engine_can_hold_are_told_and_no_error(
    maria: MySQLOrMariaDB, server: postgres.Server
) -> None:
    """Both ways: zero dates, times beyond a day, unsigned numbers, a NUL; infinity, BC, NaN."""
    name = f"shop_{next(numbers)}"
    kinds = {
        "d": ("date", ["'0000-00-00'", "'2024-00-10'", "'2024-02-30'", "'2024-01-01'"], "date",
              ["'infinity'", "'2024-01-01'"]),
        "m": ("datetime", ["'0000-00-00'", "'2024-01-01'"], "timestamp", ["'0044-03-15 BC'", "'2024-01-01'"]),
        "h": ("time", ["'838:59:59'", "'24:30:00'", "'-01:00:00'", "'01:00:00'"], "time", ["'24:00'", "'01:00:00'"]),
        "u": ("bigint unsigned", ["18446744073709551615", "7"], "bigint", ["-1", "7"]),
        "n": ("decimal(20,2)", ["7.50", "7"], "numeric", ["'NaN'", "'Infinity'", "7.5"]),
        "b": ("tinyint", ["2", "1"], "boolean", ["false", "true"]),
        "x": ("varchar(9) collate utf8mb4_bin", ["concat('a', char(0))", "'a'"], "text", ["'b'", "'a'"]),
        "g": ("uuid", [_uuid(1), _uuid(2)], "uuid", ["'350f30e0-8f2d-b491-5ac1-6e8058dc404f'", _uuid(2)]),
    }  # fmt: skip
    if MYSQL:
        kinds.pop("g")
    here, there = ["set sql_mode = 'allow_invalid_dates'"], f"create schema {name};"
    for table, (kind, keys, other, others) in kinds.items():
        here.append(f"create table {table} (k {kind} primary key, w int)")
        here.append(f"insert into {table} values {', '.join(f'({key}, 1)' for key in keys)}")
        there += f"create table {name}.{table} (k {other} primary key, w int);"
        there += f"insert into {name}.{table} values {', '.join(f'({key}, 1)' for key in others)};"
    source, target = in_mariadb(maria, name, here), in_postgresql(server, name, there)
    back = tables.compare(target, source, tables.pairs(target, source, [f"{name}.%"]), QUICK).compared
    back_by_name = {found.name: found for found in back}
    for table, found in compared(source, target).items():
        _, keys, _, others = kinds[table.rpartition(".")[2]]
        assert (found.different, found.missing, found.extra) == (0, len(keys) - 1, len(others) - 1), table
        assert (back_by_name[table].missing, back_by_name[table].extra) == (found.extra, found.missing), table


@pytest.mark.usefixtures("small_ranges")
def test_a_range_begins_at_no_date_that_the_other_engine_cannot_hold(
    maria: MySQLOrMariaDB, server: postgres.Server
) -> None:
    name, make = f"shop_{next(numbers)}", "create table t (k date primary key, w int)"
    there = f"create schema {name}; set search_path = {name}; {make};"
    there += "insert into t select '0044-01-01 BC'::date - g, 1 from generate_series(1, 500) g"
    source = in_postgresql(server, name, there)
    target = in_mariadb(maria, name, [make, "insert into t values ('1000-01-01', 1), ('2024-01-01', 1)"])
    (found,) = tables.compare(source, target, tables.pairs(source, target, [f"{name}.t"]), QUICK).compared
    assert (found.target_rows, found.missing, found.extra) == (2, 500, 2)


@pytest.mark.usefixtures("small_ranges")
def test_ranges_begin_at_days_that_there_never_were(maria: MySQLOrMariaDB) -> None:
    name = f"shop_{next(numbers)}"
    made = [
        "set sql_mode = 'allow_invalid_dates'", "create table t (k date primary key, w int)",
        "insert into t values ('0000-00-00', 1), ('2024-02-30', 1), ('2024-02-31', 1)",
        f"insert into t select date '2024-03-01' + interval seq day, 1 from {series(0, 200)}",
    ]  # fmt: skip
    source = in_mariadb(maria, f"{name}a", made)
    target = in_mariadb(maria, f"{name}b", [*made, "update t set w = 2 where k < '2024-03-01'"])
    pairs = tables.pairs(source, target, [f"{name}a.%"], renamed={f"{name}a.t": f"{name}b.t"})
    (found,) = tables.compare(source, target, pairs, QUICK).compared
    assert (found.source_rows, found.target_rows, found.different, found.rechecked) == (204, 204, 3, True)


@pytest.mark.parametrize("through", ["the user", "a role"])
def test_a_user_who_may_not_read_every_column_proves_nothing(maria: MySQLOrMariaDB, through: str) -> None:
    """The columns that are kept from it are not shown to it either, and would differ unseen."""
    name = f"shop_{next(numbers)}"
    clerk, role = f"clerk{name}", f"reader{name}"
    make = ["create table t (id int primary key, v int, w int)", f"create user if not exists {clerk} identified by 'x'"]
    given = []
    if through == "a role":
        make.append(f"create role if not exists {role}")
        given = [f"grant {role} to {clerk}", f"set default role {role} {'to' if MYSQL else 'for'} {clerk}"]
    to = role if given else clerk
    sides = []
    for side, w in (("a", 1), ("b", 2)):
        grant = f"grant select (id, v) on {name}{side}.t to {to}"
        made = in_mariadb(maria, name + side, [*make, f"insert into t values (1, 1, {w})", grant, *given])
        sides.append(replace(made, user=clerk, password="x"))
    found = tables.compare(*sides, tables.pairs(*sides, [f"{name}a.t"], renamed={f"{name}a.t": f"{name}b.t"}), QUICK)
    assert not found.ok and "may not read every column on the source and the target" in found.reason


@pytest.mark.parametrize(
    ("here", "there", "error"),
    [
        ("id int primary key, v point", "id int primary key, v point", r"shop_\d+.t.v is of type point"),
        pytest.param("id int primary key, v inet6", "id int primary key, v inet", r"shop_\d+.t.v is of type inet6",
                     marks=only_mariadb),
        ("id int, v json", "id int, v jsonb", r"holds JSON and has no key"),
        ("id int primary key, v time", "id int primary key, v interval", r"time on the source and interval on"),
        ("id int primary key, v blob", "id int primary key, v text", r"blob on the source and text on"),
    ],
)  # fmt: skip
def test_what_has_no_canonical_form_is_an_error_before_anything_is_compared(
    maria: MySQLOrMariaDB, server: postgres.Server, here: str, there: str, error: str
) -> None:
    name = f"shop_{next(numbers)}"
    source = in_mariadb(maria, name, [f"create table t ({here})"])
    target = in_postgresql(server, name, f"create schema {name}; create table {name}.t ({there})")
    with pytest.raises(DatabaseError, match=error):
        tables.pairs(source, target, [f"{name}.t"])


def test_a_row_too_long_for_the_server_is_an_error_and_never_the_same(maria: MySQLOrMariaDB) -> None:
    with maria.connect("mysql") as session, session.cursor() as cursor:
        cursor.execute("select @@global.max_allowed_packet")
        (allowed,) = cursor.fetchone() or (0,)
    sides = [
        in_mariadb(maria, f"shop_long{number}", ["create table t (id int primary key, v longblob)",
                   f"insert into t values (1, repeat('{number}', {allowed * 3 // 4}))"])
        for number in (1, 2)
    ]  # fmt: skip
    pairs = tables.pairs(*sides, ["shop_long1.t"], renamed={"shop_long1.t": "shop_long2.t"})
    with pytest.raises(DatabaseError, match=r"shop_long\d.t has a row that is longer than .*max_allowed_packet"):
        tables.compare(*sides, pairs, QUICK)


def test_names_that_need_quotes(maria: MySQLOrMariaDB, server: postgres.Server) -> None:
    source = in_mariadb(maria, "shop_odd", ["create table `o``d%s \"d` (`select` int primary key, `a%b` text)",
                                            "insert into `o``d%s \"d` values (1, 'x'), (2, 'y')"])  # fmt: skip
    target = in_postgresql(server, "shop_odd", """create schema shop_odd; create table shop_odd."o`d%s ""d"
        ("select" int primary key, "a%b" text); insert into shop_odd."o`d%s ""d" values (1, 'x'),
        (2, 'z')""")  # fmt: skip
    (found,) = compared(source, target).values()
    assert [one.key for one in found.differences] == [{"select": "2"}]


def test_a_statement_can_be_ended_from_another_thread(maria: MySQLOrMariaDB) -> None:
    database = in_mariadb(maria, "shop_slow", [])
    with database.session(statement_timeout=20) as session, pytest.raises(DatabaseError, match=r"interrupted\W?$"):
        canceller = threading.Timer(0.2, MySQL().cancel, [session])
        canceller.start()
        with translated(database), session.cursor() as cursor:
            cursor.execute(ENDLESS)


def test_a_statement_that_takes_too_long_ends_by_itself(maria: MySQLOrMariaDB) -> None:
    database = in_mariadb(maria, "shop_timeout", [])
    too_long = pytest.raises(DatabaseError, match=r"(max_statement_time|execution time) exceeded.*Allow more time")
    with too_long, database.session(statement_timeout=0.2) as session, session.cursor() as cursor:
        cursor.execute(ENDLESS)


def test_a_server_without_md5_is_told_how_to_get_it() -> None:
    """As MySQL 9.7 answers, with a database chosen and without."""
    session = MagicMock(host="db", port=3306)
    cursor = session.cursor.return_value.__enter__.return_value
    cursor.fetchall.return_value = [("9.7.4", 0)]
    for number in (1305, 1046):
        cursor.execute.side_effect = [None, pymysql.err.OperationalError(number, "…")]
        with pytest.raises(DatabaseError, match=r"MySQL 9\.7\.4 at db:3306 has no md5.*component_classic_hashing"):
            MySQL().server(session)
    cursor.execute.side_effect = [None, pymysql.err.OperationalError(2013, "Lost connection")]
    with pytest.raises(pymysql.err.OperationalError):
        MySQL().server(session)


def test_json_is_told_apart_by_its_meaning_alone() -> None:
    same = [
        ("[1.0]", "[1]"),
        ("[1e2]", "[100]"),
        ("[-0]", "[0.0]"),
        ('{"a":1,"b":2}', '{ "b":2, "a":1}'),
        ('"\\u00e9"', '"é"'),
    ]
    other = [
        ("[1]", '["1"]'),
        ("[]", "{}"),
        ("[[1],2]", "[[1,2]]"),
        ("null", '"null"'),
        ("1", "true"),
        ("[0]", "[null]"),
        ("12345678901234567890.1", "12345678901234567890.2"),
        ("NaN", "null"),
        ("[1", "[1]"),
    ]
    assert all(portable.meaning(one) == portable.meaning(two) for one, two in same)
    assert all(portable.meaning(one) != portable.meaning(two) for one, two in other)
    assert portable.meaning("[" * 100_000) == "[" * 100_000
    assert portable.meaning('{"a": 1e99999999999999999999}') == '{"a": 1e99999999999999999999}'
