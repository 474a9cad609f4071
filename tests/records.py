"""Run folders without a run: small notebooks and events as the runner and kernels write them, for tests of records."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from runbook_lib.checks import MIME_TYPE
from runbook_lib.cli import app
from runbook_lib.environment import Approval
from runbook_lib.errors import RunbookError
from runbook_lib.evidence.approval import terms
from runbook_lib.evidence.files import SOURCES, as_json, entries
from runbook_lib.evidence.folder import MARK, RunFolder

Json = dict[str, Any]
NOBODY = Approval()  # has to approve
WHO = {"operator": "mary", "host": "bridge", "python": "3.11.7", "libraries": {"boto3": "1.44.5"}, "code": None}


def check(name: str, verdict: str = "PASS", expected: Any = None, seen: Any = None) -> Json:
    """What a check is on every run."""
    return {"name": name, "verdict": verdict, "expected": expected, "seen": seen}


def shown(one: Json) -> Json:
    """The output of a check, as display.show_check makes it."""
    data = {
        "text/plain": f"{one['verdict']}  {one['name']}",
        "text/html": f"<p><b>{one['verdict']}</b> {one['name']}</p>",
        MIME_TYPE: one,
    }
    return {"output_type": "display_data", "data": data, "metadata": {}}


def cell(name: str, source: str, kind: str = "code", tags: tuple[str, ...] = ()) -> Json:
    """A cell that was not run."""
    found: Json = {"id": name, "cell_type": kind, "source": source, "metadata": {"tags": list(tags)}}
    return found | ({"execution_count": None, "outputs": []} if kind == "code" else {})


def source_cells(checks: list[Json]) -> list[Json]:
    """A title, parameters, and one cell a check."""
    head = [cell("title", "# Look at it", "markdown"), cell("parameters", 'environment = "lab"', tags=("parameters",))]
    return [*head, *(cell(f"check-{number}", f"rb.check({one['name']!r}, it)") for number, one in enumerate(checks))]


def executed_cells(checks: list[Json]) -> list[Json]:
    """The same after our engine ran it to the first check that fails."""
    cells = source_cells(checks)
    cells.insert(2, cell("injected", '# Parameters\nenvironment = "lab"\n', tags=("injected-parameters",)))
    failed, count = False, 0
    results = [None, None, *checks]
    for one, result in zip((c for c in cells if c["cell_type"] == "code"), results, strict=True):
        one["metadata"]["runbook"] = {"status": "not run" if failed else "completed"}
        if failed:
            continue
        count += 1
        one["execution_count"] = count
        one["outputs"] = [shown(result)] if result else []
        if result and result["verdict"] == "FAIL":
            failed = True
            one["metadata"]["runbook"] = {"status": "failed"}
            one["outputs"].append(
                {"output_type": "error", "ename": "CheckFailed", "evalue": result["name"], "traceback": []}
            )
    return cells


def save(path: Path, cells: list[Json]) -> None:
    """A notebook file."""
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, indent=1))


def synthetic(
    outputs: Path,
    name: str = "20260101T000000Z-abc123",
    notebooks: dict[str, list[Json]] | None = None,
    mode: str = "headless",
    wanted: Approval = NOBODY,
) -> RunFolder:
    """An open run folder whose notebooks show these checks."""
    notebooks = notebooks or {"01_look": [check("It is there"), check("It is equal", "PASS", 2, 2)]}
    path = outputs / name
    (path / SOURCES).mkdir(parents=True)
    about = {"run": name, "environment": "lab", "mode": mode, "opened": datetime.now(UTC).isoformat()}
    (path / MARK).write_bytes(as_json(about))
    folder = RunFolder(path)
    if mode == "headless":
        folder.events("run-start", notebooks=list(notebooks), parameters={"environment": "lab"}, **about, **WHO)
    good = True
    for notebook, checks in notebooks.items():
        save(path / SOURCES / f"{notebook}.ipynb", source_cells(checks))
        good = _run(folder, notebook, checks, mode, wanted) and good
    if mode == "headless":
        folder.events("run-end", status="passed" if good else "failed")
    return folder


def _run(folder: RunFolder, notebook: str, checks: list[Json], mode: str, wanted: Approval) -> bool:
    """One notebook and its events; did it pass?"""
    cells = executed_cells(checks)
    record = folder.events.bind(notebook=notebook)
    if mode == "headless":
        record("notebook-start")
    world = {"environment": "lab", "world": "LAB", "endpoint": "http://127.0.0.1:1", "account": "123456789012"}
    record("open", knobs={}, approval=terms(wanted), **world)
    regions = {"cloud": "eu-central-1", "premises": "eu-west-1"}
    record("identity", arn="arn:aws:iam::123456789012:user/mary", regions=regions, **world)
    record(
        "aws-call", service="datasync", operation="StartTaskExecution", region="eu-central-1", changes=True, status=200,
        error=None, request_id="11111111-2222",
    )  # fmt: skip
    for one in (c for c in cells if c["cell_type"] == "code"):
        for output in one["outputs"]:
            if "data" in output:
                record("check", **output["data"][MIME_TYPE], reason="as it was seen")
        record("cell", cell=one["id"], status=one["metadata"]["runbook"]["status"], execution=one["execution_count"])
    save(folder.path / f"{notebook}.ipynb", cells)
    good = all(one["verdict"] != "FAIL" for one in checks)
    if mode == "headless":
        error = "" if good else "CheckFailed"
        record("notebook-end", status="passed" if good else "check failed", seconds=1.5, error=error)
    return good


def command(*arguments: str) -> tuple[int, str]:
    """A verb of `runbook` in this process: exit code and what was printed; errors of ours as `main` says them."""
    done = CliRunner().invoke(app, list(arguments))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        if not isinstance(done.exception, RunbookError):
            raise done.exception
        return 3, str(done.exception)
    return done.exit_code, done.output


def reopen(path: Path, mode: str = "headless") -> RunFolder:
    """A sealed run made open again, as somebody would who wants to change it and seal it anew."""
    for _, file in entries(path):
        file.chmod(0o644)
    about = {"run": path.name, "environment": "lab", "mode": mode, "opened": datetime.now(UTC).isoformat()}
    (path / MARK).write_bytes(as_json(about))
    return RunFolder(path)
