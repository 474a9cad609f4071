"""What does a program on a managed instance say, when a command's output is cut at 24,000 characters?

The program runs in the background there, in a private temporary folder (`sending.py`), and its output is fetched in
pieces, each by a command. That is slow, so it has a limit; what is longer goes through S3, where an exchange is given.
The folder is removed and the program ended whatever happens.
"""

from __future__ import annotations

import base64
import io
import shlex
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from . import sending
from .errors import CommandFailed, RunbookError, TornStream

PIECE = 15_000  # bytes fetched by one command: 20,000 characters of base64, below what SSM keeps of an output
SENT = 45_000  # characters of input sent by one command, which with what starts the program is below what SSM takes
LIMIT = 4_000_000  # bytes fetched by commands; some 150,000 entries, and a few hundred commands
PART = 32 * 1024 * 1024  # bytes of an object; not less than LIMIT
HELD = 2  # parts that wait on the server, and then the program does
PATIENCE = 1800  # seconds that the program goes on without being asked for what it said

UNPACK = "import sys, zlib, base64; sys.stdout.buffer.write(zlib.decompress(base64.b64decode(sys.stdin.read())))"


class Runs(Protocol):
    """What is needed of a host."""

    name: str

    def run(self, script: str, *, timeout: int = 120, changes: bool = False) -> Any:
        """See hosts.Host."""


class Parcel(Protocol):
    """One program's output on its way through an exchange."""

    def url(self, number: int) -> str:
        """Where a part may be PUT, for an hour from now; a change, so the rails are asked."""

    def read(self, number: int, size: int) -> Iterator[bytes]:
        """A part that was sent; its object is deleted at the end."""

    def close(self) -> None:
        """Delete all that is left of it."""


class Exchange(Protocol):
    """Where long output goes through; see aws.exchange."""

    def open(self, host: str) -> Parcel:
        """Begin; raises `ChangeRefused` where nothing may be changed."""


@dataclass(frozen=True)
class State:
    """How far a program is, in one look."""

    status: str  # runs, or its exit status
    bytes: int  # that it said
    whole: int  # parts that are whole
    sent: int  # parts that are in the exchange

    @property
    def ended(self) -> bool:
        """All is said."""
        return self.status != "runs"


class There:
    """A program and its folder on a host."""

    def __init__(self, host: Runs, folder: str) -> None:
        self.host, self._folder = host, shlex.quote(folder)

    @classmethod
    @contextmanager
    def started(cls, host: Runs, command: Sequence[str], data: bytes) -> Iterator[There]:
        """A program that is running, with its input; ended with the block. Few commands: each takes SSM a second."""
        text = base64.b64encode(zlib.compress(data, 9)).decode()
        pieces = [text[at : at + SENT] for at in range(0, len(text), SENT)]
        last = _starting(command)
        first = f'umask 077 && d=$(mktemp -d) && echo "$d" && {{ {_packing(pieces[0])}'
        first += "" if pieces[1:] else f" && {last}"
        made = host.run(first + '; } || { rm -rf "$d"; exit 1; }').required().output.split("\n")[0]
        there = cls(host, made)
        try:
            for at, piece in enumerate(pieces[1:], 2):
                then = f" && {last}" if at == len(pieces) else ""
                host.run(f"d={shlex.quote(made)}; {_packing(piece)}{then}").required()
            yield there
        finally:
            there.end()

    def look(self, then: str = "true") -> tuple[State, str]:
        """One command: how far it is, asked first so that nothing said later is lost, and what `then` says."""
        alive = f'cd {self._folder} 2>/dev/null && kill -0 "$(cat pid)" 2>/dev/null'
        script = f"{alive} || {{ echo gone; cat errors; exit 0; }}; touch asked && cat state && {then}"
        first, _, said = self.host.run(script).required().output.partition("\n")
        status, *numbers = first.split()
        if status == "gone":
            raise CommandFailed(
                f"The program on {self.host.name} is gone: {said.strip()[-2000:] or 'it does not say why'}. Was the "
                f"server restarted, is memory short there (`dmesg`), or did nobody ask for {PATIENCE // 60} minutes? "
                "Run it again: finished shards are kept."
            )
        if status == "trouble":
            trouble = self.host.run(f"cat {self._folder}/trouble").required().output
            raise RunbookError(f"The answer of {self.host.name} does not come through: {trouble.strip()}")
        return State(status, *map(int, numbers)), said

    def check(self, state: State | None = None) -> None:
        """Raise `CommandFailed` if the program has ended (as `state` says, else as it is now) and failed."""
        if state is not None and state.ended and not int(state.status):
            return
        state, errors = self.look("tail -c 2000 errors")
        if state.ended and int(state.status):
            raise CommandFailed(
                f"The program on {self.host.name} ended with exit status {state.status}: {errors.strip()}. "
                "Is python3 there, and is there room in its temporary folder?"
            )

    def end(self) -> None:
        """End the program and remove the folder; the program leads a process group of its own."""
        kill = 'test ! -e pid || kill -9 -- "-$(cat pid)" 2>/dev/null'
        self.host.run(f"cd {self._folder} 2>/dev/null || exit 0; {kill}; cd / && rm -rf {self._folder}").required()


class Output(io.RawIOBase):
    """What the program has said so far, and what it will say."""

    def __init__(
        self, there: There, exchange: Exchange | None, ends: ExitStack, sleep: Callable[[float], None]
    ) -> None:
        """`ends`: what is left in the exchange is deleted with it."""
        self._there, self._exchange, self._ends, self._sleep = there, exchange, ends, sleep
        self._held, self._said = b"", self._fetched()

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """The next bytes; waits for them."""
        while not self._held:
            try:
                self._held = next(self._said)
            except StopIteration:
                return 0
        count = min(len(buffer), len(self._held))
        buffer[:count], self._held = self._held[:count], self._held[count:]
        return count

    def _fetched(self) -> Iterator[bytes]:
        """By commands, up to the limit; then through the exchange."""
        read, pause = 0, 0.05
        while True:
            state, text = self._there.look(f"tail -c +{read + 1} out.0 | head -c {PIECE} | base64")
            if state.bytes > LIMIT:
                break
            piece = base64.b64decode("".join(text.split()))
            read += len(piece)
            yield piece
            if state.ended and read == state.bytes:
                return self._there.check(state)
            pause = 0.05 if piece else self._rest(pause)
        if self._exchange is None:
            raise RunbookError(
                f"The answer of {self._there.host.name} has more than {LIMIT:,} bytes, too many to be fetched through "
                "commands. Name a bucket that it may go through in `inventory.exchange` (s3://bucket/prefix), use "
                "`reach: ssh` for the application server, or run this on the server itself (`reach: local`)."
            )
        yield from self._exchanged(self._exchange, read)

    def _exchanged(self, exchange: Exchange, skip: int) -> Iterator[bytes]:
        """Through S3, from the byte `skip` of the first part. URLs are made when their parts are whole."""
        parcel = exchange.open(self._there.host.name)
        self._ends.callback(parcel.close)
        number, offered, pause = 0, 0, 0.05
        state, _ = self._there.look()
        while not (state.ended and number * PART >= state.bytes):
            if state.sent > number:
                for piece in parcel.read(number, min(PART, state.bytes - number * PART)):
                    yield piece[skip:]
                    skip = max(0, skip - len(piece))
                number += 1
                continue
            urls = {at: parcel.url(at) for at in range(offered, state.whole)}
            given = [f"printf %s {shlex.quote(url)} > new && mv new url.{at}" for at, url in urls.items()]
            offered = state.whole
            state, _ = self._there.look(" && ".join(given) or "true")
            pause = 0.05 if urls else self._rest(pause)
        self._there.check(state)

    def _rest(self, pause: float) -> float:
        """Wait; how long the next time."""
        self._sleep(pause)
        return min(2 * pause, 5.0)


def _packing(piece: str) -> str:
    return f'printf %s {piece} >> "$d"/packed'


def _starting(command: Sequence[str]) -> str:
    source = Path(sending.__file__).read_text("utf-8")
    start = f'python3 -c {shlex.quote(source)} "$d" {PART} {HELD} {PATIENCE} {shlex.join(command)}'
    return f'{shlex.join(["python3", "-c", UNPACK])} < "$d"/packed > "$d"/in && {start}'


@contextmanager
def fetched(
    host: Runs,
    command: Sequence[str],
    data: bytes,
    exchange: Exchange | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[IO[bytes]]:
    """The standard output of a program that runs on `host`, given `data`; see `hosts.Host.stream`."""
    with ExitStack() as exchanged, There.started(host, command, data) as there:
        # the program is ended first, so that nothing is sent after the deletion
        try:
            yield io.BufferedReader(Output(there, exchange, exchanged, sleep), PIECE)
        except TornStream:
            there.check()
            raise
