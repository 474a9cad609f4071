"""Two databases are compared row by row: what differs is told with keys and values, and nothing is taken on trust."""

from __future__ import annotations

import importlib
import itertools
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runbook_lib import tables
from runbook_lib.checks import Finding
from runbook_lib.databases import Database
from runbook_lib.errors import DatabaseError
from runbook_lib.lab import postgres, processes
from runbook_lib.tables import finding, ranges, reading
from runbook_lib.tables.dialect import Common, Statement
from runbook_lib.tables.finding import Findings
from runbook_lib.tables.model import Progress, Span, View
from runbook_lib.tables.postgresql import PostgreSQL
from tests.servers import in_postgresql, postgresql

ORDERS = """
create schema shop;
create table shop.orders (id bigint primary key, customer text not null, total numeric(10, 2), note text);
insert into shop.orders
select i, 'Müller ' || i, i / 3.0, case when i % 2 = 0 then 'ünï' end from generate_series(1, {}) i;
"""
Sides = tuple[Database, Database]
Make = Callable[..., Sides]
numbers = itertools.count()
QUICK = tables.Options(rounds=0)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[postgres.Server]:
    with postgresql(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def make(server: postgres.Server) -> Make:
    """Makes two databases: from one script, or from one each; nothing replicates, so one server holds both."""

    def both(script: str, other: str | None = None, then: str = "") -> Sides:
        name = f"side{next(numbers)}"
        return (
            in_postgresql(server, f"{name}a", script),
            in_postgresql(server, f"{name}b", (script if other is None else other) + then),
        )

    return both


def run(database: Database, statement: str) -> None:
    with database.session(read_only=False) as session:
        session.execute(statement)


def compare(sides: Sides, names: str = "shop.%", options: tables.Options = QUICK, **how: Any) -> tables.Comparison:
    return tables.compare(*sides, tables.pairs(*sides, [names], **how), options)


def test_equal_tables_are_the_same_and_it_is_a_finding(make: Make) -> None:
    found = compare(make(ORDERS.format(100)))
    assert isinstance(found, Finding)
    assert (found.ok, found.rows) == (True, 100)
    assert repr(found).startswith("The rows are the same. 100 rows in 1 table are the same, by md5 of every row's")


@pytest.mark.parametrize(
    ("change", "lost"),
    [("delete from shop.orders where id < 4", "limit 2"), ("update shop.orders set total = 7 where id = 5", "limit 0")],
)
def test_rows_that_are_not_what_was_counted_are_an_error(
    make: Make, monkeypatch: pytest.MonkeyPatch, change: str, lost: str
) -> None:
    rows = PostgreSQL.rows

    def as_a_broken_index_finds_them(self: PostgreSQL, *asked: Any) -> Statement:
        found = rows(self, *asked)
        return replace(found, sql=f"{found.sql} {lost}")

    sides = make(ORDERS.format(100), then=change)
    assert compare(sides).compared[0].differing
    monkeypatch.setattr(PostgreSQL, "rows", as_a_broken_index_finds_them)
    with pytest.raises(DatabaseError, match=r"shop\.orders: counted in groups.*nothing true can be said.*amcheck"):
        compare(sides)


def test_each_kind_of_difference_is_told_with_its_values(make: Make) -> None:
    sides = make(ORDERS.format(1000), then="""
        update shop.orders set total = 7, note = 'x' where id = 500;
        delete from shop.orders where id in (3, 1000);
        insert into shop.orders values (-1, 'Extra', null, null);""")  # fmt: skip
    (table,) = compare(sides).compared
    assert (table.different, table.missing, table.extra) == (1, 2, 1)
    assert [(found.kind, found.key["id"]) for found in table.differences] == [
        ("extra on target", "-1"), ("missing on target", "3"), ("different", "500"), ("missing on target", "1000"),
    ]  # fmt: skip
    extra, lost, changed, _ = table.differences
    assert extra.source is None and extra.target is not None and extra.target["customer"] == "Extra"
    assert lost.target is None and lost.source is not None and lost.source["note"] is None
    assert changed.columns == ("note", "total")
    assert changed.source is not None and (changed.source["total"], changed.source["note"]) == ("166.67", "ünï")
    assert changed.target is not None and (changed.target["total"], changed.target["note"]) == ("7.00", "x")


def test_counts_are_exact_and_only_a_sample_has_values(make: Make) -> None:
    sides = make(ORDERS.format(5000), then="update shop.orders set note = 'other' where id % 2 = 1")
    (table,) = compare(sides, options=replace(QUICK, sample=3)).compared
    assert (table.different, [found.key["id"] for found in table.differences]) == (2500, ["1", "3", "5"])


def test_nothing_compared_is_not_the_same(make: Make) -> None:
    found = compare(make(ORDERS.format(0)), options=replace(QUICK, empty=("shop.%",)))
    assert not found.ok
    assert found.reason == "Not one row was compared: 1 table, all empty on both sides."
    assert not tables.compare(*make(ORDERS.format(0)), []).ok


def test_one_empty_table_beside_others_is_ok_only_where_that_is_expected(make: Make) -> None:
    sides = make(ORDERS.format(10) + "create table shop.idle (id int primary key)")
    found = compare(sides)
    assert (found.ok, found.reason) == (False, "shop.idle: empty on both sides.")
    found = compare(sides, options=replace(QUICK, empty=("shop.idle",)))
    assert (found.ok, found.compared[0].verdict) == (True, "empty on both sides")


def test_a_table_on_one_side_only_is_told_not_skipped(make: Make) -> None:
    extra = "create table shop.{} (id int primary key);"
    script = ORDERS.format(10)
    found = compare(make(script + extra.format("old"), script + extra.format("new")))
    assert [(table.name, table.verdict) for table in found.compared] == [
        ("shop.new", "not on the source"), ("shop.old", "not on the target"), ("shop.orders", "the same"),
    ]  # fmt: skip
    assert not found.ok


def test_a_column_on_one_side_only_is_told_and_the_others_are_compared(make: Make) -> None:
    sides = make(ORDERS.format(10), then="alter table shop.orders drop column note, add column loaded int")
    (table,) = compare(sides).compared
    assert table.verdict == "columns differ: note only on the source; loaded only on the target"
    assert (table.ok, table.differing, table.source_rows) == (False, 0, 10)
    assert compare(sides, columns={"shop.orders": ["customer", "total"]}).ok


def test_the_order_of_columns_does_not_matter(make: Make) -> None:
    turned = "create schema shop; create table shop.orders (note text, total numeric(10, 2), customer text, id bigint);"
    sides = make(ORDERS.format(50), turned)
    with sides[0].session() as source, sides[1].session(read_only=False) as target:
        rows = source.execute("select note, total, customer, id from shop.orders").fetchall()
        target.cursor().executemany("insert into shop.orders values (%s, %s, %s, %s)", rows)
    assert compare(sides).ok


def test_tables_and_columns_may_have_other_names(make: Make) -> None:
    sides = make(ORDERS.format(50), then="""
        alter schema shop rename to app; alter table app.orders rename to sales;
        alter table app.sales rename column id to number; alter table app.sales rename total to amount""")  # fmt: skip
    renamed = {"shop.orders": "app.sales", "shop.orders.id": "number", "shop.orders.total": "amount"}
    assert compare(sides, renamed=renamed).ok
    run(sides[1], "update app.sales set amount = 0 where number = 5")
    (table,) = compare(sides, renamed=renamed).compared
    assert [(found.key, found.columns) for found in table.differences] == [({"id": "5"}, ("total",))]


def test_a_table_without_key_is_compared_with_how_often_each_row_is_there(make: Make) -> None:
    log = "create schema shop; create table shop.log (at int, what text); insert into shop.log select i % 5, 'x' from "
    sides = make(log + "generate_series(1, 50) i;", then="delete from shop.log where ctid in (select min(ctid) from "
                 "shop.log where at = 3); insert into shop.log values (4, 'x'), (4, 'x'), (9, null)")  # fmt: skip
    (table,) = compare(sides).compared
    assert (table.missing, table.extra, table.different, table.keyed) == (1, 3, 0, False)
    assert {(found.kind, found.times) for found in table.differences} == {
        ("missing on target", 1), ("extra on target", 2), ("extra on target", 1),
    }  # fmt: skip


def test_equal_rows_do_not_cancel_out(make: Make) -> None:
    log = "create schema shop; create table shop.log (what text); insert into shop.log values "
    for method in ("md5", "native"):
        found = compare(make(log + "('a'), ('a')", log + "('b'), ('b')"), options=replace(QUICK, method=method))
        assert (found.compared[0].missing, found.compared[0].extra) == (2, 2)


def test_a_row_that_is_there_twice_on_a_target_without_its_key_is_extra(make: Make) -> None:
    sides = make(ORDERS.format(50), then="alter table shop.orders drop constraint orders_pkey; insert into shop.orders "
                 "select * from shop.orders where id = 7")  # fmt: skip
    (table,) = compare(sides).compared
    assert (table.extra, table.missing, table.different) == (1, 0, 0)


def test_partitions_are_compared_with_their_table(make: Make) -> None:
    parted = """create schema shop; create table shop.orders (id bigint primary key, customer text not null,
        total numeric(10, 2), note text) partition by range (id);
        create table shop.low partition of shop.orders for values from (minvalue) to (500);
        create table shop.high partition of shop.orders for values from (500) to (maxvalue);"""
    rows = ORDERS[ORDERS.index("insert") :]
    sides = make(ORDERS.format(1000), parted + rows.format(1000), "delete from shop.high where id = 700")
    found = compare(sides)
    assert [(table.name, table.missing) for table in found.compared] == [("shop.orders", 1)]


def test_names_with_odd_characters_are_quoted(make: Make) -> None:
    odd = """create schema "S%"; create table "S%"."T ""x" ("a%s" int primary key, "B;" text);
        insert into "S%"."T ""x" values (1, '%'), (2, null)"""
    assert compare(make(odd), "S%").ok


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"names": "shop.ordres"}, "Did you mean shop.orders?"),
        ({"exclude": [], "columns": {"shop.orders": ["totl"]}}, "Did you mean total?"),
        ({"columns": {"shop.oders": ["total"]}}, "Did you mean shop.orders?"),
        ({"renamed": {"shop.orders.total": "amuont"}}, "no column in shop.orders: amuont"),
    ],
)
def test_an_unknown_name_is_an_error_that_names_the_nearest(make: Make, how: dict[str, Any], said: str) -> None:
    with pytest.raises(DatabaseError) as error:
        compare(make(ORDERS.format(1)), **how)
    assert said in str(error.value)


def test_a_type_without_canonical_text_is_an_error_that_names_the_column(make: Make) -> None:
    sides = make("create type pair as (a int, b int); create table t (id int primary key, p pair, x pair[]);"
                 "insert into t values (1, '(1,2)')")  # fmt: skip
    with pytest.raises(DatabaseError, match=r"public\.t\.p is of type pair, which has no canonical text"):
        compare(sides, "public.t")
    assert compare(sides, "public.t", columns={"public.t": ["id"]}).ok


def test_types_that_cannot_be_compared_are_an_error(make: Make) -> None:
    sides = make("create table t (id int primary key, d date)", "create table t (id int primary key, d interval)")
    with pytest.raises(DatabaseError, match=r"public\.t\.d is date on the source and interval on the target"):
        compare(sides, "public.t")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges of a few rows, so that a small table has many."""
    monkeypatch.setattr(ranges, "GRAIN", 50)
    monkeypatch.setattr(reading, "PER_WORKER", 50)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("workers", [1, 4])
def test_both_sides_are_read_as_of_one_moment(make: Make, workers: int) -> None:
    sides = make(ORDERS.format(2000))
    pairs = tables.pairs(*sides, ["shop.%"])
    told: list[Progress] = []

    def meddle(progress: Progress) -> None:
        if len(told) in (0, 3):
            run(sides[1], "update shop.orders set note = note || '!', total = total + 1")
        told.append(progress)

    assert tables.compare(*sides, pairs, replace(QUICK, workers=workers), meddle).ok
    assert len(told) > 5
    assert not tables.compare(*sides, pairs, replace(QUICK, workers=workers)).ok


def test_both_sides_are_read_at_the_same_time(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the two can end what it reads before the other has begun."""
    sides = make(ORDERS.format(1000), then="update shop.orders set total = 7 where id = 500")
    usual, together, begun = reading.Side.raw, threading.Barrier(2, timeout=60), list[str]()

    def raw(side: reading.Side, number: int, statement: Statement) -> list[Any]:
        begun.append(side.database.name)
        together.wait()
        return usual(side, number, statement)

    monkeypatch.setattr(reading.Side, "raw", raw)
    monkeypatch.setattr(reading.Side, "ask", lambda side, *asked: asked[1].taken(usual(side, *asked)))  # of one alone
    assert compare(sides).compared[0].different == 1
    asked = list(zip(begun[::2], begun[1::2], strict=True))
    assert len(asked) == 5  # its digest, its buckets, the rows of one of them, the row that differs, its values
    assert all(set(once) == {side.name for side in sides} for once in asked)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("workers", "rows", "expected"), [(4, 49, 1), (4, 120, 3), (4, 2000, 4), (1, 2000, 1)])
def test_a_session_more_for_so_many_rows(make: Make, workers: int, rows: int, expected: int) -> None:
    sides = make(ORDERS.format(rows))
    seen = set()

    def count(progress: Progress) -> None:
        for side in sides:
            query = "select count(*) from pg_stat_activity where pid <> pg_backend_pid() and backend_xmin is not null"
            with side.session() as session:
                seen.add(session.execute(f"{query} and datname = %s", (side.name,)).fetchone()[0])

    assert tables.compare(*sides, tables.pairs(*sides, ["shop.orders"]), replace(QUICK, workers=workers), count).ok
    assert max(seen) == expected


@pytest.mark.usefixtures("small")
def test_a_server_without_a_place_for_more_sessions_is_read_by_those_it_has(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides, refused = make(ORDERS.format(2000)), list[str]()
    usual = Database.session

    def session(self: Database, **how: Any) -> Any:
        if isinstance(how.get("snapshot"), str):
            refused.append(self.name)
            raise DatabaseError("remaining connection slots are reserved")
        return usual(self, **how)

    monkeypatch.setattr(Database, "session", session)
    assert tables.compare(*sides, tables.pairs(*sides, ["shop.orders"]), replace(QUICK, workers=4)).ok
    assert refused == [sides[0].name]  # nor is the target asked for what the source cannot match


@pytest.mark.parametrize(("count", "buckets"), [(1, False), (2, True)])
def test_only_the_first_of_several_ranges_is_read_in_buckets_at_once(count: int, buckets: bool) -> None:
    first = ranges.Ranges([Span()] * count).take()
    assert first is not None and first.expecting is buckets


def test_what_arrives_while_it_is_compared_is_not_a_difference(make: Make) -> None:
    sides = make(ORDERS.format(1000), then="delete from shop.orders where id > 990; update shop.orders set total = 0 "
                 "where id = 1; create table shop.log (a int)")  # fmt: skip
    run(sides[0], "create table shop.log (a int); insert into shop.log values (1)")
    settled = []

    def settle() -> None:
        settled.append("once")
        last = "insert into shop.log values (1)"
        run(sides[1], last if len(settled) == 2 else "update shop.orders set total = 0.33 where id = 1")
        with sides[0].session() as source, sides[1].session(read_only=False) as target:
            for row in source.execute("select * from shop.orders where id > 990").fetchall():
                target.execute("insert into shop.orders values (%s, %s, %s, %s) on conflict do nothing", row)

    found = compare(sides, options=tables.Options(rounds=5, settle=settle))
    assert (found.ok, found.rounds, len(settled)) == (True, 2, 2), found
    assert "What differed at first had arrived when it was looked at again (2 rounds)" in found.reason


FIRST = "update shop.orders set note = '!' where id = 7"
NEXT = "update shop.orders set note = coalesce(note, '') || '!' where id = 7"


@dataclass
class Restless:
    """Rows that are never the same in two snapshots: the source changes them before each round, and what the target
    does happens between two looks of the chase. Time passes in sleeps alone."""

    sides: Sides
    target: list[str]  # a statement for each sleep
    source: str = NEXT
    now: float = 0

    def settle(self) -> None:
        run(self.sides[0], self.source)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.target:
            run(self.sides[1], self.target.pop(0))

    def compare(self, rounds: int = 1) -> tables.Comparison:
        options = tables.Options(rounds=rounds, settle=self.settle)
        pairs = tables.pairs(*self.sides, ["shop.%"])
        return tables.compare(*self.sides, pairs, options, clock=lambda: self.now, sleep=self.sleep)


def test_a_row_that_never_rests_is_the_same_when_it_comes_by_on_the_target(make: Make) -> None:
    sides = make(ORDERS.format(1000), then="update shop.orders set note = 'behind' where id = 7")
    found = Restless(sides, ["update shop.orders set note = 'late' where id = 7", FIRST]).compare()
    assert (found.ok, found.rounds, found.compared[0].moving) == (True, 1, 0), found


def test_rows_of_several_tables_that_never_rest_are_looked_for_at_the_same_time(make: Make) -> None:
    """While one table was waited for, another's row would come by unseen."""
    script = (
        ORDERS.format(10) + "create table shop.early (id int primary key, n int); insert into shop.early values (1, 0)"
    )
    sides = make(script, then="; update shop.early set n = -1; update shop.orders set note = 'behind' where id = 7")
    target = [FIRST, "update shop.early set n = 1; " + NEXT]
    found = Restless(sides, target, NEXT + "; update shop.early set n = 1").compare()
    assert found.ok, found


def test_a_row_that_never_rests_and_is_not_the_same_is_told_with_how_to_judge_it(make: Make) -> None:
    sides = make(ORDERS.format(1000), then="update shop.orders set total = 0 where id in (7, 8)")
    restless = Restless(sides, [])
    found = restless.compare(rounds=2)
    assert (found.compared[0].different, found.compared[0].moving) == (2, 1)
    assert found.body()["tables"][0]["moving"] == 1
    assert "1 of these rows was changed at the source between the last two looks: pause its writer" in found.reason
    assert restless.now == 2  # a chase ends


def test_a_row_that_never_rests_and_is_there_twice_is_not_the_same(make: Make) -> None:
    """On a target that has lost its primary key both of its rows hold what the source holds."""
    sides = make(ORDERS.format(1000), then="alter table shop.orders drop constraint orders_pkey; insert into "
                 "shop.orders select * from shop.orders where id = 7")  # fmt: skip
    found = Restless(sides, [FIRST]).compare()
    assert (found.ok, found.compared[0].target_rows, found.compared[0].extra) == (False, 1001, 1)


def test_what_still_differs_after_the_rounds_is_reported(make: Make) -> None:
    sides = make(ORDERS.format(1000), then="update shop.orders set note = 'x' where id < 4")
    settled: list[str] = []

    def settle() -> None:
        settled.append("once")
        run(sides[1], f"update shop.orders set note = null where id = {len(settled)} and id % 2 = 1")

    found = compare(sides, options=tables.Options(rounds=3, settle=settle))
    assert (found.compared[0].different, len(settled)) == (1, 3)
    assert found.compared[0].differences[0].key == {"id": "2"}
    assert "It still held after 3 rounds of looking again." in found.reason


class Stopped(Exception):
    """The comparison is interrupted."""


@pytest.mark.usefixtures("small")
def test_an_interrupted_comparison_goes_on_from_the_ranges_it_finished(make: Make, tmp_path: Path) -> None:
    sides = make(ORDERS.format(3000), then="delete from shop.orders where id = 10")
    pairs = tables.pairs(*sides, ["shop.%"])
    options = replace(QUICK, checkpoint=tmp_path / "done.jsonl", workers=1)
    told: list[Progress] = []

    def stop(progress: Progress) -> None:
        told.append(progress)
        if progress.rows > 300:
            raise Stopped

    with pytest.raises(Stopped):
        tables.compare(*sides, pairs, options, stop)
    with (tmp_path / "done.jsonl").open("a") as file:
        file.write('{"table": "shop.orders", "fir')  # killed while writing
    done = told[-1].rows
    told.clear()
    found = tables.compare(*sides, pairs, options, told.append)
    assert (found.compared[0].missing, found.compared[0].source_rows, found.moments) == (1, 3000, 2)
    assert told[0].rows == done
    assert found.headline().startswith("The rows were not the same. As each part was when it was read, at 2 moments: ")
    assert not (tmp_path / "done.jsonl").exists()


@pytest.mark.usefixtures("small")
def test_a_table_that_had_more_rows_than_were_expected_is_not_gone_on_with(make: Make, tmp_path: Path) -> None:
    script = ORDERS.format(1019) + "create table shop.z as select * from shop.orders"
    sides = make(script, then="; delete from shop.orders where id = 10")
    pairs = tables.pairs(*sides, ["shop.%"])
    options = replace(QUICK, checkpoint=tmp_path / "done.jsonl")

    def stop(progress: Progress) -> None:
        if progress.number == 2:
            raise Stopped

    with pytest.raises(Stopped):
        tables.compare(*sides, pairs, options, stop)
    found = tables.compare(*sides, pairs, options)
    assert [(table.source_rows, table.missing) for table in found.compared] == [(1019, 1), (1019, 0)]


@pytest.mark.usefixtures("small")
def test_a_checkpoint_of_another_comparison_is_refused(make: Make, tmp_path: Path) -> None:
    sides = make(ORDERS.format(100))
    file = tmp_path / "done.jsonl"
    file.write_text('{"comparison": "another"}\n')
    with pytest.raises(DatabaseError, match="belongs to another comparison"):
        compare(sides, options=replace(QUICK, checkpoint=file))
    file.write_text("no checkpoint\n")
    with pytest.raises(DatabaseError, match="is not a checkpoint"):
        compare(sides, options=replace(QUICK, checkpoint=file))


def test_a_statement_that_takes_too_long_is_ended_with_advice(make: Make) -> None:
    sides = make(ORDERS.format(200_000))
    with pytest.raises(DatabaseError, match=r"statement timeout\. Allow more time"):
        compare(sides, options=replace(QUICK, statement_timeout=0.02))


def test_a_session_that_is_ended_by_the_server_is_an_error(make: Make) -> None:
    sides = make(ORDERS.format(100))
    kill = "select pg_terminate_backend(pid) from pg_stat_activity where datname = '{}' and pid <> pg_backend_pid()"
    pairs = tables.pairs(*sides, ["shop.%"])
    with pytest.raises(DatabaseError, match="terminat"):
        tables.compare(*sides, pairs, QUICK, lambda progress: run(sides[1], kill.format(sides[1].name)))


def test_gentle_takes_one_session_and_finds_the_same(make: Make) -> None:
    sides = make(ORDERS.format(30_000), then="delete from shop.orders where id = 10")
    sessions: set[int] = set()

    def count(progress: Progress) -> None:
        with sides[0].session() as session:
            sql = "select count(*) from pg_stat_activity where datname = %s and pid <> pg_backend_pid()"
            sessions.add(session.execute(sql, (sides[0].name,)).fetchone()[0])

    found = tables.compare(*sides, tables.pairs(*sides, ["shop.%"]), replace(QUICK, gentle=True), count)
    assert (found.compared[0].missing, sessions) == (1, {1})


def test_gentle_takes_one_small_range_after_the_other_and_rests_after_each_as_long_as_it_worked(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first range takes one second, the second two, … by a clock that only they set forward."""
    comparing = importlib.import_module("runbook_lib.tables.compare")
    usual, tasks, rests = comparing._Table._range, list[ranges.Task](), list[float | None]()

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            rests.append(timeout)
            return self.is_set()

    def work(table: Any, number: int, task: ranges.Task) -> Findings:
        tasks.append(task)
        found: Findings = usual(table, number, task)
        return found

    clock = SimpleNamespace(monotonic=lambda: sum(range(len(tasks) + 1)), sleep=time.sleep)
    monkeypatch.setattr(comparing, "time", clock)
    monkeypatch.setattr(comparing, "threading", SimpleNamespace(Event=Stop, Lock=threading.Lock))
    monkeypatch.setattr(comparing._Table, "_range", work)
    sides = make(ORDERS.format(60_000))
    assert compare(sides, options=replace(QUICK, gentle=True, workers=4)).ok
    assert len(tasks) == round(60_000 / ranges.GENTLE_GRAIN)
    assert [(task.first, len(task.parts)) for task in tasks] == [(number, 1) for number in range(len(tasks))]
    assert all(task.span.rows <= 1.1 * ranges.GENTLE_GRAIN for task in tasks)
    assert rests == [number + 1 for number in range(len(tasks))]
    tasks.clear()
    rests.clear()
    assert compare(sides).ok
    assert (len(tasks), rests) == (2, [])


def test_the_source_writes_no_temporary_file_and_nothing_else(server: postgres.Server, make: Make) -> None:
    sides = make(ORDERS.format(150_000), then="update shop.orders set note = 'x' where id % 1000 = 0")
    written = "select temp_bytes, tup_inserted, tup_updated, tup_deleted from pg_stat_database where datname = %s"
    with server.connect("postgres") as session:
        before = session.execute(written, (sides[0].name,)).fetchone()
        assert compare(sides).compared[0].different == 150
        assert session.execute(written, (sides[0].name,)).fetchone() == before


def test_the_native_method_says_that_it_is_a_fast_look(make: Make) -> None:
    found = compare(make(ORDERS.format(10)), options=replace(QUICK, method="native"))
    assert found.ok and "a fast look, md5 is the evidence of record" in found.reason


def test_a_table_that_may_not_be_read_is_an_error(server: postgres.Server, make: Make) -> None:
    sides = make(ORDERS.format(10))
    run(sides[0], "do $$ begin create role reader login password 'reader'; exception when others then end $$")
    run(sides[0], "grant usage on schema shop to reader")
    reader = replace(sides[0], user="reader", password="reader")
    with pytest.raises(DatabaseError, match=r"permission denied for table orders\. Grant it"):
        compare((reader, sides[1]))


def test_a_policy_that_hides_rows_is_an_error_and_not_a_smaller_table(make: Make) -> None:
    sides = make(ORDERS.format(10), then="alter table shop.orders enable row level security")
    run(sides[1], "do $$ begin create role hidden login password 'hidden'; exception when others then end $$")
    run(sides[1], "grant usage on schema shop to hidden; grant select on shop.orders to hidden")
    with pytest.raises(DatabaseError, match="row-level security policy"):
        compare((sides[0], replace(sides[1], user="hidden", password="hidden")))


def test_the_encoding_of_a_server_does_not_matter(server: postgres.Server, make: Make) -> None:
    (source, _), name = make(ORDERS.format(100)), f"latin{next(numbers)}"
    with server.connect("postgres") as session:
        session.execute(f"create database {name} encoding latin1 locale 'C' template template0")
    with server.connect(name) as session:
        session.execute(ORDERS.format(100))
    latin = replace(source, name=name)
    assert compare((source, latin)).ok
    assert compare((latin, latin), options=replace(QUICK, method="native")).ok
    with pytest.raises(DatabaseError, match=r"PostgreSQL 14 or newer, of the same major version and encoding"):
        compare((source, latin), options=replace(QUICK, method="native"))
    run(latin, "update shop.orders set customer = 'Muller 7' where id = 7")
    (difference,) = compare((source, latin)).compared[0].differences
    assert difference.source is not None and difference.source["customer"] == "Müller 7"


def test_text_keys_that_two_encodings_order_otherwise_are_not_split(
    server: postgres.Server, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "GRAIN", 50)
    script = """create schema shop; create table shop.words (word text primary key, n int);
        insert into shop.words select (array['€', 'é', 'ž', 'z'])[1 + i % 4] || i, i from generate_series(1, 999) i;"""
    (source, _), name = make(script), f"windows{next(numbers)}"
    with server.connect("postgres") as session:
        session.execute(f"create database {name} encoding win1252 locale 'C' template template0")
    with server.connect(name) as session:
        session.execute(script)
    windows = replace(source, name=name)
    assert compare((source, windows)).ok and compare((windows, source)).ok
    run(windows, "update shop.words set n = 0 where word = 'ž6'")
    (difference,) = compare((windows, source)).compared[0].differences
    assert difference.key == {"word": "ž6"}


def test_text_keys_in_another_order_than_by_bytes_are_compared(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "GRAIN", 50)
    script = """create schema shop; create collation shop.own (provider = libc, locale = 'C');
        create table shop.words (word text collate shop.own primary key, n int);
        insert into shop.words
        select chr(65 + i % 26) || chr(97 + i % 7) || 'é' || i, i from generate_series(1, 999) i;"""
    sides = make(script, then="delete from shop.words where n = 500; update shop.words set n = 0 where n = 600")
    (pair,) = tables.pairs(*sides, ["shop.words"])
    assert pair.source is not None and not pair.source.key[0].column.bytewise
    (table,) = tables.compare(*sides, [pair], QUICK).compared
    assert (table.missing, table.different, table.source_rows) == (1, 1, 999)


def test_more_differences_than_are_remembered_are_counted(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "KEPT", 100)
    sides = make(ORDERS.format(1000), then="update shop.orders set note = 'other' where id % 2 = 1")
    (table,) = compare(sides, options=tables.Options(rounds=1, pause=0)).compared
    assert (table.different, table.rechecked) == (500, False)


def test_rows_without_key_that_are_more_than_are_remembered_stay_counted(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "KEPT", 100)
    script = "create schema shop; create table shop.log (n int);"
    sides = make(f"{script} insert into shop.log select i from generate_series(1, 1000) i", script)
    (table,) = compare(sides, options=tables.Options(rounds=2, pause=0, empty=("shop.log",))).compared
    assert (table.missing, table.rechecked) == (1000, False)


@pytest.mark.parametrize("keyed", ["", "primary key"])
def test_rows_beside_an_empty_source_are_read_in_as_many_buckets_as_they_need(
    make: Make, monkeypatch: pytest.MonkeyPatch, keyed: str
) -> None:
    asked: list[int] = []

    def buckets(self: PostgreSQL, view: View, span: Span, common: Common, modulus: int) -> Statement:
        asked.append(modulus)
        return usual(self, view, span, common, modulus)

    usual = PostgreSQL.buckets
    monkeypatch.setattr(PostgreSQL, "buckets", buckets)
    script = f"create schema shop; create table shop.log (n text {keyed});"
    sides = make(script, f"{script} insert into shop.log select i from generate_series(1, 3000) i")
    assert compare(sides).compared[0].extra == 3000
    assert asked == [1, 1, 128, 128]  # once on each side to learn how many there are


def test_a_checkpoint_that_cannot_be_written_is_an_error(make: Make, tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="cannot be used: No such file"):
        compare(make(ORDERS.format(10)), options=replace(QUICK, checkpoint=tmp_path / "nowhere" / "done.jsonl"))


@pytest.mark.usefixtures("small")
def test_a_standby_can_be_read_instead(tmp_path: Path) -> None:
    script = ORDERS.format(1000)
    with postgresql(tmp_path / "primary") as primary:
        source = in_postgresql(primary, "source", script)
        target = in_postgresql(primary, "target", script + "delete from shop.orders where id = 3")
        with standby_of(primary, tmp_path / "standby") as standby:
            replica = replace(source, port=standby.port)
            with replica.session() as session:
                assert session.execute("select pg_is_in_recovery()").fetchone() == (True,)
            (table,) = compare((replica, target), options=replace(QUICK, workers=3)).compared
    assert (table.missing, table.source_rows) == (1, 1000)


@contextmanager
def standby_of(primary: postgres.Server, folder: Path) -> Iterator[postgres.Server]:
    """A hot standby, streaming."""
    standby = postgres.Server(folder, primary.password)
    standby.folder.mkdir()
    processes.own(standby.folder)
    where = ["-h", "127.0.0.1", "-p", str(primary.port), "-U", postgres.SUPERUSER, "-D", str(standby.data)]
    copy = processes.unprivileged([postgres.find_binaries().tool("pg_basebackup"), *where, "-R", "-c", "fast"])
    subprocess.run(copy, check=True, cwd="/", env={**os.environ, "PGPASSWORD": primary.password})
    (standby.folder / "created").touch()
    standby.start()
    try:
        yield standby
    finally:
        standby.remove()


def test_the_result_is_told_to_machines_with_its_differences(make: Make) -> None:
    body = compare(make(ORDERS.format(10), then="delete from shop.orders where id = 3")).body()
    assert (body["ok"], body["method"], body["tables"][0]["missing"]) == (False, "md5", 1)
    assert body["tables"][0]["differences"][0]["key"] == {"id": "3"}


def test_a_row_that_was_under_way_in_one_look_and_another_in_the_next_is_no_difference() -> None:
    Found, first, second = finding.Found, finding.Findings(), finding.Findings(source=5, target=5)
    first.take([Found(("a",), "missing on target"), Found(("lost",), "missing on target", 2)])
    second.take([Found(("b",), "missing on target"), Found(("lost",), "missing on target", 3)])
    assert second.still(first).kept == [Found(("lost",), "missing on target", 2)]
    assert second.source == 5


def test_a_table_is_not_compared_with_itself(make: Make) -> None:
    source, _ = make("create table t (id int primary key); insert into t values (1)")
    with pytest.raises(DatabaseError, match="would be compared with itself"):
        tables.refuse_itself(source, source, tables.pairs(source, source, ["%"]))


@pytest.mark.parametrize(("key", "value"), [("bigint", "i"), ("text", "i::text")])
def test_rows_of_the_target_without_their_key_are_told(make: Make, key: str, value: str) -> None:
    filled = f"insert into t select {value}, i from generate_series(1, 300) i"
    source, target = make(
        f"create table t (id {key} primary key, n int); {filled}", f"create table t (id {key}, n int); {filled}",
        "; insert into t select null, i from generate_series(1, 5) i",
    )  # fmt: skip
    found = tables.compare(source, target, tables.pairs(source, target, ["%"]), QUICK)
    assert not found.ok and "5 rows on the target without a key (id is NULL)" in repr(found)


def test_keys_at_both_ends_of_an_integer_are_compared(make: Make) -> None:
    rows = "(-9223372036854775808, 1), (9223372036854775807, 2)"
    script = f"create table t (id bigint primary key, n int); insert into t values {rows}"
    source, target = make(script, script, "; update t set n = 3 where id > 0")
    found = tables.compare(source, target, tables.pairs(source, target, ["%"]), QUICK)
    assert [one.key for one in found.compared[0].differences] == [{"id": "9223372036854775807"}]


def test_the_least_integer_is_found_among_many_buckets_of_one_key(make: Make) -> None:
    script = "create table t (id bigint primary key, n int); insert into t values (7, 0)"
    others = "; insert into t select 3 * i, i from generate_series(100, 170) i; insert into t values (-2^63, 1)"
    source, target = make(script, script, others)
    found = tables.compare(source, target, tables.pairs(source, target, ["%"]), QUICK)
    assert found.compared[0].extra == 72
    lowest = Span(None, None, 1, 1)
    (view,) = [pair.source for pair in tables.pairs(source, target, ["%"])]
    assert view is not None
    buckets = [-(2**63), *range(300, 600, 3)]
    statement = PostgreSQL().rows(view, lowest, Common(portable=False, modern=True), 1, buckets)
    assert buckets in statement.parameters
