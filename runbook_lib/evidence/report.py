"""What do people read of a run? One self-contained HTML file: no script, no network, nothing of a notebook but text."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ..display import plural
from . import approval, signoff
from .outcomes import PASSED, SKIPPED
from .record import Cell, Notebook, Record, text

TEMPLATES = Path(__file__).resolve().parent / "templates"
PNG = b"\x89PNG\r\n\x1a\n"
CALL = ("at", "notebook", "service", "operation", "region", "status", "error", "request_id")  # what is said of a call
SQL = ("at", "notebook", "database", "statement")  # and of a statement that changed something
LONGEST = 60  # lines of an output that the report shows; the notebook has all of them


@dataclass(frozen=True)
class Bar:
    """One notebook on the timeline; left and width in per cent of the whole run."""

    name: str
    status: str
    started: str
    seconds: float
    left: float
    width: float


@dataclass(frozen=True)
class Shown:
    """One output of a cell, as text, and as a picture where it is one."""

    cell: str
    text: str
    png: str  # base64, or ''


@dataclass(frozen=True)
class Compared:
    """One comparison that is no check."""

    at: str
    notebook: str
    what: str
    sides: str
    ok: bool
    reason: str


def report(path: Path, run: dict[str, Any], hashes: dict[str, str]) -> str:
    """The report of a run folder, from what its statement will say and from its events and notebooks."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    record = Record.read(path)
    page = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    page.filters["plainly"] = plainly
    page.filters["utc"] = utc
    page.filters["address"] = address
    page.filters["parts"] = parts
    checks = [(notebook, check) for notebook in run["notebooks"] for check in _checks(record, notebook)]
    asked = [check for _, check in checks if check["verdict"] != "NOT ASKED"]
    compared = list(_comparisons(record))
    return page.get_template("report.html").render(
        run=run,
        passed=run["verdict"] == PASSED,
        held=sum(check["verdict"] == "PASS" for check in asked),
        asked=len(asked),
        checks=checks,
        failures=list(_failures(run, checks, compared)),
        compared=compared,
        statements=[_fields(event, SQL) for event in record.of_kind("sql") if event.get("changes")],
        bars=_bars(run["notebooks"]),
        plan=_plan(path),
        signatures=signoff.signatures(path, "plan.json"),
        changes=[_fields(call, CALL) for call in record.of_kind("aws-call") if call.get("changes")],
        calls=sorted(record.calls().items()),
        outputs=[(name, list(_outputs(notebook))) for name, notebook in record.executed.items()],
        hashes=hashes,
        plural=plural,
    )


def plainly(value: Any) -> str:
    """A value of a check for people: text as it is, everything else as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def address(name: str) -> str:
    """Where a file of the folder is, as a link has it: no name is a scheme, such as `javascript:`."""
    return urllib.parse.quote(os.fsencode(name))


def parts(name: str) -> list[str]:
    """The words of a long name: a line may end after each."""
    return re.split(r"(?<=[_/])|(?<=[a-z])(?=[A-Z])", name)


def utc(value: str | None) -> str:
    """A stored time, to the second."""
    return datetime.fromisoformat(value).strftime("%Y-%m-%d %H:%M:%S UTC") if value else "not known"


def _checks(record: Record, notebook: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The notebook's checks with the cell that shows each, and with the reason that the events keep."""
    executed = record.executed.get(notebook["name"])
    cells = {check["name"]: cell.id for cell in executed.cells for check in cell.checks} if executed else {}
    reasons = {event["name"]: event.get("reason", "") for event in record.of(notebook["name"]) if "verdict" in event}
    for check in notebook["checks"]:
        link = f"{address(notebook['name'])}.ipynb#cell-id={cells[check['name']]}" if check["name"] in cells else ""
        yield {**check, "reason": reasons.get(check["name"], ""), "link": link}


def _fields(event: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Some fields of an event, '' for what it has not; of what a command of the terminal did, the command."""
    return {**{name: event.get(name) or "" for name in names}, "notebook": _whose(event)}


def _whose(event: dict[str, Any]) -> str:
    return str(event.get("notebook") or event.get("command") or "")


def _comparisons(record: Record) -> Iterator[Compared]:
    """What comparisons of files, and of tables from the command line, say of themselves in notes."""
    for event in record.of_kind("note"):
        value = event.get("value")
        if not isinstance(value, dict):  # anybody may have written a note by that name
            continue
        at, notebook = event["at"], _whose(event)
        match event.get("key"), value:
            case "files compared", {"ok": ok, "level": level, "reason": reason, "source": one, "other": other}:
                sides = ", ".join(str(side.get("label", "")) for side in (one, other) if isinstance(side, dict))
                yield Compared(at, notebook, f"files, level {level}", sides, bool(ok), str(reason))
            case "tables compared", {"ok": ok, "method": method, "reason": reason, "source": one, "target": other}:
                yield Compared(at, notebook, f"tables, by {method}", f"{one}, {other}", bool(ok), str(reason))


def _failures(
    run: dict[str, Any], checks: list[tuple[dict[str, Any], dict[str, Any]]], compared: list[Compared]
) -> Iterator[tuple[str, str]]:
    """What failed and why: checks, then what no check was asked of, then notebooks that ended for another reason."""
    failed = {notebook["name"] for notebook, check in checks if check["verdict"] == "FAIL"}
    for notebook, check in checks:
        if check["verdict"] == "FAIL":
            yield f"{notebook['name']}: {check['name']}", check["reason"]
    for one in compared:
        if not one.ok and one.notebook not in failed:
            yield f"compared: {one.what}", one.reason
    for notebook in run["notebooks"]:
        if notebook["status"] not in (PASSED, SKIPPED, "check failed", "not run"):
            yield f"{notebook['name']}: {notebook['status']}", notebook["error"] or "the record has no word about why"


def _bars(notebooks: list[dict[str, Any]]) -> list[Bar]:
    ran = [n for n in notebooks if n["started"] and n["ended"] and n["status"] not in (SKIPPED, "not run")]
    if not ran:
        return []
    times = [(datetime.fromisoformat(n["started"]), datetime.fromisoformat(n["ended"])) for n in ran]
    first, last = min(began for began, _ in times), max(ended for _, ended in times)
    whole = max((last - first).total_seconds(), 0.001)
    return [
        Bar(
            n["name"], n["status"], n["started"], (ended - began).total_seconds(),
            round(100 * (began - first).total_seconds() / whole, 2),
            round(max(100 * (ended - began).total_seconds() / whole, 0.5), 2),
        )
        for n, (began, ended) in zip(ran, times, strict=True)
    ]  # fmt: skip


def _plan(path: Path) -> dict[str, Any] | None:
    file = path / "plan.json"
    return approval.read_plan(file) if file.exists() else None


def _outputs(notebook: Notebook) -> Iterator[Shown]:
    """What the cells showed, but for the checks, which have a table of their own."""
    for cell in notebook.cells:
        yield from _cell_outputs(cell)


def _cell_outputs(cell: Cell) -> Iterator[Shown]:
    for output in cell.outputs:
        data = output.get("data", {})
        said = text(data.get("text/plain", "")) or text(output.get("text", ""))
        if cell.checks or not (said or "image/png" in data):
            continue
        lines = said.splitlines()
        if len(lines) > LONGEST:
            lines = [*lines[:LONGEST], f"… and {len(lines) - LONGEST:,} more lines in the notebook"]
        yield Shown(cell.id, "\n".join(lines), _picture(text(data.get("image/png", ""))))


def _picture(encoded: str) -> str:
    """Base64 of what really is a PNG, written anew; ''."""
    try:
        raw = base64.b64decode(encoded)
    except binascii.Error:
        return ""
    return base64.b64encode(raw).decode() if raw.startswith(PNG) else ""
