"""STS, IAM, EventBridge, SQS, Logs and CloudWatch answer behind the lab's door, and the lab's own events reach them."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from runbook_lib.lab.core import ACCOUNT, CLOUD_REGION
from tests.lab.conftest import Door
from tests.lab.test_server import code_of, signed


def test_the_caller_is_the_labs_participant(door: Door) -> None:
    identity = door.client("sts").get_caller_identity()
    assert identity["Account"] == ACCOUNT
    assert identity["Arn"] == f"arn:aws:iam::{ACCOUNT}:user/participant"


def test_credentials_of_an_assumed_role_are_accepted_everywhere(door: Door) -> None:
    role = f"arn:aws:iam::{ACCOUNT}:role/migration"
    found = door.client("sts").assume_role(RoleArn=role, RoleSessionName="run")["Credentials"]
    keys = {"aws_access_key_id": found["AccessKeyId"], "aws_secret_access_key": found["SecretAccessKey"]}
    token = {"aws_session_token": found["SessionToken"]}
    assert door.client("datasync", **keys, **token).list_agents()["Agents"]
    assert door.client("s3", **keys, **token).get_object(Bucket="b", Key="k")["Body"].read() == b"some content"
    arn = door.client("sts", **keys, **token).get_caller_identity()["Arn"]
    assert arn == f"arn:aws:sts::{ACCOUNT}:assumed-role/migration/run"
    with pytest.raises(ClientError) as error:
        door.client("datasync", **keys, aws_session_token="another").list_agents()
    assert code_of(error) == (403, "UnrecognizedClientException")


def test_policies_can_be_simulated(door: Door) -> None:
    iam = door.client("iam")
    me = f"arn:aws:iam::{ACCOUNT}:user/participant"
    answer = iam.simulate_principal_policy(
        PolicySourceArn=me, ActionNames=["datasync:StartTaskExecution", "s3:GetObject"]
    )
    assert [found["EvalDecision"] for found in answer["EvaluationResults"]] == ["allowed", "allowed"]
    iam.create_user(UserName="guest")
    statements = [
        {"Effect": "Allow", "Action": "s3:Get*", "Resource": "*"},
        {"Effect": "Deny", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::secret/*"},
    ]
    policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
    iam.put_user_policy(UserName="guest", PolicyName="some", PolicyDocument=policy)
    answer = iam.simulate_principal_policy(
        PolicySourceArn=f"arn:aws:iam::{ACCOUNT}:user/guest",
        ActionNames=["s3:GetObject", "s3:PutObject"],
        ResourceArns=["arn:aws:s3:::open/a", "arn:aws:s3:::secret/a"],
    )
    found = [
        (one["EvalActionName"], one["EvalResourceName"][13:], one["EvalDecision"])
        for one in answer["EvaluationResults"]
    ]
    assert found == [
        ("s3:GetObject", "open/a", "allowed"),
        ("s3:GetObject", "secret/a", "explicitDeny"),
        ("s3:PutObject", "open/a", "implicitDeny"),
        ("s3:PutObject", "secret/a", "implicitDeny"),
    ]
    for arn, code in [(f"{me}x", "NoSuchEntity"), (f"arn:aws:sts::{ACCOUNT}:assumed-role/a/b", "InvalidInput")]:
        with pytest.raises(ClientError) as error:
            iam.simulate_principal_policy(PolicySourceArn=arn, ActionNames=["s3:GetObject"])
        assert error.value.response["Error"]["Code"] == code


def test_an_event_reaches_a_queue_through_a_rule_that_matches_it(door: Door) -> None:
    events, sqs = door.client("events"), door.client("sqs")
    execution = f"arn:aws:datasync:{CLOUD_REGION}:{ACCOUNT}:task/task-1/execution/exec-1"
    pattern = {
        "source": ["aws.datasync"],
        "detail-type": ["DataSync Task Execution State Change"],
        "resources": [{"prefix": execution.rpartition("/execution")[0]}],
        "detail": {"State": ["SUCCESS", "ERROR"]},
    }
    url = sqs.create_queue(QueueName="heard", tags={"made-by": "runbook"})["QueueUrl"]
    assert url.startswith(door.url)
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events.put_rule(Name="heard", EventPattern=json.dumps(pattern), Tags=[{"Key": "made-by", "Value": "runbook"}])
    events.put_targets(Rule="heard", Targets=[{"Id": "queue", "Arn": arn}])

    def emit(state: str, **changes: Any) -> None:
        event = {
            "region": CLOUD_REGION,
            "source": "aws.datasync",
            "detail_type": "DataSync Task Execution State Change",
            "resources": [execution],
            "detail": {"State": state},
        }
        door.bus.emit(**(event | changes))

    emit("TRANSFERRING")
    emit("SUCCESS", resources=["arn:aws:datasync:eu-central-1:123456789012:task/task-2/execution/exec-1"])
    emit("SUCCESS", source="aws.other")
    emit("SUCCESS", detail_type="Something else")
    emit("SUCCESS", region="eu-west-1")
    emit("SUCCESS")
    messages = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    assert len(messages) == 1
    event = json.loads(messages[0]["Body"])
    assert event["resources"] == [execution] and event["detail"] == {"State": "SUCCESS"}
    assert event["account"] == ACCOUNT and event["region"] == CLOUD_REGION
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", event["time"])


def test_an_event_that_cannot_be_delivered_to_one_target_reaches_the_others(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    events = door.client("events", region="us-east-1")
    pattern = json.dumps({"source": ["x"]})
    events.put_rule(Name="dead-end", EventPattern=pattern)
    gone = f"arn:aws:sqs:us-east-1:{ACCOUNT}:gone"
    events.put_targets(Rule="dead-end", Targets=[{"Id": "queue", "Arn": gone}])
    sqs = door.client("sqs", region="us-east-1")
    url = sqs.create_queue(QueueName="alive")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    for name in ("living", "disabled"):
        events.put_rule(Name=name, EventPattern=pattern)
        events.put_targets(Rule=name, Targets=[{"Id": "queue", "Arn": arn}])
    events.disable_rule(Name="disabled")
    door.bus.emit(region="us-east-1", source="x", detail_type="y", resources=[], detail={"a": 1})
    assert "was not delivered by rule dead-end" in caplog.text
    assert len(sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]) == 1


def test_log_lines_and_datapoints_are_readable(door: Door) -> None:
    logs, metrics = door.client("logs"), door.client("cloudwatch")
    assert [group["logGroupName"] for group in logs.describe_log_groups()["logGroups"]] == [
        "/aws/datasync",
        "dms-tasks-migration-instance",
    ]
    door.bus.log(region=CLOUD_REGION, group="/aws/datasync", stream="task-1-exec-1", lines=["one", "two"])
    found = logs.get_log_events(logGroupName="/aws/datasync", logStreamName="task-1-exec-1")["events"]
    assert [line["message"] for line in found] == ["one", "two"]
    share = {"ShareId": "share-1"}
    door.bus.metric(
        region=CLOUD_REGION,
        namespace="AWS/StorageGateway",
        name="CachePercentDirty",
        value=12.5,
        unit="Percent",
        dimensions=share,
    )
    now = datetime.now(UTC)
    found = metrics.get_metric_statistics(
        Namespace="AWS/StorageGateway",
        MetricName="CachePercentDirty",
        Dimensions=[{"Name": "ShareId", "Value": "share-1"}],
        StartTime=now - timedelta(minutes=5),
        EndTime=now + timedelta(minutes=5),
        Period=60,
        Statistics=["Maximum"],
    )["Datapoints"]
    assert [point["Maximum"] for point in found] == [12.5]


@pytest.mark.parametrize(
    ("target", "body", "code"),
    [
        ("AmazonSQS.CreateQueue", b"\xff\xfe{", "SerializationException"),
        ("AmazonSQS.CreateQueue", b"[" * 100_000, "SerializationException"),
        ("AmazonSQS.CreateQueue", b"[]", "SerializationException"),
        ("AmazonSQS.CreateQueue", b"{}", "ValidationException"),
        ("AmazonSQS.Nope", b"{}", "UnknownOperationException"),
    ],
)
def test_malformed_json_is_refused_and_not_a_fault_of_ours(door: Door, target: str, body: bytes, code: str) -> None:
    status, _, answer = signed(door, "sqs", "POST", "/", body, X_Amz_Target=target)
    assert (status, json.loads(answer)["__type"]) == (400, code)


@pytest.mark.parametrize("service", ["sts", "iam", "monitoring", "sqs"])
def test_an_unknown_action_is_invalid(door: Door, service: str) -> None:
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    for body, code in (
        (b"Action=Nope", b"InvalidAction"),
        (b"", b"InvalidAction"),
        (b"\xff", b"SerializationException"),
    ):
        status, _, answer = signed(door, service, "POST", "/", body, **form)
        assert (status, b"<Code>%b</Code>" % code in answer) == (400, True)


@pytest.mark.parametrize("path", ["/moto-api/reset", "/%6doto-api/reset", "/x/../moto-api/reset", "/%2e/moto-api/"])
def test_motos_own_interface_is_closed_however_it_is_spelt(door: Door, path: str) -> None:
    assert signed(door, "sts", "POST", path)[0] == 400


def test_a_large_compressed_request_and_a_queues_own_address_reach_moto(door: Door) -> None:
    data = [{"MetricName": f"m{number}", "Value": 1.0, "Unit": "Count"} for number in range(300)]
    door.client("cloudwatch").put_metric_data(Namespace="Large", MetricData=data)
    assert len(door.client("cloudwatch").list_metrics(Namespace="Large")["Metrics"]) == 300
    door.client("sqs").create_queue(QueueName="own.fifo", Attributes={"FifoQueue": "true"})
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    body = b"Action=GetQueueAttributes&AttributeName.1=All"
    assert signed(door, "sqs", "POST", f"/{ACCOUNT}/own.fifo", body, **form)[0] == 200


def test_of_each_minute_the_last_datapoint_is_kept(door: Door) -> None:
    put = {"region": CLOUD_REGION, "namespace": "Minutes", "name": "Lag", "unit": "Seconds"}
    for value in (9.0, 4.0, 0.0):
        door.bus.metric(value=value, dimensions={"Task": "a"}, **put)
    door.bus.metric(value=7.0, dimensions={"Task": "b"}, **put)
    end = datetime.now(UTC) + timedelta(minutes=1)
    found = door.client("cloudwatch").get_metric_statistics(
        Namespace="Minutes", MetricName="Lag", Dimensions=[{"Name": "Task", "Value": "a"}], Period=60,
        StartTime=end - timedelta(minutes=5), EndTime=end, Statistics=["SampleCount", "Maximum"],
    )["Datapoints"]  # fmt: skip
    assert found[-1]["Maximum"] == 0 and len(found) <= 2


def test_dms_finds_its_roles_and_they_can_be_made_again(door: Door) -> None:
    iam, role = door.client("iam"), "dms-vpc-role"
    policy = "arn:aws:iam::aws:policy/service-role/AmazonDMSVPCManagementRole"
    assert door.bus.has_role(role) and door.bus.has_role("dms-cloudwatch-logs-role")
    trust = iam.get_role(RoleName=role)["Role"]["AssumeRolePolicyDocument"]
    assert trust["Statement"][0]["Principal"] == {"Service": "dms.amazonaws.com"}
    door.bus.drop_role(role)
    assert not door.bus.has_role(role)
    iam.create_role(RoleName=role, AssumeRolePolicyDocument=json.dumps(trust))
    iam.attach_role_policy(RoleName=role, PolicyArn=policy)
    door.bus.make_role(role)  # somebody was quicker
    assert iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"][0]["PolicyArn"] == policy
