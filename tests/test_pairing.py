"""What is compared with what is settled, or refused with a way out, before a row is read."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from runbook_lib import tables
from runbook_lib.databases import Database
from runbook_lib.errors import DatabaseError
from runbook_lib.lab import postgres
from tests.servers import in_postgresql, postgresql

PLAIN = "create schema shop; create table shop.t (id int primary key); insert into shop.t values (1);"
DOTS = """create schema a; create schema "a.b"; create table a."b.c" (id int primary key);
create table "a.b".c (id int primary key); create table a.t (id int primary key); insert into a.t values (1);"""
FOREIGN = """create extension file_fdw; create server files foreign data wrapper file_fdw;
create foreign table shop.lines (line text) server files options (program 'echo one');"""
numbers = itertools.count()
Make = Callable[[str, str], tuple[Database, Database]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[postgres.Server]:
    with postgresql(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def make(server: postgres.Server) -> Make:
    """Makes two databases from a script each."""
    return lambda one, other: (
        in_postgresql(server, f"pair{next(numbers)}", one), in_postgresql(server, f"pair{next(numbers)}", other)
    )  # fmt: skip


def verdicts(sides: tuple[Database, Database]) -> dict[str, str]:
    found = tables.compare(*sides, tables.pairs(*sides, ["shop.%"]), tables.Options(rounds=0))
    assert not found.ok
    return {table.name: table.verdict for table in found.compared}


def test_two_tables_of_one_name_are_refused_unless_they_are_left_out(make: Make) -> None:
    sides = make(DOTS, DOTS)
    with pytest.raises(DatabaseError, match=r"a\.b\.c is the name of two tables, .*exclude=\['a\.b\.c'\]"):
        tables.pairs(*sides, ["%"])
    assert [pair.name for pair in tables.pairs(*sides, ["%"], exclude=["a.b.c"])] == ["a.t"]
    assert [pair.name for pair in tables.pairs(*sides, ["a.t"])] == ["a.t"]


def test_a_renamed_table_that_is_not_there_is_told_by_the_name_that_was_looked_for(make: Make) -> None:
    sides = make(PLAIN, PLAIN)
    pairs = tables.pairs(*sides, ["shop.t"], renamed={"shop.t": "shop.other"})
    found = tables.compare(*sides, pairs, tables.Options(rounds=0))
    assert found.compared[0].reason == "shop.t: not on the target, where it is to be called shop.other"


def test_a_table_without_columns_is_not_skipped(make: Make) -> None:
    empty = PLAIN + "create table shop.none ();"
    assert verdicts(make(empty, PLAIN))["shop.none"] == "not on the target"
    assert verdicts(make(PLAIN, empty))["shop.none"] == "not on the source"
    assert verdicts(make(empty, empty))["shop.none"] == "no columns on either side"


def test_a_foreign_table_is_a_problem_whichever_side_it_is_on(make: Make) -> None:
    foreign, own = PLAIN + FOREIGN, PLAIN + "create table shop.lines (line text); insert into shop.lines values ('one')"
    assert verdicts(make(own, foreign))["shop.lines"] == (
        "a foreign table on the target: its rows are in another database"
    )
    assert "on the source and the target" in verdicts(make(foreign, foreign))["shop.lines"]
    assert verdicts(make(foreign, PLAIN))["shop.lines"] == "not on the target"


def test_a_column_without_canonical_text_is_refused_with_a_way_to_leave_its_table_out(make: Make) -> None:
    script = PLAIN + "create table shop.m (id int primary key, price money); insert into shop.m values (1, 1)"
    sides = make(script, script)
    with pytest.raises(DatabaseError, match=r"or leave the table out \(exclude=\['shop\.m'\]\)"):
        tables.pairs(*sides, ["shop.%"])
    assert [pair.name for pair in tables.pairs(*sides, ["shop.%"], exclude=["shop.m"])] == ["shop.t"]
