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

ACTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "00_start_here": {
        "look": (
            *(*ME, *TASK, *SHARE, *SERVER),
            "iam:SimulatePrincipalPolicy",
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
    "03_inspect_transfer_stats": {"look": (*ME, *TASK, *EXECUTIONS, *BUCKET), "change": ()},
    "04_refresh_gateway_cache": {
        "look": (*ME, *TASK, *EXECUTIONS, *SHARE, *SERVER, "sqs:ReceiveMessage"),
        "change": (
            *COMMAND,
            "storagegateway:RefreshCache",
            *("events:PutRule", "events:PutTargets", "events:RemoveTargets", "events:DeleteRule", "events:TagResource"),
            *("sqs:CreateQueue", "sqs:TagQueue", "sqs:DeleteMessage", "sqs:DeleteQueue"),
        ),
    },
    "05_verify_listing": {"look": (*ME, *SERVER), "change": COMMAND},
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
