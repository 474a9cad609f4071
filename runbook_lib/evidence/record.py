"""What does a run folder say? Its events and its executed notebooks, read back as plain values with json alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checks import MIME_TYPE
from ..errors import EvidenceError
from .events import Events
from .files import REVERIFIED, SOURCES

INJECTED = "injected-parameters"  # papermill's tag of the cell that holds what was passed
MARKER = "papermill-error-cell-tag"  # papermill's tag of the notes it puts before a cell that failed


@dataclass(frozen=True)
class Cell:
    """One cell of a notebook, as the file has it."""

    id: str
    kind: str  # code, markdown, raw
    source: str
    tags: tuple[str, ...]
    count: int | None  # the execution count; None: never run
    status: str | None  # what our engine wrote: completed, failed, timed out, …; None: another engine ran it
    outputs: tuple[dict[str, Any], ...]

    @property
    def runs(self) -> bool:
        """Is there anything to execute in it?"""
        return self.kind == "code" and bool(self.source.strip())

    @property
    def checks(self) -> list[dict[str, Any]]:
        """The verdicts it shows: name, verdict, expected, seen."""
        return [output["data"][MIME_TYPE] for output in self.outputs if MIME_TYPE in output.get("data", {})]

    @property
    def error(self) -> str:
        """The exception it ended with, or ''."""
        failed = [output for output in self.outputs if output.get("output_type") == "error"]
        return f"{failed[-1].get('ename')}: {failed[-1].get('evalue')}" if failed else ""


@dataclass(frozen=True)
class Notebook:
    """One notebook file."""

    name: str
    cells: tuple[Cell, ...]
    status: str | None = None  # what our engine wrote last; running: it was killed, or could not write any more

    @property
    def checks(self) -> list[dict[str, Any]]:
        """Every verdict it shows, in order."""
        return [check for cell in self.cells for check in cell.checks]

    @property
    def own(self) -> list[Cell]:
        """The cells that come from its source: without what papermill adds."""
        return [cell for cell in self.cells if INJECTED not in cell.tags and MARKER not in cell.tags]

    @property
    def error(self) -> str:
        """The first exception that any cell ended with, or ''."""
        return next((cell.error for cell in self.cells if cell.error), "")

    @property
    def unfinished(self) -> list[Cell]:
        """The cells that should have run and never did."""
        return [cell for cell in self.cells if cell.runs and cell.count is None]


def read_notebook(path: Path) -> Notebook:
    """A notebook file; `EvidenceError` when it is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        cells = tuple(_cell(cell, number) for number, cell in enumerate(found["cells"]))
        return Notebook(path.stem, cells, found.get("metadata", {}).get("runbook", {}).get("status"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EvidenceError(f"{path.name} is not a notebook: {type(error).__name__}") from error


def _cell(cell: dict[str, Any], number: int) -> Cell:
    return Cell(
        id=cell.get("id", f"#{number}"),
        kind=cell["cell_type"],
        source=text(cell["source"]),
        tags=tuple(cell.get("metadata", {}).get("tags", ())),
        count=cell.get("execution_count"),
        status=cell.get("metadata", {}).get("runbook", {}).get("status"),
        outputs=tuple(cell.get("outputs", ())),
    )


def text(value: str | list[str]) -> str:
    """The format of notebooks keeps text whole or as lines."""
    return value if isinstance(value, str) else "".join(value)


@dataclass(frozen=True)
class Record:
    """A run folder, read once."""

    path: Path
    events: tuple[dict[str, Any], ...]
    executed: dict[str, Notebook]
    sources: dict[str, Notebook]
    reverified: dict[str, Notebook]

    @classmethod
    def read(cls, path: Path) -> Record:
        """Everything below a run folder that can be judged; `EvidenceError` when a notebook cannot be read."""
        folders = (path, path / SOURCES, path / REVERIFIED)
        notebooks = (
            {found.stem: read_notebook(found) for found in sorted(folder.glob("*.ipynb"))} for folder in folders
        )
        return cls(path, tuple(Events(path / "events.jsonl").read()), *notebooks)

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """All events of a kind, oldest first."""
        return [event for event in self.events if event.get("kind") == kind]

    def last(self, kind: str, **fields: Any) -> dict[str, Any]:
        """The newest event of a kind that has these fields; {} when there is none."""
        fitting = (e for e in reversed(self.of_kind(kind)) if all(e.get(k) == v for k, v in fields.items()))
        return next(fitting, {})

    def names(self) -> list[str]:
        """The notebooks that were meant to run or were seen, in order."""
        planned = [name for event in self.of_kind("run-start") for name in event.get("notebooks", [])]
        seen = [event["notebook"] for event in self.of_kind("open") if event.get("notebook")]
        return sorted({*planned, *seen, *self.executed})

    def of(self, notebook: str) -> list[dict[str, Any]]:
        """The events of the last time that a notebook was run."""
        own = [event for event in self.events if event.get("notebook") == notebook]
        starts = [number for number, event in enumerate(own) if event.get("kind") == "notebook-start"]
        return own[starts[-1] :] if starts else own

    def checks(self, notebook: str) -> list[dict[str, Any]]:
        """The verdicts of the last time that a notebook was run, as its events say."""
        return [body(event) for event in self.of(notebook) if event.get("kind") == "check"]

    def cells(self, notebook: str) -> dict[str, str]:
        """How each cell of a notebook ended the last time, by its id, as its events say."""
        ends = [event for event in self.of(notebook) if event.get("kind") == "cell"]
        return {str(event["cell"]): str(event["status"]) for event in ends}

    def calls(self, but: Collection[str] = ()) -> Counter[tuple[str, str, bool]]:
        """How often each AWS operation was called: (service, operation, does it change something); not by some."""
        found: Counter[tuple[str, str, bool]] = Counter()
        for event in self.events:
            if event.get("kind") in ("aws-call", "aws-calls") and event.get("notebook") not in but:
                key = (str(event.get("service")), str(event.get("operation")), bool(event.get("changes")))
                found[key] += event.get("count", 1)
        return found

    def maskings(self) -> dict[str, int]:
        """How often each rule masked something."""
        found: Counter[str] = Counter()
        for event in self.of_kind("maskings"):
            found.update(event.get("rules", {}))
        return dict(sorted(found.items()))


def body(check: dict[str, Any]) -> dict[str, Any]:
    """What a verdict is: the part that notebook, events and statement must agree on."""
    return {key: check.get(key) for key in ("name", "verdict", "expected", "seen")}


def latest(checks: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The last verdict of each name."""
    return {str(check["name"]): check for check in checks}
