"""Where a run's records are: `outputs/<utc>-<id>/`, open while it is being worked in."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import EvidenceError
from ..settings import project_root
from .events import Events
from .files import as_json, write_whole

MARK = "run.open.json"  # what is known while a run is open
ENGINE = "RUNBOOK_ENGINE"  # set for kernels whose cells our engine records
ONLY_LOOKING = "RUNBOOK_ONLY_LOOKING"  # set for kernels that must not change anything


class RunFolder:
    """One run's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.about: dict[str, Any] = json.loads((path / MARK).read_text(encoding="utf-8"))
        self.events = Events(path / "events.jsonl")

    @classmethod
    def opened(cls, path: Path) -> RunFolder:
        """An open run, by its folder; `EvidenceError` when it is not open (any more)."""
        if not (path / MARK).is_file():
            raise EvidenceError(
                f"RUNBOOK_RUN names {path}, and there is no open run: was it sealed meanwhile? Unset RUNBOOK_RUN, or "
                "open another run (`runbook jupyter`)."
            )
        return cls(path)

    @contextmanager
    def running(self) -> Iterator[None]:
        """While this lasts somebody writes the record, and nobody seals it; also not when the process is killed."""
        handle = os.open(self.path / MARK, os.O_RDWR)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH)
            yield
        finally:
            os.close(handle)

    @property
    def run_id(self) -> str:
        """The folder's name."""
        return self.path.name

    @classmethod
    def create(cls, environment: str, mode: str, **more: Any) -> RunFolder:
        """A new open folder; `mode` is headless or interactive; `more` is said of it too, such as what it resumes."""
        now = datetime.now(UTC)
        path = outputs() / f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        path.mkdir(parents=True)
        about = {
            "run": path.name,
            "environment": environment,
            "mode": mode,
            "opened": now.isoformat(timespec="seconds"),
            "pid": os.getpid(),
            **more,
        }
        write_whole(path / MARK, as_json(about))
        return cls(path)

    @classmethod
    def join_or_create(cls, environment: str) -> RunFolder:
        """A kernel's run: RUNBOOK_RUN, else the folder it works in, else the latest open one, else a new one.

        Under plain papermill with our engine, it is a new one for each notebook.
        """
        named = os.environ.get("RUNBOOK_RUN")
        if named:
            return cls.opened(Path(named))
        for path in [Path.cwd(), *Path.cwd().parents]:
            if (path / MARK).is_file():
                return cls(path)
        if os.environ.get(ENGINE):
            return cls.create(environment, "headless")
        for path in sorted(outputs().glob(f"*/{MARK}"), reverse=True):
            found = cls(path.parent)
            if found.about["environment"] == environment and found.about["mode"] == "interactive":
                return found
        return cls.create(environment, "interactive")


def memory(environment: str, account: str) -> Events:
    """What later runs must know again, such as starts whose answer was lost: one file an environment and account."""
    path = outputs() / ".memory" / f"{environment}-{account}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    return Events(path, share=False)


def changer_path(environment: str, account: str, *, lab: bool = False) -> Path:
    """The lock of those who change an environment; another lab, as RUNBOOK_LAB_STATE names it, has another one."""
    state = os.environ.get("RUNBOOK_LAB_STATE") if lab else None
    which = f"-{hashlib.sha256(os.fsencode(state)).hexdigest()[:12]}" if state else ""
    return outputs() / ".memory" / f"{environment}-{account}{which}.lock"


def outputs() -> Path:
    """Where run folders are: RUNBOOK_OUTPUTS, else `outputs/` of the project."""
    return Path(os.environ.get("RUNBOOK_OUTPUTS") or project_root() / "outputs")
