"""Run one shell script with an end: bounded output, a time limit, and nothing left running when its parent dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/homebrew/bin"

# The shell runs below this little parent. It reads a pipe that only the daemon holds open: when the daemon is gone,
# however it went, the read ends and the whole group is killed. (macOS has no parent-death signal.)
WATCH = """
import os, signal, subprocess, sys, threading
child = subprocess.Popen(["/bin/sh", "-c", sys.argv[1]], stdin=subprocess.DEVNULL)
def watch():
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)
threading.Thread(target=watch, daemon=True).start()
status = child.wait()
os._exit(status if status >= 0 else 128 - status)
"""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    exit_status: int
    output: str
    errors: str
    timed_out: bool
    cancelled: bool


class Command:
    """A script that is about to run or runs."""

    def __init__(self, script: str, directory: Path, timeout: int) -> None:
        """`timeout` in seconds."""
        self.script, self.directory, self.timeout = script, directory, timeout
        self.cancelled = False
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def launch(self) -> subprocess.Popen[bytes]:
        """Start it in a process group of its own, without the daemon's credentials in its environment."""
        environment = {"PATH": PATH, "HOME": str(self.directory), "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
        with self._lock:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", WATCH, self.script],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=self.directory,
                env=environment,
                start_new_session=True,
            )
        return self._process

    def kill(self) -> None:
        """End the whole group."""
        with self._lock:
            process = self._process
        if process is not None and process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)

    def cancel(self) -> None:
        """End it because somebody asked."""
        self.cancelled = True
        self.kill()


def run_command(command: Command, output_limit: int, error_limit: int) -> Done:
    """Run to the end; keeps the first characters of each output and reads the rest away, so memory is bounded."""
    try:
        process = command.launch()
    except OSError as error:  # a working directory that is not there
        return Done(255, "", f"The command cannot be started in its directory: {error.strerror}\n", False, False)
    assert process.stdout is not None and process.stderr is not None
    if command.cancelled:  # before it was launched
        command.kill()
    output, errors = _Reader(process.stdout, output_limit), _Reader(process.stderr, error_limit)
    timed_out = False
    try:
        process.wait(command.timeout)
    except subprocess.TimeoutExpired:
        timed_out = True
    command.kill() if timed_out else None
    process.wait()
    _end_group(process.pid)  # what the script left in the background would keep the pipes open
    text, said = output.text(), errors.text()
    assert process.stdin is not None
    process.stdin.close()
    return Done(-1 if timed_out or command.cancelled else process.returncode, text, said, timed_out, command.cancelled)


def _end_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # macOS answers EPERM for a group of zombies
        return


class _Reader:
    """Reads a pipe to its end on a thread and keeps its beginning."""

    def __init__(self, pipe: IO[bytes], limit: int) -> None:
        self._limit = limit
        self._kept = bytearray()
        self._thread = threading.Thread(target=self._read, args=(pipe,), daemon=True)
        self._thread.start()

    def _read(self, pipe: IO[bytes]) -> None:
        with pipe:
            while chunk := pipe.read1(65536):  # type: ignore[attr-defined]
                room = 4 * self._limit - len(self._kept)  # a character is at most 4 bytes
                self._kept += chunk[: max(room, 0)]

    def text(self) -> str:
        self._thread.join(1.0)  # seconds; a child in a session of its own may hold the pipe open
        return self._kept.decode("utf-8", "replace")[: self._limit]
