"""Stepping through a notebook leaves a record too: the order, repetitions, edits, and what was running at the end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

from runbook_lib.evidence.folder import RunFolder
from runbook_lib.evidence.kernel import Outgoing
from runbook_lib.runs.jupyter import working_copy
from tests.throwaway import ThrowawayLab


@pytest.fixture(scope="module")
def untouched(lab: ThrowawayLab) -> None:
    """The lab as 00 finds it; these tests only look."""
    lab.reset("00")


@pytest.fixture
def stepped(untouched: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, RunFolder]]:
    """00 in a kernel without our engine, as JupyterLab has it, and its run."""
    run = RunFolder.create("lab", "interactive")
    monkeypatch.setenv("RUNBOOK_RUN", str(run.path))
    notebook = nbformat.read(working_copy(run) / "00_start_here.ipynb", as_version=4)
    notebook.cells = [cell for cell in notebook.cells if cell.cell_type == "code"][:4]
    yield notebook, run


def cells(run: RunFolder) -> list[tuple[Any, ...]]:
    """Each end of a cell: its id, its number, how it ended, whether it was edited."""
    return [
        (event["cell"], event["execution"], event["status"], event["edited"])
        for event in run.events.read()
        if event["kind"] == "cell" and event["status"] != "running"
    ]


def test_order_repetition_and_edits_are_in_the_record(stepped: tuple[Any, RunFolder]) -> None:
    notebook, run = stepped
    again = nbformat.v4.new_code_cell(notebook.cells[2].source)
    edited = nbformat.v4.new_code_cell("rb.identity  # edited")
    pieces = nbformat.v4.new_code_cell(
        "print('AKIAIOS', end='', flush=True); import time; time.sleep(0.3); print('FODNN7EXAMPLE', end='')"
    )
    failing = nbformat.v4.new_code_cell("print('key AKIAIOSFODNN7EXAMPLE', end=''); 1 / 0")
    notebook.cells += [again, edited, pieces, failing]
    with pytest.raises(CellExecutionError):
        NotebookClient(notebook).execute()
    assert cells(run) == [
        ("parameters", 1, "unseen", False),  # it ran before the runbook was opened
        ("open", 2, "completed", False),
        ("identity", 3, "completed", False),
        ("check-account", 4, "completed", False),
        ("identity", 5, "completed", False),
        (None, 6, "completed", True),
        (None, 7, "completed", True),
        (None, 8, "failed", True),
    ]
    assert run.about["mode"] == "interactive"
    assert [output["text"] for output in pieces.outputs] == ["***MASKED***"]
    assert [output["output_type"] for output in failing.outputs] == ["stream", "error"]
    assert "AKIA" not in json.dumps(failing.outputs) and failing.outputs[0]["text"] == "key ***MASKED***"


class Session:
    """A session of a kernel, as far as it sends."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Any]] = []

    def msg(self, kind: str, content: Any, parent: Any = None) -> dict[str, Any]:
        return {"header": {"msg_type": kind}, "parent_header": parent or {}, "content": content}

    def send(self, socket: Any, message: Any, content: Any = None, *more: Any, **options: Any) -> None:
        given = isinstance(message, str)
        self.sent.append((message, content) if given else (message["header"]["msg_type"], message["content"]))


def test_a_secret_that_is_printed_in_pieces_is_not_sent_in_pieces() -> None:
    session = Session()
    send = Outgoing(session)
    say = lambda name, text: send(None, session.msg("stream", {"name": name, "text": text}), ident=b"x")  # noqa: E731
    say("stdout", "one\nAKIA")
    say("stderr", "10%\r20%")
    say("stdout", "IOSFODNN7EXAMPLE")
    assert session.sent == [
        ("stream", {"name": "stdout", "text": "one\n"}), ("stream", {"name": "stderr", "text": "10%\r"})
    ]  # fmt: skip
    send(None, "status", {"execution_state": "idle"})
    assert session.sent[2:] == [
        ("stream", {"name": "stderr", "text": "20%"}),
        ("stream", {"name": "stdout", "text": "***MASKED***"}),
        ("status", {"execution_state": "idle"}),
    ]


PAST_JUPYTER = """
import os, pathlib, time
terminal, end = pathlib.Path({terminal!r}), time.monotonic() + 30
os.write(2, b"plain words, and the key AKIAIOSFODNN7EXAMPLE\\n")
while b"key" not in terminal.read_bytes() and time.monotonic() < end: time.sleep(0.02)
"""


def test_what_programs_say_past_jupyter_comes_to_its_terminal_masked(
    stepped: tuple[Any, RunFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook, _ = stepped
    notebook.cells[2:] = [nbformat.v4.new_code_cell(PAST_JUPYTER.format(terminal=str(tmp_path / "terminal")))]
    with (tmp_path / "terminal").open("wb") as terminal, monkeypatch.context() as without:
        without.delenv("PYTEST_CURRENT_TEST")  # ipykernel has no such echo in tests
        NotebookClient(notebook).execute(stdout=terminal, stderr=terminal)
    assert "plain words, and the key ***MASKED***" in (tmp_path / "terminal").read_text()
    assert "AKIA" not in (tmp_path / "terminal").read_text() + json.dumps(notebook.cells[2].outputs)


def test_what_widgets_hold_is_masked() -> None:
    session = Session()
    send = Outgoing(session)
    send(None, "comm_open", {"data": {"state": {"value": "AKIAIOSFODNN7EXAMPLE"}}})
    send(None, session.msg("comm_msg", {"data": {"state": {"value": "AKIAIOSFODNN7EXAMPLE"}}}))
    assert [content["data"]["state"]["value"] for _, content in session.sent] == ["***MASKED***"] * 2


def test_a_kernel_that_is_killed_leaves_its_cell_as_running(stepped: tuple[Any, RunFolder]) -> None:
    notebook, run = stepped
    notebook.cells.insert(2, nbformat.v4.new_code_cell("import os; os.kill(os.getpid(), 9)"))
    with pytest.raises(DeadKernelError):
        NotebookClient(notebook).execute()
    last = [event for event in run.events.read() if event["kind"] == "cell"][-1]
    assert (last["status"], last["execution"]) == ("running", 3)


def test_the_runbook_opened_twice_records_each_cell_once(stepped: tuple[Any, RunFolder]) -> None:
    notebook, run = stepped
    notebook.cells = [*notebook.cells[:3], nbformat.v4.new_code_cell(notebook.cells[1].source), notebook.cells[3]]
    NotebookClient(notebook).execute()
    assert [end[:2] for end in cells(run)] == [
        ("parameters", 1), ("open", 2), ("identity", 3), ("open", 4), ("check-account", 5)
    ]  # fmt: skip


def test_the_working_copy_is_the_original_without_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNBOOK_OUTPUTS", str(tmp_path))
    run = RunFolder.create("lab", "interactive")
    notebook = nbformat.read(working_copy(run) / "00_start_here.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
