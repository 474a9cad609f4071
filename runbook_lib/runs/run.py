"""Run the notebooks headlessly: one process, one kernel per notebook, stop at the first failure and say why."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checks import MIME_TYPE
from ..evidence import changer
from ..evidence.folder import RunFolder, changer_path
from ..evidence.provenance import provenance
from ..redaction import masked
from ..settings import load_environment, settings_hash
from . import engine
from .plan import Step


@dataclass(frozen=True)
class Outcome:
    """What became of one notebook."""

    step: str
    status: str  # one of record.STATUSES, `not run`, or `skipped` by a resumed run
    seconds: float
    checks: int
    output: Path | None
    error: str = ""
    signalled: bool = False  # a signal came when it had ended: what follows must not begin

    @property
    def ok(self) -> bool:
        """True when every cell ran and every check holds."""
        return self.status in ("passed", "skipped")


def run(
    steps: list[Step],
    run_folder: RunFolder,
    parameters: dict[str, Any],
    started: Callable[[Step], None] = lambda step: None,
    verified: Callable[[Step], str] = lambda step: "",
) -> Iterator[Outcome]:
    """Execute notebooks in order into the run folder; after the first failure the others are `not run`.

    `verified` says why a notebook is skipped, when it is: because an earlier run finished it and its end still holds.
    """
    failed = False
    run_folder.events(
        "run-start",
        notebooks=[step.name for step in steps],
        sources={step.name: step.source() for step in steps},
        settings=settings_hash(parameters["environment"]),
        parameters=parameters,
        **run_folder.about,
        **provenance(),
    )
    with _changer(parameters["environment"]), _environment(RUNBOOK_RUN=str(run_folder.path)):
        for step in steps:
            if failed:
                run_folder.events("notebook-end", notebook=step.name, status="not run")
                yield Outcome(step.name, "not run", 0.0, 0, None)
                continue
            started(step)
            outcome = _verified(step, verified)
            if outcome is None:
                run_folder.events("notebook-start", notebook=step.name, source=step.source())
                outcome = execute(step, run_folder.path / step.path.name, parameters)
            run_folder.events(
                "notebook-end",
                notebook=step.name,
                status=outcome.status,
                seconds=round(outcome.seconds, 3),
                error=outcome.error,
            )
            failed = not outcome.ok
            yield outcome
            if outcome.signalled:
                raise KeyboardInterrupt
    run_folder.events("run-end", status="failed" if failed else "passed")


def _verified(step: Step, verified: Callable[[Step], str]) -> Outcome | None:
    """The outcome of a notebook that need not be run, when it need not."""
    began = time.monotonic()
    try:
        why = verified(step)
    except KeyboardInterrupt:
        return Outcome(step.name, "interrupted", time.monotonic() - began, 0, None, "interrupted before it was run")
    return Outcome(step.name, "skipped", time.monotonic() - began, 0, None, why) if why else None


def execute(step: Step, output: Path, parameters: dict[str, Any], source: Any = None) -> Outcome:
    """Run one notebook, or `source` in its place; the outcome is what the engine saw, whatever stopped it."""
    papermill = import_papermill()
    papermill.engines.papermill_engines.register(engine.NAME, engine.RunbookEngine)
    began = time.monotonic()
    ended, signalled = [("failed", "the notebook did not start")], False
    try:
        papermill.execute_notebook(
            source or step.path,
            output,
            parameters=_known(step, parameters),
            engine_name=engine.NAME,
            progress_bar=False,
            ended=lambda status, error: ended.append((status, error)),
        )
    except KeyboardInterrupt:
        signalled = ended[-1][0] == "passed"
        if len(ended) == 1:
            ended.append(("interrupted", "interrupted by a signal before its first cell"))
    except Exception as error:  # what stopped it is in `ended`, but for what papermill does before and after the engine
        if len(ended) == 1 or ended[-1][0] == "passed":
            ended.append(("failed", masked(f"{type(error).__name__}: {error}")))
    status, said = ended[-1]
    return Outcome(step.name, status, time.monotonic() - began, _checks(output), output, said, signalled)


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
def _changer(environment: str) -> Iterator[None]:
    """The environment's lock, open for our kernels: the first that changes something holds it to the end of the run."""
    loaded = load_environment(environment)
    lock = changer.Changer(changer_path(loaded.environment, loaded.account, lab=loaded.lab is not None))
    try:
        with _environment(**{changer.INHERITED: lock.variable()}):
            yield
    finally:
        lock.close()


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
