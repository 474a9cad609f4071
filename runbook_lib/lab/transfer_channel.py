"""How does a transfer worker talk with the daemon that owns it?

JSON lines both ways. The worker says `phase` (and waits for `go`: the daemon decides how long a state lasts),
`counters`, `log` and `end`; the daemon says `go`, `rate` (bytes per second) and `cancel`. When the daemon dies its end
of the pipe closes and the worker exits at once, so a killed lab leaves nothing running.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from typing import Any, TextIO

INTERVAL = 0.1  # seconds between two progress messages
MAX_LINES = 500  # log lines in one message


class Cancelled(Exception):
    """The execution was cancelled."""


@dataclass(slots=True)
class Count:
    """How many files, or folders, went through each step."""

    listed: int = 0
    listed_at_destination: int = 0
    prepared: int = 0  # found to need a transfer
    to_delete: int = 0
    transferred: int = 0
    skipped: int = 0
    verified: int = 0
    deleted: int = 0
    failed_list: int = 0
    failed_prepare: int = 0
    failed_transfer: int = 0
    failed_verify: int = 0
    failed_delete: int = 0


@dataclass(slots=True)
class Counters:
    """A run's progress; links count as files. Bytes are logical bytes."""

    files: Count = field(default_factory=Count)
    folders: Count = field(default_factory=Count)
    bytes_estimated: int = 0
    bytes_transferred: int = 0
    bytes_written: int = 0

    def of(self, is_folder: bool) -> Count:
        """The count of a kind."""
        return self.folders if is_folder else self.files


class Channel:
    """The worker's end."""

    def __init__(self, commands: TextIO, out: TextIO) -> None:
        self.counters = Counters()
        self._commands, self._out = commands, out
        self._lines: list[str] = []
        self._sent_at = 0.0
        self._phase = ""
        self._changed = threading.Condition()
        self._go = False
        self._cancelled = False
        self._rate = -1
        self._free_at = 0.0  # when the bytes read so far will have flowed at the rate

    def receive(self) -> dict[str, Any]:
        """The first line, the job, with the limit it begins with; after it a thread listens for commands."""
        job: dict[str, Any] = json.loads(self._commands.readline())
        self._rate = job["options"]["BytesPerSecond"]
        threading.Thread(target=self._listen, daemon=True).start()
        return job

    def _listen(self) -> None:
        for line in self._commands:
            command = json.loads(line)
            with self._changed:
                self._go = self._go or "go" in command
                self._cancelled = self._cancelled or "cancel" in command
                self._rate = command.get("rate", self._rate)
                self._changed.notify_all()
        os._exit(3)  # the daemon is gone; a batch is committed whole or not at all

    def send(self, **message: Any) -> None:
        """One message."""
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()

    def log(self, *lines: str) -> None:
        """Log lines, sent with the next progress message."""
        self._lines += lines
        if len(self._lines) >= MAX_LINES:
            self.progress(now=True)

    def progress(self, *, now: bool = False) -> None:
        """Tell where we are, at most every INTERVAL unless `now`; raises Cancelled when that was asked."""
        moment = time.monotonic()
        if now or moment - self._sent_at >= INTERVAL:
            self._sent_at = moment
            lines, self._lines = self._lines, []
            self.send(counters=asdict(self.counters), log=lines)
        if self._cancelled:
            raise Cancelled

    def enter(self, phase: str) -> None:
        """Begin a phase once the daemon lets us; entering the phase we are in does nothing."""
        if phase == self._phase:
            return
        self._phase = phase
        self.progress(now=True)
        self.send(phase=phase)
        with self._changed:
            self._changed.wait_for(lambda: self._go or self._cancelled)
            self._go = False
        self.progress()

    @property
    def piece(self) -> int:
        """How many bytes to read at a time so that a limited transfer flows evenly."""
        return 1 << 20 if self._rate < 0 else max(1, min(1 << 20, self._rate // 10))

    def spend(self, count: int) -> None:
        """Account for bytes read, and wait as long as the rate asks."""
        self.counters.bytes_transferred += count
        self.progress()
        if self._rate < 0:
            return
        self._free_at = max(self._free_at, time.monotonic()) + count / self._rate
        while self._rate >= 0 and (rest := self._free_at - time.monotonic()) > 0:
            with self._changed:
                self._changed.wait(min(INTERVAL, rest))
            self.progress()


def standard_channel() -> Channel:
    """The channel over this process's standard input and output; prints of others go to standard error."""
    out, sys.stdout = sys.stdout, sys.stderr
    return Channel(sys.stdin, out)
