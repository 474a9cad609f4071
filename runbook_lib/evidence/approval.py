"""May a run use this plan: is it the same, still valid, and signed by another person where that is asked?"""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ..environment import Approval
from ..errors import EvidenceError
from . import keys, schemas
from .files import PLAN, SOURCES, sha256
from .signoff import Signature, signatures

PLACES = ("environment", "world", "account", "caller", "regions")
PLAN_TYPE = "urn:migration-runbook:plan:v1"


def read_plan(path: Path) -> dict[str, Any]:
    """A plan; `EvidenceError` when the file is none."""
    try:
        plan: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        wrong = schemas.objections("plan-v1", plan)
        if not wrong:
            Approval.model_validate(plan["approval"])
    except (OSError, ValueError, RecursionError) as error:
        wrong = repr(error)
    if wrong:
        raise EvidenceError(f"{path} is not a plan of this version: {wrong}. `runbook run --plan` makes one.")
    return plan


def terms(wanted: Approval) -> dict[str, Any]:
    """What an environment asks of an approval, as plans and events say it."""
    return wanted.model_dump(mode="json")


def objections(
    path: Path, signed: Iterable[Signature], wanted: Approval, *, operator: str, key: str, at: datetime
) -> list[str]:
    """Why a run that `operator` starts at a time with a key may not use a plan; nothing: it may.

    `wanted` is what the environment asks, not what the plan says of that.
    """
    plan, digest, signed = read_plan(path), sha256(path), list(signed)
    said = [f"{one.file} signs another plan (the hash does not match)" for one in signed if one.digest != digest]
    until, created = (datetime.fromisoformat(plan[name]) for name in ("valid_until", "created"))
    if at > until or at > created + timedelta(hours=wanted.valid_hours):
        said.append(f"the plan expired: it was made at {plan['created']} and is valid until {plan['valid_until']}")
    if created > at:
        said.append(f"the plan was made at {plan['created']}, after the run began")
    said += differences(plan["approval"], terms(wanted), "approval")
    if not wanted.required:
        return said
    approvers = wanted.approvers
    fitting = [one for one in signed if one.role == "approver" and one.digest == digest and one.signed <= at]
    others = [one for one in fitting if one.name != operator and one.fingerprint != key]
    if not fitting:
        said.append(
            "the environment requires an approver, and no approver signed the plan before the run (`runbook sign`)"
        )
    elif not others:
        said.append(
            f"the approver must be another person than the operator {operator}, with another key: every signature has "
            "that name or that key (who signs from the same login says so with --name and RUNBOOK_KEY)"
        )
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
    planned, ran = list(plan["scope"]["notebooks"]), [entry["name"] for entry in run["notebooks"]]
    said = _elsewhere(plan, run, (*PLACES, "parameters"))
    if planned != ran:
        said.append(f"the plan is for {', '.join(planned)}; the run had {', '.join(ran)}")
    for entry in run["notebooks"]:
        if entry["name"] in planned:
            said += _otherwise(plan, entry)
    return said


def _elsewhere(plan: dict[str, Any], run: dict[str, Any], names: Iterable[str]) -> list[str]:
    had = run | {"caller": role_of(run["caller"])}
    return [
        f"the plan is for {name} {plan['scope'][name]!r}, the run had {had[name]!r}"
        for name in names
        if had[name] is not None and plan["scope"][name] != had[name]
    ]


def _otherwise(plan: dict[str, Any], entry: dict[str, Any]) -> list[str]:
    """How one notebook departs from the one that was planned under its name."""
    name, planned = entry["name"], plan["scope"]["notebooks"][entry["name"]]
    said = [f"{name} is not the notebook that was planned"] if entry["source"] != planned["source"] else []
    return said + (differences(planned["knobs"], entry["knobs"], f"{name}: knob") if entry["knobs"] else [])


def missing(folder: Path, wanted: Approval, here: dict[str, Any], notebook: str, knobs: dict[str, Any]) -> list[str]:
    """Why a run that needs an approval does not have it now, for a notebook; nothing: it has.

    `here` has the run's PLACES. What the plan says of approvals is not believed, only compared.
    """
    path, source = folder / PLAN, folder / SOURCES / f"{notebook}.ipynb"
    if not path.exists():
        return ["the environment requires an approver, and this run is not one of an approved plan"]
    try:
        plan, signed = read_plan(path), signatures(folder, "plan.json")
        own = keys.own_key().public_key.keyid
        said = objections(path, signed, wanted, operator=getpass.getuser(), key=own, at=datetime.now(UTC))
    except EvidenceError as error:
        return [str(error)]
    said += _elsewhere(plan, here, PLACES)
    if notebook not in plan["scope"]["notebooks"]:
        return [*said, f"the plan is not for {notebook}"]
    if not source.is_file():
        return [*said, f"the run has no copy of {notebook} as it was before the run"]
    return said + _otherwise(plan, {"name": notebook, "source": sha256(source), "knobs": knobs})
