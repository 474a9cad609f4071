"""Who ran what: operator, host, code version and library versions, for the first line of a run's record."""

from __future__ import annotations

import getpass
import platform
import socket
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ..settings import PACKAGE_ROOT

CODE = ("runbook_lib", "notebooks", "requirements.lock", "pyproject.toml")  # what decides what is run
LIBRARIES = ("migration-runbook", "boto3", "papermill", "nbclient", "ipykernel")


def provenance() -> dict[str, Any]:
    """What can be known of the operator and the code; `code` is None outside a git checkout."""
    return {
        "operator": getpass.getuser(),
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "code": _commit(),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> dict[str, Any] | None:
    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", "-C", str(PACKAGE_ROOT), *arguments], capture_output=True, text=True, check=False)

    try:
        head = git("rev-parse", "HEAD")
    except FileNotFoundError:  # no git on this machine
        return None
    if head.returncode != 0:
        return None
    return {"commit": head.stdout.strip(), "dirty": bool(git("status", "--porcelain", "--", *CODE).stdout.strip())}
