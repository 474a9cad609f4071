"""References that prove nothing are refused: never executed, or made from other sources."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from runbook_lib.runs.plan import steps
from tests.references import stale


def changed(tmp_path: Path, change: str) -> Path:
    notebook = nbformat.read(steps()[0].path, as_version=4)
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    if change == "outputs":
        cell.execution_count = None
    if change == "source":
        cell.source += "\n"
    if change == "prose":
        notebook.cells[0].source += "\nMore words."
    path = tmp_path / "changed.ipynb"
    nbformat.write(notebook, path)
    return path


def test_the_stored_references_are_fresh() -> None:
    assert {step.name: stale(step.path) for step in steps()} == {step.name: "" for step in steps()}


def test_a_reference_whose_cells_were_not_executed_is_refused(tmp_path: Path) -> None:
    assert "never executed: parameters" in stale(changed(tmp_path, "outputs"))


def test_a_reference_of_other_sources_is_stale(tmp_path: Path) -> None:
    assert "sources changed" in stale(changed(tmp_path, "source"))


def test_better_prose_does_not_make_a_reference_stale(tmp_path: Path) -> None:
    assert stale(changed(tmp_path, "prose")) == ""


@pytest.mark.parametrize("step", steps(), ids=lambda step: step.name)
def test_every_notebook_follows_the_house_style(step: object) -> None:
    notebook = nbformat.read(step.path, as_version=4)  # type: ignore[attr-defined]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    tagged = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    assert len(tagged[0].source.splitlines()) <= 6, "at most six names"
    assert all("#" in line for line in tagged[0].source.splitlines()), "each name has its comment"
    assert all(len(cell.source.splitlines()) <= 5 for cell in code if cell is not tagged[0])
    prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    assert sum(text.startswith("# ") for text in prose) == 1
    assert "| Before you start | Time | Undo |" in prose[0]
    assert all(not cell["id"].isdigit() and len(cell["id"]) < 30 for cell in notebook.cells)
    assert "/work/" not in nbformat.writes(notebook) and "/tmp/" not in nbformat.writes(notebook)
