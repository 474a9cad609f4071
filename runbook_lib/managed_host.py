"""Run a command on the application server through SSM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

from .aws.ssm import RunCommand
from .fetching import Exchange, fetched
from .hosts import CommandResult


class SsmHost:
    """A managed instance, through SSM Run Command."""

    def __init__(self, run_command: RunCommand, instance: str, exchange: Exchange | None = None) -> None:
        """`exchange`: where output goes through that is too long for commands."""
        self._run_command, self._exchange = run_command, exchange
        self._instance = instance
        self._instance_id: str | None = None
        self.name = instance
        self.python, self.remote = "python3", True

    def run(self, script: str, *, timeout: int = 120, changes: bool = False) -> CommandResult:
        """See Host."""
        if self._instance_id is None:
            self._instance_id = self._run_command.instance(self._instance).instance_id
        status, output, errors = self._run_command.run(self._instance_id, script, timeout=timeout, changes=changes)
        return CommandResult(script, status, output, errors, self.name)

    @contextmanager
    def stream(self, command: Sequence[str], data: bytes) -> Iterator[IO[bytes]]:
        """See Host. What it says is fetched by commands, up to `fetching.LIMIT`; more needs an exchange."""
        with fetched(self, command, data, self._exchange) as output:
            yield output
