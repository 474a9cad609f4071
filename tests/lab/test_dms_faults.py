"""Each fault of a DMS migration: what it really does, and that mending it repairs, also after somebody else did."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from runbook_lib.errors import LabError
from runbook_lib.lab import faults
from runbook_lib.lab.dms_faults import DMS_FAULTS

from .dms_world import TABLES, World, eventually, furnished


@pytest.fixture(scope="module")
def running(seed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world whose task replicates; every test leaves it so."""
    made = furnished(seed, tmp_path_factory.mktemp("faults") / "lab")
    made.loaded()
    yield made
    made.close()


@pytest.fixture
def world(running: World) -> Iterator[World]:
    yield running
    running.mend()
    running.in_step()
    running.same()


def name_of(side: psycopg.Connection[Any], customer: int) -> Any:
    row = side.execute("select name from shop.customers where id = %s", [customer]).fetchone()
    return row[0] if row else None


def test_nothing_can_be_broken_on_a_target_that_is_empty(seed: Path, tmp_path: Path) -> None:
    new = furnished(seed, tmp_path / "lab")
    try:
        with pytest.raises(LabError, match="start the DMS task first"):
            new.plant("target-row-changed")
        assert not new.lab.database.setting("faults", {})
    finally:
        new.close()


def test_a_changed_row_differs_and_is_mended(world: World) -> None:
    world.plant("target-row-changed")
    source, target = world.digests()
    assert {table for table in TABLES if source[table] != target[table]} == {"shop.customers"}
    world.mend("target-row-changed")
    world.same()


def test_a_row_that_somebody_has_corrected_is_left_alone(world: World) -> None:
    world.plant("target-row-changed")
    with world.source() as source, world.target() as target:
        target.execute("update shop.customers set name = %s where id = 42", [name_of(source, 42)])
        world.mend()
        assert name_of(target, 42) == name_of(source, 42)


def test_a_lost_row_is_gone_and_brought_back_whole(world: World) -> None:
    world.plant("target-row-lost")
    with world.target() as target:
        assert name_of(target, 77) is None
    world.mend("target-row-lost")
    world.same()


def test_a_sequence_that_is_behind_makes_a_real_insert_fail(world: World) -> None:
    insert = "insert into shop.orders (customer_id, status, total, placed_at) values (1, 'open', 0, now())"
    world.plant("sequence-behind")
    with world.target() as target:
        with pytest.raises(psycopg.errors.UniqueViolation, match="duplicate key"):
            target.execute(insert)
        world.mend("sequence-behind")
        with target.transaction(force_rollback=True):
            target.execute(insert)


def test_a_table_without_grants_stays_in_error_until_it_is_granted(world: World) -> None:
    world.plant("table-without-grants")  # returns when the task has met it
    returns = world.statistics()["shop.returns"]
    assert returns["TableState"] == "Table error"
    assert (returns["ValidationState"], returns["ValidationFailedRecords"]) == ("Table error", 0)
    assert "in error" in returns["ValidationStateDetails"]
    stats = world.described()["ReplicationTaskStats"]
    assert stats["TablesErrored"] == 1 and world.described()["Status"] == "running"
    assert len(world.bus.said("permission denied for table returns")) == 2  # an error and a warning, and only once
    world.mend("table-without-grants")
    eventually(lambda: world.statistics()["shop.returns"]["TableState"] == "Table completed")
    world.same((*TABLES, "shop.returns"))
    world.plant("table-without-grants")  # it is there already
    eventually(lambda: world.statistics()["shop.returns"]["TableState"] == "Table error")
    world.mend("table-without-grants")
    eventually(lambda: world.statistics()["shop.returns"]["TableState"] == "Table completed")
    assert world.statistics()["shop.returns"]["FullLoadRows"] == 40


def test_a_conflict_is_written_down_and_the_others_go_on(world: World) -> None:
    world.plant("apply-conflict")
    statistics = world.in_step()
    customers = statistics["shop.customers"]
    assert customers["Inserts"] == customers["AppliedInserts"] + 1
    with world.target("runbook") as target:
        rows = target.execute(
            'select "TABLE_NAME", "STATEMENT", "ERROR" from public.awsdms_apply_exceptions where "TASK_NAME" = %s',
            [world.task.rpartition(":")[2]],
        ).fetchall()
        assert name_of(target, -17) == "Made on the target"
    assert len(rows) == 1 and rows[0][0] == "customers" and rows[0][1].startswith("INSERT INTO shop.customers")
    assert "Made at the source" in rows[0][1] and "whole transaction" in rows[0][2]
    assert world.bus.said("]E:  Failed to apply INSERT to shop.customers")
    source, target_side = world.digests()
    assert {table for table in TABLES if source[table] != target_side[table]} == {"shop.customers"}
    world.mend("apply-conflict")
    eventually(lambda: world.statistics()["shop.customers"]["FullLoadReloaded"])
    eventually(lambda: world.statistics()["shop.customers"]["TableState"] == "Table completed")
    statistics = world.in_step()
    assert statistics["shop.customers"]["Inserts"] == statistics["shop.customers"]["AppliedInserts"]
    with world.target() as target:
        assert target.execute("select count(*) from public.awsdms_apply_exceptions").fetchone() == (0,)


def change(world: World) -> None:
    with world.source() as source:
        source.execute("update shop.customers set phone = coalesce(phone, '') || '1' where id between 100 and 110")


def test_a_swap_pause_stops_reading_and_says_so(world: World) -> None:
    before = world.in_step()["shop.customers"]
    world.plant("swap-pause")
    assert world.bus.said("[SORTER          ]I:  Reading from source is paused. Total")
    change(world)
    eventually(lambda: world.bus.metrics.get("CDCLatencySource", 0) >= 1)
    assert world.bus.metrics["CDCChangesDiskSource"] == 11 and world.bus.metrics["CDCIncomingChanges"] == 0
    assert world.statistics()["shop.customers"]["Updates"] == before["Updates"]
    assert world.described()["Status"] == "running"
    assert world.digests()[0] != world.digests()[1]
    world.mend("swap-pause")
    eventually(lambda: world.bus.said("Reading from source is resumed"))
    assert world.in_step()["shop.customers"]["AppliedUpdates"] == before["Updates"] + 11
    assert {"DMS-EVENT-0091", "DMS-EVENT-0093"} <= {event["detail"]["eventId"] for event in world.bus.events}
    eventually(lambda: world.bus.metrics["CDCLatencySource"] == 0)


def test_a_lag_captures_and_does_not_apply(world: World) -> None:
    before = world.in_step()["shop.customers"]
    world.plant("replication-lag")
    assert (world.lab.database.get("dms.task", world.task) or {})["HeldBack"] == "replication-lag"
    change(world)
    eventually(lambda: world.bus.metrics.get("CDCLatencyTarget", 0) >= 1)
    assert world.bus.metrics["CDCLatencySource"] == 0 and world.bus.metrics["CDCIncomingChanges"] == 11
    eventually(lambda: world.bus.metrics["CDCChangesDiskTarget"] == 11, "what waits while nobody applies is on disk")
    assert world.bus.metrics["CDCChangesMemoryTarget"] == world.bus.metrics["CDCChangesMemorySource"] == 0
    seen = world.statistics()["shop.customers"]
    assert seen["Updates"] == before["Updates"] + 11 and seen["AppliedUpdates"] == before["AppliedUpdates"]
    world.mend("replication-lag")
    assert world.in_step()["shop.customers"]["AppliedUpdates"] == seen["Updates"]
    eventually(lambda: world.bus.metrics["CDCLatencyTarget"] == 0)
    eventually(lambda: world.bus.metrics["CDCChangesDiskTarget"] == 0)


def test_a_missing_role_is_missing_also_after_a_restart(world: World) -> None:
    world.plant("dms-role-missing")
    assert world.bus.roles == {"dms-cloudwatch-logs-role"}
    world.bus.make_role("dms-vpc-role")  # as a daemon's new IAM has it
    world.restart()
    assert world.bus.roles == {"dms-cloudwatch-logs-role"}
    world.mend("dms-role-missing")
    assert world.bus.roles == {"dms-cloudwatch-logs-role", "dms-vpc-role"}


def test_a_failing_endpoint_fails_its_test_and_the_task_goes_on(world: World) -> None:
    known = world.described()
    pair = {"ReplicationInstanceArn": known["ReplicationInstanceArn"], "EndpointArn": known["TargetEndpointArn"]}
    where = [{"Name": "endpoint-arn", "Values": [known["TargetEndpointArn"]]}]

    def answer() -> Any:
        world.call("TestConnection", **pair)
        look = lambda: world.call("DescribeConnections", Filters=where)["Connections"][0]  # noqa: E731
        return eventually(lambda: (seen := look())["Status"] != "testing" and seen)

    world.plant("endpoint-failing")
    failed = answer()
    assert failed["Status"] == "failed" and "password authentication failed" in failed["LastFailureMessage"]
    change(world)
    world.in_step()
    assert world.described()["Status"] == "running"
    world.mend("endpoint-failing")
    assert answer()["Status"] == "successful"


def test_all_of_them_together_are_mended_together(world: World) -> None:
    for fault in DMS_FAULTS:
        world.plant(fault.name)
    world.mend()
    assert world.lab.database.setting("faults") == {}
    eventually(lambda: not (world.lab.database.get("dms.task", world.task) or {}).get("Reloads"))
    eventually(lambda: {t["TableState"] for t in world.statistics().values()} == {"Table completed"})
    assert world.described()["Status"] == "running"


def test_who_breaks_waits_for_no_task_that_cannot_meet_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.plant("swap-pause")
    began = time.monotonic()
    world.plant("table-without-grants")  # a task that is paused looks for no table
    assert faults.unmet(world.lab, "table-without-grants") == [] and time.monotonic() - began < faults.MEETS / 2
    world.mend("swap-pause")
    eventually(lambda: (world.lab.database.get("dms.task", world.task) or {})["HeldBack"] is None)
    monkeypatch.setattr(faults, "MEETS", 0.0)
    world.plant("replication-lag")  # planted all the same, and it is said who has not met it
    assert faults.unmet(world.lab, "replication-lag") == ["shop-to-cloud"]
    eventually(lambda: not faults.unmet(world.lab, "replication-lag"))
