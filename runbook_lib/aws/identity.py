"""Who are we at AWS, and what may we do: STS, and IAM's own simulation, which changes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from ..display import Shown
from ..errors import AwsError
from .client import Session


@dataclass(frozen=True, repr=False)
class Identity(Shown):
    """The caller as STS sees it."""

    account: str
    arn: str

    def headline(self) -> str:
        """Account and caller."""
        return f"Account {self.account}, as {self.arn}"


def principal(session: Session, region: str, arn: str) -> str:
    """The IAM user or role that policies belong to: for an assumed-role session its role, whose path IAM knows."""
    if ":assumed-role/" not in arn:
        return arn
    prefix, _, rest = arn.partition(":assumed-role/")
    name = rest.split("/")[0]
    try:
        found: str = session.client("iam", region).look("get_role", RoleName=name)["Role"]["Arn"]
    except AwsError:  # without iam:GetRole the path is guessed: none
        return f"{prefix.replace(':sts:', ':iam:')}:role/{name}"
    return found


def identity(session: Session, region: str) -> Identity:
    """STS GetCallerIdentity: needs no permission."""
    answer = session.client("sts", region).look("get_caller_identity")
    return Identity(answer["Account"], answer["Arn"])


@dataclass(frozen=True, order=True)
class Probe:
    """One action on one resource, in the region it is asked for."""

    resource: str
    region: str
    action: str


@dataclass(frozen=True)
class Permission:
    """One action as IAM's simulation judges it; `allowed` is None when it could not be asked."""

    action: str
    allowed: bool | None
    decision: str


def probe(session: Session, region: str, caller: Identity, actions: Iterable[Probe]) -> list[Permission]:
    """Ask IAM whether actions would be allowed, without doing them (iam:SimulatePrincipalPolicy).

    Resource policies, permission boundaries of organisations and session policies are not part of the simulation.
    """
    asked = sorted(set(actions))
    source = principal(session, region, caller.arn)
    client = session.client("iam", region)
    found = []
    for (resource, where), group in groupby(asked, key=lambda item: (item.resource, item.region)):
        names = [item.action for item in group]
        context = {"ContextKeyName": "aws:RequestedRegion", "ContextKeyType": "string", "ContextKeyValues": [where]}
        try:
            results = list(
                client.pages(
                    "simulate_principal_policy",
                    "EvaluationResults",
                    PolicySourceArn=source,
                    ActionNames=names,
                    ResourceArns=[resource],
                    ContextEntries=[context],
                )
            )
        except AwsError as error:
            found += [Permission(name, None, f"not known: {error.code or 'no answer'}") for name in names]
            continue
        decided = {result["EvalActionName"]: result["EvalDecision"] for result in results}
        found += [Permission(name, decided.get(name) == "allowed", decided.get(name, "no answer")) for name in names]
    return sorted(found, key=lambda permission: permission.action)
