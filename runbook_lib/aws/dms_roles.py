"""Do the roles exist that DMS itself needs, with the right trust and policy? And how are they created?"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import boto3

from ..display import Shown, Table
from ..errors import AwsError
from .client import Session

PRINCIPAL = "dms.amazonaws.com"
ROLES = {  # exact names and policies: DMS user guide, creating the IAM roles to use with DMS
    "dms-vpc-role": "AmazonDMSVPCManagementRole",
    "dms-cloudwatch-logs-role": "AmazonDMSCloudWatchLogsRole",
}


@dataclass(frozen=True)
class Role:
    """One of the roles as IAM shows it."""

    name: str
    policy: str
    exists: bool
    trusts_dms: bool = False
    has_policy: bool = False

    @property
    def ok(self) -> bool:
        """True when DMS can use it."""
        return self.exists and self.trusts_dms and self.has_policy

    @property
    def said(self) -> str:
        """What is wrong with it, or that it is as it should be."""
        if not self.exists:
            return "missing"
        faults = [] if self.trusts_dms else [f"does not trust {PRINCIPAL}"]
        faults += [] if self.has_policy else [f"lacks the policy {self.policy}"]
        return " and ".join(faults) or "as it should be"


@dataclass(frozen=True, repr=False)
class Roles(Shown):
    """The roles that DMS needs."""

    roles: tuple[Role, ...]
    created: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """A finding: all of them can be used."""
        return bool(self.roles) and all(role.ok for role in self.roles)

    @property
    def reason(self) -> str:
        """What is wrong."""
        wrong = [f"{role.name}: {role.said}" for role in self.roles if not role.ok]
        return "; ".join(wrong) or f"{' and '.join(role.name for role in self.roles)} are as they should be"

    def headline(self) -> str:
        """The verdict, and what was created."""
        made = f" Created or completed now: {', '.join(self.created)}." if self.created else ""
        return f"The console creates these roles by itself; the API and the command line do not.{made}"

    def tables(self) -> list[Table]:
        """Each role."""
        rows = [(role.name, PRINCIPAL, role.policy, role.said) for role in self.roles]
        return [Table(("Role", "Trusted", "Policy", "Seen"), rows)]


def look(session: Session, region: str) -> Roles:
    """The roles as they are."""
    return Roles(tuple(_role(session, region, name, policy) for name, policy in ROLES.items()))


def create(session: Session, region: str, found: Roles) -> Roles:
    """Create what is missing: the role, the trust, the policy. IAM is eventually consistent: allow it a minute."""
    client = session.client("iam", region)
    changed = []
    for role in found.roles:
        if role.ok:
            continue
        if not role.exists:
            client.change("create_role", RoleName=role.name, AssumeRolePolicyDocument=json.dumps(_trust()))
        elif not role.trusts_dms:
            client.change("update_assume_role_policy", RoleName=role.name, PolicyDocument=json.dumps(_trust()))
        if not role.has_policy:
            client.change("attach_role_policy", RoleName=role.name, PolicyArn=_policy_arn(region, role.policy))
        changed.append(role.name)
    return Roles(look(session, region).roles, tuple(changed))


def _role(session: Session, region: str, name: str, policy: str) -> Role:
    client = session.client("iam", region)
    try:
        document = client.look("get_role", RoleName=name)["Role"]["AssumeRolePolicyDocument"]
    except AwsError as error:
        if error.code == "NoSuchEntity":
            return Role(name, policy, exists=False)
        raise
    attached = client.pages("list_attached_role_policies", "AttachedPolicies", RoleName=name)
    has_policy = any(
        re.fullmatch(rf"arn:[\w-]+:iam::aws:policy/service-role/{policy}", item["PolicyArn"]) for item in attached
    )
    return Role(name, policy, True, _trusts(document), has_policy)


def _trusts(document: dict[str, Any]) -> bool:
    """Whether some statement lets DMS assume the role."""
    statements = document.get("Statement", [])
    for statement in [statements] if isinstance(statements, dict) else statements:
        principal = statement.get("Principal")
        services = principal.get("Service", []) if isinstance(principal, dict) else []  # "*" trusts everybody, not DMS
        actions = statement.get("Action", [])
        named = PRINCIPAL in ([services] if isinstance(services, str) else services)
        allowed = "sts:AssumeRole" in ([actions] if isinstance(actions, str) else actions)
        if statement.get("Effect") == "Allow" and named and allowed:
            return True
    return False


def _trust() -> dict[str, Any]:
    statement = {"Effect": "Allow", "Principal": {"Service": PRINCIPAL}, "Action": "sts:AssumeRole"}
    return {"Version": "2012-10-17", "Statement": [statement]}


def _policy_arn(region: str, policy: str) -> str:
    """The ARN of an AWS managed policy in the region's partition: aws, aws-cn, aws-us-gov."""
    partition = boto3.Session().get_partition_for_region(region)
    return f"arn:{partition}:iam::aws:policy/service-role/{policy}"
