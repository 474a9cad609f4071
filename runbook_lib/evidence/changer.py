"""Who changes this environment now? One run at a time, from its first change to its end; looking is always allowed."""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import socket
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import ChangeRefused

INHERITED = "RUNBOOK_CHANGER"  # the runner's open file, which its kernels share: its path and number


class Changer:
    """The lock of an environment and account; held through an open file, so that whoever dies lets go of it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        inherited, _, number = os.environ.get(INHERITED, "").rpartition("=")
        self._handle = int(number) if inherited == str(path) else os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self._held = False

    @classmethod
    @cache
    def of_process(cls, path: Path) -> Changer:
        """The one of this process: a kernel that opens the runbook twice is one who changes."""
        return cls(path)

    def variable(self) -> str:
        """What INHERITED says to a process that gets the open file."""
        return f"{self.path}={self._handle}"

    def hold(self, run: str) -> None:
        """From now on this run alone changes the environment; `ChangeRefused` names the other one.

        The kernels of an interactive run stand for one another: the first that changes something holds the lock.
        """
        if self._held:
            return
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = self._holder()
            if holder.get("run") == run:
                return
            who = "run {run} by {operator} on {host}, since {since}".format_map(holder) if holder else "one just begun"
            raise ChangeRefused(
                f"Another run is changing this environment: {who}. Wait until it ends, or end it (in JupyterLab: shut "
                "its kernels down), and run this again. Looking is allowed meanwhile."
            ) from error
        about = {
            "run": run,
            "operator": getpass.getuser(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        text = json.dumps(about).encode()
        os.pwrite(self._handle, text, 0)
        os.ftruncate(self._handle, len(text))
        self._held = True

    def close(self) -> None:
        """Let go: the environment is free when the kernels that share the file have ended too."""
        os.close(self._handle)

    def _holder(self) -> dict[str, Any]:
        """What the holder wrote; nothing when it began this moment."""
        try:
            about: dict[str, Any] = json.loads(self.path.read_bytes())
        except ValueError:
            return {}
        return about
