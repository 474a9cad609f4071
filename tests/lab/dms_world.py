"""A lab of a few lines for DMS's tests: the world's resources, both databases, and a bus that remembers."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from runbook_lib.lab import dms_world, faults
from runbook_lib.lab.core import ACCOUNT, CLOUD_REGION, Folder, Lab
from runbook_lib.lab.dms import Dms
from runbook_lib.lab.protocol import Call, Service

COUNTERS = ("Inserts", "Updates", "Deletes")
TABLES = (
    "shop.audit_log", "shop.customers", "shop.documents", "shop.order_items", "shop.orders", "shop.payments",
    "shop.products", "shop.runbook_heartbeat",
)  # fmt: skip


class RecordingBus:
    """Remembers what was published, and which of DMS's roles there are."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.lines: list[str] = []
        self.streams: set[tuple[str, str]] = set()
        self.metrics: dict[str, float] = {}
        self.dimensions: dict[str, dict[str, str]] = {}
        self.roles = {"dms-vpc-role", "dms-cloudwatch-logs-role"}

    def emit(self, **event: Any) -> None:
        self.events.append(event)

    def log(self, *, region: str, group: str, stream: str, lines: list[str]) -> None:
        self.streams.add((group, stream))
        self.lines += lines

    def metric(self, *, name: str, value: float, dimensions: dict[str, str], **_: Any) -> None:
        self.metrics[name], self.dimensions[name] = value, dimensions

    def has_role(self, name: str) -> bool:
        return name in self.roles

    def make_role(self, name: str) -> None:
        self.roles.add(name)

    def drop_role(self, name: str) -> None:
        self.roles.discard(name)

    def said(self, text: str) -> list[str]:
        """The log's lines with a text."""
        return [line for line in self.lines if text in line]


class World:
    """DMS in a lab of its own, spoken to in JSON."""

    def __init__(self, root: Path) -> None:
        self.bus = RecordingBus()
        self.lab = Lab(Folder(root), self.bus)
        self.dms = Dms(self.lab)
        self.services: dict[str, Service] = {"dms": self.dms}
        self.dms.start()

    def furnish(self) -> World:
        """The world's instance, endpoints and task; no database runs yet."""
        self.task = dms_world.make(self.dms, self._ask)
        return self

    def _ask(self, service: Service, operation: str, **parameters: Any) -> dict[str, Any]:
        return self.call(operation, **parameters)

    def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """One request in JSON, as the wire brings it."""
        call = Call(operation, CLOUD_REGION, ACCOUNT, "AKIA")
        body = json.dumps(parameters).encode()
        answer: dict[str, Any] = json.loads(self.dms.answer(f"AmazonDMSv20160101.{operation}", body, call))
        return answer

    def restart(self) -> None:
        """Another lab on the same state, as after a kill: nothing is said to the old one's threads but to end."""
        self.dms.stop()
        self.dms = Dms(self.lab)
        self.services["dms"] = self.dms
        self.dms.start()

    def close(self) -> None:
        self.lab.workload.pause()
        self.dms.stop()
        self.lab.databases.close()

    # Tasks.

    def new_task(self, name: str, kind: str, tables: tuple[str, ...] = ("%",), **settings: Any) -> str:
        """Another task between the same endpoints."""
        known = self.described()
        rules = [
            {
                "rule-type": "selection", "rule-id": str(n), "rule-name": str(n), "rule-action": "include",
                "object-locator": {"schema-name": "shop", "table-name": table},
            }
            for n, table in enumerate(tables, 1)
        ]  # fmt: skip
        made = self.call(
            "CreateReplicationTask", ReplicationTaskIdentifier=name, MigrationType=kind,
            TableMappings=json.dumps({"rules": rules}), ReplicationTaskSettings=json.dumps(settings),
            **{end: known[end] for end in ("SourceEndpointArn", "TargetEndpointArn", "ReplicationInstanceArn")},
        )  # fmt: skip
        return str(made["ReplicationTask"]["ReplicationTaskArn"])

    def described(self, task: str | None = None) -> dict[str, Any]:
        where = [{"Name": "replication-task-arn", "Values": [task or self.task]}]
        found: dict[str, Any] = self.call("DescribeReplicationTasks", Filters=where)["ReplicationTasks"][0]
        return found

    def start(self, how: str = "start-replication", task: str | None = None) -> None:
        self.call("StartReplicationTask", ReplicationTaskArn=task or self.task, StartReplicationTaskType=how)

    def stop(self, task: str | None = None) -> dict[str, Any]:
        """Stop a task, to the end."""
        self.call("StopReplicationTask", ReplicationTaskArn=task or self.task)
        return self.until_status("stopped", task)

    def until_status(self, status: str, task: str | None = None) -> dict[str, Any]:
        return eventually(
            lambda: (seen := self.described(task))["Status"] == status and seen, f"{status}: {self.described(task)}"
        )

    def loaded(self, task: str | None = None) -> dict[str, dict[str, Any]]:
        """Start a task that was never started and wait until changes replicate; its statistics."""
        self.start(task=task)
        self.ongoing(task)
        return self.in_step(task)

    def ongoing(self, task: str | None = None) -> None:
        """Wait for the end of the full load."""
        eventually(
            lambda: self.described(task).get("ReplicationTaskStats", {}).get("FullLoadFinishDate"), "it is loaded"
        )

    def statistics(self, task: str | None = None) -> dict[str, dict[str, Any]]:
        answer = self.call("DescribeTableStatistics", ReplicationTaskArn=task or self.task)
        return {f"{table['SchemaName']}.{table['TableName']}": table for table in answer["TableStatistics"]}

    def in_step(self, task: str | None = None) -> dict[str, dict[str, Any]]:
        """Wait until everything that the source has committed by now is counted and applied; the statistics.

        A heartbeat is written behind it: what is committed is counted in its order.
        """
        arn = task or self.task
        with self.source() as source:
            (here,) = source.execute("select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint").fetchone()  # type: ignore[misc]
            source.execute(
                "insert into shop.runbook_heartbeat values (1, now(), '') on conflict (id) do update set beat = now()"
            )

        def done() -> Any:
            read = self.lab.database.read("select position from dms_read where task = ?", (arn,))
            left = self.lab.database.read(
                "select count(*) as n from dms_changes where task = ? and position <= ?", (arn, int(here))
            )
            found = read and read[0]["position"] > here and not left[0]["n"] and self.statistics(task)
            beat = found and found.get("shop.runbook_heartbeat")  # it may be counted by now, and then it is applied
            return found if not beat or all(beat[name] == beat[f"Applied{name}"] for name in COUNTERS) else None

        found: dict[str, dict[str, Any]] = eventually(done, "everything is applied")
        return found

    # Databases.

    def source(self, user: str = "postgres") -> psycopg.Connection[Any]:
        return self.lab.databases.connect("source", user)

    def target(self, user: str = "postgres") -> psycopg.Connection[Any]:
        return self.lab.databases.connect("target", user)

    def digests(self, tables: tuple[str, ...] = TABLES) -> list[dict[str, str]]:
        """What each side holds: a digest of all rows of each table."""
        sides = []
        for connect in (self.source, self.target):
            with connect() as side:
                sides.append({table: _digest(side, table) for table in tables})
        return sides

    def same(self, tables: tuple[str, ...] = TABLES) -> None:
        """Assert that both sides hold the same rows, and some."""
        source, target = self.digests(tables)
        assert source == target and any(not digest.startswith("0 ") for digest in source.values())

    def plant(self, fault: str) -> None:
        faults.plant(self.lab, self.services, fault)

    def mend(self, fault: str | None = None) -> None:
        faults.mend(self.lab, self.services, fault)


def under_way(world: World, table: str) -> dict[str, Any] | None:
    """A table's statistics while it is being loaded, when some rows are there."""
    seen = world.statistics().get(table, {"FullLoadRows": 0})
    return seen if seen["FullLoadRows"] and seen["TableState"] == "Full load" else None


def _digest(side: psycopg.Connection[Any], table: str) -> str:
    hashes = f"select md5(t::text) as h from {table} t"
    query = f"select count(*), md5(coalesce(string_agg(h, '' order by h), '')) from ({hashes}) q"
    rows, digest = side.execute(query).fetchone()  # type: ignore[arg-type, misc]
    return f"{rows} {digest}"


def eventually(look: Callable[[], Any], what: str = "it happens", patience: float = 30) -> Any:
    """The first true answer."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {patience} s: {what}")


def sown(seed: Path, root: Path) -> Path:
    """A new state folder, with the databases' templates and passwords of another one: seeding takes seconds."""
    root.mkdir()
    shutil.copy(seed / "databases.json", root)
    shutil.copytree(seed / "databases-cache", root / "databases-cache", copy_function=os.link)
    return root


def furnished(seed: Path, root: Path) -> World:
    """A new world in a folder, with the databases' templates and passwords of another one."""
    return World(sown(seed, root)).furnish()
