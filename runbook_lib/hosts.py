"""Run a command where it belongs: on this machine or through SSH; through SSM see `managed_host`."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Protocol

from .display import Shown, Table
from .errors import CommandFailed, RunbookError, TornStream

STDOUT_LIMIT = 24_000  # characters that SSM keeps of standard output; the rest is cut silently
SSH = ["ssh", "-o", "BatchMode=yes", "-o", "ServerAliveInterval=15"]
ENDING = 30  # seconds for a program to end after its last word


@dataclass(frozen=True, repr=False)
class CommandResult(Shown):
    """What a command did."""

    command: str
    exit_status: int
    output: str
    errors: str
    host: str

    @property
    def ok(self) -> bool:
        """A finding: it ended with exit status 0."""
        return self.exit_status == 0

    @property
    def reason(self) -> str:
        """What it said when it failed."""
        said = (self.errors or self.output).strip()
        return f"`{self.command}` on {self.host} ended with exit status {self.exit_status}: {said[:500]}"

    @property
    def truncated(self) -> bool:
        """True when the output may have been cut."""
        return len(self.output) >= STDOUT_LIMIT

    def headline(self) -> str:
        """The command and what it printed."""
        status = "" if self.ok else f"\n(exit status {self.exit_status})"
        text = (self.output + self.errors).rstrip()
        return f"$ {self.command}" + (f"\n{text}" if text else "") + status

    def tables(self) -> list[Table]:
        """None: the headline says it all."""
        return []

    def required(self) -> CommandResult:
        """This result when it is ok; raises `CommandFailed`."""
        if not self.ok:
            raise CommandFailed(
                f"{self.reason}. Check the path, the mount (`mount | grep mnt`) and the permissions on {self.host}."
            )
        return self


class Host(Protocol):
    """Somewhere commands run."""

    name: str
    python: str  # how Python is called there
    remote: bool  # what it says comes over a network

    def run(self, script: str, *, timeout: int = 120, changes: bool = False) -> CommandResult:
        """Run a shell script. `timeout` in seconds; `changes`: it changes something, so the rails are asked."""

    def stream(self, command: Sequence[str], data: bytes) -> AbstractContextManager[IO[bytes]]:
        """The standard output of a program that looks, given `data` on its standard input; it ends with the block.

        Raises `CommandFailed` at the end of the block when the program failed.
        """


class ProcessHost:
    """This machine, or another through ssh: a local process either way."""

    def __init__(self, name: str, guard: GuardLike, *, ssh: bool = False) -> None:
        self.name = name
        self.python, self.remote = ("python3", True) if ssh else (sys.executable, False)
        self._guard = guard
        self._argv = [*SSH, name, "sh", "-s"] if ssh else ["sh", "-s"]

    def run(self, script: str, *, timeout: int = 120, changes: bool = False) -> CommandResult:
        """See Host. The script goes to the shell's standard input, so its length and quoting do not matter."""
        if changes:
            self._guard()
        try:
            done = subprocess.run(
                self._argv,
                input=script,
                capture_output=True,
                text=True,
                errors="surrogateescape",
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise RunbookError(f"`{script}` on {self.name} did not end within {timeout} s and was stopped.") from error
        except FileNotFoundError as error:
            raise RunbookError(f"{self._argv[0]} is not installed on this machine.") from error
        return CommandResult(script, done.returncode, done.stdout, done.stderr, self.name)

    @contextmanager
    def stream(self, command: Sequence[str], data: bytes) -> Iterator[IO[bytes]]:
        """See Host."""
        argv = [*SSH, self.name, shlex.join(command)] if self.remote else list(command)
        with tempfile.TemporaryFile() as errors:
            try:
                process = subprocess.Popen(
                    argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
                )
            except FileNotFoundError as error:
                raise RunbookError(f"{argv[0]} is not installed on this machine.") from error
            assert process.stdin is not None and process.stdout is not None
            feeder = threading.Thread(target=_feed, args=(process.stdin, data), daemon=True)
            feeder.start()
            try:
                yield process.stdout
                _wait(process, self.name)
            except TornStream as error:
                if _ended_with(process) > 0:
                    raise _failed(self.name, process.returncode, errors) from error
                raise
            finally:
                _end(process)
                feeder.join()
            if process.returncode != 0:
                raise _failed(self.name, process.returncode, errors)


def _feed(stdin: IO[bytes], data: bytes) -> None:
    """Give a program its input; one that ended early does not want it, and says why itself."""
    with suppress(BrokenPipeError), stdin:
        stdin.write(data)


def _wait(process: subprocess.Popen[bytes], host: str) -> None:
    try:
        process.wait(ENDING)
    except subprocess.TimeoutExpired as error:
        raise RunbookError(f"The program on {host} said its last word and did not end; it was stopped.") from error


def _ended_with(process: subprocess.Popen[bytes]) -> int:
    """The exit status of a program whose output ended; 0 when it still runs."""
    try:
        return process.wait(5)
    except subprocess.TimeoutExpired:
        return 0


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the program and all that it started."""
    with suppress(ProcessLookupError, PermissionError):  # macOS answers EPERM for a group of zombies
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def _failed(host: str, status: int, errors: IO[bytes]) -> CommandFailed:
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - 2000))
    said = errors.read().decode(errors="replace").strip() or "it did not say why"
    return CommandFailed(
        f"The program on {host} ended with exit status {status}: {said}. Is python3 there, and may this user run it?"
    )


class GuardLike(Protocol):
    """Raises `ChangeRefused` when changes are not allowed."""

    def __call__(self) -> None: ...


def quoted(parts: Sequence[str]) -> str:
    """Shell text from parts; empty parts (no `sudo`) fall away."""
    return shlex.join(part for part in parts if part)
