"""How did each notebook of a run end, and the run as a whole, judged from what the record holds?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from . import cells
from .files import SOURCES, sha256
from .record import Notebook, Record, body, latest

KILLED = "killed"  # it began and nothing says that it ended
PASSED, NOT_RUN = "passed", "not run"
STOPPED = ("interrupted", "timed out", "kernel died")  # a cell, at any of its instructions
SKIPPED = "skipped"  # by a resumed run: an earlier one finished it, and its end still holds


def outcomes(record: Record, mode: str) -> list[dict[str, Any]]:
    """One entry a notebook: how it ended, its hashes, its checks; for interactive work also what deviated."""
    return [_outcome(record, name, mode) for name in record.names()]


def _outcome(record: Record, name: str, mode: str) -> dict[str, Any]:
    executed, source, own = record.executed.get(name), record.sources.get(name), record.of(name)
    if mode == "interactive":  # a person may not have saved the notebook; the events are always there
        said = interactive_status(executed, source, own)
        seen: Iterable[dict[str, Any]] = latest(record.checks(name)).values()
    else:
        said = headless_status(record, name)
        whole = executed is not None and not behind(executed, said)
        seen = executed.checks if executed and whole else record.checks(name)
    entry: dict[str, Any] = {
        "name": name,
        "status": said,
        "seconds": record.last("notebook-end", notebook=name).get("seconds"),
        "started": own[0]["at"] if own else None,
        "ended": own[-1]["at"] if own else None,
        "error": record.last("notebook-end", notebook=name).get("error") or (executed.error if executed else ""),
        "source": sha256(record.path / SOURCES / f"{name}.ipynb") if source else None,
        "executed": sha256(record.path / f"{name}.ipynb") if executed else None,
        "knobs": record.last("open", notebook=name).get("knobs", {}),
        "checks": [body(check) for check in seen],
    }
    if mode == "interactive":
        entry["deviations"] = cells.interactive(source, executed, own)
    return entry


def headless_status(record: Record, name: str) -> str:
    """As the runner wrote when the notebook ended; `killed` when it began and never came to that."""
    own = record.of(name)
    ended = [event for event in own if event.get("kind") == "notebook-end"]
    if ended:
        return str(ended[-1]["status"])
    return KILLED if any(event.get("kind") == "notebook-start" for event in own) else NOT_RUN


def behind(executed: Notebook, status: str) -> bool:
    """May events say more than the notebook shows? They are written first, and something ended what came after.

    Its runner was killed, or the disk was full; or its kernel was stopped between an event and what it shows of it.
    """
    return status == KILLED or status in STOPPED or (status != PASSED and executed.status == "running")


def interactive_status(executed: Notebook | None, source: Notebook | None, events: list[dict[str, Any]]) -> str:
    """The last verdict of each check, then how the last run of each cell ended that is still in the notebook."""
    ran = [(str(event["cell"]), str(event["status"])) for event in events if event.get("kind") == "cell"]
    ends = dict(ran)
    if not ran and not (executed and any(cell.count for cell in executed.cells)):
        return NOT_RUN
    checks = latest(event for event in events if event.get("kind") == "check")
    if any(check["verdict"] == "FAIL" for check in checks.values()):
        return "check failed"
    if ran and ran[-1][1] == "running":  # nothing came after it, in whatever cell it was
        return KILLED
    if executed is None:
        return "incomplete"
    last = [ends.get(cell.id) for cell in executed.cells]
    bad = next((said for said in last if said in ("running", "failed", "interrupted")), None)
    if bad is not None:
        return KILLED if bad == "running" else bad
    if executed.error:
        return "failed"
    kept = {cell.id for cell in executed.cells}
    left_out = any(cell.runs and cell.id not in kept for cell in (source.cells if source else ()))
    return "incomplete" if executed.unfinished or left_out else PASSED


def verdict(notebooks: list[dict[str, Any]]) -> str:
    """Of the whole run: `passed`, or how the first notebook ended that did not; `incomplete` when some were not run."""
    ends = [entry["status"] for entry in notebooks]
    bad = [status for status in ends if status not in (PASSED, SKIPPED, NOT_RUN)]
    if bad or not set(ends) - {NOT_RUN}:
        return bad[0] if bad else NOT_RUN
    return "incomplete" if NOT_RUN in ends else PASSED
