"""How is one notebook executed so that its record is true whatever happens? The work of the papermill engine.

The notebook runs on a thread; signals reach the main thread, which stops the kernel and lets the thread write what it
has seen: there is one way to the end, and no signal falls into the middle of a write.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import nbformat
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat.v4 import new_output
from papermill.clientwrap import PapermillNotebookClient
from papermill.exceptions import PapermillExecutionError
from papermill.iorw import papermill_io, write_ipynb
from papermill.log import logger
from traitlets.config import Config

from ..evidence.changer import INHERITED
from ..evidence.files import in_utf8, write_whole
from ..evidence.folder import ENGINE, RunFolder
from ..evidence.kernel import COMM
from ..redaction import masked, refuse_secrets, register
from .aside import Aside, nobody_listens
from .bounds import Bounds
from .record import Record

PATIENCE = 3.0  # seconds that an interrupted cell has to tidy up


def execute(
    nb: Any,
    kernel_name: str,
    output_path: str | None,
    *,
    input_path: Any = None,
    ended: Callable[[str, str], None] = lambda status, error: None,
    start_timeout: int = 60,
    execution_timeout: int | None = None,
    progress_bar: bool | dict[str, Any] = True,
    log_output: bool = False,
    autosave_cell_every: int = 30,
    **options: Any,
) -> Any:
    """Execute a notebook; the notebook as it was written. `ended` is told its status and why.

    Raises what stopped it, but for an exception in a cell, which papermill raises itself.
    """
    refuse_secrets(nb.metadata.papermill.get("parameters", {}))
    notebook = Path(input_path).stem if isinstance(input_path, str) else "notebook"
    with ExitStack() as running, tempfile.TemporaryDirectory(prefix="runbook-") as sockets:
        journal = Journal(notebook, os.environ.get("RUNBOOK_RUN"), running)
        record = Record(
            nb, notebook, _writer(output_path), journal, output_path=output_path, progress_bar=progress_bar,
            log_output=log_output, autosave_cell_every=autosave_cell_every,
        )  # fmt: skip
        client = Client(
            record, journal, kernel_name=kernel_name, startup_timeout=start_timeout, timeout=execution_timeout,
            log=logger, log_output=log_output, **{"config": _kernels(sockets), **options},
        )  # fmt: skip
        with ThreadPoolExecutor(1) as pool, _terminable():
            aside = Aside()
            try:
                _wait(pool.submit(_work, record, client, aside), client)
            finally:
                aside.close(show=record.status == "kernel died")
                journal.close(record.shown, record.status, record.error)
                ended(record.status, record.error)
    _raise_for_exit(record)
    return record.shown


def _work(record: Record, client: Client, aside: Aside) -> None:
    """The whole notebook, on its thread."""
    try:
        record.notebook_start()
        with _kernels_of_an_engine():
            client.execute(stdout=aside.writing, stderr=aside.writing, **_inherited())
    except BaseException as error:
        error.args = tuple(masked(argument) for argument in error.args)  # nbclient's have the cell's source
        if client.interrupted.is_set() and record.status == "running":  # while the kernel started
            record.interrupted()
        record.stopped(error)
        raise
    finally:
        record.notebook_complete()


def _wait(work: Future[None], client: Client) -> None:
    """The end of the work; a signal stops the kernel first, and the work ends by itself."""
    try:
        work.result()
    except KeyboardInterrupt:
        client.interrupted.set()
        client.signal_kernel(signal.SIGINT)
        try:
            work.exception(PATIENCE)
        except (TimeoutError, KeyboardInterrupt):
            client.signal_kernel(signal.SIGKILL)
            work.exception()
        raise


class Client(PapermillNotebookClient):  # type: ignore[misc]
    """papermill's client, with the truth about each cell."""

    def __init__(self, record: Record, journal: Journal, **options: Any) -> None:
        super().__init__(record, **options)
        self.record, self.journal = record, journal
        self.interrupted = threading.Event()
        self.bounds = Bounds()

    def papermill_execute_cells(self) -> None:
        """Every cell in order, to the first that does not complete."""
        for index, cell in enumerate(self.nb.cells):
            if self.interrupted.is_set():
                self.record.interrupted()
                return
            if cell.cell_type != "code" or not cell.source.strip():
                self.record.cell_passed_over(index)
                continue
            self.record.cell_start(cell, index)
            self.bounds = Bounds()
            try:
                self.execute_cell(cell, index)
            except BaseException as error:
                self._ended(index, self._status(error))
                if isinstance(error, CellExecutionError):
                    return
                raise
            self._ended(index, "completed")

    def _ended(self, index: int, status: str) -> None:
        """Logged when the cell is over, and as it is written: a secret may be cut in two while it runs."""
        said = (new_output("stream", name=name, text=text) for name, text in self.bounds.rest())
        self.nb.cells[index].outputs.extend(said)
        self.record.cell_ended(index, status)
        for output in self.record.shown.cells[index].outputs:
            self.log_output_message(output)

    def _status(self, error: BaseException) -> str:
        if self.interrupted.is_set():
            return "interrupted"
        if isinstance(error, CellTimeoutError):
            return "timed out"
        return "kernel died" if isinstance(error, DeadKernelError) else "failed"

    def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
        """A message of the kernel: what it tells us of its run and of secrets is kept in memory only."""
        if msg["msg_type"] == "comm_open" and msg["content"].get("target_name") == COMM:
            told = msg["content"]["data"]
            register(*told.get("secrets", []))
            if "run" in told:
                self.journal.join(Path(told["run"]))
            return None
        kept = self.bounds.admit(msg)
        output = super(PapermillNotebookClient, self).process_message(msg, cell, cell_index) if kept else None
        self.record.autosave(cell_index)
        return output

    def signal_kernel(self, number: signal.Signals) -> None:
        """Send a signal to the kernel, and SIGKILL to its children too: they have sessions of their own."""
        import psutil

        pid = getattr(getattr(self.km, "provisioner", None), "pid", None)
        if pid is None or not psutil.pid_exists(pid):
            return
        kernel = psutil.Process(pid)
        for process in [*(kernel.children(recursive=True) if number == signal.SIGKILL else []), kernel]:
            process.send_signal(number)


def _raise_for_exit(record: Record) -> None:
    """`sys.exit(0)` in a cell ends a notebook in its middle: papermill takes that for success, we do not."""
    for index, cell in enumerate(record.shown.cells):
        for output in cell.get("outputs", []):
            if output.output_type == "error" and output.ename == "SystemExit" and output.evalue in ("", "0"):
                raise PapermillExecutionError(
                    index, cell.execution_count, cell.source, output.ename, output.evalue, output.traceback
                )


class _Whole:
    """papermill's door to one file, so that what papermill writes last is written whole too."""

    def __init__(self, path: Path, local: Any) -> None:
        self._path, self._local = path, local

    def write(self, text: str, path: str) -> None:
        """Write the file, whole or not at all."""
        write_whole(self._path, in_utf8(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._local, name)


def _writer(output_path: str | None) -> Callable[[Any], None]:
    """How the notebook is written: whole where it is a file of this machine, else as papermill does."""
    if output_path is None:
        return lambda nb: None
    handler = papermill_io.get_handler(output_path)
    local = handler._local if isinstance(handler, _Whole) else handler
    if not hasattr(local, "cwd"):
        return lambda nb: write_ipynb(nb, output_path)
    base = local.cwd(None)  # papermill writes relative to where it was started, not to where the notebook runs
    local.cwd(base)
    path = Path(base or Path.cwd()) / output_path
    papermill_io.register(output_path, _Whole(path, local))
    return lambda nb: write_whole(path, _text(nb))


class Journal:
    """Where events go: the run that RUNBOOK_RUN names, else the one that the kernel opens.

    A notebook that opens none has its own record only.
    """

    def __init__(self, notebook: str, run: str | None, running: ExitStack) -> None:
        """`running` ends when nothing is written any more: until then nobody seals the run."""
        self._notebook = notebook
        self._run = RunFolder.opened(Path(run)) if run else None
        self._own = run is None
        self._running = running
        if self._run is not None:
            self._running.enter_context(self._run.running())
        self._waiting: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, kind: str, **fields: Any) -> None:
        """Append an event, now or when there is a run."""
        if self._run is None:
            self._waiting.append((kind, fields))
        else:
            self._run.events(kind, **fields)

    def join(self, path: Path) -> None:
        """The kernel has opened the runbook."""
        if self._run is None:
            self._run = RunFolder(path)
            self._running.enter_context(self._run.running())
            self._run.events("notebook-start", notebook=self._notebook)
            for kind, fields in self._waiting:
                self._run.events(kind, **fields)

    def close(self, shown: Any, status: str, error: str) -> None:
        """A run that is this notebook's own gets a copy of it, so that the folder can be closed."""
        if self._own and self._run is not None:
            write_whole(self._run.path / f"{self._notebook}.ipynb", _text(shown))
            self._run.events("notebook-end", notebook=self._notebook, status=status, error=error)


def _text(nb: Any) -> bytes:
    text: str = nbformat.writes(nb)
    return in_utf8(f"{text}\n")


def _inherited() -> dict[str, Any]:
    """The runner's lock of the environment, for its kernels."""
    _, _, number = os.environ.get(INHERITED, "").rpartition("=")
    return {"pass_fds": (int(number),)} if number else {}


def _kernels(sockets: str) -> Config:
    """Kernels are talked to through sockets in a folder of ours: nobody else on the machine can listen in."""
    return Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/kernel"}})


@contextmanager
def _kernels_of_an_engine() -> Iterator[None]:
    """Kernels know that somebody else records their cells and masks what they say."""
    os.environ[ENGINE] = "1"
    try:
        yield
    finally:
        os.environ.pop(ENGINE, None)


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM and a closed terminal interrupt as Ctrl-C does, and end the process after the record is written.

    Not where they are handled or ignored (`nohup`).
    """
    main = threading.current_thread() is threading.main_thread()
    ours = [one for one in (signal.SIGTERM, signal.SIGHUP) if main and signal.getsignal(one) is signal.SIG_DFL]
    seen: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        if number == signal.SIGHUP:
            nobody_listens()
        raise KeyboardInterrupt

    for one in ours:
        signal.signal(one, interrupt)
    try:
        yield
    finally:
        for one in ours:
            signal.signal(one, signal.SIG_DFL)
        if seen:
            signal.raise_signal(seen[0])
