"""May a run use this plan: is it the same, still valid, and signed by another person where that is asked?"""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import EvidenceError
from . import keys
from .files import PLAN, sha256
from .signoff import Signature, signatures

PLAN_TYPE = "urn:migration-runbook:plan:v1"


def read_plan(path: Path) -> dict[str, Any]:
    """A plan; `EvidenceError` when the file is none."""
    try:
        plan: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if plan["type"] != PLAN_TYPE:
            raise EvidenceError(f"{path} is not a plan of this version: it says {plan['type']!r}")
        if not isinstance(plan["scope"], dict) or datetime.fromisoformat(plan["valid_until"]).tzinfo is None:
            raise EvidenceError(f"{path} is not a plan: its scope or its end is missing")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvidenceError(f"{path} is not a plan: {error!r}. `runbook run --plan` makes one.") from error
    return plan


def objections(path: Path, signed: Iterable[Signature], *, operator: str, key: str, at: datetime) -> list[str]:
    """Why a run that `operator` starts at a time with a key may not use a plan; nothing: it may."""
    plan, digest, signed = read_plan(path), sha256(path), list(signed)
    wanted = plan.get("approval", {})
    said = [f"{one.file} signs another plan (the hash does not match)" for one in signed if one.digest != digest]
    if at > datetime.fromisoformat(plan["valid_until"]):
        said.append(f"the plan expired at {plan['valid_until']}")
    if not wanted.get("required"):
        return said
    approvers = wanted.get("approvers") or []
    fitting = [one for one in signed if one.role == "approver" and one.digest == digest and one.signed <= at]
    others = [one for one in fitting if one.name != operator and one.fingerprint != key]
    if not fitting:
        said.append("the environment requires an approver, and no approver signed the plan before the run")
    elif not others:
        said.append(f"the approver must be another person than the operator {operator}, with another key")
    elif approvers and not any(one.fingerprint in approvers for one in others):
        said.append("the plan is signed by an approver whose key the environment does not name")
    return said


def differences(before: Any, after: Any, where: str = "") -> list[str]:
    """What two scopes do not have in common, one sentence a value."""
    if isinstance(before, dict) and isinstance(after, dict):
        names = [*before, *(name for name in after if name not in before)]
        said = []
        for name in names:
            place = f"{where}.{name}" if where else str(name)
            if name not in before or name not in after:
                said.append(f"{place} is {'not in the plan' if name in after else 'in the plan, and not in this run'}")
            else:
                said += differences(before[name], after[name], place)
        return said
    return [] if before == after else [f"{where}: planned {before!r}, now {after!r}"]


def role_of(arn: str | None) -> str | None:
    """A caller without the name of its session, which is another one each time."""
    return arn.rpartition("/")[0] if arn and ":assumed-role/" in arn else arn


def departures(plan: dict[str, Any], run: dict[str, Any]) -> list[str]:
    """How what a run's statement says departs from the plan it was approved by."""
    scope = plan["scope"]
    planned = {name: entry["source"] for name, entry in scope["notebooks"].items()}
    knobs = {name: entry["knobs"] for name, entry in scope["notebooks"].items()}
    ran = {entry["name"]: entry for entry in run["notebooks"]}
    had = run | {"caller": role_of(run["caller"])}
    said = [
        f"the plan is for {name} {scope[name]!r}, the run had {had[name]!r}"
        for name in ("environment", "world", "account", "caller", "regions", "parameters")
        if had[name] is not None and scope[name] != had[name]
    ]
    if list(planned) != list(ran):
        said.append(f"the plan is for {', '.join(planned)}; the run had {', '.join(ran)}")
    for name, entry in ran.items():
        if name in planned and entry["source"] != planned[name]:
            said.append(f"{name} is not the notebook that was planned")
        if name in planned and entry["knobs"] and entry["knobs"] != knobs[name]:
            said += differences(knobs[name], entry["knobs"], f"{name}: knob")
    return said


def missing(folder: Path) -> list[str]:
    """Why a run that needs an approval does not have it now; nothing: it has."""
    if not (folder / PLAN).exists():
        return ["the environment requires an approver, and this run is not one of an approved plan"]
    return objections(
        folder / PLAN,
        signatures(folder, "plan.json"),
        operator=getpass.getuser(),
        key=keys.own_key().public_key.keyid,
        at=datetime.now(UTC),
    )
