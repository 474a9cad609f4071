"""What became of each cell? The executed notebook, written whole before and after every cell, with secrets masked.

`metadata.runbook.status` of a code cell is one of CELL_STATUSES, of the notebook one of STATUSES; papermill's own
statuses beside them say the same as far as its words go (failed for all that is not completed, pending for not run).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
from papermill.engines import NotebookExecutionManager

from .. import errors
from ..evidence.written import joined
from ..redaction import masked
from ..settings import PACKAGE_ROOT

CELL_STATUSES = ("not run", "running", "completed", "failed", "timed out", "interrupted", "kernel died")
STATUSES = ("passed", "check failed", "failed", "bug", "timed out", "interrupted", "kernel died", "running")
WHY = {
    "timed out": "a cell did not end in the time it has",
    "interrupted": "interrupted by a signal; what was started at AWS goes on",
    "kernel died": "the kernel died: killed, or out of memory",
}


class Record(NotebookExecutionManager):  # type: ignore[misc]
    """The notebook that runs (`nb`, with its secrets) and the one that is written (`shown`, without)."""

    def __init__(
        self, nb: Any, notebook: str, write: Callable[[Any], None], event: Callable[..., None], **options: Any
    ):
        super().__init__(nb, **options)
        self.notebook = notebook
        self.status, self.error = "running", ""
        self.shown = nbformat.from_dict({**nb, "cells": list(nb.cells)})
        self._write, self._event = write, event
        self._changed = set(range(len(nb.cells)))
        self._counts: dict[int, Counter[str]] = {}
        self._began = 0.0

    def notebook_start(self, **_: Any) -> None:
        """No cell was run: on disk before the kernel starts."""
        self.nb.metadata["runbook"] = {"status": "running"}
        for cell in self.nb.cells:
            cell.metadata.pop("execution", None)
            if cell.cell_type == "code":
                cell.metadata["runbook"] = {"status": "not run"}
        super().notebook_start()

    def cell_start(self, cell: Any, cell_index: int, **_: Any) -> None:
        """A cell runs: on disk before it does."""
        self._began = time.monotonic()
        cell.metadata["runbook"] = {"status": "running"}
        self._event("cell", notebook=self.notebook, cell=cell.get("id"), status="running")
        self._changed.add(cell_index)
        super().cell_start(cell, cell_index)

    def cell_passed_over(self, index: int) -> None:
        """A cell of text: nothing to run."""
        self.nb.cells[index].metadata.papermill["status"] = self.COMPLETED
        self._changed.add(index)
        if self.pbar:
            self.pbar.update(1)

    def cell_ended(self, index: int, status: str) -> None:
        """How a cell ended: on disk when this returns."""
        cell, seconds = self.nb.cells[index], round(time.monotonic() - self._began, 3)
        cell.metadata["runbook"] = {"status": status, "seconds": seconds}
        if status != "completed":
            self.cell_exception(cell)
            self.status, self.error = self._of_notebook(cell, status)
        self._event("cell", notebook=self.notebook, cell=cell.get("id"), status=status, seconds=seconds)
        self._changed.add(index)
        self.cell_complete(cell, index)

    def _of_notebook(self, cell: Any, status: str) -> tuple[str, str]:
        """What a cell that did not complete means for the notebook: a failed check, an answer of ours, or a bug."""
        if status != "failed":
            return status, WHY[status]
        raised = next((output for output in cell.outputs if output.output_type == "error"), None)
        if raised is None:
            return "bug", "a cell failed and did not say why"
        said = masked(f"{raised.ename}: {raised.evalue}")
        if raised.ename == errors.CheckFailed.__name__:
            return "check failed", said
        return "failed" if isinstance(getattr(errors, raised.ename, None), type) else "bug", said

    def interrupted(self) -> None:
        """A signal came between two cells."""
        self.status, self.error = "interrupted", WHY["interrupted"]

    def stopped(self, error: BaseException) -> None:
        """The notebook ended for a reason that is not in a cell, such as a kernel that does not start."""
        unwritten = isinstance(error, (errors.RunbookError, OSError)) and not isinstance(error, TimeoutError)
        if self.status == "running" or unwritten:
            self.status = "failed" if unwritten else "kernel died"
            self.error = masked(f"{type(error).__name__}: {error}")

    def notebook_complete(self, **_: Any) -> None:
        """The last word: what was not run, and how often each rule masked something."""
        self.end_time = self.now()
        if self.status == "running":
            self.status = "passed"
        about = self.nb.metadata.papermill
        about["end_time"] = self.end_time.isoformat()
        about["duration"] = (self.end_time - self.start_time).total_seconds()
        self.nb.metadata["runbook"] = {"status": self.status, "error": self.error}
        self._changed.update(range(len(self.nb.cells)))  # a later cell may have updated what an earlier one displays
        for cell in self.nb.cells:
            if cell.cell_type == "code" and cell.metadata["runbook"]["status"] == "not run":
                self._event("cell", notebook=self.notebook, cell=cell.get("id"), status="not run")
        self.cleanup_pbar()
        self.save()
        self._event("maskings", notebook=self.notebook, rules=dict(sum(self._counts.values(), Counter())))

    def save(self, **_: Any) -> None:
        """Write what is shown, whole; cells that have not changed since the last time are not masked again."""
        for index in sorted(self._changed):
            self._counts[index] = Counter()
            self.shown.cells[index] = _shown(self.nb.cells[index], self._counts[index])
        self._changed.clear()
        self._counts[-1] = Counter()
        self.shown.metadata = nbformat.from_dict(masked(self.nb.metadata, self._counts[-1]))
        for name in ("input_path", "output_path"):
            if self.shown.metadata.papermill.get(name):
                self.shown.metadata.papermill[name] = Path(self.shown.metadata.papermill[name]).name
        self._write(self.shown)
        self.last_save_time = self.now()

    def autosave(self, index: int) -> None:
        """Write what a long cell has said so far, now and then."""
        self._changed.add(index)
        self.autosave_cell()


def _shown(cell: Any, counted: Counter[str]) -> Any:
    """A cell as it is written: streams joined before they are masked, for a secret may be cut in two."""
    cell = dict(cell)
    if cell["cell_type"] == "code":
        cell["outputs"] = [_without_machine_paths(output) for output in joined(cell["outputs"])]
    return nbformat.from_dict(masked(cell, counted))


def _without_machine_paths(output: dict[str, Any]) -> dict[str, Any]:
    """Tracebacks name files: without this machine's folders."""
    if output["output_type"] != "error":
        return output
    home = str(Path.home())
    return {
        **output,
        "traceback": [line.replace(f"{PACKAGE_ROOT}/", "").replace(f"{home}/", "~/") for line in output["traceback"]],
    }
