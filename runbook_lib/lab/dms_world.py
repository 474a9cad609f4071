"""Which DMS resources does a new lab have? An instance, two tested endpoints and a task that was never started."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from .core import ACCOUNT, CLOUD_REGION
from .databases import DATABASE
from .dms import Dms
from .protocol import Call

INSTANCE, TASK = "migration-instance", "shop-to-cloud"
ENDPOINTS = {"source": "source-postgres", "target": "target-postgres"}
ROLE = "dms"
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


def make(dms: Dms, ask: Callable[..., dict[str, Any]]) -> str:
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
        ends[side] = ask(
            dms,
            "CreateEndpoint",
            EndpointIdentifier=name,
            EndpointType=side,
            EngineName="postgres",
            Username=ROLE,
            DatabaseName=DATABASE,
        )["Endpoint"]["EndpointArn"]
        dms.attach(ends[side], side)
        dms.record_connection(instance, ends[side], Call("TestConnection", CLOUD_REGION, ACCOUNT, "the-world"))
    task = ask(
        dms,
        "CreateReplicationTask",
        ReplicationTaskIdentifier=TASK,
        SourceEndpointArn=ends["source"],
        TargetEndpointArn=ends["target"],
        ReplicationInstanceArn=instance,
        MigrationType="full-load-and-cdc",
        TableMappings=json.dumps(MAPPINGS),
        ReplicationTaskSettings=json.dumps(SETTINGS),
    )
    return str(task["ReplicationTask"]["ReplicationTaskArn"])
