"""The shop at work: at a rate, over restarts, until it is stopped; and in bursts that are always the same."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runbook_lib.errors import LabError
from runbook_lib.lab import workload
from runbook_lib.lab.database import Database
from runbook_lib.lab.databases import Databases
from runbook_lib.lab.workload import Workload

from .dms_world import sown
from .test_databases import ROWS, eventually, one

SAME = {  # what a burst makes; times are of the moment
    "customers": "t",
    "products": "t",
    "documents": "t",
    "order_items": "t",
    "orders": "(id, customer_id, status, total, note)",
    "payments": "(id, order_id, method, amount, fee)",
    "audit_log": "(order_id, action, old_status, new_status)",
}


@pytest.fixture(scope="module")
def root(seed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sown(seed, tmp_path_factory.mktemp("workload") / "lab")


@pytest.fixture(scope="module")
def databases(root: Path) -> Iterator[Databases]:
    made = Databases(root)
    yield made
    made.close()


@pytest.fixture
def shop(root: Path, databases: Databases) -> Iterator[Workload]:
    """The shop at rest, with the rows it begins with."""
    databases.forget()
    made = Workload(Database(root / "lab.sqlite"), databases)
    made.stop()
    yield made
    made.stop()


def counts(databases: Databases) -> dict[str, int]:
    with databases.connect("source") as session:
        return {table: one(session, f"select count(*) from shop.{table}") for table in ROWS}


def digest(databases: Databases) -> dict[str, str]:
    with databases.connect("source") as session:
        return {
            table: one(session, f"select md5(string_agg({row}::text, '|' order by {row}::text)) from shop.{table} t")
            for table, row in SAME.items()
        }


def changed(databases: Databases) -> int:
    """How many transactions have changed something, ever."""
    with databases.connect("source") as session:
        return int(one(session, "select pg_current_xact_id()::text"))


def test_a_burst_makes_the_same_changes_each_time(shop: Workload, databases: Databases) -> None:
    untouched = digest(databases)
    shop.burst()
    once, rows = digest(databases), counts(databases)
    assert all(once[table] != untouched[table] for table in SAME)
    assert rows["orders"] == ROWS["orders"] + 40 - 10
    assert rows["audit_log"] == ROWS["audit_log"] + 40 + 20 + 10
    databases.forget()
    shop.burst()
    assert digest(databases) == once and counts(databases) == rows


def test_a_second_burst_changes_as_many_orders(shop: Workload, databases: Databases) -> None:
    for bursts in (1, 2):
        shop.burst()
        assert counts(databases)["orders"] == ROWS["orders"] + bursts * 30
    shop.burst(transactions=8)
    assert counts(databases)["orders"] == ROWS["orders"] + 60 + 3


def test_every_deed_changes_something(shop: Workload, databases: Databases) -> None:
    dice = random.Random(7)
    for deed in {*workload.DAY, *workload.BURST}:
        for _ in range(20):
            before = changed(databases)
            with databases.connect("source", "shop") as session, session.transaction():
                deed(session, dice)
                assert one(session, "select pg_current_xact_id_if_assigned() is not null")
            assert changed(databases) > before


def test_it_works_until_it_is_stopped(shop: Workload, databases: Databases) -> None:
    shop.start(rate=200)
    eventually(lambda: shop.status()["committed"] > 60)
    assert shop.status()["on"] and shop.status()["rate"] == 200
    shop.stop()
    stopped, rows = shop.status(), counts(databases)
    assert not stopped["on"] and stopped["failed"] == 0 and stopped["error"] == ""
    assert rows["orders"] != ROWS["orders"] or rows["audit_log"] != ROWS["audit_log"]
    time.sleep(0.1)
    assert counts(databases) == rows and shop.status() == stopped


def test_its_rate_is_kept(shop: Workload) -> None:
    shop.start(rate=1)
    eventually(lambda: shop.status()["committed"] > 0)
    shop.start(rate=40)
    began, before = time.monotonic(), shop.status()["committed"]
    eventually(lambda: shop.status()["committed"] >= before + 40)
    assert 0.8 < time.monotonic() - began < 3


def test_it_goes_on_when_the_server_is_killed(shop: Workload, databases: Databases) -> None:
    shop.start(rate=100)
    eventually(lambda: shop.status()["committed"] > 10)
    os.kill(databases.source.pid or 0, signal.SIGKILL)
    eventually(lambda: shop.status()["failed"] > 0)
    after = shop.status()["committed"]
    eventually(lambda: shop.status()["committed"] > after + 10)


def test_a_lab_that_starts_again_goes_on_with_it(shop: Workload, databases: Databases) -> None:
    shop.start(rate=30)
    shop.pause()
    another = Workload(shop._database, databases)
    assert another.status() | {"committed": 0} == shop.status() | {"committed": 0}
    another.resume()
    another.resume()
    eventually(lambda: another.status()["committed"] > 3)
    another.stop()
    shop.resume()
    assert shop.status()["on"] is False


def test_a_lock_of_somebody_else_does_not_keep_it_from_stopping(
    shop: Workload, databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workload, "LIMIT", "-c statement_timeout=300ms")
    with databases.connect("source", autocommit=False) as session:
        session.execute("lock table shop.orders, shop.customers, shop.products, shop.documents, shop.audit_log")
        shop.start(rate=100)
        eventually(lambda: "statement timeout" in shop.status()["error"])
        shop.stop()


def test_a_rate_is_above_nothing_and_not_endless(shop: Workload) -> None:
    for rate in (0, -1, 5000):
        with pytest.raises(LabError, match="The rate is above 0 and at most 1000"):
            shop.start(rate=rate)
    assert not shop.status()["on"]


def test_a_shop_without_orders_and_products_goes_on_and_says_that_it_works(
    shop: Workload, databases: Databases
) -> None:
    with databases.connect("source") as session:
        session.execute("truncate shop.orders cascade")
        session.execute("delete from shop.products")
        dice = random.Random(1)
        for deed in {*workload.DAY, *workload.BURST}:
            for _ in range(3):
                deed(session, dice)
    shop.start(rate=200)
    eventually(lambda: shop.status()["committed"] > 20)
    assert shop.status()["working"] and not shop.status()["failed"]
    shop.stop()
    assert not shop.status()["working"]


def test_no_error_ends_it(shop: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: object) -> None:
        raise KeyError("SKU-00001")

    monkeypatch.setattr(workload, "DAY", (wrong,))
    shop.start(rate=100)
    eventually(lambda: shop.status()["failed"] > 1)
    assert shop.status()["working"] and shop.status()["error"] == "KeyError: 'SKU-00001'"


def test_a_transaction_that_does_not_end_is_not_waited_for(
    shop: Workload, databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workload, "LIMIT", "-c statement_timeout=30s")
    monkeypatch.setattr(workload, "PATIENCE", 0.2)
    with databases.connect("source", autocommit=False) as session:
        session.execute("lock table shop.orders, shop.customers, shop.products, shop.documents, shop.audit_log")
        shop.start(rate=100)
        (thread,) = (thread for thread in threading.enumerate() if thread.name == "workload")
        waiting = "select count(*) from pg_stat_activity where usename = 'shop' and wait_event_type = 'Lock'"
        eventually(lambda: one(session, f"select pg_stat_clear_snapshot(), ({waiting})")[1] == 1)
        with pytest.raises(LabError, match="has not ended for 0 s"):
            shop.stop()
    thread.join(10)
    assert not thread.is_alive() and not shop.status()["on"]
