"""May this user or role do that? `iam:SimulatePrincipalPolicy`, which moto does not have, over moto's policies."""

from __future__ import annotations

import re
import uuid
from typing import Any
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from .core import ACCOUNT
from .http import HttpResponse
from .moto_bridge import PARTITION, Moto
from .protocol import Refusal

NAMESPACE = "https://iam.amazonaws.com/doc/2010-05-08/"
_PRINCIPAL = re.compile(rf"arn:aws:iam::{ACCOUNT}:(user|role)/(?:.*/)?([^/]+)")


def is_simulation(body: bytes) -> bool:
    """Whether an IAM request is ours to answer."""
    return parse_qs(body.decode("utf-8", "replace")).get("Action") == ["SimulatePrincipalPolicy"]


def simulate(moto: Moto, body: bytes) -> HttpResponse:
    """Evaluate each action on each resource; the first explicit deny wins, without an allow it is an implicit deny."""
    form = parse_qs(body.decode("utf-8", "replace"))
    source = form.get("PolicySourceArn", [""])[0]
    actions = _members(form, "ActionNames")
    if not actions:
        raise Refusal("InvalidInput", "ActionNames must name at least one action")
    resources = _members(form, "ResourceArns") or ["*"]
    policies = _policies(moto, source)
    members = "".join(
        f"<member><EvalActionName>{escape(action)}</EvalActionName><EvalResourceName>{escape(resource)}"
        f"</EvalResourceName><EvalDecision>{_decision(policies, action, resource)}</EvalDecision>"
        "<MatchedStatements/><MissingContextValues/></member>"
        for action in actions
        for resource in resources
    )
    answer = (
        f'<SimulatePrincipalPolicyResponse xmlns="{NAMESPACE}"><SimulatePrincipalPolicyResult>'
        f"<IsTruncated>false</IsTruncated><EvaluationResults>{members}</EvaluationResults>"
        f"</SimulatePrincipalPolicyResult><ResponseMetadata><RequestId>{uuid.uuid4()}</RequestId></ResponseMetadata>"
        "</SimulatePrincipalPolicyResponse>"
    )
    return HttpResponse(200, [("Content-Type", "text/xml")], answer.encode())


def _members(form: dict[str, list[str]], name: str) -> list[str]:
    return [values[0] for key, values in form.items() if re.fullmatch(rf"{name}\.member\.\d+", key)]


def _policies(moto: Moto, source: str) -> list[Any]:
    """Identity policies of a user (its groups' too) or a role."""
    found = _PRINCIPAL.fullmatch(source)
    if found is None:
        raise Refusal(
            "InvalidInput",
            f"PolicySourceArn {source[:200]!r} must be the ARN of an IAM user or role of account {ACCOUNT}; for an "
            "assumed role give the role's own ARN",
        )
    kind, name = found.groups()
    iam = moto.backend("iam", PARTITION)
    if name not in (iam.users if kind == "user" else {role.name for role in iam.roles.values()}):
        raise Refusal("NoSuchEntity", f"The {kind} with name {name} cannot be found.", status=404)
    if kind == "role":
        inline = [iam.get_role_policy(name, policy)[1] for policy in iam.list_role_policies(name)]
        return inline + list(iam.list_attached_role_policies(name)[0])
    policies = [iam.get_user_policy(name, policy) for policy in iam.list_user_policies(name)]
    policies += iam.list_attached_user_policies(name)[0]
    for group in iam.get_groups_for_user(name):
        policies += [iam.get_group_policy(group.name, policy) for policy in iam.list_group_policies(group.name)]
        policies += iam.list_attached_group_policies(group.name)[0]
    return policies


def _decision(policies: list[Any], action: str, resource: str) -> str:
    from moto.iam.access_control import IAMPolicy, PermissionResult

    results = {IAMPolicy(policy).is_action_permitted(action, resource) for policy in policies}
    if PermissionResult.DENIED in results:
        return "explicitDeny"
    return "allowed" if PermissionResult.PERMITTED in results else "implicitDeny"
