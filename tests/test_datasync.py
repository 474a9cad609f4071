"""An execution is run exactly once, whatever AWS answers: botocore's Stubber plays an AWS that misbehaves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ReadTimeoutError
from botocore.stub import Stubber

from runbook_lib.aws.client import Credentials, Session
from runbook_lib.aws.datasync import DataSync
from runbook_lib.aws.executions import Location, Task, TaskExecution
from runbook_lib.errors import AwsError, ChangeRefused, OutcomeUnknown, WaitTimedOut

TASK = "arn:aws:datasync:eu-central-1:123456789012:task/task-0123456789abcdef0"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def execution_arn(n: int) -> str:
    return f"{TASK}/execution/exec-{n:017x}"


class Aws:
    """A DataSync client on stubs, with a memory and a clock that only sleep moves."""

    def __init__(self) -> None:
        self.memory: dict[str, Any] = {}
        self.time = 0.0
        self.session = Session(
            record=lambda kind, **f: None, credentials=Credentials("a", "b"), home_region="eu-central-1"
        )
        self.datasync = DataSync(
            self.session, "eu-central-1",
            recall=self.memory.get, remember=self.memory.__setitem__, clock=lambda: self.time, sleep=self.sleep,
        )  # fmt: skip
        self.look = Stubber(self.session.client("datasync", "eu-central-1").boto)
        self.start = Stubber(self.session.client("datasync", "eu-central-1", starts=True).boto)
        self.look.activate()
        self.start.activate()
        self.task = Task(
            TASK, "t", "AVAILABLE", "BASIC", Location("a", "nfs://h/x/"), Location("b", "s3://b/"), None, {}, "", "",
            None, None, None, "", False, None, (), None,
        )  # fmt: skip

    def sleep(self, seconds: float) -> None:
        self.time += seconds

    def listed(self, *numbers: int) -> None:
        items = [{"TaskExecutionArn": execution_arn(n), "Status": "SUCCESS"} for n in numbers]
        self.look.add_response("list_task_executions", {"TaskExecutions": items}, {"TaskArn": TASK})

    def described(self, n: int, status: str, started: datetime = NOW, **more: Any) -> None:
        answer = {
            "TaskExecutionArn": execution_arn(n),
            "Status": status,
            "StartTime": started,
            "TaskMode": "BASIC",
            **more,
        }
        self.look.add_response("describe_task_execution", answer, {"TaskExecutionArn": execution_arn(n)})

    def task_described(self, current: int | None = None) -> None:
        source = "arn:aws:datasync:eu-central-1:123456789012:location/loc-0123456789abcdef0"
        answer = {"TaskArn": TASK, "Status": "AVAILABLE", "SourceLocationArn": source, "DestinationLocationArn": source}
        if current is not None:
            answer["CurrentTaskExecutionArn"] = execution_arn(current)
        self.look.add_response("describe_task", answer, {"TaskArn": TASK})
        self.look.add_response("list_locations", {"Locations": []}, {})

    def run(self, changed: datetime | None = None, timeout: float = 1000) -> TaskExecution:
        return self.datasync.run(self.task, changed=changed, timeout=timeout)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Aws:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    return Aws()


def test_an_idle_task_is_started_once_and_waited_for(aws: Aws) -> None:
    aws.task_described()
    aws.listed(1)
    aws.start.add_response("start_task_execution", {"TaskExecutionArn": execution_arn(2)}, {"TaskArn": TASK})
    aws.described(2, "LAUNCHING")
    for status in ("PREPARING", "LAUNCHED", "SUCCESS"):  # LAUNCHED is documented and not in the SDK's enum
        aws.described(2, status, FilesTransferred=2)
    seen = aws.run()
    assert (seen.arn, seen.adopted, seen.items_transferred) == (execution_arn(2), False, 2)


def test_a_running_execution_is_attached_to_and_nothing_is_started(aws: Aws) -> None:
    aws.task_described(current=1)
    aws.described(1, "TRANSFERRING")
    aws.described(1, "TRANSFERRING")
    aws.described(1, "SUCCESS")
    assert aws.run(changed=NOW - timedelta(minutes=1)).adopted


def test_a_running_execution_older_than_the_last_change_is_waited_for_and_then_one_more_is_run(aws: Aws) -> None:
    aws.task_described(current=1)
    aws.described(1, "TRANSFERRING")
    aws.described(1, "SUCCESS")
    then_one_more_is_run(aws)
    assert aws.run(changed=NOW + timedelta(minutes=1)).arn == execution_arn(2)


def test_a_running_execution_with_other_filters_is_waited_for_and_then_one_more_is_run(aws: Aws) -> None:
    narrow = {"Includes": [{"FilterType": "SIMPLE_PATTERN", "Value": "/only"}]}
    aws.task_described(current=1)
    aws.described(1, "TRANSFERRING")
    aws.described(1, "SUCCESS", **narrow)
    then_one_more_is_run(aws)
    assert aws.run().arn == execution_arn(2)


def then_one_more_is_run(aws: Aws) -> None:
    aws.task_described(current=1)
    aws.described(1, "SUCCESS")
    aws.listed(1)
    aws.start.add_response("start_task_execution", {"TaskExecutionArn": execution_arn(2)}, {"TaskArn": TASK})
    aws.described(2, "SUCCESS", NOW + timedelta(hours=1))


def lose_the_answer(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(**_: Any) -> Any:
        raise ReadTimeoutError(endpoint_url="https://datasync")

    monkeypatch.setattr(aws.session.client("datasync", "eu-central-1", starts=True).boto, "start_task_execution", lost)


def test_a_start_whose_answer_is_lost_is_reconciled_through_list(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    lose_the_answer(aws, monkeypatch)
    aws.task_described()
    aws.listed(1)
    aws.listed(1)
    aws.listed(1, 2)  # the start was carried out after all
    aws.described(2, "LAUNCHING")
    aws.described(2, "SUCCESS")
    assert aws.run().arn == execution_arn(2)
    assert next(iter(aws.memory.values()))["arn"] == execution_arn(2)


def test_a_server_error_to_a_start_does_not_mean_that_nothing_was_started(aws: Aws) -> None:
    aws.task_described()
    aws.listed(1)
    aws.start.add_client_error("start_task_execution", "InternalException", "oh", 500)
    aws.listed(1, 2)
    aws.described(2, "LAUNCHING")
    aws.described(2, "SUCCESS")
    assert aws.run().arn == execution_arn(2)


def test_a_lost_start_without_a_trace_is_unknown_and_the_next_run_looks_before_it_starts_again(
    aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_the_answer(aws, monkeypatch)
    aws.task_described()
    for _ in range(30):
        aws.listed(1)
    with pytest.raises(OutcomeUnknown):
        aws.run()
    assert aws.memory[f"datasync.start {TASK}"]["arn"] is None, "the intent was forgotten"
    second = Aws()
    second.memory.update(aws.memory)
    second.listed(1, 2)  # it appeared later
    second.described(2, "TRANSFERRING")
    second.described(2, "SUCCESS")
    assert second.run().adopted


def started(aws: Aws, **more: Any) -> None:
    """An earlier process started execution 2 and remembers that."""
    aws.memory[f"datasync.start {TASK}"] = {"known": [execution_arn(1)], "arn": execution_arn(2), "at": "", **more}


def test_an_execution_that_ended_when_its_runner_was_dead_is_taken_and_not_repeated(aws: Aws) -> None:
    started(aws)
    aws.described(2, "SUCCESS", FilesTransferred=2)
    seen = aws.run(changed=NOW - timedelta(minutes=1))
    assert (seen.arn, seen.adopted, seen.items_transferred) == (execution_arn(2), True, 2)
    assert aws.memory[f"datasync.start {TASK}"]["ended"] == "SUCCESS"


@pytest.mark.parametrize("why", ["failed", "older than the last change", "other filters", "its end was seen", "gone"])
def test_an_ended_execution_that_is_not_this_one_is_not_taken(aws: Aws, why: str) -> None:
    started(aws, **({"ended": "SUCCESS"} if why == "its end was seen" else {}))
    narrow = {"Includes": [{"FilterType": "SIMPLE_PATTERN", "Value": "/only"}]} if why == "other filters" else {}
    if why == "gone":
        aws.look.add_client_error("describe_task_execution", "InvalidRequestException", "no such execution", 400)
    elif why != "its end was seen":
        aws.described(2, "ERROR" if why == "failed" else "SUCCESS", **narrow)
    aws.task_described()
    aws.listed(1, 2)
    aws.start.add_response("start_task_execution", {"TaskExecutionArn": execution_arn(3)}, {"TaskArn": TASK})
    aws.described(3, "SUCCESS", NOW + timedelta(hours=1))
    changed = NOW + timedelta(minutes=1) if why == "older than the last change" else None
    assert (aws.run(changed=changed).arn, aws.memory[f"datasync.start {TASK}"]["ended"]) == (
        execution_arn(3),
        "SUCCESS",
    )


def test_an_old_intent_without_a_trace_is_dropped(aws: Aws) -> None:
    old = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    aws.memory[f"datasync.start {TASK}"] = {"known": [execution_arn(1)], "arn": None, "at": old}
    aws.listed(1)
    aws.task_described()
    aws.listed(1)
    aws.start.add_response("start_task_execution", {"TaskExecutionArn": execution_arn(2)}, {"TaskArn": TASK})
    aws.described(2, "SUCCESS")
    assert not aws.run().adopted


def test_a_refused_start_attaches_when_somebody_was_faster(aws: Aws) -> None:
    aws.task_described()
    aws.listed(1)
    aws.start.add_client_error("start_task_execution", "InvalidRequestException", "only one at a time", 400)
    for _ in range(2):
        aws.task_described(current=2)
        aws.described(2, "LAUNCHING")
    aws.described(2, "SUCCESS")
    assert aws.run().arn == execution_arn(2)


def test_a_refused_start_of_an_idle_task_is_an_error_and_no_intent_stays(aws: Aws) -> None:
    aws.task_described()
    aws.listed(1)
    aws.start.add_client_error("start_task_execution", "InvalidRequestException", "the agent is offline", 400)
    aws.task_described()
    with pytest.raises(AwsError, match="the agent is offline"):
        aws.run()
    assert aws.memory[f"datasync.start {TASK}"] is None


def test_a_wait_that_ends_leaves_the_execution_running_and_says_so(aws: Aws) -> None:
    aws.task_described(current=1)
    aws.described(1, "TRANSFERRING")
    for _ in range(50):
        aws.described(1, "TRANSFERRING")
    with pytest.raises(WaitTimedOut, match="nothing was cancelled"):
        aws.run(timeout=60)


def test_enhanced_mode_counts_files_and_folders_apart() -> None:
    seen = TaskExecution.from_response(
        {"TaskExecutionArn": execution_arn(1), "Status": "SUCCESS", "TaskMode": "ENHANCED",
         "FilesTransferred": 1, "FoldersTransferred": 1, "FilesFailed": {"Transfer": 2}}
    )  # fmt: skip
    assert (seen.items_transferred, seen.failed, seen.ok) == (2, 2, False)


def test_the_guard_stops_a_start_before_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)

    def no() -> None:
        raise ChangeRefused("no")

    session = Session(
        record=lambda kind, **f: None, credentials=Credentials("a", "b"), home_region="eu-central-1", guard=no
    )
    with pytest.raises(ChangeRefused):
        session.client("datasync", "eu-central-1", starts=True).change("start_task_execution", TaskArn=TASK)


def test_a_stray_endpoint_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_DATASYNC", "http://localhost:1")
    with pytest.raises(ChangeRefused, match="AWS_ENDPOINT_URL_DATASYNC"):
        Session(record=lambda kind, **f: None, credentials=Credentials("a", "b"), home_region="eu-central-1")
