"""What does a program on a managed instance say, when a command's output is cut at 24,000 characters?

The program runs in the background there, in a private temporary folder, and its output is fetched in pieces, each by a
command. That is slow, so it has a limit; the folder is removed and the program ended whatever happens.
"""

from __future__ import annotations

import base64
import io
import shlex
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any, Protocol

from .errors import CommandFailed, RunbookError, TornStream

PIECE = 15_000  # bytes fetched by one command: 20,000 characters of base64, below what SSM keeps of an output
SENT = 60_000  # characters of input sent by one command, below what SSM takes
LIMIT = 4_000_000  # bytes fetched; some 150,000 entries, and a few hundred commands

# Starts the program in a session of its own, so that the end of this command does not end it.
START = r"""
import os, subprocess, sys
folder, command = sys.argv[1], sys.argv[2:]
if os.fork() == 0:
    os.setsid()
    with open(folder + "/pid", "w") as pid: pid.write(str(os.getpid()))
    with open(folder + "/in", "rb") as said, open(folder + "/out", "wb") as out, \
            open(folder + "/errors", "wb") as errors:
        null = os.open(os.devnull, os.O_RDWR)
        for standard in range(3): os.dup2(null, standard)
        status = subprocess.call(command, stdin=said, stdout=out, stderr=errors)
    with open(folder + "/status.new", "w") as ended: ended.write(str(status))
    os.rename(folder + "/status.new", folder + "/status")
    os._exit(0)
"""
UNPACK = "import sys, zlib, base64; sys.stdout.buffer.write(zlib.decompress(base64.b64decode(sys.stdin.read())))"


class Ran(Protocol):
    """How a command ended; see hosts.CommandResult."""

    output: str

    def required(self) -> Any:
        """This result when it is ok; raises `CommandFailed`."""


class Runs(Protocol):
    """What is needed of a host."""

    name: str

    def run(self, script: str, *, timeout: int = 120, changes: bool = False) -> Any:
        """See hosts.Host."""


class Output(io.RawIOBase):
    """What the program has said so far, and what it will say."""

    def __init__(self, host: Runs, folder: str, sleep: Callable[[float], None]) -> None:
        self._host, self._folder, self._sleep = host, shlex.quote(folder), sleep
        self._read, self._held, self._ended, self._pause = 0, b"", False, 0.05

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fetch a piece; waits for it."""
        while not self._held and not self._ended:
            self._fetch()
        count = min(len(buffer), len(self._held))
        buffer[:count], self._held = self._held[:count], self._held[count:]
        return count

    def _fetch(self) -> None:
        """One command: is it over (asked first, so that nothing said later is lost), how much is there, a piece."""
        piece = f"tail -c +{self._read + 1} out | head -c {PIECE} | base64"
        script = f"cd {self._folder} && {{ test -e status && echo ended || echo runs; }} && wc -c < out && {piece}"
        state, length, *lines = self._host.run(script).required().output.split()
        if int(length) > LIMIT:
            raise RunbookError(
                f"The answer of {self._host.name} has more than {LIMIT:,} bytes, too many to be fetched through "
                "commands. Use `reach: ssh` for the application server, or run this on the server itself "
                "(`reach: local`)."
            )
        self._held = base64.b64decode("".join(lines))
        self._read += len(self._held)
        self._ended = state == "ended" and self._read == int(length)
        if not self._held and not self._ended:
            self._sleep(self._pause)
            self._pause = min(2 * self._pause, 5.0)

    def check(self) -> None:
        """Raise `CommandFailed` if the program has ended and failed."""
        script = (
            f"cd {self._folder} && if test -e status; then cat status; else echo 0; fi && echo && tail -c 2000 errors"
        )
        status, _, errors = self._host.run(script).required().output.partition("\n")
        if int(status):
            raise CommandFailed(
                f"The program on {self._host.name} ended with exit status {status}: {errors.strip()}. "
                "Is python3 there, and is there room in its temporary folder?"
            )


@contextmanager
def fetched(
    host: Runs, command: Sequence[str], data: bytes, sleep: Callable[[float], None] = time.sleep
) -> Iterator[IO[bytes]]:
    """The standard output of a program that runs on `host`, given `data`; see `hosts.Host.stream`."""
    folder = str(host.run("umask 077 && mktemp -d").required().output).strip()
    quoted = shlex.quote(folder)
    try:
        text = base64.b64encode(zlib.compress(data, 9)).decode()
        for at in range(0, len(text), SENT):
            host.run(f"printf %s {text[at : at + SENT]} >> {quoted}/packed").required()
        start = shlex.join(["python3", "-c", START, folder, *command])
        unpack = shlex.join(["python3", "-c", UNPACK])
        # not from the folder: the environment's mounts may be relative to where commands run
        host.run(f"{unpack} < {quoted}/packed > {quoted}/in && : > {quoted}/out && {start}").required()
        output = Output(host, folder, sleep)
        try:
            yield io.BufferedReader(output, PIECE)
        except TornStream:
            output.check()
            raise
        output.check()
    finally:
        # the program leads a process group of its own; once it has ended, its number may be another's
        kill = 'test -e status || test ! -e pid || kill -9 -- -"$(cat pid)"'
        host.run(f"cd {quoted} && {{ {kill}; }}; cd / && rm -rf {quoted}").required()
