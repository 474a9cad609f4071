"""What does a kernel tell that a person steps through: which cells ran, in which order, and were they edited?

Where our engine runs the notebook it records the cells itself; then the kernel only tells it what must be masked.
"""

from __future__ import annotations

import ast
import ctypes
import hashlib
import json
import os
import signal
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from .. import redaction
from ..errors import EvidenceError
from ..settings import project_root
from .events import Events
from .folder import ENGINE, MARK, RunFolder

OUTPUTS = (
    *("stream", "display_data", "update_display_data", "execute_result", "error"),
    *("comm_open", "comm_msg"),  # the state of widgets
)
COMM = "runbook.engine"  # a comm: what the kernel tells its engine, in memory
RUNNER = "JPY_PARENT_PID"  # jupyter_client tells a kernel who started it
PR_SET_PDEATHSIG = 1  # prctl(2)
LINE = 1 << 16  # bytes of a line on the terminal, at most, that are masked as one


def join(record: Events, notebook: str, run: Path) -> None:
    """Make this kernel's part of the record; nothing outside a kernel."""
    shell = _shell()
    if shell is None:
        return
    if os.environ.get(ENGINE):
        _end_with_the_runner()
        _tell(run=str(run))
        redaction.forward(_tell_secrets)
    else:
        _mask_outputs(shell)
        _watch_cells(shell, record, notebook, run)


def orphaned() -> bool:
    """Is this a kernel whose runner has ended? It must not begin anything: nobody would write down what it does."""
    return bool(os.environ.get(ENGINE)) and str(os.getppid()) != os.environ.get(RUNNER, str(os.getppid()))


def _end_with_the_runner() -> None:
    """Linux kills this kernel in the moment in which its runner dies; elsewhere ipykernel looks once a second."""
    if sys.platform == "linux" and ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        raise EvidenceError("prctl does not let this kernel end with its runner")
    if orphaned():  # it died before we asked
        os.kill(os.getpid(), signal.SIGKILL)


def _shell() -> Any:
    try:
        shell = get_ipython()  # type: ignore[name-defined]
    except NameError:
        return None
    return shell if hasattr(shell, "kernel") else None


def _tell(**data: Any) -> None:
    from comm import create_comm

    create_comm(target_name=COMM, data=data)


def _tell_secrets(values: list[str]) -> None:
    """The engine masks what the cells said before it is written."""
    _tell(secrets=values)


def _mask_outputs(shell: Any) -> None:
    """Nobody masks after us: JupyterLab stores what the kernel sends."""
    if getattr(shell, "_runbook_masks", False):
        return
    shell._runbook_masks = True
    session = shell.kernel.session
    session.send = Outgoing(session)
    for stream in (sys.stdout, sys.stderr):
        # ipykernel's echo of what programs say, and of what it logs, to JupyterLab's own terminal
        echo = getattr(stream, "_original_stdstream_copy", None)
        if echo is not None:
            _mask_descriptor(echo)


def _mask_descriptor(number: int) -> None:
    """What is written there arrives masked, when its line ends."""
    terminal = os.dup(number)
    reading, writing = os.pipe()
    os.dup2(writing, number)
    os.close(writing)
    threading.Thread(target=_pass_on, args=(reading, terminal), daemon=True).start()


def _pass_on(reading: int, terminal: int) -> None:
    held = b""
    while said := os.read(reading, LINE):
        whole, end, held = (held + said).rpartition(b"\n")
        if len(held) > LINE:
            whole, end, held = whole + end + held, b"", b""
        with suppress(OSError):  # the terminal was closed: who writes there must not wait for a reader
            os.write(terminal, redaction.masked(whole.decode("utf-8", "replace")).encode() + end)


class Outgoing:
    """What a kernel sends, masked. The last line of a stream is held back until it ends: a secret may be cut in two."""

    def __init__(self, session: Any) -> None:
        self._send, self._message = session.send, session.msg
        self._held: dict[tuple[str, str], tuple[Any, dict[str, Any], dict[str, Any]]] = {}
        self._lock = threading.RLock()  # streams are sent by a thread of their own

    def __call__(self, socket: Any, message: Any, content: Any = None, *arguments: Any, **options: Any) -> Any:
        """In the place of the session's `send`."""
        given = isinstance(message, str)
        kind = message if given else message.get("header", {}).get("msg_type")
        if kind == "stream" and not given:
            return self._stream(socket, message, options)
        if kind in ("clear_output", "error") or (kind == "status" and (content or {}).get("execution_state") == "idle"):
            self._release()
        if kind in OUTPUTS and given:
            content = redaction.masked(content)
        elif kind in OUTPUTS:
            message = {**message, "content": redaction.masked(message["content"])}
        return self._send(socket, message, content, *arguments, **options)

    def _stream(self, socket: Any, message: dict[str, Any], options: dict[str, Any]) -> None:
        """Send what ends with a line, or is about to be overwritten; hold the rest."""
        name, parent = message["content"]["name"], message["parent_header"]
        with self._lock:
            key = (name, parent.get("msg_id", ""))
            before = self._held.pop(key)[1]["content"]["text"] if key in self._held else ""
            text = before + message["content"]["text"]
            end = max(text.rfind("\n"), text.rfind("\r")) + 1
            if end:
                said = {"name": name, "text": redaction.masked(text[:end])}
                self._send(socket, {**message, "content": said}, **options)
            if text[end:]:
                rest = self._message("stream", {"name": name, "text": text[end:]}, parent=parent)
                self._held[key] = (socket, rest, options)

    def _release(self) -> None:
        with self._lock:
            for socket, message, options in self._held.values():
                self._send(socket, {**message, "content": redaction.masked(message["content"])}, **options)
            self._held.clear()


def _watch_cells(shell: Any, record: Events, notebook: str, run: Path) -> None:
    """Record every cell from now on, and those that ran before the runbook was opened, such as the parameters."""
    watch = getattr(shell, "_runbook_watch", None)
    if watch is not None:  # opened once more in the same kernel
        watch.record, watch.originals, watch.run = record, _originals(notebook), run
        return
    watch = shell._runbook_watch = Watch(shell, record, _originals(notebook), run)
    watch.hold()
    *before, running = shell.history_manager.input_hist_raw
    for number, source in enumerate(before):
        if source:
            record("cell", **watch.about(None, source), execution=number, status="unseen")
    record("cell", **watch.about(None, running), execution=len(before), status="running")
    shell.events.register("pre_run_cell", watch.begin)
    shell.events.register("post_run_cell", watch.end)
    shell.ast_transformers.append(Unrecorded(watch))


class Watch:
    """The cells of one kernel. While one runs, nobody seals the run."""

    def __init__(self, shell: Any, record: Events, originals: dict[str, str], run: Path) -> None:
        self.shell, self.record, self.originals, self.run = shell, record, originals, run
        self.refused = ""  # why the cell that begins must not run
        self._began = time.monotonic()
        self._running = ExitStack()

    def about(self, cell: str | None, source: str) -> dict[str, Any]:
        """Which cell it is (by its source, where the front end does not say), and whether its source was edited."""
        digest = _hash(source)
        if cell is None:
            cell = next((name for name, original in self.originals.items() if original == digest), None)
        return {"cell": cell, "source": digest, "edited": cell is None or self.originals.get(cell) != digest}

    def hold(self) -> None:
        """The run stays open until the cell ends; `EvidenceError` when it is not open any more."""
        self._running.close()
        if not (self.run / MARK).is_file():
            raise EvidenceError(
                f"the run {self.run.name} was sealed, and nothing is recorded any more. Open another one "
                "(`runbook jupyter`), or restart this kernel."
            )
        self._running.enter_context(RunFolder(self.run).running())

    def begin(self, info: Any) -> None:
        """A cell runs; what cannot be recorded is refused."""
        self._began = time.monotonic()
        about = self.about(info.cell_id, info.raw_cell)
        number = len(self.shell.history_manager.input_hist_raw)  # stored after this; some IPythons count before it
        self.refused = ""
        try:
            self.hold()
            self.record("cell", **about, execution=number, status="running")
        except (EvidenceError, OSError) as error:
            self.refused = str(error)

    def end(self, result: Any) -> None:
        """A cell has ended."""
        if self.refused:
            return self._running.close()
        error = result.error_before_exec or result.error_in_exec
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed" if error else "completed"
        about, seconds = self.about(result.info.cell_id, result.info.raw_cell), time.monotonic() - self._began
        try:
            self.record("cell", **about, execution=result.execution_count, status=status, seconds=round(seconds, 3))
        finally:
            self._running.close()


class Unrecorded(ast.NodeTransformer):
    """IPython's way to keep a cell from running; an exception in `pre_run_cell` it only prints."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def visit(self, node: Any) -> Any:
        """The cell as it is, or `InputRejected`."""
        from IPython.core.error import InputRejected

        if self._watch.refused:
            raise InputRejected(f"This cell was not run: {self._watch.refused}")
        return node


def _originals(notebook: str) -> dict[str, str]:
    """The hash of each code cell as the repository has it, by its id."""
    path = project_root() / "notebooks" / f"{notebook}.ipynb"
    if not path.exists():
        return {}
    cells = json.loads(path.read_text("utf-8"))["cells"]  # ours; nbformat would cost every kernel a second
    return {cell["id"]: _hash("".join(cell["source"])) for cell in cells if cell["cell_type"] == "code"}


def _hash(source: str) -> str:
    return hashlib.sha256(source.strip().encode("utf-8", "surrogatepass")).hexdigest()
