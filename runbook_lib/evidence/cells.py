"""Was exactly this notebook executed: every cell of its source, once, in order, and nothing else?"""

from __future__ import annotations

import ast
from collections import Counter
from typing import Any

from ..checks import MIME_TYPE
from .record import INJECTED, Cell, Notebook, body, latest, text


def deviations(source: Notebook, executed: Notebook) -> list[str]:
    """How an executed notebook differs from its source, in sentences; what papermill adds is no difference."""
    wanted, found = source.own, executed.own
    said = [f"the cell {name!r} appears {count} times" for name, count in _repeated(found)]
    before, after = [cell.id for cell in wanted], [cell.id for cell in found]
    said += [f"the cell {name!r} of the source is missing" for name in before if name not in after]
    said += [f"the cell {name!r} is not in the source" for name in after if name not in before]
    if [name for name in after if name in before] != before and sorted(after) == sorted(before):
        said.append("its cells are in another order than the source's")
    originals = {cell.id: cell for cell in wanted}
    for cell in found:
        original = originals.get(cell.id)
        if original is not None and (original.kind, original.source) != (cell.kind, cell.source):
            said.append(f"the text of the cell {cell.id!r} is not the source's")
    return said


def foreign(source: Notebook, looked: Notebook) -> list[str]:
    """Cells of a notebook that only looks which its source does not have like that."""
    originals = {cell.id: cell.source for cell in source.own}
    return [
        f"the cell {cell.id!r} that was looked at is not the source's"
        for cell in looked.own
        if originals.get(cell.id) != cell.source
    ]


def _repeated(cells: list[Cell]) -> list[tuple[str, int]]:
    return [(name, count) for name, count in Counter(cell.id for cell in cells).items() if count > 1]


def disorder(executed: Notebook) -> list[str]:
    """What says that cells were run again, run out of order, or left out before one that ran."""
    said, expected = [], 0
    cells = [cell for cell in executed.cells if cell.runs]
    ran = [number for number, cell in enumerate(cells) if cell.count is not None]
    last = ran[-1] if ran else -1
    for number, cell in enumerate(cells):
        if cell.count is None:
            if number < last:
                said.append(f"the cell {cell.id!r} was never run, though cells after it were")
            continue
        expected += 1
        if cell.count != expected:
            said.append(
                f"the cell {cell.id!r} was run as number {cell.count}, not as {expected}: again or out of order"
            )
            expected = cell.count
    return said


def injected(executed: Notebook, parameters: dict[str, Any]) -> list[str]:
    """What is wrong with the cell that holds the passed parameters: it may only assign what the run was given."""
    said = []
    cells = [(number, cell) for number, cell in enumerate(executed.cells) if INJECTED in cell.tags]
    if len(cells) > 1:
        said.append("more than one cell claims to hold the passed parameters")
    for number, cell in cells:
        before = executed.cells[number - 1].tags if number else ()
        if "parameters" not in before:
            said.append(f"the cell {cell.id!r} with the passed parameters is not behind the parameters cell")
        found = assigned(cell.source)
        if found is None:
            said.append(f"the cell {cell.id!r} with the passed parameters does more than assign values")
        elif {name: value for name, value in parameters.items() if name in found} != found:
            said.append(f"the cell {cell.id!r} assigns other parameters than the run was given")
    return said


def assigned(source: str) -> dict[str, Any] | None:
    """Names and literal values that a cell assigns; None when it does anything else."""
    found = {}
    try:
        for statement in ast.parse(source).body:
            if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Name):
                return None
            found[statement.targets[0].id] = ast.literal_eval(statement.value)
    except (SyntaxError, ValueError):
        return None
    return found


def contradictions(executed: Notebook) -> list[str]:
    """Verdicts that people read otherwise than machines do: text or HTML beside the JSON of the same check."""
    said = []
    for cell in executed.cells:
        for output in cell.outputs:
            data = output.get("data", {})
            if MIME_TYPE not in data:
                continue
            verdict, name = data[MIME_TYPE].get("verdict"), data[MIME_TYPE].get("name")
            first = text(data.get("text/plain", "")).partition("\n")[0]
            shown = text(data.get("text/html", ""))
            if first != f"{verdict}  {name}" or f"<b>{verdict}</b>" not in shown:
                said.append(f"the cell {cell.id!r} shows {first!r}, and its data says {verdict} {name!r}")
    return said


def interactive(source: Notebook | None, executed: Notebook | None, events: list[dict[str, Any]]) -> list[str]:
    """What an auditor should know of a notebook that a person stepped through: edits, re-runs, order, what was left."""
    if executed is None:
        return ["the notebook is not in the run's folder: what its cells showed is not kept"]
    said = deviations(source, executed) if source else ["there is no copy of its source"]
    ends = [event for event in events if event.get("kind") == "cell" and event["status"] != "running"]
    if not ends and not any(cell.count for cell in executed.cells):
        return said + _unended(events)
    runs = [str(event["cell"]) for event in ends]
    said += [f"the cell {name!r} was run {count} times" for name, count in Counter(runs).items() if count > 1]
    order = [cell.id for cell in executed.cells if cell.id in runs]
    first = list(dict.fromkeys(name for name in runs if name in order))
    if first != order:
        said.append(f"its cells were run in the order {', '.join(first)}")
    began = {str(event["cell"]) for event in events if event.get("kind") == "cell"}
    unsaved = [cell.id for cell in executed.unfinished if cell.id in began]
    if unsaved:
        said.append(f"it was not saved after these cells were run: {', '.join(unsaved)}")
    never = [cell.id for cell in executed.unfinished if cell.id not in began]
    if never:
        said.append(f"never run: {', '.join(never)}")
    return said + _unended(events) + unshown(executed, events)


def _unended(events: list[dict[str, Any]]) -> list[str]:
    """Cells that began, and no word says how they ended."""
    pending: Counter[str] = Counter()
    for event in events:
        if event.get("kind") == "cell" and event["status"] != "unseen":
            name, begins = str(event["cell"]), event["status"] == "running"
            pending[name] = pending[name] + 1 if begins else max(0, pending[name] - 1)
    return [
        f"the cell {name!r} began, and nothing says how it ended: its kernel was killed, or the disk was full"
        for name, count in pending.items()
        if count > 0
    ]


def unshown(executed: Notebook, events: list[dict[str, Any]]) -> list[str]:
    """Last verdicts that only the events have."""
    shown = latest(body(check) for check in executed.checks)
    last = latest(body(event) for event in events if event.get("kind") == "check")
    return [
        f"the notebook, as it was saved, does not show the last verdict of the check {name!r}: {check['verdict']}"
        for name, check in last.items()
        if shown.get(name) != check
    ]
