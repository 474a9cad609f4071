"""The lab's DMS at work: loads, ongoing replication, stops and kills, and counters that can be trusted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from operator import sub
from pathlib import Path
from typing import Any

import botocore.session
import psycopg
import pytest

from runbook_lib.lab.protocol import Refusal

from .dms_world import COUNTERS, TABLES, World, eventually, furnished, sown, under_way
from .test_daemon import StateFolder

ROWS = {"shop.customers": 4000, "shop.orders": 16000, "shop.order_items": 39955, "shop.documents": 150}
MINIMAL = """
select (select count(*) from pg_constraint where connamespace = 'shop'::regnamespace and contype not in ('p', 'n')),
  (select count(*) from pg_index i join pg_class c on c.oid = i.indrelid
   where c.relnamespace = 'shop'::regnamespace and not indisprimary),
  (select count(*) from pg_trigger t join pg_class c on c.oid = t.tgrelid where c.relnamespace = 'shop'::regnamespace),
  (select count(*) from pg_views where schemaname = 'shop'),
  (select count(*) from pg_attrdef d where pg_get_expr(adbin, adrelid) not like 'nextval%'
   and adrelid in (select oid from pg_class where relnamespace = 'shop'::regnamespace))
"""


@pytest.fixture
def make(seed: Path, tmp_path: Path) -> Iterator[Callable[[], World]]:
    """New worlds."""
    made: list[World] = []

    def new() -> World:
        made.append(furnished(seed, tmp_path / f"lab{len(made)}"))
        return made[-1]

    yield new
    for world in made:
        world.close()


@pytest.fixture
def world(make: Callable[[], World]) -> World:
    return make()


def own(world: World) -> dict[str, tuple[int, ...]]:
    """The source's own counters, when all its sessions have reported."""
    with world.source() as source:
        source.execute("select pg_stat_force_next_flush()")
        rows = source.execute(
            "select schemaname || '.' || relname, n_tup_ins, n_tup_upd, n_tup_del from pg_stat_user_tables"
            " where schemaname = 'shop'"
        ).fetchall()
    return {row[0]: tuple(row[1:]) for row in rows}


def captured(statistics: dict[str, dict[str, Any]], prefix: str = "") -> dict[str, tuple[int, ...]]:
    return {key: tuple(table[f"{prefix}{name}"] for name in COUNTERS) for key, table in statistics.items()}


def balanced(world: World, statistics: dict[str, dict[str, Any]]) -> None:
    """What was loaded and applied explains every row of the target.

    The heartbeat is left out: in_step() writes it behind what it waits for, and it may be applied and not counted yet.
    """
    with world.target() as target:
        for key in statistics.keys() - {"shop.runbook_heartbeat"}:
            table = statistics[key]
            (rows,) = target.execute(f"select count(*) from {key}").fetchone() or (0,)  # type: ignore[arg-type]
            assert table["FullLoadRows"] + table["AppliedInserts"] - table["AppliedDeletes"] == rows, key


def test_a_full_load_brings_every_row_and_only_columns_and_keys(world: World) -> None:
    statistics = world.loaded()
    assert {table["TableState"] for table in statistics.values()} == {"Table completed"}
    assert {key: statistics[key]["FullLoadRows"] for key in ROWS} == ROWS
    world.same()
    with world.target("runbook") as target:
        assert target.execute(MINIMAL).fetchone() == (0, 0, 0, 0, 0)
    insert = "insert into shop.orders (customer_id, status, total, placed_at) values (1, 'open', 1, now())"
    with world.target() as target, pytest.raises(psycopg.errors.UniqueViolation, match="orders_pkey"):
        target.execute(insert)  # the sequence is at its beginning


def test_the_first_ongoing_replication_has_changes_that_are_the_same_each_time(make: Callable[[], World]) -> None:
    first, second = (captured(world.loaded()) for world in (make(), make()))
    for each in (first, second):
        del each["shop.runbook_heartbeat"]  # this test's own, written behind what is waited for: counted by now or not
    assert first == second and first["shop.orders"] == (40, 20, 10)


def test_counters_are_what_the_source_has_counted_and_explain_the_target(world: World) -> None:
    before, counted = captured(world.loaded()), own(world)
    world.lab.workload.start(200)
    eventually(lambda: world.lab.workload.status()["committed"] > 200)
    world.lab.workload.stop()
    statistics = world.in_step()
    assert captured(statistics) == captured(statistics, "Applied")
    now = own(world)
    for rows in (statistics, now):  # in_step() writes its marker behind what it waits for
        del rows["shop.runbook_heartbeat"]
    delta = {key: tuple(map(sub, counts, before[key])) for key, counts in captured(statistics).items()}
    assert {key: tuple(map(sub, counts, counted[key])) for key, counts in now.items()} == delta
    balanced(world, statistics)
    world.same()


def test_stopping_and_resuming_under_the_workload_loses_nothing(world: World) -> None:
    world.lab.databases.ready()
    world.lab.workload.start(200)  # also during the full load
    world.loaded()
    for _ in range(2):
        seen = world.stop()
        assert seen["StopReason"] == "Stop Reason NORMAL" and seen["RecoveryCheckpoint"].startswith("checkpoint:V1#")
        at = world.lab.workload.status()["committed"]
        statistics = world.statistics()
        assert captured(statistics) == captured(statistics, "Applied")  # what it had read, it had applied
        eventually(lambda at=at: world.lab.workload.status()["committed"] > at + 50)
        world.start("resume-processing")
        world.until_status("running")
    world.lab.workload.stop()
    balanced(world, world.in_step())
    world.same()


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_killed_server_comes_back_and_nothing_is_lost(world: World, side: str) -> None:
    world.loaded()
    world.lab.workload.start(100)
    eventually(lambda: world.lab.workload.status()["committed"] > 50)
    pid = world.lab.databases.server(side).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: world.bus.said("are restored"), "the task goes on")
    at = world.lab.workload.status()["committed"]
    eventually(lambda: world.lab.workload.status()["committed"] > at + 20)
    world.lab.workload.stop()
    statistics = world.in_step()
    assert world.described()["Status"] == "running" and world.bus.said("]W:")
    assert captured(statistics) == captured(statistics, "Applied")
    balanced(world, statistics)
    world.same()


def test_a_server_killed_during_the_full_load_is_loaded_in_the_end(world: World) -> None:
    world.lab.databases.ready()
    world.start()
    eventually(lambda: "Full load" in {table["TableState"] for table in world.statistics().values()}, patience=10)
    pid = world.lab.databases.target.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    world.ongoing()
    statistics = world.in_step()
    assert {key: statistics[key]["FullLoadRows"] for key in ROWS} == ROWS
    balanced(world, statistics)
    world.same()


def test_a_lab_that_starts_again_goes_on_with_a_running_task(world: World) -> None:
    world.loaded()
    world.restart()
    with world.source("shop") as source:
        source.execute("update shop.customers set phone = '1' where id <= 100")
    statistics = world.in_step()
    assert world.described()["Status"] == "running" and statistics["shop.customers"]["Updates"] >= 100
    world.same()


def test_a_task_that_stops_before_ongoing_replication_goes_on_when_it_is_told_to(world: World) -> None:
    world.loaded()
    world.stop()
    paused = {"FullLoadSettings": {"TargetTablePrepMode": "TRUNCATE_BEFORE_LOAD", "StopTaskCachedChangesApplied": True}}
    task = world.new_task("paused", "full-load-and-cdc", ("customers", "orders", "runbook_heartbeat"), **paused)
    with world.target() as target, world.target() as holder:
        target.execute(
            "create function shop.hold() returns trigger language plpgsql as"
            " $$ begin perform pg_advisory_xact_lock_shared(1); return new; end $$;"
            " create trigger hold before update on shop.orders for each row execute function shop.hold();"
            " alter table shop.orders enable always trigger hold"
        )
        holder.execute("select pg_advisory_lock(1)")
        world.start(task=task)
        eventually(lambda: world.statistics(task).get("shop.orders", {}).get("Updates"), "the shop works meanwhile")
        assert world.statistics(task)["shop.orders"]["AppliedUpdates"] == 0
        holder.execute("select pg_advisory_unlock(1)")
    seen = world.until_status("stopped", task)
    assert seen["StopReason"] == "Stop Reason STOPPED_AFTER_CACHED_EVENTS"
    assert seen["RecoveryCheckpoint"].startswith("checkpoint:V1#")
    assert seen["ReplicationTaskStats"]["FullLoadProgressPercent"] == 100
    statistics = world.statistics(task)
    assert captured(statistics) == captured(statistics, "Applied") and statistics["shop.orders"]["AppliedUpdates"] > 0
    world.same(("shop.customers", "shop.orders"))
    with world.source() as source:
        source.execute("update shop.customers set phone = '1' where id <= 10")
    assert world.digests(("shop.customers",))[0] != world.digests(("shop.customers",))[1]
    world.start("resume-processing", task)
    world.until_status("running", task)
    assert world.in_step(task)["shop.customers"]["AppliedUpdates"] >= 10
    world.same(("shop.customers", "shop.orders"))
    world.stop(task)


def test_a_full_load_only_task_stops_by_itself(world: World) -> None:
    world.lab.databases.ready()
    task = world.new_task("once", "full-load", ("orders", "customers"), ValidationSettings={"EnableValidation": True})
    world.start(task=task)
    seen = world.until_status("stopped", task)
    assert seen["StopReason"] == "Stop Reason FULL_LOAD_ONLY_FINISHED"
    assert seen["ReplicationTaskStats"]["FullLoadProgressPercent"] == 100
    statistics = world.statistics(task)
    assert {key: table["ValidationState"] for key, table in statistics.items()} == {
        "shop.customers": "Validated", "shop.orders": "Validated",
    }  # fmt: skip
    world.same(("shop.orders", "shop.customers"))
    with world.source() as source:
        assert source.execute("select count(*) from pg_replication_slots").fetchone() == (0,)
    world.start("reload-target", task)
    world.until_status("stopped", task)
    world.same(("shop.orders", "shop.customers"))


def test_a_cdc_task_brings_changes_only(world: World) -> None:
    world.loaded()
    world.stop()
    task = world.new_task("changes", "cdc", ("customers", "runbook_heartbeat"))
    world.start(task=task)
    world.until_status("running", task)
    with world.source() as source:
        source.execute("insert into shop.customers (email, name) select 'c' || n, 'new' from generate_series(1, 5) n")
    statistics = world.in_step(task)
    assert {table["ValidationState"] for table in statistics.values()} == {"Not enabled"}
    for tables, option, code, why in (
        (["products"], "data-reload", "ResourceNotFoundFault", "has no table shop.products"),
        (["customers", "nothing"], "data-reload", "ResourceNotFoundFault", "has no table shop.nothing"),
        (["customers"], "validate-only", "InvalidParameterValueException", "Validation is not enabled"),
    ):
        named = [{"SchemaName": "shop", "TableName": table} for table in tables]
        with pytest.raises(Refusal, match=why) as refused:
            world.call("ReloadTables", ReplicationTaskArn=task, TablesToReload=named, ReloadOption=option)
        assert refused.value.code == code
    assert not (world.lab.database.get("dms.task", task) or {}).get("Reloads")
    assert {table["ValidationState"] for table in world.statistics(task).values()} == {"Not enabled"}
    assert statistics["shop.customers"]["FullLoadRows"] == 0 and statistics["shop.customers"]["AppliedInserts"] == 5
    world.call("StopReplicationTask", ReplicationTaskArn=task)
    world.until_status("stopped", task)
    world.same(("shop.customers",))


def test_reload_target_loads_everything_again_and_counts_anew(world: World) -> None:
    world.loaded()
    world.stop()
    with world.target() as target:
        target.execute("update shop.customers set name = 'wrong'; delete from shop.orders where id < 100")
    world.start("reload-target")
    world.until_status("running")
    world.ongoing()
    statistics = world.in_step()
    assert statistics["shop.customers"]["FullLoadRows"] == 4000
    assert statistics["shop.orders"]["FullLoadRows"] == 16030 and captured(statistics)["shop.orders"] == (0, 0, 0)
    world.same()


def test_one_table_is_loaded_again_while_the_others_go_on(world: World) -> None:
    world.loaded()
    world.lab.workload.start(100)
    with world.target() as target:
        target.execute("update shop.customers set name = 'wrong' where id < 1000")
    tables = [{"SchemaName": "shop", "TableName": "customers"}]
    world.call("ReloadTables", ReplicationTaskArn=world.task, TablesToReload=tables)
    eventually(
        lambda: (
            world.statistics()["shop.customers"]["FullLoadReloaded"]
            and world.statistics()["shop.customers"]["TableState"] == "Table completed"
        )
    )
    world.lab.workload.stop()
    statistics = world.in_step()
    assert statistics["shop.customers"]["FullLoadReloaded"] and not statistics["shop.orders"]["FullLoadReloaded"]
    balanced(world, statistics)
    world.same()


def test_a_table_that_is_being_loaded_again_says_how_many_rows_it_has_so_far_and_an_event_says_that_it_is(
    world: World,
) -> None:
    total = world.loaded()["shop.order_items"]["FullLoadRows"]
    with world.target() as target, world.target() as holder:
        target.execute(
            "create function shop.hold() returns trigger language plpgsql as"
            " $$ begin perform pg_advisory_xact_lock_shared(1); return new; end $$;"
            " create trigger hold before insert on shop.order_items for each row when (new.order_id > 10000)"
            " execute function shop.hold(); alter table shop.order_items enable always trigger hold"
        )
        holder.execute("select pg_advisory_lock(1)")
        tables = [{"SchemaName": "shop", "TableName": "order_items"}]
        world.call("ReloadTables", ReplicationTaskArn=world.task, TablesToReload=tables)
        seen = eventually(lambda: under_way(world, "shop.order_items"))
        assert 0 < seen["FullLoadRows"] < total and seen["FullLoadReloaded"]
        assert world.described()["ReplicationTaskStats"]["TablesLoading"] == 1
        holder.execute("select pg_advisory_unlock(1)")
    eventually(lambda: world.statistics()["shop.order_items"]["TableState"] == "Table completed")
    assert world.statistics()["shop.order_items"]["FullLoadRows"] >= total
    (told,) = [event for event in world.bus.events if event["detail"]["eventId"] == "DMS-EVENT-0081"]
    assert told["detail"]["detailMessage"] == "Reload of table details has been requested."
    assert told["detail"]["category"] == "StateChange" and told["resources"] == [world.task]


def test_a_loaded_table_has_every_member_of_dms_statistics_but_those_of_resync(world: World) -> None:
    shape = botocore.session.get_session().get_service_model("dms").shape_for("TableStatistics")
    members = {member for member in shape.members if not member.startswith("Resync")}  # type: ignore[attr-defined]
    for table in world.loaded().values():
        assert table.keys() == members


def test_validation_compares_rows_and_writes_down_what_differs(world: World) -> None:
    world.loaded()
    states = eventually(
        lambda: {table["ValidationState"] for table in world.statistics().values()} == {"Validated", "No primary key"}
    )
    assert states and world.statistics()["shop.audit_log"]["ValidationState"] == "No primary key"
    assert "has no primary key" in world.statistics()["shop.audit_log"]["ValidationStateDetails"]
    assert "were the same" in world.statistics()["shop.customers"]["ValidationStateDetails"]
    with world.target() as target:
        target.execute("update shop.customers set name = 'Wröng' where id = 7; delete from shop.customers where id = 8")
        target.execute("insert into shop.customers (id, email, name, registered_at, preferences, newsletter)"
                       " overriding system value values (-1, 'x', 'y', now(), '{}', false)")  # fmt: skip
    tables = [{"SchemaName": "shop", "TableName": "customers"}]
    world.call("ReloadTables", ReplicationTaskArn=world.task, TablesToReload=tables, ReloadOption="validate-only")
    found = eventually(
        lambda: (seen := world.statistics()["shop.customers"])["ValidationState"] == "Mismatched records" and seen
    )
    assert found["ValidationFailedRecords"] == 3
    assert "awsdms_validation_failures_v1 has their keys" in found["ValidationStateDetails"]
    with world.target("runbook") as target:
        rows = target.execute(
            'select "TASK_NAME", "TABLE_NAME", "KEY", "FAILURE_TYPE", "DETAILS"'
            " from awsdms_validation_failures_v1 order by 3"
        ).fetchall()
    assert {row[:2] for row in rows} == {(world.task.rpartition(":")[2], "customers")}
    assert [row[2:4] for row in rows] == [
        ('{"key": ["-1"]}', "MISSING_SOURCE"), ('{"key": ["7"]}', "RECORD_DIFF"), ('{"key": ["8"]}', "MISSING_TARGET"),
    ]  # fmt: skip
    assert "Wröng" in rows[1][4] and world.bus.said("Validation Failed key")


def test_a_change_that_cannot_be_applied_is_written_down_and_replication_goes_on(world: World) -> None:
    world.loaded()
    with world.target() as target:
        target.execute("delete from shop.customers where id = 5")
    with world.source() as source:
        source.execute("update shop.customers set phone = '5' where id = 5")
        source.execute("update shop.customers set phone = '6' where id = 6")
    statistics = world.in_step()
    customers = statistics["shop.customers"]
    eventually(lambda: world.statistics()["shop.customers"]["AppliedUpdates"] == customers["Updates"] - 1)
    with world.target("runbook") as target:
        (row,) = target.execute(
            'select "TABLE_OWNER", "TABLE_NAME", "STATEMENT", "ERROR" from public.awsdms_apply_exceptions'
        ).fetchall()
        assert row[:2] == ("shop", "customers") and row[2].startswith("UPDATE shop.customers") and "0 rows" in row[3]
        assert target.execute("select phone from shop.customers where id = 6").fetchone() == ("6",)


def test_tables_that_come_and_go_at_the_source_are_taken_up_and_dropped(world: World) -> None:
    world.loaded()
    with world.source("shop") as source:
        source.execute("create table shop.late (id int primary key, note text)")
        source.execute("insert into shop.late select n, 'x' from generate_series(1, 10) n")
    eventually(lambda: world.statistics().get("shop.late", {}).get("TableState") == "Table completed")
    world.same((*TABLES, "shop.late"))
    with world.source("shop") as source:
        source.execute("drop table shop.late")
    eventually(lambda: "shop.late" not in world.statistics())


def test_metrics_logs_events_and_the_status_table_say_what_happens(world: World) -> None:
    world.loaded()
    eventually(lambda: {"CDCLatencyTarget", "FreeStorageSpace"} <= world.bus.metrics.keys())
    resource = world.task.rpartition(":")[2]
    assert world.bus.metrics["CDCLatencySource"] == world.bus.metrics["CDCLatencyTarget"] == 0
    storage, memory = world.bus.metrics["FreeStorageSpace"], world.bus.metrics["FreeableMemory"]
    assert 49 << 30 < storage <= 50 << 30 and 1 << 30 < memory < 4 << 30  # of a dms.t3.medium with 50 GB
    assert world.bus.dimensions["FreeableMemory"] == {"ReplicationInstanceIdentifier": "migration-instance"}
    assert world.bus.dimensions["CDCLatencySource"] == {
        "ReplicationInstanceIdentifier": "migration-instance", "ReplicationTaskIdentifier": resource,
    }  # fmt: skip
    assert world.bus.streams == {("dms-tasks-migration-instance", f"dms-task-{resource}")}
    assert world.bus.said("[TARGET_LOAD     ]I:  Load finished for table 'shop'.'orders'. 16000 rows received")
    with world.target("runbook") as target:
        query = 'select "TASK_NAME", "TASK_STATUS", "PENDING_CHANGES" from public.awsdms_status'
        eventually(lambda: target.execute(query).fetchall() == [(resource, "CHANGE PROCESSING", 0)])
    world.stop()
    assert [event["detail"]["eventId"] for event in world.bus.events] == ["DMS-EVENT-0069", "DMS-EVENT-0079"]


def test_without_the_role_for_logs_there_is_no_log(world: World) -> None:
    world.bus.drop_role("dms-cloudwatch-logs-role")
    world.loaded()
    assert not world.bus.lines


def test_a_mapping_that_matches_nothing_fails_when_it_is_told_to(world: World) -> None:
    world.lab.databases.ready()
    task = world.new_task("typo", "full-load", ("ordres",), ErrorBehavior={"FailOnNoTablesCaptured": True})
    world.start(task=task)
    seen = world.until_status("failed", task)
    assert "No tables were found at task initialization" in seen["LastFailureMessage"]
    assert seen["StopReason"] == "Stop Reason FATAL_ERROR"
    failed = eventually(
        lambda: [it["detail"] for it in world.bus.events if it["detail"]["eventId"] == "DMS-EVENT-0078"]
    )
    assert [it["category"] for it in failed] == ["Failure"] and seen["LastFailureMessage"] in failed[0]["detailMessage"]


def test_a_deleted_task_leaves_nothing_in_the_databases_but_rows(world: World) -> None:
    world.loaded()
    world.stop()
    world.call("DeleteReplicationTask", ReplicationTaskArn=world.task)
    eventually(lambda: not world.call("DescribeReplicationTasks")["ReplicationTasks"])
    with world.source() as source, world.target() as target:
        assert source.execute("select count(*) from pg_replication_slots").fetchone() == (0,)
        assert source.execute("select count(*) from pg_publication").fetchone() == (0,)
        assert target.execute("select count(*) from pg_subscription").fetchone() == (0,)
        assert target.execute("select count(*) from shop.orders").fetchone() == (16030,)


@pytest.fixture
def daemon(seed: Path, tmp_path: Path) -> Iterator[StateFolder]:
    """A lab's daemon that runs."""
    folder = StateFolder(sown(seed, tmp_path / "daemon"))
    folder.start()
    yield folder
    folder.run("stop")


def aws(daemon: StateFolder, *arguments: str) -> Any:
    """`aws dms …` on the lab; its answer."""
    connection = json.loads((daemon.path / "connection.json").read_text())
    environment = os.environ | {
        "AWS_ACCESS_KEY_ID": connection["access_key"], "AWS_SECRET_ACCESS_KEY": connection["secret_key"],
        "AWS_DEFAULT_REGION": "eu-central-1", "AWS_ENDPOINT_URL": connection["url"], "AWS_PAGER": "",
    }  # fmt: skip
    program = shutil.which("aws", path=os.path.dirname(sys.executable)) or "aws"
    done = subprocess.run([program, "dms", *arguments], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout or "{}")


def test_the_aws_command_line_drives_a_task_and_a_killed_daemon_goes_on_with_it(daemon: StateFolder) -> None:
    (task,) = aws(daemon, "describe-replication-tasks", "--without-settings")["ReplicationTasks"]
    arn = task["ReplicationTaskArn"]
    which = ["--replication-task-arn", arn]
    aws(daemon, "start-replication-task", *which, "--start-replication-task-type", "start-replication")
    client = daemon.client("dms")

    def seen() -> dict[str, Any]:
        found: dict[str, Any] = client.describe_replication_tasks()["ReplicationTasks"][0]
        return found

    eventually(lambda: "FullLoadFinishDate" in seen().get("ReplicationTaskStats", {}))
    tables = aws(daemon, "describe-table-statistics", *which)["TableStatistics"]
    assert {table["TableState"] for table in tables} == {"Table completed"} and len(tables) == len(TABLES)
    os.kill(daemon.status()["pid"], signal.SIGKILL)
    daemon.start()
    client = daemon.client("dms")
    roles = daemon.client("iam").list_attached_role_policies(RoleName="dms-vpc-role")["AttachedPolicies"]
    assert roles[0]["PolicyArn"] == "arn:aws:iam::aws:policy/service-role/AmazonDMSVPCManagementRole"
    databases = json.loads(daemon.run("databases", "--json", "--show-passwords").stdout)
    assert databases
    daemon.run("workload", "start")
    before = sum(table["AppliedInserts"] for table in tables)

    def applied() -> int:
        found = client.describe_table_statistics(ReplicationTaskArn=arn)["TableStatistics"]
        return sum(table["AppliedInserts"] for table in found)

    eventually(lambda: applied() > before)
    daemon.run("workload", "stop")
    metrics = daemon.client("cloudwatch")
    eventually(lambda: metrics.list_metrics(Namespace="AWS/DMS", MetricName="CDCLatencyTarget")["Metrics"])
    logs = daemon.client("logs").describe_log_streams(logGroupName="dms-tasks-migration-instance")["logStreams"]
    assert [stream["logStreamName"] for stream in logs] == [f"dms-task-{arn.rpartition(':')[2]}"]
    aws(daemon, "stop-replication-task", *which)
    eventually(lambda: seen()["Status"] == "stopped")
    assert aws(daemon, "describe-replication-tasks")["ReplicationTasks"][0]["StopReason"] == "Stop Reason NORMAL"


def test_a_target_table_that_is_not_empty_is_an_error_of_that_table_only(world: World) -> None:
    world.loaded()
    world.stop()
    kept = {"FullLoadSettings": {"TargetTablePrepMode": "DO_NOTHING"}}
    with world.target() as target:
        target.execute("truncate shop.products")
    task = world.new_task("onto-rows", "full-load", ("customers", "products"), **kept)
    world.start(task=task)
    seen = world.until_status("stopped", task)
    assert (seen["ReplicationTaskStats"]["TablesLoaded"], seen["ReplicationTaskStats"]["TablesErrored"]) == (1, 1)
    assert world.statistics(task)["shop.customers"]["TableState"] == "Table error"
    assert world.statistics(task)["shop.products"]["FullLoadRows"] == 400


def test_a_table_is_loaded_again_though_a_foreign_key_refers_to_it(world: World) -> None:
    world.loaded()
    with world.target() as target:
        target.execute("alter table shop.orders add foreign key (customer_id) references shop.customers")
        target.execute("update shop.customers set name = 'wrong'")
    tables = [{"SchemaName": "shop", "TableName": "customers"}]
    world.call("ReloadTables", ReplicationTaskArn=world.task, TablesToReload=tables)
    eventually(
        lambda: (
            (seen := world.statistics()["shop.customers"])["FullLoadReloaded"]
            and seen["TableState"] == "Table completed"
        )
    )
    world.in_step()
    world.same()


def test_a_mapping_that_shrinks_and_grows_is_followed_when_the_task_goes_on(world: World) -> None:
    world.loaded()
    world.stop()
    rule = {
        "rule-type": "selection", "rule-id": "2", "rule-name": "not", "rule-action": "exclude",
        "object-locator": {"schema-name": "shop", "table-name": "documents"},
    }  # fmt: skip
    whole = json.loads(world.described()["TableMappings"])
    less = json.dumps({"rules": [*whole["rules"], rule]})
    world.call("ModifyReplicationTask", ReplicationTaskArn=world.task, TableMappings=less)
    world.start("resume-processing")
    eventually(lambda: "shop.documents" not in world.statistics())
    world.until_status("running")
    with world.source() as source:
        source.execute("update shop.documents set title = 'not replicated' where id = 1")
    world.stop()
    world.call("ModifyReplicationTask", ReplicationTaskArn=world.task, TableMappings=json.dumps(whole))
    world.start("resume-processing")
    eventually(lambda: world.statistics().get("shop.documents", {}).get("TableState") == "Table completed")
    world.in_step()
    world.same()
