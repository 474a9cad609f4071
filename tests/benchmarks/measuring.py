"""What does a program cost with all its children: CPU-seconds, wall, and the most memory, of each and together?"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import psutil

EVERY = 0.25  # seconds between two looks at the memory: each goes through all processes, on the measured cores
MB = 1 << 20


@dataclass(frozen=True)
class Cost:
    """Of one run. CPU is user + system of the process and of all that it waited for."""

    wall: float
    cpu: float
    resident: tuple[float, ...]  # MB at most, of each process, the largest first
    together: float  # MB at most that all of them had at one time
    output: str
    requests: Mapping[str, int] = field(default_factory=dict)

    def line(self, name: str) -> str:
        """For people."""
        each = " + ".join(f"{most:.0f}" for most in self.resident[:6])
        asked = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.requests.items()))
        memory = f"{each} MB, {self.together:.0f} at once"
        return f"  {name:34} {self.wall:7.2f} s wall {self.cpu:8.2f} CPU-s  {memory}  {asked}"


def measure(command: Sequence[str], *, statuses: Sequence[int] = (0,), **environment: str) -> Cost:
    """Run a command to its end; AssertionError with what it said, when it ends with another status."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        began = monotonic()
        process = subprocess.Popen(command, stdout=output, stderr=errors, env={**os.environ, **environment})
        with _watched(process.pid) as memory:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            wall = monotonic() - began
        output.seek(0), errors.seek(0)
        assert process.returncode in statuses, f"{command}: {process.returncode}\n{errors.read()[-3000:]}"
        resident = tuple(sorted((size / MB for size in memory.most.values()), reverse=True))
        return Cost(wall, usage.ru_utime + usage.ru_stime, resident, memory.together / MB, output.read())


@dataclass
class _Memory:
    """Bytes of a process and its descendants: the most of each, and of all at one time."""

    most: dict[int, int] = field(default_factory=dict)
    together: int = 0

    def look(self, whole: psutil.Process) -> None:
        """Take what they have now."""
        now = 0
        for process in (whole, *whole.children(recursive=True)):
            self.most[process.pid] = _most(process, self.most.get(process.pid, 0))
            now += int(process.memory_info().rss)
        self.together = max(self.together, now)


@contextmanager
def _watched(pid: int) -> Iterator[_Memory]:
    """The memory of a process and of its descendants, kept up to date meanwhile."""
    memory, whole = _Memory(), psutil.Process(pid)
    ended = threading.Event()

    def watch() -> None:
        looked = False
        while not (looked and ended.wait(EVERY)):
            looked = True
            with suppress(psutil.Error, OSError):  # one ended meanwhile
                memory.look(whole)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield memory
    finally:
        ended.set()
        thread.join()


def _most(process: psutil.Process, before: int) -> int:
    """Its most bytes so far. The system's own figure is taken as it is: between fork and exec it is the parent's."""
    status = Path(f"/proc/{process.pid}/status")
    if not status.exists():
        return max(before, int(process.memory_info().rss))
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) << 10 if "VmHWM" in lines else before  # none of a zombie


def middle(costs: Sequence[Cost]) -> Cost:
    """The run whose CPU is the median: the wall and memory of that very run go with it."""
    return sorted(costs, key=lambda cost: cost.cpu)[(len(costs) - 1) // 2]


def ratio(theirs: Sequence[Cost], ours: Sequence[Cost], what: str) -> float:
    """Their median over our median, of `wall` or `cpu`."""
    over, under = ([getattr(cost, what) for cost in costs] for costs in (theirs, ours))
    return float(statistics.median(over) / statistics.median(under))


def judged(what: str, value: float, sign: str, bound: float) -> None:
    """Say whether a figure is reached."""
    met = value <= bound if sign == "<=" else value >= bound
    print(f"  {'reached' if met else 'MISSED '}  {what}: {value:.2f} (wanted {sign} {bound})", flush=True)
