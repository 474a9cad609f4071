"""A cell that prints without end: what is kept of it, and what is said of the rest."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Any

import nbformat
import pytest

from runbook_lib.checks import MIME_TYPE
from runbook_lib.evidence.folder import RunFolder
from runbook_lib.evidence.verify import verify
from runbook_lib.runs import bounds
from runbook_lib.runs.bounds import Bounds
from runbook_lib.runs.plan import Step
from runbook_lib.runs.run import execute
from tests import notebooks
from tests.test_resilience import eventually


def stream(text: str, name: str = "stdout") -> dict[str, Any]:
    """A message of a kernel."""
    return {"msg_type": "stream", "content": {"name": name, "text": text}}


def display(**data: Any) -> dict[str, Any]:
    """A message of a kernel that displays something."""
    return {"msg_type": "display_data", "content": {"data": data}}


def kept(of: Bounds, *texts: str) -> str:
    """What the record holds of a stream in the end."""
    messages = [stream(text) for text in texts]
    here = "".join(message["content"]["text"] for message in messages if of.admit(message))
    return here + "".join(text for _, text in of.rest())


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that a test can reach."""
    for name, value in {"FIRST": 100, "LAST": 40, "LINE": 20, "DISPLAYED": 50}.items():
        monkeypatch.setattr(bounds, name, value)


def test_what_fits_is_kept_as_it_is(small: None) -> None:
    assert kept(Bounds(), "a" * 60 + "\n", "b" * 38 + "\n") == "a" * 60 + "\n" + "b" * 38 + "\n"


def test_of_more_the_beginning_and_the_last_lines_are_kept_and_the_rest_is_counted(small: None) -> None:
    lines = [f"line {number:03}\n" for number in range(100)]  # of 9 characters
    said = kept(Bounds(), *lines)
    first, _, last = said.partition("\n[")
    assert first == "".join(lines[: len(first) // 9])
    assert 100 <= len(first) < 120
    count, _, last = last.partition(" characters that this cell printed are left out here]\n")
    assert last == "".join(lines[-(len(last) // 9) :])
    assert 0 < len(last) <= 40
    assert len(first) + int(count) + len(last) == 900


def test_no_line_is_cut_in_two_for_half_a_secret_is_not_known_as_one(small: None) -> None:
    said = kept(Bounds(), "x" * 95 + "\nthe secret", " is planted\n", *["more\n"] * 30)
    assert "the secret is planted" in said or "the secret" not in said
    said = kept(Bounds(), "y" * 300, "\n" + "z" * 300 + "\n")
    assert "y" not in said
    assert "z" not in said


def test_what_was_left_out_for_a_moment_comes_back_when_it_is_the_end(small: None) -> None:
    assert kept(Bounds(), "x" * 99 + "\n", "the end\n") == "x" * 99 + "\nthe end\n"


def test_streams_are_counted_by_themselves(small: None) -> None:
    of = Bounds()
    assert of.admit(stream("x" * 99 + "\n"))
    assert of.admit(stream("an error\n", "stderr"))
    assert not of.admit(stream("y" * 99 + "\n"))
    assert [name for name, _ in of.rest()] == ["stdout"]


def test_what_a_program_clears_makes_room(small: None) -> None:
    of = Bounds()
    for number in range(50):
        assert of.admit({"msg_type": "clear_output", "content": {"wait": True}})
        assert of.admit(stream(f"{number} of 50 done\n"))
    assert list(of.rest()) == []


def test_displays_are_bounded_and_checks_are_always_kept(small: None) -> None:
    of = Bounds()
    assert of.admit(display(**{"text/plain": "x" * 40}))
    assert not of.admit(display(**{"text/plain": "x" * 40}))
    assert of.admit(display(**{MIME_TYPE: {"verdict": "FAIL"}, "text/plain": "x" * 400}))
    assert list(of.rest()) == [("stderr", "\n[1 output of this cell left out]\n")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """An open run."""
    monkeypatch.setenv("RUNBOOK_OUTPUTS", str(tmp_path / "outputs"))
    run = RunFolder.create("lab", "headless")
    monkeypatch.setenv("RUNBOOK_RUN", str(run.path))
    return run


def test_the_record_of_a_cell_that_prints_much_is_short_and_says_so(folder: RunFolder, tmp_path: Path) -> None:
    source = "for number in range(400_000): print(f'line {number:07}', 'x' * 20)"
    step = Step(notebooks.notebook(tmp_path / "step.ipynb", source, "print('after')"))
    output = folder.path / "step.ipynb"
    assert execute(step, output, {}).ok
    assert output.stat().st_size < 2 * bounds.FIRST
    said, after = (
        "".join(one.text for one in cell.outputs) for cell in nbformat.read(output, 4).cells if cell.cell_type == "code"
    )
    assert after == "after\n"
    assert said.startswith("line 0000000 ")
    assert "characters that this cell printed are left out here]\nline " in said
    assert said.endswith(f"line 0399999 {'x' * 20}\n")


def test_a_cell_that_prints_for_ever_is_stopped_by_a_signal_and_its_record_verifies(
    folder: RunFolder, tmp_path: Path
) -> None:
    notebooks.notebook(tmp_path / "step.ipynb", "while True: print('x' * 100)", "print('never')")
    output = folder.path / "step.ipynb"
    process = subprocess.Popen(
        [*notebooks.PAPERMILL, "--autosave-cell-every", "1", str(tmp_path / "step.ipynb"), str(output)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        eventually(lambda: output.exists() and output.stat().st_size > bounds.FIRST, 120)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
    finally:
        process.kill()
    assert notebooks.statuses(output) == ["interrupted", "not run"]
    assert bounds.FIRST < output.stat().st_size < 3 * bounds.FIRST
    assert verify(folder.path).state == "unsealed"
