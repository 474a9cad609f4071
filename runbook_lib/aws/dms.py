"""What does DMS know: tasks, endpoints and their connections, the replication instance, statistics of every table."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ..errors import Ambiguous, AwsError, NotFound
from ..waiting import wait_until
from .client import Session

PAGE = 500  # DescribeTableStatistics gives 20-500 a page
LOADED = "Table completed"
ENGINE_SETTINGS = ("PostgreSQLSettings", "MySQLSettings")  # where an endpoint may keep what its own members lack


@dataclass(frozen=True)
class Endpoint:
    """A source or target as described; DMS never tells its password."""

    arn: str
    name: str
    engine: str  # DMS's own word: postgres, aurora-postgresql, mysql, mariadb, …
    host: str
    port: int
    database: str
    user: str


@dataclass(frozen=True)
class Connection:
    """The last test of an endpoint from a replication instance."""

    endpoint_arn: str
    endpoint: str
    status: str  # testing, successful, failed, deleting
    failure: str


@dataclass(frozen=True)
class Instance:
    """A replication instance as described; storage in GB."""

    arn: str
    name: str
    status: str
    machine: str
    engine_version: str
    storage: int
    maintenance: str


@dataclass(frozen=True)
class TableRule:
    """A selection rule of the table mappings; `%` stands for any text."""

    schema: str
    table: str
    include: bool


@dataclass(frozen=True)
class Transformation:
    """A transformation rule of the table mappings; schema, table and column are patterns, '' where it names none."""

    target: str  # schema, table, column, …
    action: str  # rename, convert-lowercase, add-prefix, …
    schema: str
    table: str
    column: str
    value: str


@dataclass(frozen=True)
class DmsTask:
    """A replication task as described; times in UTC, None where DMS has none yet."""

    arn: str
    name: str
    status: str
    kind: str  # full-load, cdc, full-load-and-cdc
    instance_arn: str
    source_arn: str
    target_arn: str
    rules: tuple[TableRule, ...]
    transformations: tuple[Transformation, ...]
    settings: dict[str, Any]
    stop_reason: str
    failure: str
    progress: int  # percent of the full load, as DMS estimates it
    loaded: int
    loading: int
    queued: int
    errored: int
    fresh_start: datetime | None
    started: datetime | None
    stopped: datetime | None
    load_started: datetime | None
    load_finished: datetime | None
    checkpoint: str

    @property
    def resource_id(self) -> str:
        """The last part of the ARN: control tables, log streams and metrics carry it."""
        return self.arn.rpartition(":")[2]

    @property
    def captures(self) -> bool:
        """Whether changes are replicated, and not only the state at the start."""
        return self.kind != "full-load"

    def setting(self, section: str, name: str, default: Any = None) -> Any:
        """One value of the task's settings."""
        return (self.settings.get(section) or {}).get(name, default)


@dataclass(frozen=True)
class Counts:
    """Changes of rows."""

    inserts: int
    updates: int
    deletes: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.inserts + self.updates + self.deletes

    def __str__(self) -> str:
        return f"{self.inserts:,} / {self.updates:,} / {self.deletes:,}"


@dataclass(frozen=True)
class TableStatistics:
    """One table of DescribeTableStatistics; counters since the task's fresh start."""

    schema: str
    table: str
    state: str
    loaded_rows: int
    captured: Counts
    applied: Counts
    ddl: int
    load_started: datetime | None
    load_ended: datetime | None
    validation: str
    validation_pending: int
    validation_failed: int
    validation_suspended: int

    @property
    def name(self) -> str:
        """schema.table."""
        return f"{self.schema}.{self.table}"


class Dms:
    """DMS in one region, held open."""

    def __init__(self, session: Session, region: str) -> None:
        self._client = session.client("dms", region)
        self._starter = session.client("dms", region, starts=True)

    def task_names(self) -> list[str]:
        """The names of all replication tasks of the region."""
        listed = self._client.pages("describe_replication_tasks", "ReplicationTasks", WithoutSettings=True)
        return sorted(item["ReplicationTaskIdentifier"] for item in listed)

    def task(self, name: str | None) -> DmsTask:
        """A task by name or ARN; None: the only one. `NotFound` and `Ambiguous` say what the candidates are."""
        if name is None:
            names = self.task_names()
            if len(names) != 1:
                error = Ambiguous if names else NotFound
                raise error(f"Name the DMS task with the parameter `task`: {', '.join(names) or 'there is none here'}.")
            name = names[0]
        by = "replication-task-arn" if name.startswith("arn:") else "replication-task-id"
        try:
            found = self._client.look("describe_replication_tasks", Filters=[{"Name": by, "Values": [name]}])
        except AwsError as error:
            if error.code != "ResourceNotFoundFault":
                raise
            found = {"ReplicationTasks": []}
        if not found["ReplicationTasks"]:
            candidates = ", ".join(self.task_names()) or "none"
            raise NotFound(f"There is no DMS task {name!r} here. Tasks in this region: {candidates}.")
        return _task(found["ReplicationTasks"][0])

    def endpoint(self, arn: str) -> Endpoint:
        """An endpoint by ARN."""
        item = self._one("describe_endpoints", "Endpoints", "endpoint-arn", arn)
        own: dict[str, Any] = next(
            (item[name] for name in ENGINE_SETTINGS if item.get(name)), {}
        )  # where a secret holds the rest
        return Endpoint(
            arn,
            item["EndpointIdentifier"],
            item["EngineName"],
            item.get("ServerName") or own.get("ServerName", ""),
            item.get("Port") or own.get("Port", 0),
            item.get("DatabaseName") or own.get("DatabaseName", ""),
            item.get("Username") or own.get("Username", ""),
        )

    def instance(self, arn: str) -> Instance:
        """A replication instance by ARN."""
        item = self._one("describe_replication_instances", "ReplicationInstances", "replication-instance-arn", arn)
        return Instance(
            arn, item["ReplicationInstanceIdentifier"], item["ReplicationInstanceStatus"],
            item["ReplicationInstanceClass"], item.get("EngineVersion", ""), item.get("AllocatedStorage", 0),
            item.get("PreferredMaintenanceWindow", ""),
        )  # fmt: skip

    def _one(self, operation: str, key: str, by: str, arn: str) -> dict[str, Any]:
        items = self._client.look(operation, Filters=[{"Name": by, "Values": [arn]}])[key]
        if not items:
            raise NotFound(f"DMS does not know {arn} (any more).")
        found: dict[str, Any] = items[0]
        return found

    def test_connections(self, task: DmsTask, *, timeout: float) -> list[Connection]:
        """Test both endpoints from the task's instance, now, and wait for the answers. Seconds.

        DescribeConnections keeps the last result (DMS API, Connection), so the test is asked for first.
        """
        for arn in (task.source_arn, task.target_arn):
            try:
                self._client.look("test_connection", ReplicationInstanceArn=task.instance_arn, EndpointArn=arn)
            except AwsError as error:
                if error.code != "InvalidResourceStateFault":  # somebody else's test is under way: its answer is as new
                    raise
        return wait_until(
            lambda: self._connections(task),
            lambda seen: all(connection.status in ("successful", "failed") for connection in seen),
            timeout=timeout,
            what="DMS's connection tests",
        )

    def _connections(self, task: DmsTask) -> list[Connection]:
        where = [{"Name": "replication-instance-arn", "Values": [task.instance_arn]}]
        listed = {
            item["EndpointArn"]: item
            for item in self._client.pages("describe_connections", "Connections", Filters=where)
        }
        found = []
        for arn in (task.source_arn, task.target_arn):
            item = listed.get(arn, {})
            status, failure = item.get("Status", "testing"), item.get("LastFailureMessage", "")
            found.append(Connection(arn, item.get("EndpointIdentifier", arn), status, failure))
        return found

    def statistics(self, task: DmsTask) -> list[TableStatistics]:
        """Every table of a task, all pages, by name."""
        listed = self._client.pages(
            "describe_table_statistics", "TableStatistics",
            ReplicationTaskArn=task.arn, PaginationConfig={"PageSize": PAGE},
        )  # fmt: skip
        return sorted((_statistics(item) for item in listed), key=lambda table: table.name)

    def start(self, task: DmsTask) -> str:
        """Start a task that was never started, or go on with one that stopped; what was asked for.

        `start-replication` is only valid the first time (DMS API, StartReplicationTask), and never retried by itself.
        """
        how = "start-replication" if task.fresh_start is None and task.started is None else "resume-processing"
        self._starter.change("start_replication_task", ReplicationTaskArn=task.arn, StartReplicationTaskType=how)
        return how


def _task(item: dict[str, Any]) -> DmsTask:
    stats = item.get("ReplicationTaskStats") or {}
    mappings = json.loads(item.get("TableMappings") or "{}").get("rules", [])
    rules = [_rule(rule) for rule in mappings if rule.get("rule-type") == "selection"]
    return DmsTask(
        arn=item["ReplicationTaskArn"],
        name=item["ReplicationTaskIdentifier"],
        status=item["Status"],
        kind=item["MigrationType"],
        instance_arn=item["ReplicationInstanceArn"],
        source_arn=item["SourceEndpointArn"],
        target_arn=item["TargetEndpointArn"],
        rules=tuple(rules),
        transformations=tuple(_transformation(r) for r in mappings if r.get("rule-type") == "transformation"),
        settings=json.loads(item.get("ReplicationTaskSettings") or "{}"),
        stop_reason=item.get("StopReason", ""),
        failure=item.get("LastFailureMessage", ""),
        progress=stats.get("FullLoadProgressPercent", 0),
        loaded=stats.get("TablesLoaded", 0),
        loading=stats.get("TablesLoading", 0),
        queued=stats.get("TablesQueued", 0),
        errored=stats.get("TablesErrored", 0),
        fresh_start=_utc(stats.get("FreshStartDate")),
        started=_utc(item.get("ReplicationTaskStartDate")),
        stopped=_utc(stats.get("StopDate")),
        load_started=_utc(stats.get("FullLoadStartDate")),
        load_finished=_utc(stats.get("FullLoadFinishDate")),
        checkpoint=item.get("RecoveryCheckpoint", ""),
    )


def _rule(rule: dict[str, Any]) -> TableRule:
    where = rule["object-locator"]
    return TableRule(where["schema-name"], where["table-name"], rule["rule-action"] != "exclude")


def _transformation(rule: dict[str, Any]) -> Transformation:
    where = rule.get("object-locator") or {}
    schema, table, column = (where.get(f"{what}-name", "") for what in ("schema", "table", "column"))
    return Transformation(rule["rule-target"], rule["rule-action"], schema, table, column, str(rule.get("value") or ""))


def _statistics(item: dict[str, Any]) -> TableStatistics:
    captured = Counts(item.get("Inserts", 0), item.get("Updates", 0), item.get("Deletes", 0))
    applied = Counts(item.get("AppliedInserts", 0), item.get("AppliedUpdates", 0), item.get("AppliedDeletes", 0))
    return TableStatistics(
        schema=item["SchemaName"],
        table=item["TableName"],
        state=item.get("TableState", ""),
        loaded_rows=item.get("FullLoadRows", 0),
        captured=captured,
        applied=applied,
        ddl=item.get("Ddls", 0),
        load_started=_utc(item.get("FullLoadStartTime")),
        load_ended=_utc(item.get("FullLoadEndTime")),
        validation=item.get("ValidationState", ""),
        validation_pending=item.get("ValidationPendingRecords", 0),
        validation_failed=item.get("ValidationFailedRecords", 0),
        validation_suspended=item.get("ValidationSuspendedRecords", 0),
    )


def _utc(value: datetime | None) -> datetime | None:
    return value.astimezone(UTC) if value else None
