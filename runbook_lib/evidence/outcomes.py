"""How did each notebook of a run end, and the run as a whole, judged from what the record holds?"""

from __future__ import annotations

from typing import Any

from . import cells
from .files import SOURCES, sha256
from .record import Notebook, Record, body, latest

KILLED = "killed"  # it began and nothing says that it ended
PASSED, NOT_RUN = "passed", "not run"
SKIPPED = "skipped"  # by a resumed run: an earlier one finished it, and its end still holds


def outcomes(record: Record, mode: str) -> list[dict[str, Any]]:
    """One entry a notebook: how it ended, its hashes, its checks; for interactive work also what deviated."""
    return [_outcome(record, name, mode) for name in record.names()]


def _outcome(record: Record, name: str, mode: str) -> dict[str, Any]:
    executed, source = record.executed.get(name), record.sources.get(name)
    said = interactive_status(executed) if mode == "interactive" else headless_status(record, name)
    seen = executed.checks if executed else record.checks(name)
    own = record.of(name)
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
    if mode == "interactive" and executed:
        entry["deviations"] = cells.interactive(source, executed, own)
    return entry


def headless_status(record: Record, name: str) -> str:
    """As the runner wrote when the notebook ended; `killed` when it began and never came to that."""
    own = record.of(name)
    ended = [event for event in own if event.get("kind") == "notebook-end"]
    if ended:
        return str(ended[-1]["status"])
    return KILLED if any(event.get("kind") == "notebook-start" for event in own) else NOT_RUN


def interactive_status(executed: Notebook | None) -> str:
    """As the notebook itself shows: the last verdict of each check, exceptions, and cells that never ran."""
    if executed is None or not any(cell.count for cell in executed.cells):
        return NOT_RUN
    if any(check["verdict"] == "FAIL" for check in latest(executed.checks).values()):
        return "check failed"
    if executed.error:
        return "failed"
    return "incomplete" if executed.unfinished else PASSED


def verdict(notebooks: list[dict[str, Any]]) -> str:
    """Of the whole run: `passed`, or how the first notebook ended that did not; `incomplete` when some were not run."""
    ends = [entry["status"] for entry in notebooks]
    bad = [status for status in ends if status not in (PASSED, SKIPPED, NOT_RUN)]
    if bad or not set(ends) - {NOT_RUN}:
        return bad[0] if bad else NOT_RUN
    return "incomplete" if NOT_RUN in ends else PASSED
