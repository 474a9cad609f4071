"""Which IAM actions each notebook needs: probed by 00, printed as a policy by `runbook doctor --iam`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

ME = ("sts:GetCallerIdentity",)
TASK = ("datasync:ListTasks", "datasync:DescribeTask", "datasync:ListLocations", "datasync:DescribeLocationNfs")
EXECUTIONS = ("datasync:ListTaskExecutions", "datasync:DescribeTaskExecution")
SHARE = ("storagegateway:ListFileShares", "storagegateway:DescribeNFSFileShares")
SERVER = ("ssm:DescribeInstanceInformation", "ssm:GetCommandInvocation")
COMMAND = ("ssm:SendCommand",)  # even `ls` on the application server is a command
BUCKET = ("s3:ListBucket", "s3:GetObject")
LISTS = ("s3:GetInventoryConfiguration",)  # only where `s3_inventory` is the latest
PARTS = ("s3:GetObjectAttributes",)  # of composite checksums; without it a HEAD for each part, which takes longer
DMS = (
    "dms:DescribeReplicationTasks",
    "dms:DescribeEndpoints",
    "dms:DescribeReplicationInstances",
    "dms:DescribeConnections",
    "dms:DescribeTableStatistics",
    "dms:TestConnection",
)
ROLES = ("iam:GetRole", "iam:ListAttachedRolePolicies")
ROLE_MAKING = ("iam:CreateRole", "iam:UpdateAssumeRolePolicy", "iam:AttachRolePolicy")
METERS = ("cloudwatch:ListMetrics", "cloudwatch:GetMetricData", "logs:FilterLogEvents")

ACTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "00_start_here": {
        "look": (
            *(*ME, *TASK, *SHARE, *SERVER),
            *("iam:SimulatePrincipalPolicy", "iam:GetRole"),
            "datasync:DescribeAgent",
            "storagegateway:DescribeGatewayInformation",
        ),
        "change": COMMAND,
    },
    "01_create_test_file": {"look": (*ME, *TASK, *SERVER), "change": (*COMMAND, "s3:DeleteObject")},
    "02_run_datasync_task": {
        "look": (*ME, *TASK, *EXECUTIONS, *SERVER, *BUCKET),
        "change": (*COMMAND, "datasync:StartTaskExecution", "iam:PassRole"),
    },
    "03_inspect_transfer_stats": {
        "look": (*ME, *TASK, *EXECUTIONS, *BUCKET, *PARTS, *LISTS, *SERVER),
        "change": COMMAND,
    },
    "04_refresh_gateway_cache": {
        "look": (*ME, *TASK, *EXECUTIONS, *SHARE, *SERVER, "sqs:ReceiveMessage"),
        "change": (
            *COMMAND,
            "storagegateway:RefreshCache",
            *("events:PutRule", "events:PutTargets", "events:RemoveTargets", "events:DeleteRule", "events:TagResource"),
            "events:PutEvents",
            *("sqs:CreateQueue", "sqs:TagQueue", "sqs:DeleteMessage", "sqs:DeleteQueue"),
        ),
    },
    "05_verify_listing": {"look": (*ME, *TASK, *SERVER), "change": COMMAND},
    "06_validate_dms": {
        "look": (*ME, *DMS, *ROLES, *METERS, "secretsmanager:GetSecretValue", "ssm:GetParameter"),
        "change": (
            "dms:StartReplicationTask",
            *ROLE_MAKING,  # only where `create_roles` is set
        ),
    },
}


def actions(notebooks: Iterable[str], kinds: Iterable[str] = ("look", "change")) -> list[str]:
    """The IAM actions that notebooks need, sorted."""
    return sorted({action for notebook in notebooks for kind in kinds for action in ACTIONS[notebook][kind]})


def wanted(latest: bool) -> list[str]:
    """The actions that all notebooks need as they are set; `latest`: the bucket's latest S3 Inventory is looked for."""
    return [action for action in actions(ACTIONS) if latest or action not in LISTS]


def resource(action: str, account: str) -> str:
    """What an action is done to: our own rules and queues, and DMS's roles, by their names; everything else by `*`."""
    service = action.split(":")[0]
    if action == "events:PutEvents":
        return f"arn:aws:events:*:{account}:event-bus/default"
    if action in ROLE_MAKING:
        return f"arn:aws:iam::{account}:role/dms-*"
    if service == "events":
        return f"arn:aws:events:*:{account}:rule/migration-runbook-*"
    return f"arn:aws:sqs:*:{account}:migration-runbook-*" if service == "sqs" else "*"


def policy(notebooks: Iterable[str], account: str, regions: Iterable[str]) -> dict[str, Any]:
    """An IAM policy for the chosen notebooks, limited to the environment's regions where the action is regional.

    Narrow the bucket and the instance to yours.
    """
    needed = actions(notebooks)
    where = {"StringEquals": {"aws:RequestedRegion": sorted(set(regions))}}
    passed = {"StringEquals": {"iam:PassedToService": "datasync.amazonaws.com"}}
    own = [action for action in needed if resource(action, account) != "*"]
    everywhere = [a for a in needed if a.split(":")[0] in ("sts", "iam", "s3") and a != "iam:PassRole"]
    regional = [a for a in needed if a not in own and a not in everywhere and a != "iam:PassRole"]
    statements: list[dict[str, Any]] = [
        {"Sid": "Regional", "Effect": "Allow", "Action": regional, "Resource": "*", "Condition": where},
        {"Sid": "Everywhere", "Effect": "Allow", "Action": everywhere, "Resource": "*"},
        {
            "Sid": "ReportsOfDataSync",
            "Effect": "Allow",
            "Action": [a for a in needed if a == "iam:PassRole"],
            "Resource": "*",
            "Condition": passed,
        },
        {
            "Sid": "OursByName",
            "Effect": "Allow",
            "Action": own,
            "Resource": sorted({resource(action, account) for action in own}),
        },
    ]
    return {"Version": "2012-10-17", "Statement": [statement for statement in statements if statement["Action"]]}
