"""The lab's DMS as an interface: what is described, refused, tested and remembered. No task runs here."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runbook_lib.aws.client import Credentials, Session
from runbook_lib.aws.dms import PAGE
from runbook_lib.aws.dms import Dms as Library
from runbook_lib.lab import dms, dms_instances
from runbook_lib.lab.core import CLOUD_REGION
from runbook_lib.lab.dms_counters import Changes
from runbook_lib.lab.dms_replication import Copy, Subscription
from runbook_lib.lab.dms_runner import Runner
from runbook_lib.lab.dms_settings import DEFAULTS
from runbook_lib.lab.dms_tables import COMPLETED, FAILED, Tables
from runbook_lib.lab.front import Front
from runbook_lib.lab.moto_bridge import Moto
from runbook_lib.lab.protocol import Refusal
from runbook_lib.lab.server import Server

from .conftest import ACCESS_KEY, SECRET_KEY, SmallS3
from .dms_world import World, eventually, furnished


@pytest.fixture
def world(seed: Path, tmp_path: Path) -> Iterator[World]:
    made = furnished(seed, tmp_path / "lab")
    yield made
    made.close()


@pytest.fixture(scope="module")
def lasting(seed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world for the tests that need its databases; they leave it as it was."""
    made = furnished(seed, tmp_path_factory.mktemp("dms") / "lab")
    made.lab.databases.ready()
    yield made
    made.close()


def refused(world: World, code: str, text: str, operation: str, **parameters: Any) -> None:
    with pytest.raises(Refusal, match=text) as caught:
        world.call(operation, **parameters)
    assert caught.value.code == code


def ends(world: World) -> dict[str, str]:
    """The ARNs of the task's ends."""
    known = world.described()
    return {name: known[name] for name in ("SourceEndpointArn", "TargetEndpointArn", "ReplicationInstanceArn")}


def mapping(**changes: Any) -> str:
    locator = {"schema-name": "shop", "table-name": "%"}
    rule = {"rule-type": "selection", "rule-id": "1", "rule-name": "a", "object-locator": locator,
            "rule-action": "include"} | changes  # fmt: skip
    return json.dumps({"rules": [rule]})


def test_the_world_is_made_without_starting_a_database(world: World) -> None:
    task = world.described()
    assert (task["ReplicationTaskIdentifier"], task["Status"]) == ("shop-to-cloud", "ready")
    assert "ReplicationTaskStats" not in task
    instance = world.call("DescribeReplicationInstances")["ReplicationInstances"][0]
    assert instance["ReplicationInstanceStatus"] == "available" and instance["EngineVersion"] == "3.5.4"
    assert [found["Status"] for found in world.call("DescribeConnections")["Connections"]] == ["successful"] * 2
    assert world.lab.databases.up == {"source": False, "target": False}


def test_settings_come_back_as_the_whole_document(world: World) -> None:
    settings = json.loads(world.described()["ReplicationTaskSettings"])
    assert settings.keys() == DEFAULTS.keys()
    assert settings["ValidationSettings"] == {**DEFAULTS["ValidationSettings"], "EnableValidation": True}
    assert settings["ChangeProcessingTuning"]["MemoryLimitTotal"] == 1024
    light = world.call("DescribeReplicationTasks", WithoutSettings=True)["ReplicationTasks"][0]
    assert "ReplicationTaskSettings" not in light and "TableMappings" in light


def test_a_modified_setting_leaves_its_neighbours(world: World) -> None:
    given = json.dumps({"TargetMetadata": {"BatchApplyEnabled": True}})
    world.call("ModifyReplicationTask", ReplicationTaskArn=world.task, ReplicationTaskSettings=given)
    settings = json.loads(world.described()["ReplicationTaskSettings"])
    assert settings["TargetMetadata"] == {**DEFAULTS["TargetMetadata"], "BatchApplyEnabled": True}
    assert settings["Logging"]["EnableLogging"] and settings["ValidationSettings"]["EnableValidation"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "Invalid JSON"),
        ("{}", "no list of rules"),
        ('{"rules": []}', "no list of rules"),
        (mapping(**{"rule-type": "transformation"}), "selection rules only"),
        (mapping(**{"rule-action": "take"}), "rule-action"),
        (mapping(**{"object-locator": {"schema-name": "shop"}}), "schema-name and table-name"),
        (mapping(**{"rule-action": "exclude"}), "No selection rules with action 'include'"),
        (mapping(**{"rule-action": "explicit"}), "no wildcards"),
        (mapping(filters=[{"filter-type": "source"}]), "no source filters"),
        (mapping(**{"rule-id": ""}), "rule-id"),
    ],
)
def test_bad_mappings_are_refused(world: World, text: str, why: str) -> None:
    refused(
        world, "InvalidParameterValueException", why, "CreateReplicationTask", ReplicationTaskIdentifier="another",
        MigrationType="full-load", TableMappings=text, **ends(world),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ("{", "Invalid JSON"),
        ("[]", "not a JSON object"),
        ('{"Loging": {}}', "no section"),
        ('{"Logging": {"EnableLogging": "yes"}}', "is a bool"),
        ('{"FullLoadSettings": {"TargetTablePrepMode": "DROP"}}', "DROP_AND_CREATE"),
    ],
)
def test_bad_settings_are_refused(world: World, settings: str, why: str) -> None:
    refused(
        world, "InvalidParameterValueException", why, "ModifyReplicationTask", ReplicationTaskArn=world.task,
        ReplicationTaskSettings=settings,
    )  # fmt: skip


def test_a_filter_that_matches_nothing_is_an_error(world: World) -> None:
    where = [{"Name": "replication-task-id", "Values": ["nobody"]}]
    refused(world, "ResourceNotFoundFault", "No Tasks found", "DescribeReplicationTasks", Filters=where)
    refused(world, "InvalidParameterValueException", "Unrecognized", "DescribeEndpoints",
            Filters=[{"Name": "colour", "Values": ["blue"]}])  # fmt: skip
    source = world.described()["SourceEndpointArn"]
    found = world.call("DescribeReplicationTasks", Filters=[{"Name": "endpoint-arn", "Values": [source]}])
    assert len(found["ReplicationTasks"]) == 1


def test_lists_come_in_pages_of_at_least_twenty(world: World) -> None:
    refused(world, "InvalidParameterValueException", "between 20 and 100", "DescribeEndpoints", MaxRecords=5)
    for number in range(25):
        world.call("CreateEndpoint", EndpointIdentifier=f"e{number}", EndpointType="source", EngineName="postgres")
    first = world.call("DescribeEndpoints", MaxRecords=20, Filters=[{"Name": "endpoint-type", "Values": ["source"]}])
    assert len(first["Endpoints"]) == 20
    second = world.call("DescribeEndpoints", MaxRecords=20, Marker=first["Marker"],
                        Filters=[{"Name": "endpoint-type", "Values": ["source"]}])  # fmt: skip
    assert len(second["Endpoints"]) == 6 and "Marker" not in second


def test_names_are_checked_and_unique(world: World) -> None:
    given = {"EndpointType": "source", "EngineName": "postgres"}
    refused(world, "InvalidParameterValueException", "begins with a letter", "CreateEndpoint",
            EndpointIdentifier="1st", **given)  # fmt: skip
    refused(world, "ResourceAlreadyExistsFault", "already exists", "CreateEndpoint",
            EndpointIdentifier="Source-Postgres", **given)  # fmt: skip
    refused(world, "InvalidParameterValueException", "engine postgres", "CreateEndpoint",
            EndpointIdentifier="other", EndpointType="source", EngineName="oracle")  # fmt: skip


def test_the_first_start_is_the_only_start(world: World) -> None:
    start = {"ReplicationTaskArn": world.task}
    code = "InvalidParameterCombinationException"
    refused(
        world, code, "RESUME_PROCESSING", "StartReplicationTask", StartReplicationTaskType="resume-processing", **start
    )
    world.lab.database.update("dms.task", world.task, Started=True, Status="stopped")
    text = "^Start Type : START_REPLICATION, valid only for tasks running for the first time$"
    refused(world, code, text, "StartReplicationTask", StartReplicationTaskType="start-replication", **start)


def test_a_target_is_not_reloaded_by_a_first_start_nor_by_a_task_that_loads_nothing(world: World) -> None:
    code, how = "InvalidParameterCombinationException", {"StartReplicationTaskType": "reload-target"}
    text = "^Start Type : RELOAD_TARGET, not valid for tasks running for the first time$"
    refused(world, code, text, "StartReplicationTask", ReplicationTaskArn=world.task, **how)
    changes = world.new_task("changes", "cdc")
    world.lab.database.update("dms.task", changes, Started=True, Status="stopped")
    text = "^Start Type : RELOAD_TARGET, not valid for the type : cdc$"
    refused(world, code, text, "StartReplicationTask", ReplicationTaskArn=changes, **how)
    assert world.described(changes)["Status"] == "stopped"


def test_what_runs_can_be_neither_modified_nor_deleted_nor_started(world: World) -> None:
    world.lab.database.update("dms.task", world.task, Status="running")
    for operation, more in (
        ("ModifyReplicationTask", {}),
        ("DeleteReplicationTask", {}),
        ("StartReplicationTask", {"StartReplicationTaskType": "resume-processing"}),
    ):
        refused(world, "InvalidResourceStateFault", "running", operation, ReplicationTaskArn=world.task, **more)


def test_what_does_not_run_can_be_neither_stopped_nor_reloaded(world: World) -> None:
    refused(world, "InvalidResourceStateFault", "not running", "StopReplicationTask", ReplicationTaskArn=world.task)
    tables = [{"SchemaName": "shop", "TableName": "orders"}]
    refused(world, "InvalidResourceStateFault", "not running", "ReloadTables", ReplicationTaskArn=world.task,
            TablesToReload=tables)  # fmt: skip


def test_a_task_starts_only_after_successful_connection_tests(world: World) -> None:
    known = world.described()
    pair = {"ReplicationInstanceArn": known["ReplicationInstanceArn"], "EndpointArn": known["TargetEndpointArn"]}
    world.call("DeleteConnection", **pair)
    start = {"ReplicationTaskArn": world.task, "StartReplicationTaskType": "start-replication"}
    text = "should be successful for starting the replication task"
    refused(world, "InvalidResourceStateFault", text, "StartReplicationTask", **start)


def test_a_resource_in_use_is_not_deleted(world: World) -> None:
    known = world.described()
    refused(world, "InvalidResourceStateFault", "part of the task", "DeleteEndpoint",
            EndpointArn=known["SourceEndpointArn"])  # fmt: skip
    refused(world, "InvalidResourceStateFault", "has tasks", "DeleteReplicationInstance",
            ReplicationInstanceArn=known["ReplicationInstanceArn"])  # fmt: skip


def test_an_instance_is_made_in_its_time_modified_and_deleted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.lab.database.set("pace", 10)
    made = world.call("CreateReplicationInstance", ReplicationInstanceIdentifier="Second",
                      ReplicationInstanceClass="dms.t3.small")["ReplicationInstance"]  # fmt: skip
    which = {"ReplicationInstanceArn": made["ReplicationInstanceArn"]}
    where = {"Filters": [{"Name": "replication-instance-id", "Values": ["second"]}]}

    def seen() -> dict[str, Any]:
        (found,) = world.call("DescribeReplicationInstances", **where)["ReplicationInstances"]
        return dict(found)

    assert made["ReplicationInstanceStatus"] == seen()["ReplicationInstanceStatus"] == "creating"
    later = time.time() + 10 * 3
    monkeypatch.setattr(dms_instances, "now", lambda: later)
    assert seen()["ReplicationInstanceStatus"] == "available" and seen()["AllocatedStorage"] == 50
    changes = {"ReplicationInstanceClass": "dms.r5.large", "AllocatedStorage": 200, "MultiAZ": True}
    answer = world.call("ModifyReplicationInstance", **which, **changes)["ReplicationInstance"]
    assert answer == seen() == {**made, **changes, "ReplicationInstanceStatus": "available"}
    answer = world.call("DeleteReplicationInstance", **which)["ReplicationInstance"]
    assert answer["ReplicationInstanceStatus"] == "deleting"
    refused(world, "ResourceNotFoundFault", "No Replication Instances found", "DescribeReplicationInstances", **where)
    refused(world, "ResourceNotFoundFault", "not found", "ModifyReplicationInstance", **which)
    (left,) = world.call("DescribeReplicationInstances")["ReplicationInstances"]
    assert left["ReplicationInstanceIdentifier"] == "migration-instance"


def test_without_its_role_no_instance_can_be_made(world: World) -> None:
    world.bus.drop_role("dms-vpc-role")
    refused(world, "AccessDeniedFault", "dms-vpc-role is not configured properly", "CreateReplicationInstance",
            ReplicationInstanceIdentifier="second", ReplicationInstanceClass="dms.t3.small")  # fmt: skip


def test_tags_are_kept(world: World) -> None:
    world.call("AddTagsToResource", ResourceArn=world.task, Tags=[{"Key": "owner", "Value": "shop"}])
    assert world.call("ListTagsForResource", ResourceArn=world.task)["TagList"] == [{"Key": "owner", "Value": "shop"}]
    world.call("RemoveTagsFromResource", ResourceArn=world.task, TagKeys=["owner"])
    assert world.call("ListTagsForResource", ResourceArn=world.task)["TagList"] == []


def test_a_state_lasts_as_the_pace_wants_and_no_describe_moves_it_on(world: World) -> None:
    world.lab.database.set("pace", 10)
    task = world.new_task("slow", "full-load")
    assert [world.described(task)["Status"] for _ in range(5)] == ["creating"] * 5


def test_operations_that_the_lab_does_not_have_say_so(world: World) -> None:
    refused(world, "NotImplemented", "does not have", "DescribeCertificates")


def try_connection(world: World, endpoint: str) -> dict[str, Any]:
    """Test a connection and wait for the answer."""
    known = world.described()
    pair = {"ReplicationInstanceArn": known["ReplicationInstanceArn"], "EndpointArn": endpoint}
    assert world.call("TestConnection", **pair)["Connection"]["Status"] == "testing"
    where = [{"Name": "endpoint-arn", "Values": [endpoint]}]
    found: dict[str, Any] = eventually(
        lambda: (
            (seen := world.call("DescribeConnections", Filters=where)["Connections"][0])["Status"] != "testing" and seen
        )
    )
    return found


def test_endpoints_say_where_the_servers_listen_and_never_a_password(lasting: World) -> None:
    shown = {endpoint["EndpointIdentifier"]: endpoint for endpoint in lasting.call("DescribeEndpoints")["Endpoints"]}
    assert shown["source-postgres"]["Port"] == lasting.lab.databases.source.port
    assert shown["target-postgres"]["Port"] == lasting.lab.databases.target.port
    assert lasting.lab.databases.password("source", "dms") not in json.dumps(shown)


def test_a_connection_test_really_connects(lasting: World) -> None:
    known = lasting.described()
    assert try_connection(lasting, known["SourceEndpointArn"])["Status"] == "successful"
    made = lasting.call(
        "CreateEndpoint", EndpointIdentifier="wrong", EndpointType="source", EngineName="postgres", Username="dms",
        Password="not-it", DatabaseName="shop", ServerName="127.0.0.1", Port=lasting.lab.databases.source.port,
    )["Endpoint"]  # fmt: skip
    assert "not-it" not in json.dumps(made)
    failed = try_connection(lasting, made["EndpointArn"])
    assert failed["Status"] == "failed" and "password authentication failed" in failed["LastFailureMessage"]
    lasting.call("ModifyEndpoint", EndpointArn=made["EndpointArn"],
                 Password=lasting.lab.databases.password("source", "dms"))  # fmt: skip
    refused(lasting, "ResourceNotFoundFault", "No Connections", "DescribeConnections",
            Filters=[{"Name": "endpoint-arn", "Values": [made["EndpointArn"]]}])  # fmt: skip
    assert try_connection(lasting, made["EndpointArn"])["Status"] == "successful"
    lasting.call("DeleteEndpoint", EndpointArn=made["EndpointArn"])


def test_a_test_that_a_killed_lab_was_in_has_failed(lasting: World) -> None:
    known = lasting.described()
    identity = f"{known['ReplicationInstanceArn']} {known['TargetEndpointArn']}"
    lasting.lab.database.update("dms.connection", identity, Status="testing")
    lasting.restart()
    where = [{"Name": "endpoint-arn", "Values": [known["TargetEndpointArn"]]}]
    assert lasting.call("DescribeConnections", Filters=where)["Connections"][0]["Status"] == "failed"
    assert try_connection(lasting, known["TargetEndpointArn"])["Status"] == "successful"


def test_a_lab_that_stops_does_not_wait_for_a_run_that_hangs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    let_go = threading.Event()

    class Hanging(Runner):
        broken = ()

        def _step(self, task: dict[str, Any]) -> bool:
            let_go.wait(30)
            return False

        def _pause(self) -> float:
            return 0.0

        def _may_pass(self, error: Exception) -> bool:
            return False

        def _disconnect(self) -> None:
            pass

    monkeypatch.setattr(dms, "PATIENCE", 0.2)
    run = Hanging(world.lab, world.task, lambda _: None)
    world.dms._runs[world.task] = run
    run.start()
    began = time.monotonic()
    world.dms.stop()
    assert time.monotonic() - began < 5
    let_go.set()
    assert run.join(10)


def make_tables(world: World, count: int) -> Tables:
    """As many tables as no shop has, in the task's statistics."""
    tables = Tables(world.lab.database, world.task)
    with world.lab.database.writing():
        for number in range(count):
            tables.begin("shop", f"t{number:03}", number, validated=False)
    return tables


def test_statistics_come_in_pages_and_by_schema_name_and_state(world: World) -> None:
    tables = make_tables(world, 25)
    which = {"ReplicationTaskArn": world.task, "MaxRecords": 20}
    first = world.call("DescribeTableStatistics", **which)
    second = world.call("DescribeTableStatistics", **which, Marker=first["Marker"])
    assert (len(first["TableStatistics"]), len(second["TableStatistics"])) == (20, 5) and "Marker" not in second
    names = [table["TableName"] for page in (first, second) for table in page["TableStatistics"]]
    assert names == [f"t{number:03}" for number in range(25)]
    for number in range(22):
        tables.change(f"shop.t{number:03}", TableState=COMPLETED)
    tables.change("shop.t024", TableState=FAILED)

    def found(**filters: list[str]) -> tuple[list[str], bool]:
        given = [{"Name": name.replace("_", "-"), "Values": values} for name, values in filters.items()]
        answer = world.call("DescribeTableStatistics", **which, Filters=given)
        return [table["TableName"] for table in answer["TableStatistics"]], "Marker" in answer

    assert found(table_state=[FAILED]) == (["t024"], False)
    assert found(table_state=[FAILED, "Before load"]) == (["t022", "t023", "t024"], False)
    assert found(table_state=[COMPLETED]) == (names[:20], True)
    assert found(table_state=[COMPLETED], table_name=["t021", "t024"]) == (["t021"], False)
    assert found(schema_name=["another"]) == ([], False)
    refused(world, "InvalidParameterValueException", "Unrecognized filter name 'colour'", "DescribeTableStatistics",
            ReplicationTaskArn=world.task, Filters=[{"Name": "colour", "Values": ["blue"]}])  # fmt: skip
    refused(world, "InvalidParameterValueException", "between 20 and 500", "DescribeTableStatistics",
            ReplicationTaskArn=world.task, MaxRecords=501)  # fmt: skip


def test_the_library_reads_the_statistics_of_more_tables_than_a_page_has(world: World, moto: Moto) -> None:
    make_tables(world, PAGE + 3)
    server = Server(Front(ACCESS_KEY, SECRET_KEY, {"dms": world.dms}, SmallS3(), moto, lambda *_: None), 0)
    asked: list[tuple[str, Any]] = []

    def record(kind: str, **fields: Any) -> None:
        asked.append((fields["operation"], fields["parameters"].get("Marker")))

    url = server.listen()
    server.run()
    try:
        session = Session(record=record, endpoint_url=url, credentials=Credentials(ACCESS_KEY, SECRET_KEY),
                          home_region=CLOUD_REGION)  # fmt: skip
        library = Library(session, CLOUD_REGION)
        found = library.statistics(library.task(None))
    finally:
        server.stop()
    assert [table.name for table in found] == [f"shop.t{number:03}" for number in range(PAGE + 3)]
    assert [marker for operation, marker in asked if operation == "DescribeTableStatistics"] == [None, str(PAGE)]


def test_tables_without_new_changes_cost_nothing(world: World) -> None:
    tables, changes = Tables(world.lab.database, world.task), Changes(world.lab.database, world.task)
    for number in range(50):
        tables.begin("shop", f"t{number}", number, validated=False)
        tables.change(f"shop.t{number}", Snapshot=0)
    world.lab.database.connection.execute(
        "insert into dms_changes values (?, 10, 20, 0, 'shop.t7', 3, 2, 1, 0)", [world.task]
    )
    said: list[str] = []
    world.lab.database.connection.set_trace_callback(said.append)
    changes.settle({"shop.t7": Copy("shop.t7", 7, "r", 0, 0)}, Subscription(1, True, 20, True))
    world.lab.database.connection.set_trace_callback(None)
    seven = tables.get("shop.t7") or {}
    assert (seven["Inserts"], seven["AppliedInserts"], seven["Updates"], seven["Deletes"]) == (3, 3, 2, 1)
    assert len(said) < 20
