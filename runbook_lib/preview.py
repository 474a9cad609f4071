"""What would a run do, and is that still what was approved? The plan: names resolved by looking, nothing changed."""

from __future__ import annotations

import hashlib
import shutil
import statistics
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from . import permissions
from .aws.ssm import RunCommand
from .environment import Environment
from .errors import ChangeRefused, NotFound
from .evidence import approval, keys, signoff
from .evidence.files import PLAN, SIGNATURES, as_json, sha256, write_whole
from .evidence.folder import RunFolder, outputs
from .evidence.listing import statements
from .evidence.outcomes import PASSED
from .evidence.provenance import provenance
from .inventory.cost import LISTED, READ, Price
from .runbook import Runbook
from .runs.plan import Step
from .runs.run import parameter_names
from .settings import environment_file, load_environment, project_root
from .world import Endpoint, endpoint_of

GIB = 1024**3

COPIED = Price("DataSync, data copied (BASIC)", "GiB", 0.0125, "aws.amazon.com/datasync/pricing")


def make(environment: str, steps: list[Step], parameters: dict[str, Any]) -> Path:
    """Write the plan of a run into a folder of its own; `plan.json`. Looks only."""
    loaded = load_environment(environment)
    folder = RunFolder.create(loaded.environment, "plan")
    now = datetime.now(UTC)
    scope, runbooks = _scope(folder, environment, steps, parameters)
    plan = {
        "type": approval.PLAN_TYPE,
        "plan": folder.run_id,
        "created": now.isoformat(timespec="seconds"),
        "valid_until": (now + timedelta(hours=loaded.approval.valid_hours)).isoformat(timespec="seconds"),
        "by": {key: value for key, value in provenance().items() if key in ("operator", "host")},
        "approval": approval.terms(loaded.approval),
        "scope": scope,
        "estimate": {"files": (files := _files(runbooks)), "time": _time(loaded, steps), "money": _money(files)},
    }
    write_whole(folder.path / PLAN, as_json(plan), 0o444)
    return folder.path / PLAN


def compare(path: Path, environment: str, steps: list[Step], parameters: dict[str, Any], folder: RunFolder) -> None:
    """Let a run use an approved plan, and keep the plan with it; `ChangeRefused` says what is different or objected."""
    plan = approval.read_plan(path)
    now, _ = _scope(folder, environment, steps, parameters)
    signed = signoff.signatures(path.parent, "plan.json")
    wanted, own = load_environment(environment).approval, keys.own_key().public_key.keyid
    operator = provenance()["operator"]
    said = approval.objections(path, signed, wanted, operator=operator, key=own, at=datetime.now(UTC))
    said += approval.differences(plan["scope"], now)
    if said:
        raise ChangeRefused(
            f"The run is not the one of {path}:\n  " + "\n  ".join(said) + "\nNothing was changed. `runbook run --plan`"
            " makes a new plan to sign."
        )
    write_whole(folder.path / PLAN, path.read_bytes(), 0o444)
    if signed:
        shutil.copytree(path.parent / SIGNATURES, folder.path / SIGNATURES)


def _scope(
    folder: RunFolder, environment: str, steps: list[Step], parameters: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Runbook]]:
    """What must be the same when an approved plan is run; and the opened runbooks, by notebook."""
    loaded = load_environment(environment)
    endpoint = endpoint_of(loaded)
    runbooks = {step.name: _opened(loaded, step, parameters, folder, endpoint) for step in steps}
    first = next(iter(runbooks.values()))
    known = {**parameters, "environment": environment}
    return {
        "environment": loaded.environment,
        "environment_file": sha256(environment_file(environment)),
        "world": endpoint.world,
        "account": first.identity.account,
        "caller": approval.role_of(first.identity.arn),
        "regions": loaded.regions.model_dump(),
        "changes_allowed": loaded.allow_changes,
        "parameters": known,
        "notebooks": {
            step.name: {
                "source": sha256(step.path),
                "knobs": runbooks[step.name].knobs.as_dict(),
                "names": _names(runbooks[step.name]),
                "changing_calls": permissions.actions([step.name], ["change"]),
            }
            for step in steps
        },
        "library": _library(),
        "lock": sha256(lock) if (lock := project_root() / "requirements.lock").exists() else None,
    }, runbooks


def _opened(
    loaded: Environment, step: Step, parameters: dict[str, Any], folder: RunFolder, endpoint: Endpoint
) -> Runbook:
    """The runbook as the notebook itself would open it."""
    passed = {name: parameters[name] for name in parameter_names(step) & parameters.keys() if name != "environment"}
    return Runbook(loaded, step.name, passed, folder, endpoint)


def _library() -> str:
    """One hash of the whole library: code that is in no commit has no other name."""
    package = Path(__file__).resolve().parent
    files = sorted(path for path in package.rglob("*.py"))
    return hashlib.sha256(
        b"".join(f"{path.relative_to(package)} {sha256(path)}\n".encode() for path in files)
    ).hexdigest()


def _services(notebook: str) -> set[str]:
    return {action.split(":")[0] for action in permissions.actions([notebook])}


def _names(rb: Runbook) -> dict[str, str]:
    """Every name of the notebook's services, with what it means at AWS now."""
    services, found = _services(rb.notebook), {}
    commands = "ssm:SendCommand" in permissions.actions([rb.notebook])
    if "datasync" in services:
        task = rb.datasync.task
        found[f"DataSync task {task.name}"] = task.arn
        found["source"], found["destination"] = task.source.uri, task.destination.uri
        found["filters"] = f"includes {task.includes or 'everything'}, excludes {task.excludes or 'nothing'}"
    if "storagegateway" in services:
        share = rb.share.info
        found[f"file share {share.name}"] = share.arn
    if commands:
        server = rb.environment.application_server
        found[f"application server {server.instance}"] = (
            RunCommand(rb.session, rb.environment.regions.premises).instance(server.instance).instance_id
            if server.reach == "ssm"
            else server.reach
        )
    if "dms" in services:
        migration = rb.dms.task()
        found[f"DMS task {migration.name}"] = migration.arn
        found["source endpoint"], found["target endpoint"] = migration.source_arn, migration.target_arn
        found["tables"] = ", ".join(table.name for table in rb.dms.scope.tables_in_scope)
    return found


def _files(runbooks: dict[str, Runbook]) -> dict[str, Any] | None:
    """The size of the file set as the task's last execution saw it; None: it has none, or no notebook copies files."""
    rb = next((rb for rb in runbooks.values() if "datasync" in _services(rb.notebook)), None)
    if rb is None:
        return None
    try:
        last = rb.datasync.history(1).latest
    except NotFound:
        return None
    return {
        "execution": last.arn,
        "ended": last.ended.isoformat(timespec="seconds") if last.ended else None,
        "transferred": last.items_transferred,
        "skipped": last.files_skipped,
        "bytes": last.bytes_transferred,
    }


def _time(environment: Environment, steps: list[Step]) -> dict[str, Any]:
    """Seconds each notebook took in former runs of this environment that passed: the median, and of how many."""
    took: dict[str, list[float]] = {step.name: [] for step in steps}
    for run in statements(outputs()):
        if run["environment"] == environment.environment:
            for entry in run["notebooks"]:
                if entry["name"] in took and entry["status"] == PASSED and entry["seconds"] is not None:
                    took[entry["name"]].append(entry["seconds"])
    return {
        name: {"seconds": round(statistics.median(seconds), 1) if seconds else None, "of_runs": len(seconds)}
        for name, seconds in took.items()
    }


def _money(files: dict[str, Any] | None) -> list[dict[str, Any]]:
    """What AWS would charge if as much were copied as the last time; each line states its quantity and price."""
    if files is None:
        return []
    items = files["transferred"] + files["skipped"]
    quantities: Iterable[tuple[Price, float]] = (
        (COPIED, round(files["bytes"] / GIB, 6)),
        (LISTED, files["transferred"] + items // 1000 + 1),
        (READ, items),
    )
    return [
        {"what": p.what, "quantity": quantity, "unit": p.unit, "usd_a_unit": p.usd, "usd": round(quantity * p.usd, 6),
         "price_region": p.region, "price_as_of": p.as_of, "price_page": p.page}
        for p, quantity in quantities
    ]  # fmt: skip
