"""Which IAM roles must exist before DMS can work, and how are they made, looked for and taken away in moto's IAM?

Names, trust and policies: DMS user guide, "Creating the IAM roles to use with AWS DMS". AWS has the two policies in
every account; moto has none of AWS's own, so they are made.
"""

from __future__ import annotations

import json
from typing import Any

VPC_ROLE = "dms-vpc-role"  # without it no replication instance or subnet group can be made
LOGS_ROLE = "dms-cloudwatch-logs-role"  # without it DMS writes no log (DMS user guide, troubleshooting)
POLICIES = {
    VPC_ROLE: (
        "AmazonDMSVPCManagementRole",
        ("ec2:CreateNetworkInterface", "ec2:DescribeAvailabilityZones", "ec2:DescribeInternetGateways",
         "ec2:DescribeSecurityGroups", "ec2:DescribeSubnets", "ec2:DescribeVpcs", "ec2:DeleteNetworkInterface",
         "ec2:ModifyNetworkInterfaceAttribute"),
    ),
    LOGS_ROLE: (
        "AmazonDMSCloudWatchLogsRole",
        ("logs:DescribeLogGroups", "logs:DescribeLogStreams", "logs:CreateLogGroup", "logs:CreateLogStream",
         "logs:PutLogEvents"),
    ),
}  # fmt: skip
MADE = "2016-01-07T18:44:07+00:00"
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "dms.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}


def make_policies(iam: Any, account: str, region: str) -> None:
    """AWS's own policies for these roles, so that they can be attached."""
    from moto.iam.models import AWSManagedPolicy

    for name, actions in POLICIES.values():
        document = {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": list(actions), "Resource": "*"}],
        }
        data = {"Path": "/service-role/", "Document": document, "CreateDate": MADE, "UpdateDate": MADE}
        policy = AWSManagedPolicy.from_data(name, account, region, data)
        iam.managed_policies[policy.arn] = policy


def make_role(iam: Any, role: str) -> None:
    """The role as DMS wants it; what somebody else has made of it already stays."""
    if not has_role(iam, role):
        iam.create_role(
            role_name=role,
            assume_role_policy_document=json.dumps(TRUST),
            path="/",
            permissions_boundary=None,
            description="",
            tags=[],
            max_session_duration=None,
        )
    iam.attach_role_policy(f"arn:aws:iam::aws:policy/service-role/{POLICIES[role][0]}", role)


def drop_role(iam: Any, role: str) -> None:
    """Delete the role with what is attached to it; nothing happens when it is gone."""
    if not has_role(iam, role):
        return
    for arn in list(iam.get_role(role).managed_policies):
        iam.detach_role_policy(arn, role)
    for name in list(iam.get_role(role).policies):
        iam.delete_role_policy(role, name)
    iam.delete_role(role)


def has_role(iam: Any, role: str) -> bool:
    """Whether a role of that name exists."""
    return any(found.name == role for found in list(iam.roles.values()))
