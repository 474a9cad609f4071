"""Which runs are there, and how did each end? Reads one small file a run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .files import ENVELOPE, RUN
from .folder import MARK


@dataclass(frozen=True)
class Listed:
    """One run as the table shows it; counts are None while it is open."""

    run: str
    state: str  # sealed, open, plan, unsealed, renamed: its folder is not called as its statement says, broken
    verdict: str  # of the run; '' while it is open
    mode: str
    environment: str
    account: str
    started: str
    operator: str
    notebooks: int | None = None
    held: int | None = None
    asked: int | None = None


def runs(outputs: Path) -> Iterator[Listed]:
    """Every run folder, newest first."""
    for path in sorted(outputs.glob("*/"), reverse=True):
        if (path / RUN).is_file() or (path / MARK).is_file():
            yield listed(path)


def statements(outputs: Path) -> Iterator[dict[str, Any]]:
    """What every sealed run says of itself, newest first; not verified."""
    for path in sorted(outputs.glob(f"*/{RUN}"), reverse=True):
        run: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["predicate"]
        yield run


def listed(path: Path) -> Listed:
    """One run; what it says of itself, not verified. One whose file cannot be read is said to be broken."""
    try:
        return _open(path) if (path / MARK).is_file() else _sealed(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return Listed(path.name, "broken", f"cannot be read: {type(error).__name__}", "", "", "", "", "")


def _open(path: Path) -> Listed:
    about = json.loads((path / MARK).read_text(encoding="utf-8"))
    state = "plan" if about["mode"] == "plan" else "open"
    return Listed(path.name, state, "", about["mode"], about["environment"], "", about["opened"], "")


def _sealed(path: Path) -> Listed:
    run: dict[str, Any] = json.loads((path / RUN).read_text(encoding="utf-8"))["predicate"]
    verdicts = [check["verdict"] for notebook in run["notebooks"] for check in notebook["checks"]]
    state = "sealed" if (path / ENVELOPE).exists() else "unsealed"
    return Listed(
        run=run["run"],
        state=state if run["run"] == path.resolve().name else "renamed",
        verdict=run["verdict"],
        mode=run["mode"],
        environment=run["environment"],
        account=run["account"] or "",
        started=run["started"],
        operator=run["operator"],
        notebooks=len(run["notebooks"]),
        held=verdicts.count("PASS"),
        asked=len(verdicts) - verdicts.count("NOT ASKED"),
    )
