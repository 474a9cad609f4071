"""What did DataSync copy: tasks, their executions and statistics, and one execution run to its end exactly once."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from ..display import Progress
from ..errors import Ambiguous, AwsError, NotFound, OutcomeUnknown, RunbookError, WaitTimedOut
from ..waiting import wait_until
from .client import Session
from .executions import Location, Task, TaskExecution, filter_text

ATTEMPTS = 5  # executions of others that are waited for before we give up
TRACE_APPEARS = 120.0  # seconds until an execution whose start was accepted is surely listed
TERMINAL = {"SUCCESS", "ERROR"}  # API_DescribeTaskExecution; anything unknown counts as "still going"


class DataSync:
    """DataSync in one region, held open."""

    def __init__(
        self,
        session: Session,
        region: str,
        *,
        recall: Callable[[str], Any],
        remember: Callable[[str, Any], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`remember`/`recall` keep intents over kernels: they must be durable before they return."""
        self._client = session.client("datasync", region)
        self._starter = session.client("datasync", region, starts=True)
        self._recall, self._remember = recall, remember
        self._clock, self._sleep = clock, sleep
        self._ended: dict[str, TaskExecution] = {}

    # looking

    def task_names(self) -> dict[str, str]:
        """ARN → name of every task in the region."""
        return {task["TaskArn"]: task.get("Name", "") for task in self._client.pages("list_tasks", "Tasks")}

    def task(self, name: str | None) -> Task:
        """A task by name or ARN; None: the only one. `NotFound` and `Ambiguous` say what the candidates are."""
        if name and name.startswith("arn:"):
            return self._described(name)
        found = self.task_names()
        arns = [arn for arn, called in found.items() if name in (None, called, arn.rpartition("/")[2])]
        if len(arns) == 1:
            return self._described(arns[0])
        candidates = ", ".join(sorted(called or arn for arn, called in found.items())) or "none"
        if not arns:
            raise NotFound(f"There is no DataSync task {name!r} here. Tasks in this region: {candidates}.")
        raise Ambiguous(
            f"Several DataSync tasks fit {name or 'no name'!r}. Name one with the parameter `task`: {candidates}."
        )

    def _described(self, arn: str) -> Task:
        answer = self._client.look("describe_task", TaskArn=arn)
        uris = {item["LocationArn"]: item["LocationUri"] for item in self._client.pages("list_locations", "Locations")}
        config = answer.get("TaskReportConfig", {})
        report = config.get("Destination", {}).get("S3", {})
        code, detail = answer.get("ErrorCode"), answer.get("ErrorDetail")
        source, destination = answer["SourceLocationArn"], answer["DestinationLocationArn"]
        return Task(
            arn=arn,
            name=answer.get("Name", ""),
            status=answer["Status"],
            mode=answer.get("TaskMode", "BASIC"),
            source=Location(source, uris.get(source, "")),
            destination=Location(destination, uris.get(destination, "")),
            current_execution=answer.get("CurrentTaskExecutionArn"),
            options=answer.get("Options", {}),
            includes=filter_text(answer.get("Includes")),
            excludes=filter_text(answer.get("Excludes")),
            schedule=answer.get("Schedule", {}).get("ScheduleExpression"),
            schedule_status=answer.get("Schedule", {}).get("Status"),
            report_bucket=report.get("S3BucketArn", "").rpartition(":")[2] or None,
            report_prefix=report.get("Subdirectory", "").strip("/"),
            report_lists_all=(config.get("OutputType"), config.get("ReportLevel"))
            == ("STANDARD", "SUCCESSES_AND_ERRORS"),
            log_group=answer.get("CloudWatchLogGroupArn"),
            agent_arns=self._agents(source, uris.get(source, "")),
            error=f"{code}: {detail}" if code else None,
        )

    def _agents(self, location_arn: str, uri: str) -> tuple[str, ...]:
        if not uri.startswith("nfs:"):
            return ()
        answer = self._client.look("describe_location_nfs", LocationArn=location_arn)
        return tuple(answer["OnPremConfig"]["AgentArns"])

    def agent_status(self, arn: str) -> tuple[str, str]:
        """Name and status (ONLINE or OFFLINE) of an agent."""
        answer = self._client.look("describe_agent", AgentArn=arn)
        return answer.get("Name", arn.rpartition("/")[2]), answer["Status"]

    def execution(self, arn: str, adopted: bool = False) -> TaskExecution:
        """One execution as it is now."""
        seen = TaskExecution.from_response(self._client.look("describe_task_execution", TaskExecutionArn=arn), adopted)
        if seen.status in TERMINAL and seen.report_status != "PENDING":
            self._ended[arn] = seen  # it cannot change any more: never asked for again
        return seen

    def execution_arns(self, task: Task) -> list[str]:
        """The executions that AWS still lists (30 days), in no particular order."""
        return [
            item["TaskExecutionArn"]
            for item in self._client.pages("list_task_executions", "TaskExecutions", TaskArn=task.arn)
        ]

    def executions(self, task: Task, most: int = 5) -> list[TaskExecution]:
        """The latest executions, oldest first: AWS documents no order, so each is described and sorted by its start."""
        with ThreadPoolExecutor(8) as pool:
            described = pool.map(self._described_or_gone, self.execution_arns(task))
            every = [execution for execution in described if execution is not None]
        return sorted(every, key=lambda e: (e.started or datetime.min.replace(tzinfo=UTC), e.arn))[-most:]

    def _described_or_gone(self, arn: str) -> TaskExecution | None:
        try:
            return self._ended.get(arn) or self.execution(arn)
        except AwsError as error:
            if error.code == "InvalidRequestException":  # its 30 days ended between the list and the look
                return None
            raise

    # running

    def run(self, task: Task, *, changed: datetime | None, timeout: float) -> TaskExecution:
        """One execution that started after `changed`, run to its end: attached to when there is one, else started.

        A running execution is never started twice; one that started before `changed` (the last known change at
        the source), or with other filters than the task's, is waited for, then another is started. One that we
        started, and that ended when nobody looked any more, is taken for this one.
        Raises `WaitTimedOut` with the execution going on.
        """
        began = self._clock()
        unseen = self._ended_unseen(task)
        if unseen is not None and _copied(unseen, task, changed):
            return unseen
        for _ in range(ATTEMPTS):
            rest = max(timeout - (self._clock() - began), 0.0)
            running = self._reconciled(task) or self._running(task)
            if running is None:
                started = self._start(task)
                if started is not None:
                    return self._wait(task, started, rest, adopted=False)
                continue  # somebody was a moment faster: attach
            finished = self._wait(task, running, rest, adopted=True)
            if _late(finished, changed) and _same_scope(finished, task):
                return finished
        raise RunbookError(
            f"Other executions of {task.name} keep starting, and none of them had the last change at the source or "
            "the task's own filters. Find who starts them (a schedule?), then run this cell again."
        )

    def _ended_unseen(self, task: Task) -> TaskExecution | None:
        """The execution that we started last, when it has ended and nobody saw that: who started it was killed."""
        intent = self._recall(f"datasync.start {task.arn}")
        if not intent or not intent["arn"] or intent.get("ended"):
            return None
        try:
            seen = self.execution(intent["arn"], adopted=True)
        except AwsError as error:
            if error.code == "InvalidRequestException":  # it ended more than 30 days ago
                return None
            raise
        if seen.status not in TERMINAL:
            return None
        self._saw_the_end(task, seen)
        return seen

    def _saw_the_end(self, task: Task, execution: TaskExecution) -> None:
        key = f"datasync.start {task.arn}"
        intent = self._recall(key)
        if intent and intent["arn"] == execution.arn and not intent.get("ended"):
            self._remember(key, {**intent, "ended": execution.status})

    def _running(self, task: Task) -> str | None:
        """The execution in progress, if any."""
        arn = self._described(task.arn).current_execution
        return arn if arn and self.execution(arn).status not in TERMINAL else None

    def _start(self, task: Task) -> str | None:
        """Start an execution; None when the task turned out to be running."""
        key = f"datasync.start {task.arn}"
        intent = {"known": self.execution_arns(task), "arn": None, "at": datetime.now(UTC).isoformat()}
        self._remember(key, intent)  # before the call
        try:
            arn: str = self._starter.change("start_task_execution", TaskArn=task.arn)["TaskExecutionArn"]
        except OutcomeUnknown:
            found = self._reconciled(task)
            if found is None:
                raise  # the intent stays: the next run looks for its trace before it starts anything
            return found
        except RunbookError as error:
            self._remember(key, None)  # it was refused: nothing was started
            if isinstance(error, AwsError) and error.code == "InvalidRequestException" and self._running(task):
                return None
            raise
        self._remember(key, {**intent, "arn": arn})
        return arn

    def _reconciled(self, task: Task) -> str | None:
        """What became of a start whose answer never came: the first execution that is new since the intent.

        Looks for it until the intent is two minutes old; without a trace by then, nothing was started.
        """
        key = f"datasync.start {task.arn}"
        intent = self._recall(key)
        if not intent or intent["arn"]:
            return None
        age = (datetime.now(UTC) - datetime.fromisoformat(intent["at"])).total_seconds()
        try:
            new = wait_until(
                lambda: [arn for arn in self.execution_arns(task) if arn not in intent["known"]],
                bool,
                timeout=max(TRACE_APPEARS - age, 0.0),
                what="a trace of the start whose answer was lost",
                first=1.0,
                clock=self._clock,
                sleep=self._sleep,
            )
        except WaitTimedOut:
            if age >= TRACE_APPEARS:
                self._remember(key, None)
            return None
        first = min(new, key=lambda arn: self.execution(arn).started or datetime.max.replace(tzinfo=UTC))
        self._remember(key, {**intent, "arn": first})
        return first

    def _wait(self, task: Task, arn: str, timeout: float, *, adopted: bool) -> TaskExecution:
        earlier = [e.total_seconds for e in self._ended.values() if e.arn.startswith(task.arn) and e.total_seconds]
        progress = Progress(f"Task execution of {task.name}", earlier[-1] if earlier else None)

        def beat(seen: TaskExecution, elapsed: float) -> None:
            progress.beat(f"{seen.status}, {seen.items_transferred} of {seen.items_estimated} items", elapsed)

        finished = wait_until(
            lambda: self.execution(arn, adopted),
            lambda seen: seen.status in TERMINAL,
            timeout=timeout,
            what=f"task execution {arn}",
            heartbeat=beat,
            clock=self._clock,
            sleep=self._sleep,
        )
        self._saw_the_end(task, finished)
        return finished

    def wait_report(self, execution: TaskExecution, timeout: float = 300.0) -> TaskExecution:
        """The execution once its report is written; the report comes after the transfer, independently of it."""
        return wait_until(
            lambda: self.execution(execution.arn),
            lambda seen: seen.report_status != "PENDING",
            timeout=timeout,
            what=f"the task report of {execution.arn}",
            clock=self._clock,
            sleep=self._sleep,
        )


def _late(execution: TaskExecution, changed: datetime | None) -> bool:
    """Did it start after the last known change at the source?"""
    return changed is None or (execution.started is not None and execution.started > changed)


def _copied(execution: TaskExecution, task: Task, changed: datetime | None) -> bool:
    return execution.status == "SUCCESS" and _late(execution, changed) and _same_scope(execution, task)


def _same_scope(execution: TaskExecution, task: Task) -> bool:
    """Did it run with the task's own filters and without a manifest, so that it copied what the task copies?"""
    raw = execution.raw
    filters = (filter_text(raw.get("Includes")), filter_text(raw.get("Excludes")))
    return filters == (task.includes, task.excludes) and not raw.get("ManifestConfig")
