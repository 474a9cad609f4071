"""The comparison finds exactly what a naive one finds that holds both tables in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC
from decimal import Decimal
from typing import Any, Literal

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runbook_lib import tables
from runbook_lib.databases import Database
from runbook_lib.tables import lookup, narrow, ranges
from tests.servers import in_postgresql, postgresql

TRICKY = st.text(st.sampled_from("aA |'\"\\\x1f\x1eé\u0301日😀0-1"), max_size=4)
KEYS: dict[str, tuple[str, Any]] = {
    "an integer": ("k bigint primary key", st.tuples(st.integers(-(2**63), 2**63 - 1) | st.integers(-20, 20))),
    "a text": ("k text primary key", st.tuples(TRICKY)),
    "a uuid": ("k uuid primary key", st.tuples(st.uuids())),
    "an integer and a text": (
        "k int, l text, primary key (k, l)", st.tuples(st.integers(-3, 3), TRICKY),
    ),
    "a text and an integer": (
        "k text, l bigint, primary key (k, l)", st.tuples(TRICKY, st.integers(-3, 3)),
    ),
    "bytes": ("k bytea primary key", st.tuples(st.binary(max_size=3))),
    "a moment": ("k timestamptz primary key", st.tuples(st.datetimes(timezones=st.just(UTC)))),
    "nothing": ("k int", st.tuples(st.integers(0, 2))),
}  # fmt: skip
VALUES = st.tuples(
    st.none() | TRICKY,
    st.none() | st.sampled_from([0.0, -0.0, 0.1, 0.1 + 2e-17, 1e300, float("inf"), 5e-324]),
    st.none() | st.sampled_from([Decimal("1.5"), Decimal("1.500"), Decimal("0"), Decimal("-0.10")]),
    st.none() | TRICKY,
    st.none() | st.booleans(),
    st.none() | st.binary(max_size=3),
    st.none() | st.datetimes(),
)
COLUMNS = "a text, b float8, c numeric, d varchar(9), e boolean, f bytea, g timestamp"
Row = tuple[Any, ...]


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Database, Database]]:
    script = "".join(f"create table t{number} ({key}, {COLUMNS});" for number, (key, _) in enumerate(KEYS.values()))
    with postgresql(tmp_path_factory.mktemp("server")) as server:
        yield in_postgresql(server, "a", script), in_postgresql(server, "b", script)


@pytest.fixture(scope="module")
def sessions(sides: tuple[Database, Database]) -> Iterator[list[psycopg.Connection[Any]]]:
    with sides[0].session(read_only=False) as source, sides[1].session(read_only=False) as target:
        yield [source, target]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges, buckets and batches of a few rows, so that a small table has many."""
    monkeypatch.setattr(ranges, "GRAIN", 4)
    monkeypatch.setattr(ranges, "BUCKET", 2)
    monkeypatch.setattr(narrow, "BATCH", 3)
    monkeypatch.setattr(lookup, "BATCH", 2)


def seen(row: Row) -> Row:
    """A row so that what PostgreSQL tells apart is not equal: -0 and 0, 1.5 and 1.500."""
    return tuple(repr(value) if isinstance(value, float | Decimal) else value for value in row)


def naive(source: list[Row], target: list[Row], width: int) -> tuple[int, int, int]:
    """(different, missing, extra); the first `width` values are the key, 0 for none."""
    here, there = Counter(map(seen, source)), Counter(map(seen, target))
    missing, extra = here - there, there - here
    if not width:
        return 0, missing.total(), extra.total()
    lost, found = {row[:width] for row in missing}, {row[:width] for row in extra}
    return len(lost & found), len(lost - found), len(found - lost)


@st.composite
def both(draw: st.DrawFn, kind: str) -> tuple[list[Row], list[Row]]:
    """Two tables that have most rows in common."""
    key = KEYS[kind][1]
    if kind == "nothing":
        rows = draw(st.lists(st.tuples(key, VALUES), max_size=25))
    else:
        rows = list(draw(st.dictionaries(key, VALUES, max_size=40)).items())
    source, target = [], []
    for number, (part, values) in enumerate(rows):
        fate = draw(st.sampled_from(["same"] * 6 + ["changed", "lost", "extra"]))
        if fate != "extra":
            source.append((*part, *values))
        if fate != "lost":
            other = draw(VALUES) if fate == "changed" else values
            target.append((*part, *other))
        if fate == "same" and kind == "nothing" and number % 5 == 0:
            target.append((*part, *values))
    return source, target[::-1]


def load(session: psycopg.Connection[Any], table: str, rows: list[Row]) -> None:
    session.execute(f"truncate {table}")
    with session.cursor() as cursor:
        places = ", ".join(["%s"] * len(rows[0])) if rows else ""
        cursor.executemany(f"insert into {table} values ({places})", rows)


@pytest.mark.parametrize("method", ["md5", "native"])
@pytest.mark.parametrize("kind", KEYS)
def test_it_finds_what_the_naive_one_finds(
    sides: tuple[Database, Database],
    sessions: list[psycopg.Connection[Any]],
    kind: str,
    method: Literal["md5", "native"],
) -> None:
    table = f"t{list(KEYS).index(kind)}"
    width = {"nothing": 0, "an integer and a text": 2, "a text and an integer": 2}.get(kind, 1)
    pairs = tables.pairs(*sides, [f"public.{table}"])

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(rows=both(kind), rounds=st.integers(0, 1))
    def check(rows: tuple[list[Row], list[Row]], rounds: int) -> None:
        for session, side in zip(sessions, rows, strict=True):
            load(session, table, side)
        options = tables.Options(method=method, rounds=rounds, pause=0, sample=1000)
        (found,) = tables.compare(*sides, pairs, options).compared
        assert (found.different, found.missing, found.extra) == naive(*rows, width)
        assert (found.source_rows, found.target_rows) == (len(rows[0]), len(rows[1]))
        assert sum(difference.times for difference in found.differences) == found.differing
        assert found.ok == (naive(*rows, width) == (0, 0, 0) and rows[0] != [])

    check()
