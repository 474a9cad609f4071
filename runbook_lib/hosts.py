"""Run a command where it belongs: on the application server through SSM or SSH, or on this machine."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from .aws.ssm import STDOUT_LIMIT, RunCommand
from .display import Shown, Table
from .errors import CommandFailed, RunbookError


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

    def run(self, script: str, *, timeout: int = 120, changes: bool = False) -> CommandResult:
        """Run a shell script. `timeout` in seconds; `changes`: it changes something, so the rails are asked."""


class SsmHost:
    """A managed instance, through SSM Run Command."""

    def __init__(self, run_command: RunCommand, instance: str) -> None:
        self._run_command = run_command
        self._instance = instance
        self._instance_id: str | None = None
        self.name = instance

    def run(self, script: str, *, timeout: int = 120, changes: bool = False) -> CommandResult:
        """See Host."""
        if self._instance_id is None:
            self._instance_id = self._run_command.instance(self._instance).instance_id
        status, output, errors = self._run_command.run(self._instance_id, script, timeout=timeout, changes=changes)
        return CommandResult(script, status, output, errors, self.name)


class ProcessHost:
    """This machine, or another through ssh: a local process either way."""

    def __init__(self, name: str, guard: GuardLike, *, ssh: bool = False) -> None:
        self.name = name
        self._guard = guard
        self._argv = ["ssh", "-o", "BatchMode=yes", name, "sh", "-s"] if ssh else ["sh", "-s"]

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


class GuardLike(Protocol):
    """Raises `ChangeRefused` when changes are not allowed."""

    def __call__(self) -> None: ...


def quoted(parts: Sequence[str]) -> str:
    """Shell text from parts; empty parts (no `sudo`) fall away."""
    return shlex.join(part for part in parts if part)
