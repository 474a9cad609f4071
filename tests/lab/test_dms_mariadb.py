"""DMS from MariaDB: a full load in one snapshot, its types, states and validation; killed, broken, taken away."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import psycopg
import pymysql
import pytest

from runbook_lib.lab import dms_world, mariadb, profiles
from runbook_lib.lab.dms_load import Streamed
from runbook_lib.lab.protocol import Refusal
from tests.servers import need_mariadb

from .dms_world import World, eventually, under_way

ROWS = {
    "shop.customers": 2000,
    "shop.documents": 120,
    "shop.order_items": 12414,
    "shop.orders": 5000,
    "shop.products": 400,
    "shop.visits": 1000,
}
TYPES = {
    "id": "bigint", "email": "character varying(360)", "newsletter": "smallint", "credit_limit": "numeric(12,2)",
    "points": "bigint", "preferences": "text", "registered_at": "timestamp(6) without time zone",
}  # fmt: skip
FINISHED = "Stop Reason FULL_LOAD_ONLY_FINISHED"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A lab with the profile; its task was loaded once."""
    need_mariadb()
    made = World(tmp_path_factory.mktemp("mariadb") / "lab").furnish()
    profiles.switch(made.lab, made.services, "mariadb")
    made.task = task(made)
    made.start()
    made.until_status("stopped")
    yield made
    server = made.lab.databases.mariadb
    made.close()
    assert server.pid is None


def task(world: World) -> str:
    """The ARN of MariaDB's task."""
    where = [{"Name": "replication-task-id", "Values": [dms_world.MARIADB_TASK]}]
    found = world.call("DescribeReplicationTasks", Filters=where)["ReplicationTasks"][0]
    return str(found["ReplicationTaskArn"])


def loaded(world: World, how: str = "reload-target") -> dict[str, dict[str, Any]]:
    """Run the task to its end; its statistics."""
    world.start(how)
    assert world.until_status("stopped")["StopReason"] == FINISHED
    return world.statistics()


def being_loaded(world: World, table: str) -> None:
    """Start the task again and wait until it is at a table."""
    line = f"Start loading table 'shop'.'{table}'"
    before = len(world.bus.said(line))
    world.start("reload-target")
    eventually(lambda: len(world.bus.said(line)) > before)


def source(world: World) -> pymysql.Connection[Any]:
    return world.lab.databases.connect_mariadb(database="shop")


def target(world: World) -> psycopg.Connection[Any]:
    return world.lab.databases.connect("target", database="shop_mariadb")


def change(world: World, *statements: str) -> None:
    """Do something at the source."""
    with source(world) as session, session.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def test_a_full_load_brings_every_row_and_ends_stopped(world: World) -> None:
    tables = loaded(world)
    assert {name: table["FullLoadRows"] for name, table in tables.items()} == ROWS
    assert {table["TableState"] for table in tables.values()} == {"Table completed"}
    assert {name for name, table in tables.items() if table["ValidationState"] != "Validated"} == {"shop.visits"}
    assert tables["shop.visits"]["ValidationState"] == "No primary key"
    seen = world.described()
    assert seen["StopReason"] == FINISHED and seen["ReplicationTaskStats"]["FullLoadProgressPercent"] == 100
    assert seen["ReplicationTaskStats"]["FullLoadFinishDate"] and world.bus.said("All tables are loaded.")
    assert [event["detail"]["eventType"] for event in world.bus.events][-1] == "REPLICATION_TASK_STOPPED"


def test_columns_get_dms_own_types_and_nothing_else_is_made(world: World) -> None:
    with target(world) as session:
        types = dict(
            session.execute(
                "select attname, format_type(atttypid, atttypmod) from pg_attribute"
                " where attrelid = 'shop.customers'::regclass and attnum > 0"
            ).fetchall()
        )
        assert TYPES.items() <= types.items()
        made = session.execute("select contype::text, count(*) from pg_constraint group by 1").fetchall()
        assert dict(made)["p"] >= 5 and "f" not in dict(made)
        assert session.execute("select count(*) from pg_attrdef").fetchone() == (0,)


def test_values_arrive_as_they_are(world: World) -> None:
    asked = "select name, credit_limit, points, preferences, registered_at from shop.customers order by id"
    with source(world) as here, here.cursor() as cursor, target(world) as there:
        cursor.execute(asked)
        rows = list(cursor.fetchall())
        assert rows == there.execute(asked).fetchall()
        assert max(row[2] for row in rows) > 2**62 and any("🎂" in row[0] for row in rows)
        for columns in ("id, scan, digest from shop.documents", "order_id, gift_text from shop.order_items",
                        "id, note from shop.orders", "customer_id, seconds, at from shop.visits"):  # fmt: skip
            asked = f"select {columns}"
            cursor.execute(asked)
            assert sorted(cursor.fetchall(), key=repr) == sorted(there.execute(asked.encode()).fetchall(), key=repr)


def test_a_table_that_is_being_loaded_says_how_many_rows_it_has_so_far(world: World) -> None:
    with target(world) as session, target(world) as holder:
        session.execute(
            "create function shop.hold() returns trigger language plpgsql as"
            " $$ begin perform pg_advisory_xact_lock_shared(1); return new; end $$;"
            " create trigger hold before insert on shop.order_items for each row"
            " execute function shop.hold(); alter table shop.order_items enable always trigger hold"
        )
        holder.execute("select pg_advisory_lock(1)")
        try:
            world.start("reload-target")
            seen = eventually(lambda: under_way(world, "shop.order_items"))
            assert 0 < seen["FullLoadRows"] < ROWS["shop.order_items"]
        finally:
            holder.execute("select pg_advisory_unlock(1)")
            world.until_status("stopped")
            session.execute("drop function shop.hold() cascade")
    assert world.statistics()["shop.order_items"]["FullLoadRows"] == ROWS["shop.order_items"]


def test_all_tables_are_of_one_moment(world: World) -> None:
    """What is committed while tables are loaded is in none of them."""
    being_loaded(world, "customers")
    change(world, "insert into visits values (null, '/late', null, now())")
    try:
        world.until_status("stopped")
        assert world.statistics()["shop.visits"]["FullLoadRows"] == ROWS["shop.visits"]
    finally:
        change(world, "delete from visits where page = '/late'")


def test_a_row_that_differs_is_found_by_the_validation_and_written_down(world: World) -> None:
    with target(world) as session:
        session.execute(
            "create function shop.spoil() returns trigger language plpgsql as"
            " $$ begin new.title = 'x'; return new; end $$; create trigger spoil before insert on shop.products"
            " for each row when (new.sku = 'SKU-00007')"
            " execute function shop.spoil(); alter table shop.products enable always trigger spoil"
        )
    try:
        tables = loaded(world)
        assert tables["shop.products"]["ValidationState"] == "Mismatched records"
        assert tables["shop.products"]["ValidationFailedRecords"] == 1
        with target(world) as session:
            failures = 'select "TABLE_NAME", "KEY", "FAILURE_TYPE", "DETAILS" from public.awsdms_validation_failures_v1'
            ((name, key, kind, details),) = session.execute(failures).fetchall()
        assert (name, key, kind) == ("products", '{"key": ["SKU-00007"]}', "RECORD_DIFF") and "title" in details
    finally:
        with target(world) as session:
            session.execute("drop function shop.spoil() cascade")
    assert loaded(world)["shop.products"]["ValidationState"] == "Validated"


def test_a_value_that_has_no_room_puts_its_table_into_error_and_resuming_loads_it_again(world: World) -> None:
    change(world, "update customers set points = 18446744073709551615 where id = 5")
    try:
        tables = loaded(world)
        assert tables["shop.customers"]["TableState"] == "Table error" and tables["shop.customers"]["FullLoadRows"] == 0
        assert tables["shop.orders"]["TableState"] == "Table completed"
        assert world.bus.said("out of range for type bigint")
    finally:
        change(world, "update customers set points = 5 where id = 5")
    before = tables["shop.orders"]["FullLoadEndTime"]
    tables = loaded(world, "resume-processing")
    assert tables["shop.customers"]["FullLoadRows"] == ROWS["shop.customers"]
    assert tables["shop.customers"]["ValidationState"] == "Validated"
    assert tables["shop.orders"]["FullLoadEndTime"] == before


def test_a_type_that_the_lab_does_not_know_is_named(world: World) -> None:
    change(world, "create table places (id int primary key, at point not null)")
    try:
        tables = loaded(world)
        assert tables["shop.places"]["TableState"] == "Table error"
        assert world.bus.said("at point") and tables["shop.orders"]["TableState"] == "Table completed"
    finally:
        change(world, "drop table places")


def test_foreign_keys_on_the_target_do_not_stand_in_the_way_of_loading_again(world: World) -> None:
    key = "alter table shop.orders add constraint c foreign key (customer_id) references shop.customers"
    with target(world) as session:
        session.execute(key)
    assert {table["TableState"] for table in loaded(world).values()} == {"Table completed"}
    with target(world) as session:
        session.execute("alter table shop.orders drop constraint c")


@pytest.mark.parametrize("victim", ["mariadb", "target"])
def test_a_killed_server_is_waited_for_and_no_row_is_lost_or_doubled(world: World, victim: str) -> None:
    being_loaded(world, "order_items")
    server: Any = getattr(world.lab.databases, victim)
    os.kill(server.pid, signal.SIGKILL)
    assert world.until_status("stopped")["StopReason"] == FINISHED
    tables = world.statistics()
    assert {name: table["FullLoadRows"] for name, table in tables.items()} == ROWS
    assert {table["ValidationState"] for table in tables.values()} == {"Validated", "No primary key"}


def test_a_connection_that_is_lost_in_mid_result_is_an_error_of_the_driver_and_closes(world: World) -> None:
    source = world.lab.databases.connect_mariadb(database="shop")
    rows = Streamed(source)
    rows.execute("select seq, repeat('x', 1000) from seq_1_to_1000000")
    assert rows.fetchone() == (1, "x" * 1000)
    os.kill(world.lab.databases.mariadb.pid or 0, signal.SIGKILL)
    with pytest.raises(pymysql.OperationalError):
        rows.fetchall()
    assert not source.open
    rows.close()


def test_a_lab_that_was_killed_goes_on_with_the_load(world: World) -> None:
    being_loaded(world, "order_items")
    world.restart()
    assert world.until_status("stopped")["StopReason"] == FINISHED
    assert {name: table["FullLoadRows"] for name, table in world.statistics().items()} == ROWS


def test_capturing_changes_from_mariadb_is_refused(world: World) -> None:
    known = world.described()
    ends = {end: known[end] for end in ("SourceEndpointArn", "TargetEndpointArn", "ReplicationInstanceArn")}
    for kind in ("cdc", "full-load-and-cdc"):
        with pytest.raises(Refusal, match="does not capture MariaDB's changes"):
            world.call(
                "CreateReplicationTask", ReplicationTaskIdentifier="no", MigrationType=kind,
                TableMappings=known["TableMappings"], **ends,
            )  # fmt: skip
        with pytest.raises(Refusal, match="does not capture MariaDB's changes"):
            world.call("ModifyReplicationTask", ReplicationTaskArn=world.task, MigrationType=kind)
    with pytest.raises(Refusal, match="a source may be of the engine mariadb"):
        world.call("CreateEndpoint", EndpointIdentifier="no", EndpointType="target", EngineName="mariadb")


def test_the_connection_is_really_tested(world: World) -> None:
    known = world.described()
    which = {"ReplicationInstanceArn": known["ReplicationInstanceArn"], "EndpointArn": known["SourceEndpointArn"]}

    def tested() -> Any:
        world.call("TestConnection", **which)
        where = [{"Name": "endpoint-arn", "Values": [which["EndpointArn"]]}]

        def seen() -> Any:
            connection = world.call("DescribeConnections", Filters=where)["Connections"][0]
            return connection["Status"] != "testing" and connection

        return eventually(seen)

    assert tested()["Status"] == "successful"
    change(world, "alter user dms@'127.0.0.1' identified by 'another'")
    try:
        connection = tested()
        assert connection["Status"] == "failed" and "Access denied" in connection["LastFailureMessage"]
    finally:
        change(world, f"alter user dms@'127.0.0.1' identified by '{world.lab.databases.password('mariadb', 'dms')}'")
    assert tested()["Status"] == "successful"


def test_the_instance_is_measured_while_no_task_runs(world: World) -> None:
    world.bus.metrics.clear()
    eventually(lambda: world.bus.metrics.get("FreeStorageSpace"))
    assert "CDCLatencySource" not in world.bus.metrics
    assert world.bus.dimensions["FreeStorageSpace"] == {"ReplicationInstanceIdentifier": "migration-instance"}


def test_the_profile_is_taken_away_with_all_that_it_brought(world: World) -> None:
    profiles.switch(world.lab, world.services, "mariadb")  # twice is once
    profiles.switch(world.lab, world.services, "postgresql")
    assert world.lab.profile == "postgresql" and not world.lab.databases.mariadb.folder.exists()
    identifiers = [end["EndpointIdentifier"] for end in world.call("DescribeEndpoints")["Endpoints"]]
    assert identifiers == ["source-postgres", "target-postgres"]
    with world.target() as session:
        assert session.execute("select 1 from pg_database where datname = 'shop_mariadb'").fetchone() is None
    profiles.switch(world.lab, world.services, "mariadb")
    world.task = task(world)
    assert {name: table["FullLoadRows"] for name, table in loaded(world, "start-replication").items()} == ROWS


def test_without_its_binaries_the_profile_says_how_to_get_them(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("RUNBOOK_MARIADB_BIN", str(tmp_path))
    with pytest.raises(mariadb.LabError, match="apt-get install mariadb-server-core"):
        profiles.switch(world.lab, world.services, "mariadb")
