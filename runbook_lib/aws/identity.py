"""Who are we at AWS, and what may we do: STS, and IAM's own simulation, which changes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import AwsError
from .client import Session


@dataclass(frozen=True)
class Identity:
    """The caller as STS sees it."""

    account: str
    arn: str

    @property
    def principal(self) -> str:
        """The IAM user or role that policies belong to (an assumed-role session's role)."""
        if ":assumed-role/" in self.arn:
            prefix, _, rest = self.arn.partition(":assumed-role/")
            return f"{prefix.replace(':sts:', ':iam:')}:role/{rest.split('/')[0]}"
        return self.arn


def identity(session: Session, region: str) -> Identity:
    """STS GetCallerIdentity: needs no permission."""
    answer = session.client("sts", region).look("get_caller_identity")
    return Identity(answer["Account"], answer["Arn"])


@dataclass(frozen=True)
class Permission:
    """One action as IAM's simulation judges it; `allowed` is None when it could not be asked."""

    action: str
    allowed: bool | None
    decision: str


def probe(session: Session, region: str, principal: str, actions: Iterable[str]) -> list[Permission]:
    """Ask IAM whether actions would be allowed, without doing them (iam:SimulatePrincipalPolicy).

    Resource policies, permission boundaries of organisations and session policies are not part of the simulation.
    """
    asked = sorted(set(actions))
    try:
        results = list(
            session.client("iam", region).pages(
                "simulate_principal_policy", "EvaluationResults", PolicySourceArn=principal, ActionNames=asked
            )
        )
    except AwsError as error:
        return [Permission(action, None, f"not known: {error.code or 'no answer'}") for action in asked]
    decided = {result["EvalActionName"]: result["EvalDecision"] for result in results}
    return [Permission(a, decided.get(a) == "allowed", decided.get(a, "no answer")) for a in asked]
