"""Is a DMS migration complete and safe to cut over? What `rb.dms` answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Literal, Protocol, TypeVar

from ..aws import dms_roles
from ..aws.client import Session
from ..aws.dms import Dms, DmsTask, Endpoint
from ..aws.watch import CloudWatch, Logs, Metric
from ..databases import Database
from ..display import Progress, plural
from ..errors import DatabaseError, WaitTimedOut
from ..tables import Comparison, Options, compare, objects, pairs, refuse_itself
from ..tables import sequences as sequence_side
from ..waiting import wait_until
from . import control, heartbeat, logs
from . import source as source_side
from .capacity import INSTANCE_METRICS, MB, ApplyMode, Capacity
from .connections import Connections
from .lag import LATENCIES, WAITING, Lag
from .phase import Phase
from .renames import renamed
from .statistics import Applied, Loaded, Validation

NAMESPACE = "AWS/DMS"
LOG_MARGIN = timedelta(minutes=1)
Seen = TypeVar("Seen")


class Wishes(Protocol):
    """What the environment and the notebook's parameters ask for."""

    start_task: bool
    create_roles: bool
    apply_repairs: str
    heartbeat_table: str | None
    exclude: list[str]
    may_be_empty: list[str]
    method: Literal["md5", "native"]
    gentle: bool
    rounds: int
    workers: int
    logs_since: datetime | None
    headroom: int
    timeout_minutes: float
    patience_seconds: float
    least_storage_gb: float
    least_memory_mb: float


class DatabaseMigration:
    """The environment's DMS task and the databases at both of its ends; `rb.dms`."""

    def __init__(
        self,
        session: Session,
        region: str,
        *,
        find_task: Callable[[Dms], DmsTask],
        database: Callable[[str, Endpoint], Database],
        wishes: Wishes,
        allow_change: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`database(side, endpoint)` says how we reach an end ourselves; `allow_change` raises to stop a change."""
        self._session, self._region = session, region
        self._dms = Dms(session, region)
        self._cloudwatch, self._logs = CloudWatch(session, region), Logs(session, region)
        self._find_task, self._database = find_task, database
        self._wishes, self._allow_change = wishes, allow_change
        self._clock, self._sleep = clock, sleep

    # what it is about

    @cached_property
    def _arn(self) -> str:
        return self._find_task(self._dms).arn

    def task(self) -> DmsTask:
        """The task as it is now."""
        return self._dms.task(self._arn)

    @cached_property
    def captures(self) -> bool:
        """Whether the task replicates changes too: a full load alone has nothing to apply, and no lag."""
        return self.task().captures

    @cached_property
    def _ends(self) -> tuple[Endpoint, Endpoint]:
        task = self.task()
        return self._dms.endpoint(task.source_arn), self._dms.endpoint(task.target_arn)

    @cached_property
    def source(self) -> Database:
        """The source, as we reach it ourselves."""
        return self._database("source", self._ends[0])

    @cached_property
    def target(self) -> Database:
        """The target, as we reach it ourselves."""
        return self._database("target", self._ends[1])

    @cached_property
    def scope(self) -> source_side.SourceReady:
        """The tables that the task's mapping includes."""
        return source_side.look(self.source, self.task().rules, captures=self.captures)

    @cached_property
    def _renamed(self) -> dict[str, str]:
        """The tables in scope that are compared, and columns, by their names on the target where these are others."""
        excluded = self._wishes.exclude
        wanted = [t for t in self.scope.tables_in_scope if not any(source_side.like(one, t.name) for one in excluded)]
        return renamed(self.task(), wanted)

    @property
    def _schemas(self) -> list[str]:
        """Those of the tables in scope; DatabaseError where the target calls them or what is in them otherwise."""
        names = renamed(self.task(), self.scope.tables_in_scope)
        for old, new in names.items():
            if self.source.engine == self.target.engine or old.lower() != new.lower():  # of MySQL the case is no matter
                raise DatabaseError(
                    f"The DMS task renames: {old} is {new} on the target, and {plural(len(names), 'name')} in "
                    "all. Objects and sequences are found by the names that they have at the source, so nothing true "
                    "can be said of them here, and nothing was repaired. Compare and set them by hand."
                )
        return sorted({table.schema for table in self.scope.tables_in_scope})

    # before: roles, connections, the source

    def roles(self) -> dms_roles.Roles:
        """The roles that DMS needs; missing ones are created when `create_roles` says so."""
        found = dms_roles.look(self._session, self._region)
        return dms_roles.create(self._session, self._region, found) if self._wishes.create_roles else found

    def connections(self) -> Connections:
        """Test both endpoints now."""
        tests = self._dms.test_connections(self.task(), timeout=60 * self._wishes.timeout_minutes)
        return Connections(*self._ends, tuple(tests))

    # the task: its stage, its statistics

    def replicate(self) -> Phase:
        """Wait until changes are applied as they come. A task that does not run is started if `start_task` says so.

        A task that runs is only watched; after a start whose answer was lost, it runs.
        """
        task, done = self.task(), ""
        if self._wishes.start_task and task.status in ("ready", "stopped", "failed") and not self._phase(task).ok:
            done = f"{'Started' if self._dms.start(task) == 'start-replication' else 'Resumed'}."
            self._wait(self.task, lambda seen: seen.status != task.status, timeout=60)
        progress = Progress("DMS")

        def heartbeat(phase: Phase, elapsed: float) -> None:
            loaded = sum(table.state == "Table completed" for table in phase.statistics)
            progress.beat(f"{phase.stage}, {loaded} of {plural(len(phase.statistics), 'table')} loaded", elapsed)

        seen = self._wait(
            lambda: self._phase(self.task()),
            lambda phase: phase.ok or (phase.stage in ("failed", "stopped", "not started") and not _moving(phase.task)),
            timeout=60 * self._wishes.timeout_minutes,
            heartbeat=heartbeat,
        )
        return replace(seen, done=done)

    def _phase(self, task: DmsTask) -> Phase:
        statistics = self._dms.statistics(task) if task.status != "creating" else []
        phase = Phase(task, tuple(statistics), datetime.now(UTC))
        if phase.stage != "cached changes":
            return phase
        return replace(phase, lost=len(control.exceptions(self.target, task) or ()))

    def loaded(self) -> Loaded:
        """The tables in scope beside those that DMS loaded."""
        expected = tuple(table.name for table in self.scope.tables_in_scope)
        return Loaded(expected, tuple(self._dms.statistics(self.task())))

    def applied(self) -> Applied:
        """Changes captured and applied, when both are equal, or as they are after our patience."""
        task = self.task()
        return self._wait(
            lambda: self._applied(task),
            lambda seen: seen.ok or seen.exception_count > 0 or not any(t.captured.total for t in seen.statistics),
            timeout=self._wishes.patience_seconds,
        )

    def _applied(self, task: DmsTask) -> Applied:
        found = control.exceptions(self.target, task)
        first = tuple((f"{owner}.{table}", str(error)[:300]) for owner, table, error in (found or ())[:10])
        recorded = found is not None
        return Applied(tuple(self._dms.statistics(task)), first, len(found or ()), recorded, task.captures)

    def validation(self) -> Validation:
        """DMS's own validation, when nothing is pending any more."""
        task = self.task()
        seen = self._wait(
            lambda: Validation(tuple(self._dms.statistics(task)), ()),
            lambda validation: validation.settled,
            timeout=60 * self._wishes.timeout_minutes,
        )
        if seen.ok:
            return seen
        failures = control.failures(self.target, task)
        return replace(seen, failures=tuple((f"{o}.{t}", str(key), str(kind)) for o, t, key, kind in failures[:10]))

    # the rows, and what is around them

    def compare_rows(self) -> Comparison:
        """Every row of every table in scope, on both sides; what differs is looked at again after a heartbeat."""
        names = [table.name for table in self.scope.tables_in_scope]
        found = pairs(self.source, self.target, names, exclude=self._left_out(), renamed=self._renamed)
        refuse_itself(self.source, self.target, found)
        wishes, progress, began = self._wishes, Progress("Comparing rows"), self._clock()
        options = Options(
            method=wishes.method, rounds=wishes.rounds, workers=wishes.workers, settle=self._settle,
            empty=tuple(wishes.may_be_empty), statement_timeout=60 * wishes.timeout_minutes, gentle=wishes.gentle,
        )  # fmt: skip

        def tell(said: object) -> None:
            progress.beat(str(said), self._clock() - began)

        return replace(compare(self.source, self.target, found, options, tell), left_out=tuple(self._left_out()))

    def _left_out(self) -> list[str]:
        return [*self._wishes.exclude, *([self._wishes.heartbeat_table] if self._wishes.heartbeat_table else [])]

    def _settle(self) -> None:
        """Return when what was written so far has arrived, or our patience has ended."""
        if self._beat() is None:
            self._sleep(2.0)

    def missing_objects(self) -> objects.MissingObjects:
        """Indexes, constraints, defaults, triggers and views that the source has and the target lacks."""
        return objects.missing(self.source, self.target, self._schemas)

    def repair_objects(
        self, found: objects.MissingObjects, *, said: Callable[[str], None] = print
    ) -> objects.MissingObjects:
        """Create what is missing as far as `apply_repairs` says, each statement shown and recorded; then look again."""
        wanted = self._wishes.apply_repairs
        chosen = found.repairable() if wanted == "everything" else found.repairable("before cutover")
        if wanted == "nothing" or not chosen:
            return found
        self._repair(lambda execute: objects.repair(self.target, chosen, execute=execute, concurrently=True), said)
        return self.missing_objects()

    def sequences(self) -> sequence_side.Sequences:
        """Where each sequence stands on both sides, and the keys that are used."""
        return sequence_side.positions(self.source, self.target, self._schemas, self._wishes.headroom)

    def repair_sequences(
        self, found: sequence_side.Sequences, *, said: Callable[[str], None] = print
    ) -> sequence_side.Sequences:
        """Set forward what is behind, unless `apply_repairs` is "nothing"; then look again."""
        if self._wishes.apply_repairs == "nothing" or found.ok:
            return found
        self._repair(lambda execute: sequence_side.repair(self.target, found.wrong, execute=execute), said)
        return self.sequences()

    def _repair(self, run: Callable[[bool], list[str]], said: Callable[[str], None]) -> None:
        """Show and record what is about to be run on the target, run it, and record how it ended."""
        self._allow_change()
        about = {"database": str(self.target), "changes": True}
        statements = run(False)
        said(f"Running on the target, {plural(len(statements), 'statement')}:")
        for statement in statements:
            said(f"{statement};")
            self._session.record("sql", statement=statement, **about)
        try:
            done = run(True)
        except DatabaseError as error:
            self._session.record("sql-end", error=str(error), **about)
            raise
        self._session.record("sql-end", statements=len(done), **about)

    # now: lag, logs, memory and disk, apply mode

    def lag(self) -> Lag:
        """The newest datapoints and a heartbeat, when there is no lag, or as they are after our patience."""
        task, patience = self.task(), self._wishes.patience_seconds
        if not task.captures:
            return Lag((), None, False, patience, captures=False)
        written: list[str] = []
        beat = self._beat(written.append)
        return self._wait(
            lambda: Lag(
                self._metrics(task, LATENCIES + WAITING),
                beat,
                self._beats,
                patience,
                statement=written[-1] if written else "",
            ),
            lambda lag: lag.by_metric,
            timeout=patience if beat is not None or not self._beats else 0.0,
        )

    @property
    def _beats(self) -> bool:
        return self._wishes.heartbeat_table is not None and self.captures

    def _beat(self, said: Callable[[str], object] = lambda statement: None) -> float | None:
        """Seconds that a heartbeat took; None when it did not arrive, or none is wanted. `said` hears its SQL."""
        table = self._wishes.heartbeat_table
        if table is None or not self.captures:
            return None
        self._allow_change()
        source = str(self.source)

        def record(statement: str) -> None:
            said(statement)
            self._session.record("sql", database=source, statement=statement, changes=True)

        return heartbeat.beat(
            self.source, self.target, table, self._renamed.get(table, table), timeout=self._wishes.patience_seconds,
            record=record,
            clock=self._clock, sleep=self._sleep,
        )  # fmt: skip

    def _metrics(self, task: DmsTask, names: tuple[str, ...]) -> tuple[Metric, ...]:
        """Datapoints of the task, under the dimensions that DMS really publishes."""
        instance = self._dms.instance(task.instance_arn)
        wanted = {
            "ReplicationInstanceIdentifier": (instance.name, instance.arn.rpartition(":")[2]),
            "ReplicationTaskIdentifier": (task.resource_id, task.name),
        }
        return self._datapoints(names, wanted, task.started)

    def _datapoints(
        self, names: tuple[str, ...], wanted: Mapping[str, tuple[str, ...]], since: datetime | None = None
    ) -> tuple[Metric, ...]:
        dimensions = self._cloudwatch.dimensions(NAMESPACE, names[0], wanted)
        if dimensions is None:
            return tuple(Metric(name, ()) for name in names)
        return tuple(self._cloudwatch.fresh(NAMESPACE, names, dimensions, since).values())

    def logs(self) -> logs.LogReading:
        """The task's log since it was last started, or since what came before was dealt with (`logs_since`)."""
        task = self.task()
        group = f"dms-tasks-{self._dms.instance(task.instance_arn).name}"
        if not task.setting("Logging", "EnableLogging", False):
            return logs.LogReading(group, False, 0, ())
        begun = task.started - LOG_MARGIN if task.started else None  # the start's own lines come a little before it
        lines = self._logs.lines(group, f"dms-task-{task.resource_id}", begun)
        return logs.read(group, lines, self._wishes.logs_since or task.started)

    def capacity(self) -> Capacity:
        """What the replication instance has left."""
        task = self.task()
        instance = self._dms.instance(task.instance_arn)
        wanted = {"ReplicationInstanceIdentifier": (instance.name, instance.arn.rpartition(":")[2])}
        storage, memory = int(self._wishes.least_storage_gb * 1024 * MB), int(self._wishes.least_memory_mb * MB)
        return self._wait(
            lambda: Capacity(task, instance, self._datapoints(INSTANCE_METRICS, wanted), storage, memory),
            lambda seen: all(metric.points for metric in seen.metrics),
            timeout=self._wishes.patience_seconds,
        )

    def apply_mode(self) -> ApplyMode:
        """How changes are applied, beside the load."""
        task = self.task()
        waiting = [metric.newest for metric in self._metrics(task, WAITING[1:]) if metric.newest is not None]
        since = task.load_finished or task.started
        seconds = (datetime.now(UTC) - since).total_seconds() if since else 0.0
        ours = self._wishes.heartbeat_table  # its changes are not the application's load
        statistics = tuple(table for table in self._dms.statistics(task) if table.name != ours)
        return ApplyMode(task, statistics, self.scope.keyless, seconds, sum(waiting) if waiting else None)

    def _wait(
        self,
        look: Callable[[], Seen],
        done: Callable[[Seen], bool],
        *,
        timeout: float,
        heartbeat: Callable[[Seen, float], None] = lambda seen, elapsed: None,
        first: float = 0.1,
        longest: float = 5.0,
    ) -> Seen:
        """The first sight that is done, else the last one: a check says what it lacks. Seconds."""
        last: list[Seen] = []

        def remembered() -> Seen:
            last[:] = [look()]
            return last[0]

        try:
            return wait_until(
                remembered, done, timeout=timeout, what="DMS", heartbeat=heartbeat, first=first, longest=longest,
                clock=self._clock, sleep=self._sleep,
            )  # fmt: skip
        except WaitTimedOut:
            return last[0]


def _moving(task: DmsTask) -> bool:
    """Whether its status is about to change by itself."""
    return task.status in ("starting", "stopping", "creating", "modifying", "testing")
