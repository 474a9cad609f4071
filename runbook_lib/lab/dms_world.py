"""Which DMS resources does a new lab have? An instance, two tested endpoints and a task that was never started.

With the profile `mariadb` two endpoints and a task more: a full load from MariaDB into a database of its own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from ..errors import LabError
from . import shop_mariadb
from .core import ACCOUNT, CLOUD_REGION
from .databases import DATABASE, MARIADB
from .dms import Dms
from .dms_resources import ENDPOINT
from .dms_resources import INSTANCE as INSTANCES
from .dms_resources import TASK as TASKS
from .protocol import Call

INSTANCE, TASK = "migration-instance", "shop-to-cloud"
ENDPOINTS = {"source": "source-postgres", "target": "target-postgres"}
MARIADB_TASK = "mariadb-to-cloud"
MARIADB_ENDPOINTS = {"source": "source-mariadb", "target": "target-postgres-mariadb"}
ROLE = "dms"
PATIENCE = 30.0  # seconds for a task to be deleted
Ask = Callable[..., dict[str, Any]]
MAPPINGS = {
    "rules": [
        {
            "rule-type": "selection",
            "rule-id": "1",
            "rule-name": "shop",
            "object-locator": {"schema-name": "shop", "table-name": "%"},
            "rule-action": "include",
            "filters": [],
        }
    ]
}
SETTINGS = {
    "FullLoadSettings": {"TargetTablePrepMode": "DROP_AND_CREATE"},
    "Logging": {"EnableLogging": True},
    "ErrorBehavior": {"FailOnNoTablesCaptured": True},
    "ControlTablesSettings": {"StatusTableEnabled": True},
    "ValidationSettings": {"EnableValidation": True},
}


def make(dms: Dms, ask: Ask) -> str:
    """Make them through DMS's own operations; the task's ARN. No database is started for it."""
    group = f"{INSTANCE}-subnets"
    ask(
        dms,
        "CreateReplicationSubnetGroup",
        ReplicationSubnetGroupIdentifier=group,
        ReplicationSubnetGroupDescription="The subnets of the cloud's side",
        SubnetIds=["subnet-0a1b2c3d", "subnet-4e5f6071"],
    )
    instance = ask(
        dms,
        "CreateReplicationInstance",
        ReplicationInstanceIdentifier=INSTANCE,
        ReplicationInstanceClass="dms.t3.medium",
        AllocatedStorage=50,
        ReplicationSubnetGroupIdentifier=group,
    )["ReplicationInstance"]["ReplicationInstanceArn"]
    ends = {}
    for side, name in ENDPOINTS.items():
        ends[side] = _endpoint(dms, ask, side, name, EngineName="postgres", DatabaseName=DATABASE)
        _attach(dms, instance, ends[side], side)
    return _task(dms, ask, TASK, "full-load-and-cdc", instance, ends, SETTINGS)


def _endpoint(dms: Dms, ask: Ask, side: str, name: str, **parameters: Any) -> str:
    made = ask(dms, "CreateEndpoint", EndpointIdentifier=name, EndpointType=side, Username=ROLE, **parameters)
    return str(made["Endpoint"]["EndpointArn"])


def _attach(dms: Dms, instance: str, endpoint: str, side: str) -> None:
    """Make an endpoint the lab's own database, with a successful test: no database is started for it."""
    dms.attach(endpoint, side)
    dms.record_connection(instance, endpoint, Call("TestConnection", CLOUD_REGION, ACCOUNT, "the-world"))


def _task(
    dms: Dms, ask: Ask, name: str, kind: str, instance: str, ends: dict[str, str], settings: dict[str, Any]
) -> str:
    task = ask(
        dms,
        "CreateReplicationTask",
        ReplicationTaskIdentifier=name,
        SourceEndpointArn=ends["source"],
        TargetEndpointArn=ends["target"],
        ReplicationInstanceArn=instance,
        MigrationType=kind,
        TableMappings=json.dumps(MAPPINGS),
        ReplicationTaskSettings=json.dumps(settings),
    )
    return str(task["ReplicationTask"]["ReplicationTaskArn"])


def make_mariadb(dms: Dms, ask: Ask) -> None:
    """Add MariaDB's endpoints and task, as far as they are missing; LabError without the world's instance."""
    instance = _named(dms, INSTANCES, "ReplicationInstanceIdentifier", INSTANCE)
    if instance is None:
        raise LabError(f"There is no replication instance {INSTANCE} any more: run `runbook lab reset`.")
    ends = {}
    for side, name in MARIADB_ENDPOINTS.items():
        there = _named(dms, ENDPOINT, "EndpointIdentifier", name)
        if side == "source":  # a MySQL endpoint names no database: it serves all of them
            ends[side] = there or _endpoint(dms, ask, side, name, EngineName="mariadb")
        else:
            more = {"EngineName": "postgres", "DatabaseName": shop_mariadb.TARGET}
            ends[side] = there or _endpoint(dms, ask, side, name, **more)
        _attach(dms, instance, ends[side], MARIADB if side == "source" else side)
    if _named(dms, TASKS, "ReplicationTaskIdentifier", MARIADB_TASK) is None:
        settings = {name: value for name, value in SETTINGS.items() if name != "ControlTablesSettings"}
        _task(dms, ask, MARIADB_TASK, "full-load", instance, ends, settings)


def remove_mariadb(dms: Dms, ask: Ask) -> None:
    """Delete them; Refusal while the task runs."""
    task = _named(dms, TASKS, "ReplicationTaskIdentifier", MARIADB_TASK)
    if task is not None:
        ask(dms, "DeleteReplicationTask", ReplicationTaskArn=task)
    deadline = time.monotonic() + PATIENCE
    while _named(dms, TASKS, "ReplicationTaskIdentifier", MARIADB_TASK) is not None:
        if time.monotonic() > deadline:
            raise LabError(f"The task {MARIADB_TASK} is still being deleted after {PATIENCE:.0f} s; see the lab's log.")
        time.sleep(0.02)
    for name in MARIADB_ENDPOINTS.values():
        endpoint = _named(dms, ENDPOINT, "EndpointIdentifier", name)
        if endpoint is not None:
            ask(dms, "DeleteEndpoint", EndpointArn=endpoint)


def _named(dms: Dms, kind: str, member: str, name: str) -> str | None:
    """The ARN of the world's resource of that name, if somebody has not deleted it."""
    arn = {INSTANCES: "ReplicationInstanceArn", ENDPOINT: "EndpointArn", TASKS: "ReplicationTaskArn"}[kind]
    here = dms.here(kind, Call("Describe", CLOUD_REGION, ACCOUNT, "the-world"))
    return next((str(found[arn]) for found in here if found[member] == name), None)
