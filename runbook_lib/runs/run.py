"""Run the notebooks headlessly: one process, one kernel per notebook, stop at the first failure and say why."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checks import MIME_TYPE
from ..evidence.folder import RunFolder
from ..evidence.provenance import provenance
from ..settings import PACKAGE_ROOT
from .plan import Step


@dataclass(frozen=True)
class Outcome:
    """What became of one notebook."""

    step: str
    status: str  # passed, check failed, failed, interrupted, not run
    seconds: float
    checks: int
    output: Path | None
    error: str = ""

    @property
    def ok(self) -> bool:
        """True when every cell ran and every check holds."""
        return self.status == "passed"


def run(
    steps: list[Step],
    run_folder: RunFolder,
    parameters: dict[str, Any],
    started: Callable[[Step], None] = lambda step: None,
) -> Iterator[Outcome]:
    """Execute notebooks in order into the run folder; after the first failure the others are `not run`."""
    failed = False
    run_folder.events(
        "run-start", notebooks=[step.name for step in steps], parameters=parameters, **run_folder.about, **provenance()
    )
    with _environment(RUNBOOK_RUN=str(run_folder.path)):
        for step in steps:
            if failed:
                run_folder.events("notebook-end", notebook=step.name, status="not run")
                yield Outcome(step.name, "not run", 0.0, 0, None)
                continue
            started(step)
            run_folder.events("notebook-start", notebook=step.name)
            outcome = _execute(step, run_folder.path / step.path.name, parameters)
            run_folder.events(
                "notebook-end",
                notebook=step.name,
                status=outcome.status,
                seconds=round(outcome.seconds, 3),
                error=outcome.error,
            )
            failed = not outcome.ok
            yield outcome
    run_folder.events("run-end", status="failed" if failed else "passed")


def _execute(step: Step, output: Path, parameters: dict[str, Any]) -> Outcome:
    """Run one notebook on a thread, so that an interrupt reaches us and not the kernel's client."""
    began = time.monotonic()
    ended: list[tuple[str, str]] = []
    thread = threading.Thread(target=lambda: ended.append(_papermill(step, output, parameters)), daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.2)
    except KeyboardInterrupt:
        _end_kernels()
        thread.join(20)
        ended.insert(0, ("interrupted", "interrupted by a signal; what was started at AWS goes on"))
    status, error = ended[0]
    _without_machine_paths(output)
    return Outcome(step.name, status, time.monotonic() - began, _checks(output), output, error)


def _papermill(step: Step, output: Path, parameters: dict[str, Any]) -> tuple[str, str]:
    """How it ended, and why."""
    papermill = import_papermill()
    try:
        with tempfile.TemporaryDirectory(prefix="runbook-") as sockets:
            papermill.execute_notebook(
                step.path,
                output,
                parameters=_known(step, parameters),
                progress_bar=False,
                coalesce_streams=True,
                config=_kernels(sockets),
            )
    except papermill.PapermillExecutionError as failure:
        status = "check failed" if failure.ename == "CheckFailed" else "failed"
        return status, f"{failure.ename}: {failure.evalue}"
    except Exception as failure:  # the kernel died or did not start: said, and the run stops
        return "failed", f"{type(failure).__name__}: {failure}"
    return "passed", ""


def _without_machine_paths(output: Path) -> None:
    """Take this machine's folders out of an executed notebook: papermill's metadata, and tracebacks."""
    import nbformat

    if not output.exists():
        return
    notebook = nbformat.read(output, as_version=4)
    about = notebook.metadata.get("papermill", {})
    for name in ("input_path", "output_path"):
        if about.get(name):
            about[name] = Path(about[name]).name
    for cell in notebook.cells:
        for failure in cell.get("outputs", []):
            if failure.output_type == "error":
                failure.traceback = [
                    line.replace(f"{PACKAGE_ROOT}/", "").replace(str(Path.home()), "~") for line in failure.traceback
                ]
    new = output.with_suffix(".new")
    new.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    new.replace(output)


def _end_kernels() -> None:
    """Kill our kernels: they have sessions of their own, so the terminal's Ctrl-C does not reach them."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        child.kill()


def _kernels(sockets: str) -> Any:
    """Kernels are talked to through sockets in a folder of ours: nobody else on the machine can listen in."""
    from traitlets.config import Config

    return Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/kernel"}})


def _known(step: Step, parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters that this notebook has; papermill would inject unknown ones with no more than a warning."""
    names = parameter_names(step)
    return {name: value for name, value in parameters.items() if name in names}


def parameter_names(step: Step) -> set[str]:
    """The names in a notebook's parameters cell."""
    return set(import_papermill().inspect_notebook(step.path))


def _checks(output: Path) -> int:
    """How many checks an executed notebook shows."""
    import nbformat

    if not output.exists():
        return 0
    cells = nbformat.read(output, as_version=4).cells
    return sum(MIME_TYPE in o.get("data", {}) for c in cells if c.cell_type == "code" for o in c.outputs)


def import_papermill() -> Any:
    """papermill, without the two seconds that a grammar for checking IRIs costs on import; nothing here checks IRIs."""
    if "papermill" not in sys.modules:
        blocked = "rfc3987_syntax" not in sys.modules
        if blocked:
            sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
        import papermill

        if blocked:
            del sys.modules["rfc3987_syntax"]
        return papermill
    return sys.modules["papermill"]


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Variables that the kernels inherit."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
