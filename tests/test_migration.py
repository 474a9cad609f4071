"""What `rb.dms` finds: each finding says no when it should, and never yes to nothing."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from runbook_lib.aws.dms import Counts, DmsTask, Endpoint, Instance, TableRule, TableStatistics
from runbook_lib.aws.secrets import Secret
from runbook_lib.aws.watch import Datapoint, LogLine, Metric
from runbook_lib.environment import DatabaseSide
from runbook_lib.errors import DatabaseError, SettingsError
from runbook_lib.lab import postgres
from runbook_lib.migration import DatabaseMigration, ends, logs
from runbook_lib.migration.capacity import MB, ApplyMode, Capacity
from runbook_lib.migration.lag import Lag
from runbook_lib.migration.phase import Phase
from runbook_lib.migration.source import SourceReady, SourceTable, selected
from runbook_lib.migration.statistics import Applied, Loaded, Validation
from runbook_lib.settings import load_environment
from tests.servers import in_postgresql, postgresql

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
NOTHING = Counts(0, 0, 0)
numbers = itertools.count()

TASK = DmsTask(
    arn="arn:aws:dms:eu-central-1:123456789012:task:ABCDEFGHIJKLMNOPQRSTUVWXYZ", name="shop-to-cloud",
    status="running", kind="full-load-and-cdc", instance_arn="i", source_arn="s", target_arn="t", rules=(),
    transformations=(), settings={}, stop_reason="", failure="", progress=100, loaded=1, loading=0, queued=0, errored=0,
    fresh_start=NOW, started=NOW, stopped=None, load_started=NOW, load_finished=NOW + timedelta(seconds=3),
    checkpoint="",
)  # fmt: skip
TABLE = TableStatistics(
    schema="shop", table="orders", state="Table completed", loaded_rows=10, captured=Counts(2, 1, 0),
    applied=Counts(2, 1, 0), ddl=0, load_started=NOW, load_ended=NOW + timedelta(seconds=2), validation="Validated",
    validation_pending=0, validation_failed=0, validation_suspended=0,
)  # fmt: skip


def phase(task: DmsTask = TASK, *tables: TableStatistics) -> Phase:
    return Phase(task, tables or (TABLE,), NOW + timedelta(seconds=9))


def test_a_task_that_applies_changes_as_they_come_is_where_it_should_be() -> None:
    assert phase().ok
    assert phase().stage == "ongoing replication"


@pytest.mark.parametrize(
    ("changes", "stage"),
    [
        ({"status": "ready"}, "not started"),
        ({"status": "stopped", "stop_reason": "Stop Reason NORMAL"}, "stopped"),
        ({"status": "failed", "failure": "no route to host"}, "failed"),
        ({"status": "starting"}, "ongoing replication"),
        ({"status": "modifying"}, "ongoing replication"),
        ({"loading": 1}, "full load"),
        ({"load_finished": None}, "full load"),
    ],
)
def test_a_task_in_another_stage_is_not(changes: dict[str, Any], stage: str) -> None:
    seen = phase(replace(TASK, **changes))
    assert (seen.ok, seen.stage) == (False, stage)
    assert stage in seen.reason
    assert (changes.get("stop_reason") or changes.get("failure") or "") in seen.reason


def test_changes_that_wait_are_cached_changes() -> None:
    seen = phase(TASK, replace(TABLE, captured=Counts(5, 1, 0)))
    assert (seen.ok, seen.stage, seen.waiting) == (False, "cached changes", 3)


def test_a_change_that_was_left_out_is_not_waited_for() -> None:
    left_out = replace(phase(TASK, replace(TABLE, captured=Counts(3, 1, 0))), lost=1)
    assert (left_out.ok, left_out.stage) == (True, "ongoing replication")


def test_a_task_without_tables_is_not_done() -> None:
    assert not Phase(TASK, (), NOW).ok


def test_a_full_load_only_task_ends_stopped_and_that_is_right() -> None:
    ended = replace(TASK, kind="full-load", status="stopped", stop_reason="Stop Reason FULL_LOAD_ONLY_FINISHED")
    assert phase(ended).ok
    assert not phase(replace(ended, stop_reason="Stop Reason NORMAL")).ok


def test_a_full_load_only_task_is_not_held_to_what_changes_need() -> None:
    keyless = SourceTable("shop", "visits", "its key", False, False)
    assert not SourceReady("postgresql", (keyless,), ()).ok
    assert SourceReady("postgresql", (keyless,), (), captures=False).ok
    assert not SourceReady("postgresql", (), (), captures=False).ok
    task, nothing = replace(TASK, kind="full-load"), replace(TABLE, captured=NOTHING, applied=NOTHING)
    assert Applied((nothing,), (), 0, captures=False).reason == "a full load alone captures no changes"
    assert Lag((), None, False, 1.0, captures=False).reason == "a full load alone follows no changes"
    assert ApplyMode(task, (nothing,), (), 1.0, 0.0).reason == "a full load alone applies no changes"


def test_the_timeline_is_drawn_and_told() -> None:
    timeline = phase().timeline()
    assert "1 of 1 table loaded" in repr(timeline)
    picture = timeline._repr_png_()
    assert picture is not None and picture.startswith(b"\x89PNG")
    assert Phase(TASK, (replace(TABLE, load_started=None, load_ended=None),), NOW).timeline()._repr_png_() is None


def test_a_table_that_dms_does_not_know_or_has_not_loaded_is_not_loaded() -> None:
    assert Loaded(("shop.orders",), (TABLE,)).ok
    assert "DMS does not know shop.payments" in Loaded(("shop.orders", "shop.payments"), (TABLE,)).reason
    stuck = Loaded(("shop.orders",), (replace(TABLE, state="Table error"),))
    assert not stuck.ok and "shop.orders: Table error" in stuck.reason
    assert not Loaded((), ()).ok


def test_a_change_that_was_not_applied_or_went_wrong_is_found() -> None:
    assert Applied((TABLE,), (), 0).ok
    gap = Applied((replace(TABLE, applied=Counts(2, 0, 1)),), (), 0)
    assert not gap.ok and "captured 2 / 1 / 0, applied 2 / 0 / 1" in gap.reason
    lost = Applied((TABLE,), (("shop.orders", "duplicate key"),), 1)
    assert not lost.ok and "duplicate key" in lost.reason


def test_a_table_of_exceptions_that_cannot_be_found_is_not_an_empty_one() -> None:
    unknown = Applied((TABLE,), (), 0, on_record=False)
    assert not unknown.ok and "no awsdms_apply_exceptions" in unknown.reason


def test_no_change_at_all_proves_nothing() -> None:
    quiet = Applied((replace(TABLE, captured=NOTHING, applied=NOTHING),), (), 0)
    assert not quiet.ok and "nothing is proven" in quiet.reason


@pytest.mark.parametrize(
    "state", ["Not enabled", "Mismatched records", "Suspended records", "Table error", "Error", ""]
)
def test_only_the_state_validated_counts_and_never_zero_failures(state: str) -> None:
    seen = Validation((TABLE, replace(TABLE, table="other", validation=state)), ())
    assert not seen.ok and seen.settled
    assert f"shop.other: {state or 'Not enabled'}" in seen.reason


def test_a_table_without_a_key_is_left_to_our_comparison_and_alone_proves_nothing() -> None:
    keyless = replace(TABLE, table="audit_log", validation="No primary key")
    assert Validation((TABLE, keyless), ()).ok
    assert "compared by us below: shop.audit_log" in Validation((TABLE, keyless), ()).reason
    assert not Validation((keyless,), ()).ok


def test_validation_that_is_pending_is_not_settled() -> None:
    assert not Validation((replace(TABLE, validation="Pending records"),), ()).settled


def metric(name: str, *values: float) -> Metric:
    return Metric(name, tuple(Datapoint(NOW, value) for value in values))


def test_no_datapoint_is_not_zero() -> None:
    assert Lag((metric("CDCLatencyTarget", 0.0),), 0.01, True, 60).ok
    silent = Lag((metric("CDCLatencyTarget"),), 0.01, True, 60)
    assert not silent.ok and "no fresh datapoint of CDCLatencyTarget" in silent.reason
    assert not Lag((), 0.01, True, 60).ok


def test_the_newest_datapoint_and_the_heartbeat_decide() -> None:
    assert not Lag((metric("CDCLatencyTarget", 4.0, 0.0),), 0.01, True, 60).ok
    lost = Lag((metric("CDCLatencyTarget", 0.0),), None, True, 60)
    assert not lost.ok and "was not on the target after 60 s" in lost.reason
    assert Lag((metric("CDCLatencyTarget", 0.0),), None, False, 60).ok


PAUSED = (
    "[SORTER ]I: Reading from source is paused. Total storage used by swap files exceeded the limit 1048576000 bytes"
)
RESUMED = "[SORTER ]I: Reading from source is resumed (sorter_transaction.c:116)"


def reading(*lines: str) -> logs.LogReading:
    return logs.read("dms-tasks-x", (LogLine(NOW, line) for line in lines))


def test_a_swap_pause_is_trouble_until_it_is_resumed() -> None:
    paused = reading("[TASK ]I: started", PAUSED)
    assert not paused.ok and "swap pause (1 line)" in paused.reason
    assert "BatchApplyEnabled" in repr(paused)
    assert reading(PAUSED, RESUMED).ok
    assert not reading(PAUSED, RESUMED, PAUSED).ok


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ('[TARGET_APPLY ]E: duplicate key value violates unique constraint "orders_pkey"', "duplicate key"),
        ('[VALIDATOR ]E: relation "awsdms_validation_failures_v2_idx" already exists', "leftover control tables"),
        ("[SOURCE_UNLOAD ]E: permission denied for table returns", "permission"),
        ("[TARGET_APPLY ]W: Some changes from the source database had no impact when applied", "no impact"),
        ("[VALIDATOR ]I: Validation Failed key - Table : 1, Partition : 2", "validation failed"),
        ("[SOMETHING ]E: never seen before", "error"),
    ],
)
def test_known_lines_are_named_and_unknown_errors_are_errors(line: str, name: str) -> None:
    assert [trouble.name for trouble in reading(line).troubles] == [name]


def test_what_was_dealt_with_is_not_judged_again() -> None:
    lines = [LogLine(NOW, "[TASK ]E: an old error"), LogLine(NOW + timedelta(minutes=5), "[TASK ]I: well again")]
    assert not logs.read("g", lines, NOW).ok
    assert logs.read("g", lines, NOW + timedelta(minutes=1)).ok


def test_the_newest_trouble_comes_first_and_its_time_leaves_it_behind() -> None:
    texts = ("[A ]E: one", "[B ]E: permission denied for table t", "[C ]E: Duplicate entry", PAUSED)
    lines = [LogLine(NOW + timedelta(seconds=n + 0.5), text) for n, text in enumerate(texts)]
    found = logs.read("g", lines)
    assert found.reason.startswith("swap pause (1 line)") and found.reason.endswith("; and 1 more")
    (table,) = found.tables()
    assert table.columns[2] == "logs_since, when mended (UTC)"
    dealt_with = datetime.fromisoformat(f"{table.rows[0][2]}+00:00")
    assert logs.read("g", lines, dealt_with).ok


def test_a_log_that_was_not_read_to_its_end_is_not_a_good_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LIMIT", 2)
    cut = reading("[TASK ]I: one", "[TASK ]I: two", "[TASK ]E: three")
    assert not cut.ok and "set logs_since" in cut.reason


def test_a_log_without_lines_or_not_enabled_is_not_a_good_log() -> None:
    assert not reading().ok
    assert "EnableLogging is false" in logs.LogReading("g", False, 0, ()).reason
    assert reading("[TASK ]I: all is well").ok


INSTANCE = Instance("arn", "migration-instance", "available", "dms.t3.medium", "3.5.4", 50, "sun:06:00-sun:14:00")


def capacity(free: float, memory: float, swap: float, instance: Instance = INSTANCE) -> Capacity:
    values = {"FreeableMemory": memory, "SwapUsage": swap, "FreeStorageSpace": free}
    return Capacity(TASK, instance, tuple(metric(n, v * MB) for n, v in values.items()), 5000 * MB, 256 * MB)


def test_little_disk_is_short_and_little_memory_is_short_only_while_it_swaps() -> None:
    assert capacity(9000, 2000, 0).ok
    assert capacity(9000, 100, 0).ok
    assert "FreeStorageSpace" in capacity(4000, 2000, 0).reason
    assert "memory is short" in capacity(9000, 100, 900).reason
    assert "is upgrading" in capacity(9000, 2000, 0, replace(INSTANCE, status="upgrading")).reason
    assert not Capacity(TASK, INSTANCE, (Metric("FreeableMemory", ()),), 1, 1).ok


def mode(batch: bool, changes: int, keyless: tuple[str, ...] = (), waiting: float | None = 0.0) -> ApplyMode:
    task = replace(TASK, settings={"TargetMetadata": {"BatchApplyEnabled": batch}})
    return ApplyMode(task, (replace(TABLE, captured=Counts(changes, 0, 0)),), keyless, 10.0, waiting)


def test_batch_apply_suits_a_heavy_load_and_no_table_without_a_key() -> None:
    assert mode(False, 100).ok
    assert not mode(False, 100_000).ok
    assert '{"TargetMetadata": {"BatchApplyEnabled": true}}' in repr(mode(False, 100_000))
    assert not mode(False, 10, waiting=5000).ok
    assert mode(True, 100_000).ok and "suits a load of 1,000 changes a second or waiting, and more" in repr(
        mode(True, 100_000)
    )
    assert mode(True, 10).ok and "do not need it" in mode(True, 10).reason
    assert "no datapoint" in repr(mode(False, 10, waiting=None))
    assert "shop.audit_log" in mode(True, 10, ("shop.audit_log",)).reason


def test_a_published_table_without_key_and_full_identity_breaks_the_source() -> None:
    keyed = SourceTable("shop", "orders", "its key", True, True)
    log = SourceTable("shop", "audit_log", "its key", False, False)
    assert SourceReady("postgresql", (keyed, replace(log, identity="full")), ()).ok
    broken = SourceReady("postgresql", (keyed, log), ())
    assert not broken.ok and "alter table shop.audit_log replica identity full" in broken.reason
    assert not SourceReady("postgresql", (), ()).ok
    assert not SourceReady("postgresql", (keyed,), (("wal_level", "logical", "replica"),)).ok


def test_selection_rules_include_and_exclude() -> None:
    rules = (TableRule("shop", "%", True), TableRule("shop", "tmp%", False))
    assert selected(rules, "shop", "orders")
    assert not selected(rules, "shop", "tmp_orders")
    assert not selected(rules, "other", "orders")
    assert not selected((), "shop", "orders")


SHOP = """
create schema shop; create table shop.orders (id int primary key, total int);
create table shop.customers (id int primary key, name text); create table shop.tmp_x (id int primary key);
insert into shop.orders values (1, 10), (2, 20); insert into shop.customers values (1, 'a');
insert into shop.tmp_x values (1);"""
INCLUDE = {
    "rule-type": "selection",
    "rule-action": "include",
    "object-locator": {"schema-name": "shop", "table-name": "%"},
}


def rule(target: str, action: str, value: str | None = None, **where: str) -> dict[str, Any]:
    """A transformation rule as the console writes it."""
    locator = {f"{what}-name": name for what, name in {"schema": "shop", **where}.items()}
    return {"rule-type": "transformation", "rule-target": target, "rule-action": action, "object-locator": locator,
            "value": value}  # fmt: skip


Migration = Callable[..., DatabaseMigration]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[postgres.Server]:
    with postgresql(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def migrated(server: postgres.Server) -> Migration:
    """A migration whose task has these transformation rules, into a target on which this was then done; DMS's answers
    are written down here, as the lab's DMS refuses such rules."""

    def made(rules: list[dict[str, Any]], then: str, **wishes: Any) -> DatabaseMigration:
        sides = {}
        for side, script in (("source", SHOP), ("target", SHOP + then)):
            sides[side] = in_postgresql(server, f"{side}{next(numbers)}", script)
        about = dict.fromkeys(("ReplicationTaskIdentifier", "Status", "ReplicationInstanceArn", "SourceEndpointArn",
                               "TargetEndpointArn", "EndpointIdentifier", "EngineName"), "x")  # fmt: skip
        about |= {"ReplicationTaskArn": TASK.arn, "MigrationType": "full-load"}
        about["TableMappings"] = json.dumps({"rules": [INCLUDE, *rules]})
        session = Mock()
        session.client.return_value.look = lambda *_, **how: {"ReplicationTasks": [about], "Endpoints": [about]}
        asked: Any = SimpleNamespace(exclude=[], may_be_empty=[], heartbeat_table=None, method="md5", gentle=False,
                                     rounds=0, workers=1, timeout_minutes=1, headroom=0)  # fmt: skip
        vars(asked).update(wishes)
        return DatabaseMigration(
            session, "eu-central-1", find_task=lambda dms: dms.task(TASK.arn), wishes=asked, allow_change=lambda: None,
            database=lambda side, endpoint: sides[side],
        )  # fmt: skip

    return made


@pytest.mark.parametrize(
    ("rules", "then"),
    [
        ([rule("table", "rename", "sales", table="orders")], "alter table shop.orders rename to sales"),
        ([rule("schema", "rename", "app")], "alter schema shop rename to app"),
        ([rule("schema", "rename", "app"), rule("table", "rename", "sales", table="orders"),
          rule("column", "rename", "amount", table="orders", column="total")],
         "alter schema shop rename to app; alter table app.orders rename to sales; "
         "alter table app.sales rename total to amount"),
        ([rule("schema", "convert-uppercase"), rule("table", "convert-uppercase", table="%")],
         'alter schema shop rename to "SHOP"; alter table "SHOP".orders rename to "ORDERS"; '
         'alter table "SHOP".customers rename to "CUSTOMERS"; alter table "SHOP".tmp_x rename to "TMP_X"'),
    ],
)  # fmt: skip
def test_tables_that_the_task_renames_are_compared_under_their_new_names(
    migrated: Migration, rules: list[dict[str, Any]], then: str
) -> None:
    migration = migrated(rules, then)
    found = migration.compare_rows()
    assert (found.ok, [table.name for table in found.compared]) == (
        True, ["shop.customers", "shop.orders", "shop.tmp_x"],
    ), found  # fmt: skip
    for look in (migration.missing_objects, migration.sequences):
        with pytest.raises(DatabaseError, match=r"The DMS task renames: shop\.\w+ is .*nothing true can be said"):
            look()


def test_a_heartbeat_is_waited_for_where_the_target_has_it(migrated: Migration) -> None:
    table = "create table shop.beat (id int primary key, beat timestamptz, token text)"
    then = f"{table}; alter schema shop rename to app"
    migration = migrated([rule("schema", "rename", "app")], then, heartbeat_table="shop.beat", patience_seconds=60)
    with migration.source.session(read_only=False) as session:
        session.execute(table)

    def replicate(seconds: float) -> None:
        with migration.source.session() as source, migration.target.session(read_only=False) as target:
            (row,) = source.execute("select id, beat, token from shop.beat").fetchall()
            target.execute("insert into app.beat values (%s, %s, %s)", row)

    vars(migration).update(captures=True, _sleep=replicate)
    assert migration._beat() is not None


def test_rules_that_rename_nothing_change_nothing(migrated: Migration) -> None:
    rules = [
        rule("schema", "convert-lowercase"), rule("table", "convert-lowercase", table="%"),
        rule("table", "add-prefix", "x_", table="elsewhere%"), rule("column", "add-column", table="orders", column="v"),
    ]  # fmt: skip
    migration = migrated(rules, "")
    assert migration.compare_rows().ok
    assert migration.missing_objects().ok


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ([rule("table", "add-prefix", "x_", table="tmp%")], r"gives the table of shop\.tmp_x .*\(add-prefix x_\)"),
        ([rule("table", "convert-uppercase", table="tmp%"), rule("table", "rename", "other", table="tmp_x")],
         r"\(convert-uppercase and rename other\)"),
    ],
)  # fmt: skip
def test_a_name_that_the_rules_do_not_tell_plainly_is_an_error_until_the_table_is_left_out(
    migrated: Migration, rules: list[dict[str, Any]], said: str
) -> None:
    with pytest.raises(DatabaseError, match=f"{said}.*--rename shop.tmp_x=schema.table"):
        migrated(rules, "").compare_rows()
    assert migrated(rules, "", exclude=["shop.tmp%"]).compare_rows().ok


ENDPOINT = Endpoint("arn", "source-postgres", "postgres", "db.example", 5432, "shop", "dms")


def test_the_environment_beats_the_secret_and_the_secret_beats_the_endpoint() -> None:
    given = DatabaseSide(host="replica.example", options={"sslmode": "require"})
    found = ends.database("source", given, Secret("pw", user="runbook", host="h", port=6432), ENDPOINT)
    assert (found.host, found.port, found.name, found.user) == ("replica.example", 6432, "shop", "runbook")
    assert found.options == (("sslmode", "require"),)
    assert "pw" not in repr(found)


def test_an_engine_that_we_cannot_compare_is_refused() -> None:
    with pytest.raises(SettingsError, match="the target endpoint x is redshift"):
        ends.database("target", DatabaseSide(), Secret("pw"), replace(ENDPOINT, name="x", engine="redshift"))


def test_a_password_in_the_environment_is_refused_and_not_repeated(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "parameters/lab.yaml").read_text()
    file = tmp_path / "lab.yaml"
    file.write_text(text.replace("password: secretsmanager:migration-lab/source", "password: hunter2"))
    with pytest.raises(SettingsError, match=r"dms\.source\.password: give the name of a secret") as refused:
        load_environment(str(file))
    assert "hunter2" not in str(refused.value)
