"""Whatever stops a notebook, at whichever cell: its record is whole, and says the truth about every cell."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from runbook_lib.evidence.folder import RunFolder
from runbook_lib.evidence.verify import verify
from runbook_lib.runs.plan import Step
from runbook_lib.runs.run import Outcome, execute
from runbook_lib.settings import PACKAGE_ROOT
from tests import notebooks
from tests.test_resilience import eventually
from tests.throwaway import ThrowawayLab

CELLS = 3


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunFolder]:
    """An open run."""
    monkeypatch.setenv("RUNBOOK_OUTPUTS", str(tmp_path / "outputs"))
    run = RunFolder.create("lab", "headless")
    monkeypatch.setenv("RUNBOOK_RUN", str(run.path))
    yield run


def at(cell: int, source: str, tmp_path: Path) -> Step:
    """A notebook of three cells, one of which is `source`."""
    sources = [source if number == cell else f"print({number})" for number in range(1, CELLS + 1)]
    return Step(notebooks.notebook(tmp_path / "step.ipynb", *sources))


def expected(cell: int, status: str) -> list[str]:
    """What the cells are when one ended in a certain way."""
    return ["completed"] * (cell - 1) + [status] + ["not run"] * (CELLS - cell)


@pytest.mark.parametrize("cell", [1, 3])
@pytest.mark.parametrize(
    ("source", "of_cell", "of_notebook", "answers", "said"),
    [
        ("1 / 0", "failed", "bug", True, "ZeroDivisionError: division by zero"),
        ("import sys; sys.exit(0)", "failed", "bug", True, "SystemExit: 0"),
        ("from runbook_lib.errors import CheckFailed; raise CheckFailed('no')", "failed", "check failed", True, "no"),
        ("from runbook_lib.errors import AwsError; raise AwsError('no')", "failed", "failed", True, "AwsError: no"),
        ("import os; os.kill(os.getpid(), 9)", "kernel died", "kernel died", False, "the kernel died"),
    ],
    ids=["exception", "exit", "check", "aws", "kernel"],
)
def test_what_stops_a_notebook_is_said_of_its_cell(
    folder: RunFolder, tmp_path: Path, cell: int, source: str, of_cell: str, of_notebook: str, answers: bool, said: str
) -> None:
    outcome = execute(at(cell, source, tmp_path), folder.path / "step.ipynb", {})
    assert (outcome.status, outcome.ok) == (of_notebook, False)
    assert said in outcome.error
    _true(folder, expected(cell, of_cell), of_notebook, [True] * (cell - 1) + [answers] + [False] * (CELLS - cell))


def _true(folder: RunFolder, cells: list[str], of_notebook: str, answered: list[bool] | None = None) -> None:
    output = folder.path / "step.ipynb"
    assert notebooks.statuses(output) == cells
    assert notebooks.recorded(folder.path) == cells
    assert notebooks.status(output) == of_notebook
    if answered is not None:
        assert notebooks.replied(output) == answered


def test_every_cell_completed_is_a_pass_and_nothing_else_is(folder: RunFolder, tmp_path: Path) -> None:
    outcome = execute(at(2, "2", tmp_path), folder.path / "step.ipynb", {})
    assert outcome.ok
    _true(folder, ["completed"] * CELLS, "passed", [True] * CELLS)


def runner(*options: str) -> subprocess.Popen[str]:
    """Plain papermill with our engine, on the notebook of the test."""
    return subprocess.Popen(
        [*notebooks.PAPERMILL, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.parametrize("cell", [1, 2])
@pytest.mark.parametrize(
    ("number", "status", "exits"),
    [
        (signal.SIGINT, "interrupted", {1}),  # click's
        (signal.SIGTERM, "interrupted", {-signal.SIGTERM}),
        (signal.SIGHUP, "interrupted", {-signal.SIGHUP}),
        (signal.SIGKILL, "running", {-signal.SIGKILL}),
    ],
    ids=lambda value: value.name if isinstance(value, signal.Signals) else "",
)
def test_a_signal_to_the_runner_leaves_the_truth(
    folder: RunFolder, tmp_path: Path, cell: int, number: signal.Signals, status: str, exits: set[int]
) -> None:
    step = at(
        cell, "import os, pathlib, time; pathlib.Path('kernel').write_text(str(os.getpid())); time.sleep(60)", tmp_path
    )
    process = runner("--cwd", str(tmp_path), str(step.path), str(folder.path / "step.ipynb"))
    kernel = eventually(lambda: (tmp_path / "kernel").exists() and (tmp_path / "kernel").read_text())
    process.send_signal(number)
    said, _ = process.communicate(timeout=30)
    assert process.returncode in exits, said
    if number == signal.SIGKILL:  # nobody could write an end: what was on disk before says that the cell was running
        assert notebooks.statuses(folder.path / "step.ipynb") == expected(cell, "running")
        assert notebooks.recorded(folder.path) == ["completed"] * (cell - 1) + ["running"]
        assert notebooks.status(folder.path / "step.ipynb") == "running"
    else:
        _true(folder, expected(cell, status), status)
    if cell == 1:
        eventually(lambda: not _alive(int(kernel)))


SECRET = "AKIA" + "".join(reversed("ELPMAXE7NNDOFSOI"))
PAST_JUPYTER = """
import os, subprocess, sys
said = "AKIA" + "".join(reversed("ELPMAXE7NNDOFSOI")) + "\\n"
for number in (1, 2): os.write(number, said.encode())
sys.__stderr__.write(said)
subprocess.run(["sh", "-c", f"echo {said} >&2; echo {said}"])
"""


@pytest.mark.parametrize("end", ["", "os.kill(os.getpid(), 9)"], ids=["passes", "dies"])
def test_what_a_cells_programs_say_reaches_the_terminal_masked_or_not_at_all(
    folder: RunFolder, tmp_path: Path, end: str
) -> None:
    last = f"os.write(2, b'Fatal: out of memory\\n'); import time; time.sleep(2); {end}"
    step = at(2, PAST_JUPYTER + last, tmp_path)
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}  # ipykernel asks
    done = subprocess.run(
        [*notebooks.PAPERMILL, str(step.path), str(folder.path / "step.ipynb")],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode == 0) == (not end), done.stderr
    assert SECRET not in done.stdout + done.stderr + (folder.path / "step.ipynb").read_text()
    assert ("The kernel's last words" in done.stderr and "Fatal: out of memory" in done.stderr) == bool(end)
    if not end:
        assert (folder.path / "step.ipynb").read_text().count("MASKED") >= 5, "the notebook does not have it either"


def test_a_runner_whose_terminal_is_closed_tells_the_truth_and_seals_it(lab: ThrowawayLab, tmp_path: Path) -> None:
    lab.reset("00")
    number, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys, fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
         "from runbook_lib.cli import main; sys.argv = ['runbook', 'run', '00', '01']; main()"],
        stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True, cwd=PACKAGE_ROOT,
        env={**os.environ, "RUNBOOK_OUTPUTS": str(tmp_path / "outputs"), "TERM": "dumb"},  # nobody reads what is drawn
    )  # fmt: skip
    os.close(terminal)
    written = lambda: [path for path in (tmp_path / "outputs").glob("*/events.jsonl") if "check" in path.read_text()]  # noqa: E731
    (events,) = eventually(written, 120)
    os.close(number)
    assert process.wait(60) == 128 + signal.SIGHUP
    assert json.loads((events.parent / "run.json").read_text())["predicate"]["verdict"] == "interrupted"
    verified = verify(events.parent)
    assert verified.state == "unconfirmed", verified.faults


def test_a_signal_while_the_kernel_starts_is_an_interruption_too(folder: RunFolder, tmp_path: Path) -> None:
    process = runner(str(at(1, "1", tmp_path).path), str(folder.path / "step.ipynb"))
    eventually((folder.path / "step.ipynb").exists)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 1
    _true(folder, ["not run"] * CELLS, "interrupted")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_cell_out_of_its_time_is_said_so_by_plain_papermill_too(folder: RunFolder, tmp_path: Path) -> None:
    step = at(2, "import time; secret = 'AKIA' + 'A' * 16; time.sleep(60)", tmp_path)
    process = runner("--execution-timeout", "1", str(step.path), str(folder.path / "step.ipynb"))
    process.communicate(timeout=60)
    assert process.returncode == 1
    _true(folder, expected(2, "timed out"), "timed out", [True, False, False])


def test_sys_exit_0_is_no_success_for_plain_papermill(folder: RunFolder, tmp_path: Path) -> None:
    step = at(2, "raise SystemExit(0)", tmp_path)
    process = runner(str(step.path), str(folder.path / "step.ipynb"))
    process.communicate(timeout=60)
    assert process.returncode == 1
    _true(folder, expected(2, "failed"), "bug")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_stops_the_run_and_spoils_nothing_that_was_written(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNBOOK_OUTPUTS", str(small_disk))
    run = RunFolder.create("lab", "headless")
    monkeypatch.setenv("RUNBOOK_RUN", str(run.path))
    step = at(2, "print('x' * 400_000)", tmp_path)
    outcome = execute(step, run.path / "step.ipynb", {})
    assert outcome.status == "failed"
    assert "No space left" in outcome.error
    assert notebooks.statuses(run.path / "step.ipynb") == ["completed", "running", "not run"]
    assert notebooks.recorded(run.path)[0] == "completed"
    assert nbformat.read(run.path / "step.ipynb", as_version=4).metadata.runbook.status == "running"
    assert [path.name for path in run.path.glob(".*")] == [], "a file half written"


def test_streams_are_one_text_each_as_a_terminal_shows_it(folder: RunFolder, tmp_path: Path) -> None:
    lines = [
        "import sys",
        "print('10%\\r20%\\rdone', flush=True)",
        "print('!', file=sys.stderr, flush=True)",
        "print('x')",
    ]
    said = "\n".join(lines)
    assert execute(at(1, said, tmp_path), folder.path / "step.ipynb", {}).ok
    outputs = nbformat.read(folder.path / "step.ipynb", as_version=4).cells[1].outputs
    assert {output.name: output.text for output in outputs} == {"stdout": "done\nx\n", "stderr": "!\n"}


def test_events_on_a_full_disk_are_whole_and_the_next_ones_too(small_disk: Path) -> None:
    from runbook_lib.errors import EvidenceError
    from runbook_lib.evidence.events import Events

    events = Events(small_disk / "events.jsonl")
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 100_000)
    with pytest.raises(EvidenceError, match="cannot be written: No space left"):
        for _ in range(1000):
            events("note", text="y" * 3000)
    before = list(events.read())
    ballast.unlink()
    events("note", text="there is space again")
    after = list(events.read())
    assert after[: len(before)] == before
    assert [event["text"] for event in after[len(before) :]] == ["there is space again"]
    assert len(after) == len((small_disk / "events.jsonl").read_text().splitlines())


def test_a_line_torn_by_a_kill_spoils_no_other(tmp_path: Path) -> None:
    from runbook_lib.evidence.events import Events

    events = Events(tmp_path / "events.jsonl")
    events("note", text="one")
    with (tmp_path / "events.jsonl").open("a") as stream:
        stream.write('{"at": "2026-01-01T00:00:00", "kind": "no')
    events("note", text="two")
    assert [event["text"] for event in events.read()] == ["one", "two"]


def test_papermill_does_without_our_engine_being_more_than_a_name() -> None:
    code = (
        "import sys; import runbook_lib.runs.engine; "
        "heavy = {'papermill', 'nbformat', 'boto3', 'pyarrow', 'pydantic', 'yaml'} & set(sys.modules); "
        "assert not heavy, heavy; "
        "from papermill.engines import papermill_engines; assert papermill_engines.get_engine('runbook')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_broken_module_of_ours_does_not_break_papermill(tmp_path: Path) -> None:
    compiled = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE_ROOT / "runbook_lib", tmp_path / "runbook_lib", ignore=compiled)
    light = {"runbook_lib/__init__.py", "runbook_lib/runs/__init__.py", "runbook_lib/runs/engine.py"}
    for module in (tmp_path / "runbook_lib").rglob("*.py"):
        if module.relative_to(tmp_path).as_posix() not in light:
            module.write_text("this is (not Python\n")
    source = notebooks.notebook(tmp_path / "step.ipynb", "print(1)")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ours, plain = [*notebooks.PAPERMILL], [word for word in notebooks.PAPERMILL if word not in ("--engine", "runbook")]
    for command, code, said in ((plain, 0, ""), (ours, 1, "SyntaxError")):
        done = subprocess.run(
            [*command, str(source), str(tmp_path / "out.ipynb")], env=environment, cwd=tmp_path,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code and said in done.stderr, done.stderr


def test_what_papermill_writes_last_is_written_whole_and_the_banner_is_in_it(folder: RunFolder, tmp_path: Path) -> None:
    outcome: Outcome = execute(at(2, "1 / 0", tmp_path), folder.path / "step.ipynb", {})
    assert outcome.status == "bug"
    cells: list[Any] = nbformat.read(folder.path / "step.ipynb", as_version=4).cells
    assert "An Exception was encountered" in cells[0].source
