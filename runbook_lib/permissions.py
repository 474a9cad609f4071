"""Which IAM actions each notebook needs: probed by 00, printed as a policy by `runbook doctor --iam`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

ACTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "00_start_here": {
        "look": (
            "sts:GetCallerIdentity",
            "iam:SimulatePrincipalPolicy",
            "datasync:ListTasks",
            "datasync:DescribeTask",
            "datasync:ListLocations",
            "datasync:DescribeLocationNfs",
            "datasync:DescribeAgent",
            "storagegateway:ListFileShares",
            "storagegateway:DescribeNFSFileShares",
            "storagegateway:DescribeGatewayInformation",
            "ssm:DescribeInstanceInformation",
        ),
        "change": (),
    },
    "01_create_test_file": {
        "look": (
            "ssm:DescribeInstanceInformation",
            "ssm:GetCommandInvocation",
            "datasync:ListTasks",
            "datasync:DescribeTask",
            "s3:GetObject",
        ),
        "change": ("ssm:SendCommand", "s3:DeleteObject"),
    },
    "02_run_datasync_task": {
        "look": (
            "datasync:ListTasks",
            "datasync:DescribeTask",
            "datasync:ListLocations",
            "datasync:DescribeLocationNfs",
            "datasync:ListTaskExecutions",
            "datasync:DescribeTaskExecution",
            "ssm:GetCommandInvocation",
            "s3:ListBucket",
            "s3:GetObject",
        ),
        "change": ("datasync:StartTaskExecution", "ssm:SendCommand", "iam:PassRole"),
    },
    "03_inspect_transfer_stats": {
        "look": ("datasync:ListTaskExecutions", "datasync:DescribeTaskExecution", "s3:ListBucket", "s3:GetObject"),
        "change": (),
    },
    "04_refresh_gateway_cache": {
        "look": (
            "storagegateway:ListFileShares",
            "storagegateway:DescribeNFSFileShares",
            "datasync:ListTaskExecutions",
            "datasync:DescribeTaskExecution",
            "ssm:GetCommandInvocation",
            "sqs:ReceiveMessage",
        ),
        "change": (
            "storagegateway:RefreshCache",
            "ssm:SendCommand",
            "events:PutRule",
            "events:PutTargets",
            "events:RemoveTargets",
            "events:DeleteRule",
            "events:TagResource",
            "sqs:CreateQueue",
            "sqs:TagQueue",
            "sqs:DeleteMessage",
            "sqs:DeleteQueue",
        ),
    },
    "05_verify_listing": {
        "look": ("ssm:DescribeInstanceInformation", "ssm:GetCommandInvocation"),
        "change": ("ssm:SendCommand",),
    },
}


def actions(notebooks: Iterable[str], kinds: Iterable[str] = ("look", "change")) -> list[str]:
    """The IAM actions that notebooks need, sorted."""
    return sorted({action for notebook in notebooks for kind in kinds for action in ACTIONS[notebook][kind]})


def policy(notebooks: Iterable[str], account: str, regions: Iterable[str]) -> dict[str, Any]:
    """An IAM policy for the chosen notebooks, limited to the environment's regions where the action is regional.

    Events rules and queues are limited to our own names; narrow `iam:PassRole`, the bucket and the instance to yours.
    """
    needed = actions(notebooks)
    world = [action for action in needed if action.split(":")[0] in ("sts", "iam", "s3")]
    ours = [action for action in needed if action.split(":")[0] in ("events", "sqs")]
    regional = [action for action in needed if action not in world and action not in ours]
    where = {"StringEquals": {"aws:RequestedRegion": sorted(set(regions))}}
    statements: list[dict[str, Any]] = [
        {"Sid": "Regional", "Effect": "Allow", "Action": regional, "Resource": "*", "Condition": where},
        {"Sid": "Global", "Effect": "Allow", "Action": world, "Resource": "*"},
    ]
    if ours:
        names = [f"arn:aws:events:*:{account}:rule/migration-runbook-*", f"arn:aws:sqs:*:{account}:migration-runbook-*"]
        statements.append({"Sid": "OurRulesAndQueues", "Effect": "Allow", "Action": ours, "Resource": names})
    return {"Version": "2012-10-17", "Statement": [s for s in statements if s["Action"]]}
