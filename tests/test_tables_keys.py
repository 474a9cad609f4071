"""A row is found by its key whatever type that has: what differs is looked up again, and must not get lost there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pytest

from runbook_lib import tables
from runbook_lib.databases import Database
from runbook_lib.lab import postgres
from runbook_lib.tables.result import TableResult
from tests.servers import in_postgresql, postgresql

SETUP = (
    "create type mood as enum ('happy', 'sad', ''); create domain code as varchar(3); "
    "create type feeling as enum ('angry', 'happy'); create domain mood_of_one as mood; "
    "create domain small as float8 check (value < 2); "
)
KEYS = {
    "int8": ["-9223372036854775808", "9223372036854775807", "0"],
    "int2": ["-32768", "32767"],
    "float8": ["'NaN'", "'-0'", "1e300", "'-Infinity'", "0.1"],
    "float4": ["1.1", "'NaN'", "3.4e38", "0.3"],
    "numeric": ["'NaN'", "'Infinity'", "1e100", "-1.50"],
    "boolean": ["true", "false"],
    "bytea": ["''", "'\\x00'", "'\\x0000'"],
    "date": ["'infinity'", "'0044-03-15 BC'", "'2020-01-01'"],
    "timestamp": ["'infinity'", "'0044-03-15 BC'", "'2020-01-01 00:00:00.000001'", "'294276-12-31'"],
    "timestamptz": ["'-infinity'", "'0044-03-15 12:00:01.5+00 BC'", "'2020-01-01 00:00:00.000001Z'"],
    "time": ["'24:00'", "'00:00'", "'12:00:00.000001'"],
    "timetz": ["'12:00+01'", "'11:00+00'", "'12:00:00.1-15:59'"],
    "interval": ["'1 day'", "'2 mons 3 days -04:05:06.7'", "'infinity'"],
    "uuid": ["'00000000-0000-0000-0000-000000000001'", "'6F9619FF-8B86-D011-B42D-00CF4FC964FF'"],
    "text": ["''", "' '", "'a'", "'A'", "E'a\\nb%s\\\\'"],
    'text collate "C"': ["'a'", "repeat('x', 2600)"],
    "char(5)": ["''", "'a'", "'é'"],
    "varchar(40)": ["'a '", "'a'", "'🙂'", "chr(31)"],
    '"char"': ["'a'", "''", "'\\200'"],
    "name": ["'a'", "'b'"],
    "mood": ["'happy'", "'sad'", "''"],
    "code": ["'x'", "'y'"],
    "bit(3)": ["B'101'", "B'000'"],
    "bit varying": ["''", "B'1'", "B'01'"],
    "inet": ["'192.0.2.1'", "'192.0.2.1/24'", "'::1'"],
    "cidr": ["'192.0.2.0/24'", "'::/0'"],
    "macaddr": ["'08:00:2b:01:02:03'"],
    "int[]": ["'{}'", "'{1,NULL}'", "'[0:1]={1,2}'", "'{{1,2}}'"],
    "text[]": ["'{}'", "'{\"a,b\"}'", "'{NULL}'", "'{\"NULL\"}'"],
    "jsonb": ["'{}'", "'[[1],2]'", "'1.0'", "'null'"],
    "int4range": ["'empty'", "'[1,5)'", "'(,)'"],
    "int4multirange": ["'{}'", "'{[1,3)}'"],
    "oid": ["1", "4294967295"],
    "pg_lsn": ["'0/0'", "'FF/FF'"],
    "tsvector": ["''", "'a:1 b'"],
}
# The other side's type is wider: it has keys that this one cannot hold. Source's type and keys, then the target's.
WIDER = {
    "text beside uuid": (
        "text", ["'00000000-0000-0000-0000-000000000001'", "'no uuid'"], "uuid",
        ["'00000000-0000-0000-0000-000000000001'"],
    ),
    "uuid beside text": (
        "uuid", ["'00000000-0000-0000-0000-000000000001'", "'00000000-0000-0000-0000-000000000002'"], "text",
        ["'00000000-0000-0000-0000-000000000001'", "'no uuid'"],
    ),
    "a wide integer": ("bigint", ["1", "40000", "9000000000"], "smallint", ["1"]),
    "a narrow integer": ("smallint", ["1", "2"], "bigint", ["1", "9000000000"]),
    "a number beside an integer": ("numeric", ["1", "2.5", "'NaN'"], "integer", ["1"]),
    "a scale beside an integer": ("numeric(12,2)", ["1", "2.5"], "bigint", ["1", "3"]),
    "an integer beside a scale": ("bigint", ["1", "2"], "numeric(12,2)", ["1", "2.5"]),
    "an enum that lacks a label": ("mood", ["'happy'", "'sad'"], "feeling", ["'happy'"]),
    "an enum with another label": ("feeling", ["'happy'", "'angry'"], "mood", ["'happy'"]),
    "an array of an enum that lacks a label": ("mood[]", ["'{happy}'", "'{proud}'"], "mood[]", ["'{happy}'"]),
    "more bits": ("bit varying(5)", ["B'101'", "B'10101'"], "bit varying(3)", ["B'101'"]),
    "a domain that forbids it": ("float8", ["1.5", "2.5"], "small", ["1.5"]),
    "text with a blank beside padded text": ("varchar(9)", ["'a'", "'a '"], "char(9)", ["'a'"]),
    "text beside json": ("text", ["'{}'", "'no json'"], "jsonb", ["'{}'"]),
    "text beside an enum": ("text", ["'happy'", "'hungry'"], "mood_of_one", ["'happy'"]),
    "an integer beside a number": ("integer", ["1", "2"], "numeric", ["1", "2.5", "'Infinity'"]),
}  # fmt: skip
CASES = [(kind, number) for kind, values in KEYS.items() for number in range(len(values))]
Method = Literal["md5", "native"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[postgres.Server]:
    with postgresql(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def sides(server: postgres.Server) -> tuple[Database, Database]:
    """For each key a table where its row differs, one that has it on the source only, one on the target only."""
    scripts = [SETUP, SETUP]
    for case, (kind, number) in enumerate(CASES):
        for what in ("different", "missing", "extra"):
            for side in range(2):
                table = f'"{what} {case}"'
                scripts[side] += f"create table {table} (part int, k {kind}, w text, primary key (part, k));"
                for other, value in enumerate(KEYS[kind]):
                    mine = other == number
                    if not mine or (what, side) not in (("missing", 1), ("extra", 0)):
                        w = "b" if mine and what == "different" and side else "a"
                        scripts[side] += f"insert into {table} values (1, {value}, '{w}');"
    source, target = (in_postgresql(server, name, script) for name, script in zip("ab", scripts, strict=True))
    return source, target


@pytest.fixture(scope="module", params=["md5", "native"])
def compared(request: pytest.FixtureRequest, sides: tuple[Database, Database]) -> dict[str, TableResult]:
    options = tables.Options(method=request.param, rounds=1, pause=0, empty=("public.%",))
    return {table.name: table for table in tables.compare(*sides, tables.pairs(*sides, ["%"]), options).compared}


@pytest.mark.parametrize("what", ["different", "missing", "extra"])
def test_a_row_with_a_key_of_any_type_is_found_again(compared: dict[str, TableResult], what: str) -> None:
    for case, (kind, number) in enumerate(CASES):
        found = compared[f"public.{what} {case}"]
        counts = {"different": found.different, "missing": found.missing, "extra": found.extra}
        assert counts == {"different": 0, "missing": 0, "extra": 0, what: 1}, (kind, KEYS[kind][number])
        (difference,) = found.differences
        assert difference.columns == (("w",) if what == "different" else ()), (kind, KEYS[kind][number])


@pytest.mark.parametrize("method", ["md5", "native"])
@pytest.mark.parametrize("what", WIDER)
def test_keys_that_the_other_side_cannot_hold_are_told_and_no_error(
    server: postgres.Server, what: str, method: Method
) -> None:
    kind, values, other, others = WIDER[what]
    script = "create table t (k {} primary key, w text); insert into t values {}"
    setups = (SETUP.replace("'sad'", "'sad', 'proud'"), SETUP)
    source, target = (
        in_postgresql(
            server,
            f"{what} {method} {side}",
            setups[side] + script.format(type_, ", ".join(f"({k}, 'a')" for k in keys)),
        )
        for side, (type_, keys) in enumerate(((kind, values), (other, others)))
    )
    options = tables.Options(method=method, rounds=1, pause=0)
    (found,) = tables.compare(source, target, tables.pairs(source, target, ["public.t"]), options).compared
    assert (found.different, found.missing, found.extra) == (0, len(values) - 1, len(others) - 1)


def test_ranges_begin_where_both_sides_can_hold_the_key(server: postgres.Server) -> None:
    script = "create table t (k {} primary key, w text); insert into t select {}, 'a' from generate_series(1, {}) g"
    source = in_postgresql(server, "long a", script.format("bigint", "g * 100000::bigint", 100_000))
    target = in_postgresql(server, "long b", script.format("int", "g * 100000::bigint", 20_000))
    options = tables.Options(rounds=1, pause=0)
    (found,) = tables.compare(source, target, tables.pairs(source, target, ["public.t"]), options).compared
    assert (found.source_rows, found.different, found.missing, found.extra) == (100_000, 0, 80_000, 0)
