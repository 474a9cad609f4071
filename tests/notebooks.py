"""Tiny notebooks for tests, and what an auditor reads from an executed one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import nbformat

from runbook_lib.evidence.events import Events

PAPERMILL = [  # `papermill --engine runbook`, without the grammar that nobody here needs: it costs two seconds
    sys.executable,
    "-c",
    "import runpy, sys; sys.modules['rfc3987_syntax'] = None; runpy.run_module('papermill', run_name='__main__')",
    *("--engine", "runbook", "--no-progress-bar"),
]


def notebook(path: Path, *sources: str, **parameters: Any) -> Path:
    """A notebook of code cells called cell-1, cell-2, …, after a cell of parameters when there are any."""
    cells = [nbformat.v4.new_markdown_cell("# A notebook of a test", id="title")]
    if parameters:
        source = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
        cells.append(nbformat.v4.new_code_cell(source, id="parameters", metadata={"tags": ["parameters"]}))
    cells += [nbformat.v4.new_code_cell(source, id=f"cell-{number}") for number, source in enumerate(sources, 1)]
    kernel = {"kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}}
    path.write_text(nbformat.writes(nbformat.v4.new_notebook(cells=cells, metadata=kernel)) + "\n")
    return path


def statuses(path: Path) -> list[str]:
    """What the executed notebook says of each code cell."""
    cells = nbformat.read(path, as_version=4).cells
    return [cell.metadata["runbook"]["status"] for cell in cells if cell.cell_type == "code"]


def status(path: Path) -> str:
    """What the executed notebook says of itself; `running` when nobody came to say how it ended."""
    found: str = nbformat.read(path, as_version=4).metadata.get("runbook", {}).get("status", "running")
    return found


def replied(path: Path) -> list[bool]:
    """Whether the kernel answered for each code cell: what no runner can make up."""
    cells = nbformat.read(path, as_version=4).cells
    return ["shell.execute_reply" in c.metadata.get("execution", {}) for c in cells if c.cell_type == "code"]


def recorded(folder: Path) -> list[str]:
    """The last status of each cell in the events, in order; every line must be whole."""
    events = list(Events(folder / "events.jsonl").read())
    lines = (folder / "events.jsonl").read_text().splitlines()
    assert len(events) == len([line for line in lines if line]), "a torn line"
    found: dict[str, str] = {}
    for event in events:
        if event["kind"] == "cell":
            found[event["cell"]] = event["status"]
    return list(found.values())
