"""DataSync's API: what it stores, what it refuses, how executions queue, end and are ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runbook_lib.lab.core import ACCOUNT, CLOUD_REGION
from runbook_lib.lab.protocol import Call, Refusal

from .datasync_world import LOG_GROUP, REPORT, World, eventually

EXCLUDES = [{"FilterType": "SIMPLE_PATTERN", "Value": "*.tmp"}]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path / "lab").furnish()
    yield world
    world.datasync.stop()


@pytest.fixture
def slow(world: World) -> World:
    """Files that take a minute at the rate that `crawl` starts with."""
    for number in range(60):
        world.write(f"{number:02d}", b"x" * 1000)
    return world


def crawl(world: World, task: str, **more: Any) -> str:
    """An execution that is in the middle of its transfer."""
    execution = world.begin(task, OverrideOptions={"BytesPerSecond": 1000}, **more)
    eventually(lambda: world.describe(execution)["BytesTransferred"] >= 500)
    return execution


def refused(world: World, operation: str, **parameters: Any) -> str:
    with pytest.raises(Refusal) as caught:
        world.call(operation, **parameters)
    assert caught.value.code == "InvalidRequestException"
    assert caught.value.members["errorCode"]
    return caught.value.message


# Agents and locations.


def test_an_agent_lives_and_dies(world: World) -> None:
    agent = world.call("CreateAgent", ActivationKey="AAAAA-AAAAA-AAAAA-AAAAA-AAAAA", AgentName="second")["AgentArn"]
    world.call("UpdateAgent", AgentArn=agent, Name="renamed")
    shown = world.call("DescribeAgent", AgentArn=agent)
    assert (shown["Name"], shown["Status"]) == ("renamed", "ONLINE")
    assert len(world.call("ListAgents")["Agents"]) == 2
    world.call("DeleteAgent", AgentArn=agent)
    assert "not found" in refused(world, "DescribeAgent", AgentArn=agent)
    assert "is used by" in refused(world, "DeleteAgent", AgentArn=world.agent)
    refused(world, "CreateAgent", ActivationKey="AAAAA-BBBBB-CCCCC-DDDDD-EEEEE")


def test_locations_are_described_listed_and_filtered(world: World) -> None:
    nfs = world.call("DescribeLocationNfs", LocationArn=world.source)
    assert nfs["LocationUri"] == "nfs://nfs.on-premises.lab/media/data/"
    assert nfs["OnPremConfig"] == {"AgentArns": [world.agent]}
    s3 = world.call("DescribeLocationS3", LocationArn=world.destination)
    assert (s3["LocationUri"], s3["S3StorageClass"]) == ("s3://migration-lab/", "STANDARD")
    filters = [{"Name": "LocationType", "Operator": "Equals", "Values": ["S3"]}]
    assert [x["LocationArn"] for x in world.call("ListLocations", Filters=filters)["Locations"]] == [world.destination]
    contains = [{"Name": "LocationUri", "Operator": "Contains", "Values": ["on-premises"]}]
    assert [x["LocationArn"] for x in world.call("ListLocations", Filters=contains)["Locations"]] == [world.source]
    refused(world, "DescribeLocationS3", LocationArn=world.source)


def test_lists_are_paged(world: World) -> None:
    first = world.call("ListLocations", MaxResults=1)
    second = world.call("ListLocations", MaxResults=1, NextToken=first["NextToken"])
    assert "NextToken" not in second
    assert [first["Locations"][0]["LocationArn"], second["Locations"][0]["LocationArn"]] == [
        world.source,
        world.destination,
    ]


@pytest.mark.parametrize(
    "folder", ["/media/data/../../etc", "/etc", "/media/database", "/", "/media/data//x", "/media/data/\x00", "../data"]
)
def test_an_nfs_path_outside_the_export_is_refused(world: World, folder: str) -> None:
    config = {"AgentArns": [world.agent]}
    refused(world, "CreateLocationNfs", ServerHostname="nfs.on-premises.lab", Subdirectory=folder, OnPremConfig=config)


def test_an_nfs_path_through_a_link_is_refused(world: World, tmp_path: Path) -> None:
    (world.export / "link").symlink_to(tmp_path)
    config = {"AgentArns": [world.agent]}
    for folder in ("/media/data/link", "/media/data/link/lab"):
        refused(
            world, "CreateLocationNfs", ServerHostname="nfs.on-premises.lab", Subdirectory=folder, OnPremConfig=config
        )


@pytest.mark.parametrize(
    "given",
    [
        {"S3BucketArn": "arn:aws:s3:::no-such-bucket"},
        {"S3BucketArn": "arn:aws:s3:::x"},
        {"Subdirectory": "/absolute"},
        {"Subdirectory": "a//b"},
        {"Subdirectory": "a/../b"},
        {"S3StorageClass": "CHEAP"},
        {"S3Config": {}},
    ],
)
def test_an_s3_location_that_cannot_be_is_refused(world: World, given: dict[str, Any]) -> None:
    role = {"BucketAccessRoleArn": "arn:aws:iam::123456789012:role/datasync"}
    refused(world, "CreateLocationS3", **{"S3BucketArn": "arn:aws:s3:::migration-lab", "S3Config": role, **given})


def test_a_location_in_use_is_not_deleted(world: World) -> None:
    task = world.task()
    assert task in refused(world, "DeleteLocation", LocationArn=world.source)
    world.call("DeleteTask", TaskArn=task)
    world.call("DeleteLocation", LocationArn=world.source)
    assert "not found" in refused(world, "DeleteLocation", LocationArn=world.source)


# Tasks.


def test_a_task_keeps_what_it_was_given(world: World) -> None:
    schedule = {"ScheduleExpression": "cron(0 12 * * ? *)", "Status": "DISABLED"}
    task = world.task(Name="nfs-to-s3", Excludes=EXCLUDES, Schedule=schedule, TaskReportConfig=REPORT)
    shown = world.call("DescribeTask", TaskArn=task)
    assert (shown["Name"], shown["Status"], shown["TaskMode"]) == ("nfs-to-s3", "AVAILABLE", "BASIC")
    assert (shown["Excludes"], shown["Schedule"], shown["TaskReportConfig"]) == (EXCLUDES, schedule, REPORT)
    assert shown["CloudWatchLogGroupArn"] == LOG_GROUP
    assert shown["Options"]["TransferMode"] == "CHANGED"
    assert "CurrentTaskExecutionArn" not in shown
    world.call("UpdateTask", TaskArn=task, Name="renamed", Options={"TransferMode": "ALL"}, Excludes=[])
    shown = world.call("DescribeTask", TaskArn=task)
    assert (shown["Name"], shown["Excludes"]) == ("renamed", [])
    assert shown["Options"]["VerifyMode"] == "ONLY_FILES_TRANSFERRED"
    assert shown["Options"]["TransferMode"] == "ALL"


def test_defaults_follow_the_mode(world: World) -> None:
    ends = {"SourceLocationArn": world.source, "DestinationLocationArn": world.destination}
    for mode, expected in (("BASIC", "POINT_IN_TIME_CONSISTENT"), ("ENHANCED", "ONLY_FILES_TRANSFERRED")):
        task = world.call("CreateTask", TaskMode=mode, **ends)["TaskArn"]
        assert world.call("DescribeTask", TaskArn=task)["Options"]["VerifyMode"] == expected


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("BASIC", {"PreserveDeletedFiles": "REMOVE", "TransferMode": "ALL"}),
        ("BASIC", {"Atime": "NONE"}),
        ("BASIC", {"Mtime": "NONE"}),
        ("ENHANCED", {"Mtime": "NONE", "Atime": "NONE"}),
        ("ENHANCED", {"VerifyMode": "POINT_IN_TIME_CONSISTENT"}),
        ("BASIC", {"PreserveDevices": "PRESERVE"}),
        ("BASIC", {"Uid": "NAME"}),
        ("BASIC", {"BytesPerSecond": 0}),
        ("BASIC", {"BytesPerSecond": -2}),
        ("BASIC", {"VerifyMode": "SOMETIMES"}),
    ],
)
def test_options_that_do_not_go_together_are_refused_everywhere(world: World, mode: str, options: Any) -> None:
    task = world.task(mode)
    ends = {"SourceLocationArn": world.source, "DestinationLocationArn": world.destination}
    refused(world, "CreateTask", TaskMode=mode, Options=options, **ends)
    refused(world, "UpdateTask", TaskArn=task, Options=options)
    refused(world, "StartTaskExecution", TaskArn=task, OverrideOptions=options)


def test_include_filters_with_an_inner_star_are_refused(world: World) -> None:
    includes = [{"FilterType": "SIMPLE_PATTERN", "Value": "*.txt"}]
    assert "only as the last character" in refused(world, "StartTaskExecution", TaskArn=world.task(), Includes=includes)


def test_tasks_are_filtered_by_location_and_belong_to_their_region(world: World) -> None:
    task = world.task()
    world.task(Destination=world.s3("other"))
    location = world.destination.rpartition("/")[2]
    filters = [{"Name": "LocationId", "Operator": "Contains", "Values": [location]}]
    assert [x["TaskArn"] for x in world.call("ListTasks", Filters=filters)["Tasks"]] == [task]
    elsewhere = Call("ListTasks", "eu-west-1", ACCOUNT, "AKIA")
    assert world.datasync.answer("FmrsService.ListTasks", b"{}", elsewhere) == b'{"Tasks": []}'


def test_a_mount_that_fails_makes_the_task_unavailable(world: World) -> None:
    for source in (world.nfs("/data", "other.on-premises.lab"), world.nfs("/media/data/missing")):
        task = world.task(Source=source)
        shown = world.call("DescribeTask", TaskArn=task)
        assert (shown["Status"], shown["ErrorCode"]) == ("UNAVAILABLE", "MountFailed")
        assert "mount failed" in refused(world, "StartTaskExecution", TaskArn=task)


def test_an_offline_agent_makes_its_tasks_unavailable(world: World) -> None:
    task = world.task()
    world.plant("agent-offline")
    assert world.call("DescribeAgent", AgentArn=world.agent)["Status"] == "OFFLINE"
    assert world.call("DescribeTask", TaskArn=task)["Status"] == "UNAVAILABLE"
    assert "offline" in refused(world, "StartTaskExecution", TaskArn=task)
    world.mend()
    assert world.run(task)["Status"] == "SUCCESS"


def test_a_new_task_is_creating_for_a_moment_at_full_pace(world: World) -> None:
    world.lab.database.set("pace", 1)
    task = world.task()
    assert world.call("ListTasks")["Tasks"][0]["Status"] == "CREATING"
    refused(world, "StartTaskExecution", TaskArn=task)


def test_a_task_of_an_older_lab_is_described(world: World) -> None:
    task = world.task()
    document = world.lab.database.get("datasync.task", task)
    assert document is not None
    world.lab.database.put("datasync.task", task, {name: document[name] for name in document if name != "MadeBy"})
    assert world.call("DescribeTask", TaskArn=task)["Status"] == "AVAILABLE"


def test_tags_are_set_listed_and_removed(world: World) -> None:
    task = world.task(Tags=[{"Key": "a", "Value": "1"}])
    execution = world.begin(task, Tags=[{"Key": "e", "Value": "1"}])
    world.datasync.finish(execution)
    world.call("TagResource", ResourceArn=task, Tags=[{"Key": "a", "Value": "2"}, {"Key": "b", "Value": "3"}])
    world.call("UntagResource", ResourceArn=task, Keys=["b"])
    assert world.call("ListTagsForResource", ResourceArn=task)["Tags"] == [{"Key": "a", "Value": "2"}]
    assert world.call("ListTagsForResource", ResourceArn=execution)["Tags"] == [{"Key": "e", "Value": "1"}]


def test_unknown_and_malformed_arns_are_refused(world: World) -> None:
    missing = f"arn:aws:datasync:{CLOUD_REGION}:{ACCOUNT}:task/task-0123456789abcdef0"
    assert "not found" in refused(world, "DescribeTask", TaskArn=missing)
    for arn in ("task-1", missing + "x", missing.replace("task-", "loc-")):
        refused(world, "StartTaskExecution", TaskArn=arn)


# Executions.


def test_an_execution_goes_through_its_states_and_says_so(world: World) -> None:
    world.write("a")
    task = world.task()
    done = world.run(task)
    execution = done["TaskExecutionArn"]
    assert world.bus.states(execution) == ["LAUNCHING", "PREPARING", "TRANSFERRING", "VERIFYING", "SUCCESS"]
    assert world.bus.states(task) == ["RUNNING", "AVAILABLE"]
    event = world.bus.events[0]
    assert (event["source"], event["detail_type"]) == ("aws.datasync", "DataSync Task Execution State Change")
    assert world.call("DescribeTask", TaskArn=task)["CurrentTaskExecutionArn"] == execution
    listed = world.call("ListTaskExecutions", TaskArn=task)["TaskExecutions"]
    assert listed == [{"TaskExecutionArn": execution, "Status": "SUCCESS", "TaskMode": "BASIC"}]
    assert {stream for _, stream in world.bus.streams} == {
        execution.split(":")[-1].removeprefix("task/").replace("/execution/", "-")
    }


def test_states_last_their_minimum_by_the_pace(world: World) -> None:
    world.write("a")
    task = world.task()
    world.lab.database.set("pace", 0.02)
    eventually(lambda: world.call("DescribeTask", TaskArn=task)["Status"] == "AVAILABLE")
    assert world.run(task)["Result"]["TotalDuration"] >= (2 + 2 + 3 + 2) * 20


def test_a_second_start_with_the_same_settings_is_refused(slow: World) -> None:
    task = slow.task()
    execution = crawl(slow, task)
    assert execution in refused(slow, "StartTaskExecution", TaskArn=task)
    assert slow.call("DescribeTask", TaskArn=task)["Status"] == "RUNNING"
    refused(slow, "DeleteTask", TaskArn=task)


def test_other_filters_and_other_tasks_of_the_agent_wait_in_line(slow: World) -> None:
    task, other = slow.task(), slow.task(Destination=slow.s3("other"))
    running = crawl(slow, task)
    second = slow.begin(task, Excludes=EXCLUDES)
    third = slow.begin(other)
    assert [slow.describe(arn)["Status"] for arn in (second, third)] == ["QUEUED", "QUEUED"]
    assert "LaunchTime" not in slow.describe(third)
    assert slow.call("DescribeTask", TaskArn=other)["Status"] == "QUEUED"
    refused(slow, "StartTaskExecution", TaskArn=task, OverrideOptions={"TaskQueueing": "DISABLED"}, Includes=EXCLUDES)
    slow.call("UpdateTaskExecution", TaskExecutionArn=running, Options={"BytesPerSecond": -1})
    ends = [slow.datasync.finish(arn) for arn in (running, second, third)]
    assert [end["Status"] for end in ends] == ["SUCCESS"] * 3
    assert ends[0]["EndTime"] <= ends[1]["LaunchTime"] and ends[1]["EndTime"] <= ends[2]["LaunchTime"]
    assert slow.bus.states(third)[:2] == ["QUEUED", "LAUNCHING"]


def test_another_agent_does_not_wait(slow: World) -> None:
    crawl(slow, slow.task())
    agent = slow.call("CreateAgent", ActivationKey="AAAAA-AAAAA-AAAAA-AAAAA-AAAAA")["AgentArn"]
    task = slow.task(Source=slow.nfs("/media/data", agent=agent), Destination=slow.s3("other"))
    assert slow.run(task)["Status"] == "SUCCESS"


def test_a_cancelled_execution_ends_in_error_with_whole_objects_only(slow: World) -> None:
    execution = crawl(slow, slow.task())
    slow.call("CancelTaskExecution", TaskExecutionArn=execution)
    slow.datasync.finish(execution)
    done = slow.describe(execution)
    assert (done["Status"], done["Result"]["ErrorCode"]) == ("ERROR", "Cancelled")
    assert done["Result"]["TransferStatus"] == "ERROR" and done["Result"]["VerifyStatus"] == "PENDING"
    assert slow.bus.states(execution)[-2:] == ["CANCELLING", "ERROR"]
    assert len(slow.stored()) == done["FilesTransferred"]
    assert len(list(slow.lab.folder.blobs.glob("*/*"))) == len(slow.stored())
    assert "cannot be cancelled" in refused(slow, "CancelTaskExecution", TaskExecutionArn=execution)


def test_a_queued_execution_is_cancelled_at_once(slow: World) -> None:
    task = slow.task()
    crawl(slow, task)
    queued = slow.begin(task, Excludes=EXCLUDES)
    slow.call("CancelTaskExecution", TaskExecutionArn=queued)
    done = slow.describe(queued)
    assert (done["Status"], done["Result"]["ErrorCode"]) == ("ERROR", "Cancelled")


def test_only_the_rate_of_an_execution_can_be_changed(slow: World) -> None:
    execution = crawl(slow, slow.task())
    refused(slow, "UpdateTaskExecution", TaskExecutionArn=execution, Options={"LogLevel": "OFF"})


def test_an_empty_report_configuration_takes_the_tasks_away(world: World) -> None:
    task = world.task(TaskReportConfig=REPORT)
    assert "ReportResult" in world.run(task)
    assert "ReportResult" not in world.run(task, TaskReportConfig={})


# Killing.


def test_a_killed_worker_leaves_a_truthful_error(slow: World) -> None:
    task = slow.task()
    execution = crawl(slow, task)
    eventually(lambda: slow.describe(execution)["FilesTransferred"] > 0)
    run = slow.datasync.run_of(execution)
    assert run is not None and run.worker is not None
    os.kill(run.worker, signal.SIGKILL)
    slow.datasync.finish(execution)
    done = slow.describe(execution)
    assert (done["Status"], done["Result"]["ErrorCode"]) == ("ERROR", "WorkerLost")
    assert done["Result"]["TransferStatus"] == "ERROR"
    assert len(slow.stored()) == done["FilesTransferred"] > 0
    assert all(slow.body(key) == b"x" * 1000 for key in slow.stored() if key != ".aws-datasync-metadata")
    slow.lab.objects.recover()
    assert len(list(slow.lab.folder.blobs.glob("*/*"))) == len(slow.stored())
    repaired = slow.run(task)
    assert repaired["Status"] == "SUCCESS" and len(slow.stored()) == 61


DAEMON = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from tests.lab.datasync_world import World
world = World(Path(sys.argv[1])).furnish()
for number in range(60):
    world.write(f"{number:02d}", b"x" * 1000)
execution = world.begin(world.task(), OverrideOptions={"BytesPerSecond": 1000})
while world.describe(execution)["FilesTransferred"] == 0:
    pass
print(execution, world.datasync.run_of(execution).worker, flush=True)
sys.stdin.read()
"""


def test_a_killed_daemon_takes_its_worker_along_and_tells_the_truth_afterwards(tmp_path: Path) -> None:
    command = [sys.executable, "-c", DAEMON, str(tmp_path / "lab"), str(Path(__file__).parents[2])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None
        execution, worker = daemon.stdout.readline().split()
        daemon.kill()
    eventually(lambda: not alive(int(worker)))
    world = World(tmp_path / "lab")
    done = world.describe(execution)
    assert (done["Status"], done["Result"]["ErrorCode"]) == ("ERROR", "LabStopped")
    assert done["Result"]["TransferStatus"] == "ERROR" and done["EndTime"] >= done["LaunchTime"]
    assert "The lab was stopped" in done["Result"]["ErrorDetail"]
    assert 0 < done["Result"]["TransferDuration"] <= done["Result"]["TotalDuration"]
    assert done["FilesTransferred"] <= len(world.stored())
    world.lab.objects.recover()
    assert len(list(world.lab.folder.blobs.glob("*/*"))) == len(world.stored())
    assert world.run(execution.partition("/execution/")[0])["Status"] == "SUCCESS"


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not collected by its parent does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return state.strip() != "" and not state.startswith("Z")


def test_stopping_the_lab_ends_what_runs(slow: World) -> None:
    task = slow.task()
    running = crawl(slow, task)
    queued = slow.begin(task, Excludes=EXCLUDES)
    slow.datasync.stop()
    for execution in (running, queued):
        assert slow.describe(execution)["Result"]["ErrorCode"] == "LabStopped"
