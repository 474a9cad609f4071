"""Whatever stops a cell that a person steps through: the record is whole and true, and so is what is sealed of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_core.utils import run_sync
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

from runbook_lib.errors import EvidenceError
from runbook_lib.evidence import keys
from runbook_lib.evidence.folder import RunFolder
from runbook_lib.evidence.seal import keep_sources, seal
from runbook_lib.evidence.verify import verify
from runbook_lib.runs.jupyter import working_copy
from runbook_lib.settings import PACKAGE_ROOT
from tests.records import command
from tests.test_kill_matrix import small_disk  # noqa: F401 - a fixture
from tests.test_resilience import eventually
from tests.throwaway import ThrowawayLab

NAME = "00_start_here"
SLEEP = "import time; print('asleep', flush=True); time.sleep(20)"


@pytest.fixture(scope="module")
def untouched(lab: ThrowawayLab) -> None:
    """The lab as 00 finds it; these tests only look."""
    lab.reset("00")


@pytest.fixture
def run(untouched: None, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """An interactive run."""
    return opened(monkeypatch)


def opened(monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    run = RunFolder.create("lab", "interactive")
    monkeypatch.setenv("RUNBOOK_RUN", str(run.path))
    keep_sources(run, [PACKAGE_ROOT / "notebooks" / f"{NAME}.ipynb"])
    return run


def stepped(run: RunFolder, *sources: str) -> Any:
    """The first cells of 00 (parameters, open, identity), then a person's own; as JupyterLab has it."""
    notebook = nbformat.read(working_copy(run) / f"{NAME}.ipynb", as_version=4)
    notebook.cells = [cell for cell in notebook.cells if cell.cell_type == "code"][:3]
    notebook.cells += [nbformat.v4.new_code_cell(source, id=f"mine-{n}") for n, source in enumerate(sources, 1)]
    return notebook


class FrontEnd(NotebookClient):
    """nbclient, which says like JupyterLab which cell it runs."""

    async def async_execute_cell(self, cell: Any, cell_index: int, **options: Any) -> Any:
        self.kc.session.metadata = {"cellId": cell["id"]}
        return await super().async_execute_cell(cell, cell_index, **options)

    execute_cell = run_sync(async_execute_cell)


def save(run: RunFolder, notebook: Any) -> None:
    """As JupyterLab saves it; also between two cells."""
    nbformat.write(notebook, run.path / f"{NAME}.ipynb")


def statuses(run: RunFolder) -> dict[str, str]:
    """How each cell ended the last time; every line of the record is whole."""
    events = list(run.events.read())
    assert len(events) == len((run.path / "events.jsonl").read_text().splitlines()), "a torn line"
    return {event["cell"]: event["status"] for event in events if event["kind"] == "cell"}


def begun(run: RunFolder) -> bool:
    """Is the person's first cell running?"""
    return any(event.get("cell") == "mine-1" for event in run.events.read())


def judged(run: RunFolder) -> dict[str, Any]:
    """What the sealed record says of the notebook; the folder is intact."""
    found = verify(seal(run), keys.own_key().public_key.keyid)
    assert (found.state, found.faults) == ("intact", ()) and found.run is not None
    entry: dict[str, Any] = next(entry for entry in found.run["notebooks"] if entry["name"] == NAME)
    return entry


def meanwhile(run: RunFolder, act: Callable[[], object]) -> threading.Thread:
    """Do something when the person's first cell is running."""

    def wait() -> None:
        eventually(lambda: begun(run), 20)
        time.sleep(0.2)  # its first line is out
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("source", "said"),
    [("1 / 0", "ZeroDivisionError: division by zero"), ("import sys; sys.exit(0)", "SystemExit: 0")],
    ids=["exception", "exit"],
)
def test_a_cell_that_ends_the_notebook_has_failed(run: RunFolder, source: str, said: str) -> None:
    notebook = stepped(run, source)
    with pytest.raises(CellExecutionError):
        FrontEnd(notebook).execute()
    save(run, notebook)
    assert statuses(run) == {"parameters": "unseen", "open": "completed", "identity": "completed", "mine-1": "failed"}
    entry = judged(run)
    assert (entry["status"], entry["error"]) == ("failed", said)


def test_an_interrupted_cell_is_said_so_and_its_kernel_goes_on(run: RunFolder) -> None:
    notebook = stepped(run, SLEEP, "print('on')")
    client = FrontEnd(notebook, allow_errors=True)
    waiting = meanwhile(run, lambda: os.kill(client.km.provisioner.pid, signal.SIGINT))  # type: ignore[union-attr]
    client.execute()
    waiting.join()
    save(run, notebook)
    assert (statuses(run)["mine-1"], statuses(run)["mine-2"]) == ("interrupted", "completed")
    assert judged(run)["status"] == "interrupted"


def test_a_kernel_that_jupyterlab_stops_leaves_its_cell_without_an_end(run: RunFolder) -> None:
    notebook = stepped(run, SLEEP)
    client = FrontEnd(notebook)
    waiting = meanwhile(run, lambda: os.kill(client.km.provisioner.pid, signal.SIGTERM))  # type: ignore[union-attr]
    with pytest.raises(DeadKernelError):
        client.execute()
    waiting.join()
    save(run, notebook)
    assert statuses(run)["mine-1"] == "running"
    entry = judged(run)
    assert entry["status"] == "killed"
    assert any("'mine-1' began, and nothing says how it ended" in one for one in entry["deviations"])


FRONT_END = """
import sys, nbformat
from tests.test_stepping_stops import FrontEnd
FrontEnd(nbformat.read(sys.argv[1], as_version=4)).execute()
"""


@pytest.fixture
def front_end(run: RunFolder, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process with a kernel whose cell is running, and a notebook that was not saved since it was opened."""
    copy = tmp_path / "shown.ipynb"
    kernel = f"import os; open({str(tmp_path / 'kernel')!r}, 'w').write(str(os.getpid()))"
    nbformat.write(stepped(run, f"{kernel}; {SLEEP}"), copy)
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)}
    with subprocess.Popen([sys.executable, "-c", FRONT_END, str(copy)], env=environment) as process:
        eventually(lambda: begun(run), 20)
        yield process
        process.kill()


def test_what_ran_before_the_front_end_died_is_in_the_record_though_nobody_saved_the_notebook(
    run: RunFolder, front_end: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    kernel = int(eventually(lambda: (tmp_path / "kernel").exists() and (tmp_path / "kernel").read_text()))
    front_end.kill()
    front_end.wait()
    eventually(lambda: not _alive(kernel), 10)
    entry = judged(run)
    assert entry["status"] == "killed"
    assert "it was not saved after these cells were run: parameters, open, identity" in entry["deviations"]
    assert any("'mine-1' began, and nothing says how it ended" in one for one in entry["deviations"])


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_run_is_not_sealed_while_a_cell_runs_in_it(run: RunFolder, front_end: subprocess.Popen[bytes]) -> None:
    with pytest.raises(EvidenceError, match="still running"):
        seal(run)
    assert "still running" in command("seal", run.run_id)[1]


def test_nothing_is_run_in_a_run_that_was_sealed_meanwhile(run: RunFolder, tmp_path: Path) -> None:
    effect = tmp_path / "effect"
    notebook = stepped(run, f"open({str(effect)!r}, 'w')")
    client = FrontEnd(notebook)
    with client.setup_kernel():
        for index, cell in enumerate(notebook.cells[:3]):
            client.execute_cell(cell, index)
        save(run, notebook)
        before = judged(run)
        with pytest.raises(CellExecutionError, match=r"This cell was not run: the run \S+ was sealed"):
            client.execute_cell(notebook.cells[3], 3)
    assert before["status"] == "incomplete" and not effect.exists()
    found = verify(run.path, keys.own_key().public_key.keyid)
    assert (found.state, found.faults) == ("intact", ())


def test_on_a_full_disk_no_cell_is_run_and_when_there_is_space_again_they_are(
    small_disk: Path,  # noqa: F811
    untouched: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RUNBOOK_OUTPUTS", str(small_disk))
    run = opened(monkeypatch)
    effect, ballast = tmp_path / "effect", small_disk / "ballast"
    notebook = stepped(run, f"open({str(effect)!r}, 'w').close()")
    for copy in run.path.glob("0[1-9]*.ipynb"):
        copy.unlink()
    client = FrontEnd(notebook)
    with client.setup_kernel():
        for index, cell in enumerate(notebook.cells[:3]):
            client.execute_cell(cell, index)
        fill(ballast, run)
        before = statuses(run)
        with pytest.raises(CellExecutionError, match=r"This cell was not run: The record .* cannot be written"):
            client.execute_cell(notebook.cells[3], 3)
        assert statuses(run) == before and not effect.exists()
        with pytest.raises(EvidenceError, match=r"could not be sealed: .*No space left.*`runbook seal"):
            seal(run)
        ballast.unlink()
        client.execute_cell(notebook.cells[3], 3)
    assert statuses(run)["mine-1"] == "completed" and effect.exists()
    save(run, notebook)
    assert judged(run)["status"] == "incomplete"


def fill(ballast: Path, run: RunFolder) -> None:
    """Leave no space on a disk, and none in the last block of the record."""
    with pytest.raises(OSError, match="No space left"), ballast.open("wb", buffering=0) as stream:
        while stream.write(b"x" * 4096):
            pass
    with pytest.raises(EvidenceError, match="No space left"):
        for _ in range(100):
            run.events("note", text="there is still some space")
