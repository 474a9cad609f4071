"""Which notebooks are the runbook, in which order, and what their parameters are."""

from __future__ import annotations

import difflib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import nbformat

from ..errors import SettingsError
from ..settings import project_root


@dataclass(frozen=True)
class Step:
    """One notebook of the runbook."""

    path: Path

    @property
    def name(self) -> str:
        """Its name without the ending: 02_run_datasync_task."""
        return self.path.stem

    def title(self) -> str:
        """Its first heading."""
        notebook = nbformat.read(self.path, as_version=4)
        first = next((c.source for c in notebook.cells if c.cell_type == "markdown"), "")
        return first.partition("\n")[0].lstrip("# ") if first else ""

    def source(self) -> str:
        """The SHA-256 of all that is executed: the code cells with their ids and tags, in order."""
        cells = [
            [cell["id"], cell.source, cell.metadata.get("tags", [])]
            for cell in nbformat.read(self.path, as_version=4).cells
            if cell.cell_type == "code"
        ]
        return hashlib.sha256(json.dumps(cells).encode()).hexdigest()


def steps() -> list[Step]:
    """Every notebook of the runbook, in order."""
    return [Step(path) for path in sorted((project_root() / "notebooks").glob("[0-9][0-9]_*.ipynb"))]


def chosen(names: list[str]) -> list[Step]:
    """The steps that names mean ('02', '02_run_datasync_task' or a path), in the runbook's order; none: all."""
    every = steps()
    if not names:
        return every
    wanted = set()
    for name in names:
        short = Path(name).name.removesuffix(".ipynb")
        fitting = [step for step in every if step.name == short or step.name.startswith(f"{short}_")]
        if len(fitting) != 1:
            known = [step.name for step in every]
            close = difflib.get_close_matches(short, known, 1)
            raise SettingsError(
                f"there is no notebook {name!r}. "
                + (f"Did you mean {close[0]}?" if close else f"Known: {', '.join(known)}.")
            )
        wanted.add(fitting[0].name)
    return [step for step in every if step.name in wanted]
