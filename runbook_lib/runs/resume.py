"""What of an earlier run is finished, does it still hold, and where does the work go on?

Between notebooks, never between cells. What is finished is looked at again before it is skipped: its cells tagged
`postcondition`, with the cells that these need, in a kernel that may not change anything.
"""

from __future__ import annotations

import ast
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from ..errors import NotFound, SettingsError
from ..evidence.events import Events
from ..evidence.folder import ONLY_LOOKING, RunFolder, outputs
from ..redaction import MASK, masked
from ..settings import settings_hash
from .plan import Step, chosen
from .run import execute

REVERIFIED = "reverified"  # the folder, in that of the run, with the notebooks that only look


@dataclass(frozen=True)
class Earlier:
    """An earlier run, as its record has it."""

    run_id: str
    parameters: dict[str, Any]
    notebooks: tuple[str, ...]
    sources: dict[str, str]
    settings: str
    finished: frozenset[str]

    def steps(self) -> list[Step]:
        """Its notebooks, as they are now."""
        return chosen(list(self.notebooks))

    def changes(self, parameters: dict[str, Any]) -> list[str]:
        """What is not as it was: a notebook, the environment's file, a parameter; as sentences."""
        said = [f"{step.name} was edited" for step in self.steps() if self.sources.get(step.name) != step.source()]
        if self.settings != settings_hash(self.parameters["environment"]):
            said.append(f"the file of the environment {self.parameters['environment']!r} was edited")
        for name in sorted(parameters.keys() | self.parameters.keys()):
            before, now = self.parameters.get(name), parameters.get(name, self.parameters.get(name))
            if before != now and (not is_masked(before) or before != masked(now, share=True)):
                said.append(f"{name} was {before!r} and is {now!r}")
        return said

    def readable(self, given: dict[str, Any]) -> dict[str, Any]:
        """The parameters that its record keeps; `SettingsError` names masked ones that are not given again."""
        lost = [name for name, value in self.parameters.items() if is_masked(value) and name not in given]
        if lost:
            again = " ".join(f"-p {name}=…" for name in lost)
            raise SettingsError(f"the record of run {self.run_id} keeps a mask for {', '.join(lost)}: add {again}")
        return {name: value for name, value in self.parameters.items() if name not in given}


def is_masked(value: Any) -> bool:
    """Does a value of a record stand for another one, that was not written down?"""
    return MASK in str(value)


def earlier(run: str) -> Earlier:
    """A run by its id or folder; `NotFound` names the latest ones."""
    folder = Path(run) if Path(run, "events.jsonl").is_file() else outputs() / run
    events = list(Events(folder / "events.jsonl").read())
    start = next((event for event in events if event["kind"] == "run-start"), None)
    if start is None:
        known = sorted((path.parent.name for path in outputs().glob("*/events.jsonl")), reverse=True)[:3]
        raise NotFound(
            f"There is no headless run {run!r} to resume. The latest are: {', '.join(known) or 'none'}. `runbook runs` "
            "lists all; one that was stepped through in JupyterLab goes on there."
        )
    ends = {event["notebook"]: event["status"] for event in events if event["kind"] == "notebook-end"}
    return Earlier(
        folder.name, start["parameters"], tuple(start["notebooks"]), start["sources"], start["settings"],
        frozenset(name for name, status in ends.items() if status in ("passed", "skipped")),
    )  # fmt: skip


def unchanged(before: Earlier, parameters: dict[str, Any]) -> None:
    """`SettingsError` when anything that the earlier run ran from has changed since."""
    changes = before.changes(parameters)
    if changes:
        raise SettingsError(
            f"run {before.run_id} cannot be resumed: {'; '.join(changes)}. What it finished was done by other sources "
            "or with other parameters. Undo that, or start the whole run afresh: add --afresh."
        )


class Verified:
    """Asked of each notebook of a resumed run: why is it skipped? It is not, when that is ''."""

    def __init__(self, before: Earlier, parameters: dict[str, Any], folder: RunFolder) -> None:
        self._before, self._parameters, self._folder = before, parameters, folder

    def __call__(self, step: Step) -> str:
        """Look at a finished notebook's postconditions again; KeyboardInterrupt when a signal comes meanwhile."""
        done = f"finished in run {self._before.run_id}"
        if step.name not in self._before.finished:
            return ""
        only, ids = looking(step)
        if not ids:
            self._say(step, "skipped", [], f"{done}; it has no postcondition that can be looked at alone")
            return f"{done}; it has no postcondition that can be looked at alone"
        path = self._folder.path / REVERIFIED / f"{step.name}.reverify.ipynb"
        path.parent.mkdir(exist_ok=True)
        path.write_text(nbformat.writes(only) + "\n", encoding="utf-8")
        os.environ[ONLY_LOOKING] = "1"
        try:
            outcome = execute(step, path, self._parameters, source=path)
        finally:
            del os.environ[ONLY_LOOKING]
        if outcome.status == "interrupted":
            raise KeyboardInterrupt
        if not outcome.ok:
            self._say(step, "run again", ids, f"{done}, but its end does not hold any more: {outcome.error}")
            return ""
        why = f"{done}, and its end still holds: {', '.join(ids)}"
        self._say(step, "skipped", ids, why)
        return why

    def _say(self, step: Step, decision: str, cells: list[str], reason: str) -> None:
        self._folder.events("resume", notebook=step.name, decision=decision, cells=cells, reason=reason)


def looking(step: Step) -> tuple[Any, list[str]]:
    """A notebook of its postconditions with the cells that these need, and the postconditions' ids.

    A postcondition that needs a cell tagged `act` cannot be looked at alone and is not among them.
    """
    notebook = nbformat.read(step.path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    names = [_names(cell.source) for cell in cells]
    kept: set[int] = set()
    ids = []
    for index, cell in enumerate(cells):
        if "postcondition" in _tags(cell):
            needed = _needed(index, names)
            if not any("act" in _tags(cells[one]) for one in needed):
                kept |= needed
                ids.append(cell["id"])
    kept |= {index for index, cell in enumerate(cells) if "parameters" in _tags(cell)}
    notebook.cells = [nbformat.from_dict({**cells[index], "outputs": []}) for index in sorted(kept)]
    return notebook, ids


def _tags(cell: Any) -> list[str]:
    tags: list[str] = cell.metadata.get("tags", [])
    return tags


def _needed(index: int, names: list[tuple[set[str], set[str]]]) -> set[int]:
    """A cell and those before it that last gave a name to what it uses, and what these use."""
    needed, open_ends = set(), [index]
    while open_ends:
        cell = open_ends.pop()
        if cell in needed:
            continue
        needed.add(cell)
        for name in names[cell][0]:
            giving = next((one for one in range(cell - 1, -1, -1) if name in names[one][1]), None)
            if giving is not None:
                open_ends.append(giving)
    return needed


def _names(source: str) -> tuple[set[str], set[str]]:
    """The names that a cell uses, and those that it gives."""
    used: set[str] = set()
    given: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else given).add(node.id)
        elif isinstance(node, ast.alias):
            given.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            given.add(node.name)
    return used, given
