"""A lab for one test session: its own state folder, its own outputs, stopped and removed at the end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from runbook_lib.lab.core import Folder
from runbook_lib.lab.daemon import perform


@dataclass(frozen=True)
class ThrowawayLab:
    """A running lab that belongs to nobody else."""

    state: Path

    def verb(self, *arguments: str) -> str:
        """Run `python -m runbook_lib.lab …` on it; its output."""
        done = subprocess.run(
            [sys.executable, "-m", "runbook_lib.lab", *arguments, "--state", str(self.state)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"lab {' '.join(arguments)}: {done.stderr or done.stdout}")
        return done.stdout

    def reset(self, at: str) -> None:
        """Back to the world that notebook `at` starts from; asked of the daemon without another process."""
        perform(Folder(self.state), "reset", {"at": at})

    def mend(self) -> None:
        """Mend all that is broken; asked as `reset` asks."""
        perform(Folder(self.state), "mend", {})


@contextmanager
def throwaway_lab() -> Iterator[ThrowawayLab]:
    """Start a lab in a temporary folder; kernels find it through the environment variables set meanwhile."""
    folder = Path(tempfile.mkdtemp(prefix="runbook-lab-"))
    lab = ThrowawayLab(folder / "lab")
    variables = {
        "RUNBOOK_LAB_STATE": str(lab.state),
        "RUNBOOK_OUTPUTS": str(folder / "outputs"),
        "RUNBOOK_KEY": str(folder / "signing-key.pem"),
        "RUNBOOK_UI": "static",
    }
    before = {name: os.environ.get(name) for name in [*variables, "RUNBOOK_RUN"]}
    os.environ.update(variables)
    os.environ.pop("RUNBOOK_RUN", None)
    try:
        lab.verb("start", "--pace", "0")
        yield lab
    finally:
        lab.verb("stop")
        shutil.rmtree(folder, ignore_errors=True)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def connection(lab: ThrowawayLab) -> dict[str, Any]:
    """Where the lab is and its credentials."""
    found: dict[str, Any] = json.loads((lab.state / "connection.json").read_text())
    return found


def client(lab: ThrowawayLab, service: str) -> Any:
    """A boto3 client of the lab."""
    found = connection(lab)
    return boto3.client(
        service, endpoint_url=found["url"], region_name="eu-central-1",
        aws_access_key_id=found["access_key"], aws_secret_access_key=found["secret_key"],
    )  # fmt: skip
