"""What a DMS task does when somebody, or something, breaks its databases or interrupts it in an awkward moment."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from runbook_lib.lab import dms_making
from runbook_lib.lab.dms_run import Run

from .dms_world import World, eventually, furnished


@pytest.fixture
def world(seed: Path, tmp_path: Path) -> Iterator[World]:
    made = furnished(seed, tmp_path / "lab")
    yield made
    made.close()


def test_a_task_that_goes_on_says_so_after_its_start_date(world: World) -> None:
    world.loaded()
    world.stop()
    world.start("resume-processing")
    started = world.until_status("running")["ReplicationTaskStartDate"]
    (line,) = world.bus.said("in resume mode")
    at = datetime.strptime(line.split()[0], "%Y-%m-%dT%H:%M:%S:%f").replace(tzinfo=UTC).timestamp()
    assert started <= at + 1e-6


def test_a_task_that_is_started_while_its_last_run_still_ends_can_be_stopped(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave, ending, may_end = Run._leave, threading.Event(), threading.Event()

    def slowly(run: Run) -> None:
        ending.set()
        may_end.wait(10)
        leave(run)

    world.loaded()
    monkeypatch.setattr(Run, "_leave", slowly)
    world.stop()
    assert ending.wait(10)
    world.start("resume-processing")
    may_end.set()
    world.until_status("running")
    world.in_step()
    assert world.stop()["StopReason"] == "Stop Reason NORMAL"


def test_tables_that_the_target_loses_are_in_error_and_the_others_go_on(world: World) -> None:
    world.loaded()
    world.lab.workload.start(50)
    with world.target() as target, target.transaction():
        target.execute("lock table shop.payments")  # so that payments are under way when it goes

        def under_way() -> bool:
            payments = world.statistics()["shop.payments"]
            return bool(payments["Inserts"] > payments["AppliedInserts"])

        eventually(under_way)
        target.execute("drop table shop.payments, shop.order_items cascade")
    lost = ("shop.order_items", "shop.payments")
    eventually(lambda: {world.statistics()[key]["TableState"] for key in lost} == {"Table error"})
    at = world.lab.workload.status()["committed"]
    eventually(lambda: world.lab.workload.status()["committed"] > at + 30)
    statistics = world.in_step()
    assert world.described()["Status"] == "running" and world.described()["ReplicationTaskStats"]["TablesErrored"] == 2
    assert statistics["shop.payments"]["Inserts"] > statistics["shop.payments"]["AppliedInserts"]
    with world.target() as target:
        eventually(lambda: target.execute("select to_regclass('shop.payments')").fetchone() == (None,))
        assert target.execute("select count(*) from public.awsdms_apply_exceptions").fetchone() == (0,)
    assert len(world.bus.said("Table shop.payments was errored/suspended")) == 1
    tables = [{"SchemaName": "shop", "TableName": key.partition(".")[2]} for key in lost]
    world.call("ReloadTables", ReplicationTaskArn=world.task, TablesToReload=tables)
    eventually(lambda: {world.statistics()[key]["TableState"] for key in lost} == {"Table completed"})
    world.lab.workload.stop()
    world.in_step()
    world.same()


def test_a_column_that_the_target_does_not_have_is_an_error_of_that_table_only(world: World) -> None:
    world.loaded()
    with world.source() as source:
        source.execute("alter table shop.documents add summary text")
        source.execute("update shop.documents set summary = 'short' where id = 1")
    eventually(lambda: world.statistics()["shop.documents"]["TableState"] == "Table error")
    with world.source() as source:
        source.execute("update shop.customers set phone = '1' where id = 1")
    world.in_step()
    assert world.bus.said('is missing replicated column: "summary"')
    world.same(("shop.customers", "shop.orders"))


def test_a_shop_that_cannot_work_does_not_fail_the_task(world: World) -> None:
    with world.source() as source:
        source.execute("alter table shop.orders add constraint closed check (id < 0) not valid")
    world.start()
    world.ongoing()
    assert world.bus.said("The shop did not work meanwhile") and world.described()["Status"] == "running"
    world.in_step()
    world.same()


def test_a_task_whose_log_the_source_has_removed_says_what_to_do(world: World) -> None:
    world.loaded()
    world.stop()
    with world.source() as source:
        source.execute("alter system set max_slot_wal_keep_size = '1MB'")
        source.execute("select pg_reload_conf()")
        for _ in range(4):
            source.execute("select pg_logical_emit_message(false, 'tests', 'x')")
            source.execute("select pg_switch_wal()")
        source.execute("checkpoint")
        assert source.execute("select distinct wal_status from pg_replication_slots").fetchall() == [("lost",)]
    world.start("resume-processing")
    seen = world.until_status("failed")
    why = "The source has removed the log that this task needs; use reload-target."
    assert seen["LastFailureMessage"] == why
    world.start("reload-target")
    world.until_status("running")
    world.ongoing()
    world.in_step()
    world.same()


def test_a_password_is_not_in_a_servers_log_when_a_subscription_cannot_be_made(world: World) -> None:
    with world.source() as source:
        source.execute("alter role dms nologin")
    world.start()
    eventually(lambda: world.bus.said("not permitted to log in"))
    log = world.lab.databases.target.log.read_text()
    assert "not permitted to log in" in log and world.lab.databases.password("source", "dms") not in log


def test_a_task_that_cannot_be_deleted_says_why_and_can_be_deleted_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.loaded()
    world.stop()
    with world.source() as source, source.transaction():
        monkeypatch.setattr(dms_making, "IMPATIENT", "-c lock_timeout=100ms")
        source.execute("lock table pg_publication in exclusive mode")
        world.call("DeleteReplicationTask", ReplicationTaskArn=world.task)
        seen = world.until_status("failed")
    assert "lock timeout" in seen["LastFailureMessage"] and "Delete it again" in seen["LastFailureMessage"]
    world.call("DeleteReplicationTask", ReplicationTaskArn=world.task)
    eventually(lambda: not world.call("DescribeReplicationTasks")["ReplicationTasks"])


def test_a_table_is_loaded_again_when_a_paused_task_goes_on(world: World) -> None:
    world.loaded()
    world.plant("swap-pause")
    eventually(lambda: world.bus.said("Reading from source is paused"))
    tables = [{"SchemaName": "shop", "TableName": "customers"}]
    world.call("ReloadTables", ReplicationTaskArn=world.task, TablesToReload=tables)
    with world.source("shop") as source:
        source.execute("create table shop.late (id int primary key)")
    world.bus.metrics.clear()
    eventually(lambda: "CDCLatencySource" in world.bus.metrics, "it has looked again")
    assert world.described()["Status"] == "running"
    assert not world.statistics()["shop.customers"]["FullLoadReloaded"]
    world.mend("swap-pause")
    eventually(lambda: world.statistics().get("shop.late", {}).get("TableState") == "Table completed")
    eventually(lambda: world.statistics()["shop.customers"]["FullLoadReloaded"])
    eventually(lambda: world.statistics()["shop.customers"]["TableState"] == "Table completed")
    world.in_step()
    world.same()


def test_a_table_whose_load_lost_its_place_is_loaded_again(world: World) -> None:
    """As a target leaves it that is killed after the source has dropped the table's slot, and before it knows."""
    world.loaded()
    world.stop()
    with world.target() as target:
        target.execute(
            "with rel as (update pg_subscription_rel set srsubstate = 'f', srsublsn = null"
            " where srrelid = 'shop.payments'::regclass returning srsubid, srrelid)"
            " insert into pg_replication_origin select 100, format('pg_%s_%s', srsubid, srrelid) from rel"
        )
    world.start("resume-processing")
    eventually(lambda: world.statistics()["shop.payments"]["FullLoadReloaded"])
    eventually(lambda: world.statistics()["shop.payments"]["TableState"] == "Table completed")
    assert world.bus.said("The load of table shop.payments was interrupted at its end")
    world.in_step()
    world.same()
