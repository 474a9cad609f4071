"""How fast is a DataSync task over many small files, beside `aws s3 sync` and `cp -a`, and what memory does it take?

Run it as `python -m tests.benchmarks.bench_datasync [files]`. The task's worker writes into the object store directly,
no HTTP is crossed; `aws s3 sync` crosses HTTP to the lab's S3 on a loopback port. CPU is that of all processes
involved: for the task the worker and the daemon's share, for sync the command and the server.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.lab.datasync_world import World, resident
from tests.lab.s3_server import ACCESS_KEY, BUCKET, SECRET_KEY

SIZE = 4096  # bytes of a file


@dataclass(frozen=True)
class Cost:
    """Seconds."""

    wall: float
    cpu: float

    def line(self, name: str, files: int) -> str:
        return f"{name:38} {self.wall:7.2f} s wall {self.cpu:7.2f} s CPU {files / self.wall:9,.0f} files/s"


def _cpu() -> float:
    usages = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measure(work: Callable[[], object]) -> Cost:
    """What one piece of work costs this process and the children it waited for."""
    wall, cpu = time.monotonic(), _cpu()
    work()
    return Cost(time.monotonic() - wall, _cpu() - cpu)


def fill(folder: Path, files: int) -> None:
    """Different files in folders of 1,000."""
    for number in range(files):
        below = folder / f"{number // 1000:03d}"
        below.mkdir(parents=True, exist_ok=True)
        (below / f"{number:06d}.bin").write_bytes(os.urandom(SIZE))


def run(world: World, task: str) -> None:
    """One execution; it has to succeed."""
    done = world.run(task)
    assert done["Status"] == "SUCCESS", done


def sync(root: Path, source: Path) -> None:
    """`aws s3 sync` to the lab's S3 in a process of its own, whose CPU counts too."""
    keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_DEFAULT_REGION": "eu-central-1"}
    command = [str(Path(sys.executable).with_name("aws")), "s3", "sync", "--only-show-errors", str(source)]
    server_command = [sys.executable, "-m", "tests.lab.s3_server", str(root)]
    with subprocess.Popen(server_command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None and server.stdin is not None
        url = server.stdout.readline().strip()
        subprocess.run([*command, f"s3://{BUCKET}/", "--endpoint-url", url], env={**os.environ, **keys}, check=True)
        server.stdin.close()
        server.wait()


def peak(root: Path, files: int) -> int:
    """The worker's largest seen memory in bytes over a first run."""
    world = World(root).furnish()
    fill(world.export, files)
    execution = world.begin(world.task())
    found = world.datasync.run_of(execution)
    largest = 0
    while world.describe(execution)["Status"] not in ("SUCCESS", "ERROR"):
        largest = max(largest, resident(found.worker if found else None))
    world.datasync.stop()
    return largest


def main(files: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        world = World(top / "lab").furnish()
        fill(world.export, files)
        tasks = {}
        for verify in ("ONLY_FILES_TRANSFERRED", "NONE"):
            destination = world.s3(verify.lower())
            task = world.task(verify=verify, Destination=destination)
            first = measure(lambda task=task: run(world, task))  # type: ignore[misc]
            tasks[verify] = first.wall
            again = measure(lambda task=task: run(world, task))  # type: ignore[misc]
            print(first.line(f"DataSync, {verify}", files))
            print(again.line("  the same, nothing changed", files), f"  {again.wall / first.wall:.2f} of the first")
        copied = measure(lambda: subprocess.run(["cp", "-a", str(world.export), str(top / "copy")], check=True))
        print(copied.line("cp -a", files))
        synced = measure(lambda: sync(top / "sync", world.export))
        print(synced.line("aws s3 sync over HTTP", files))
        for verify, wall in tasks.items():
            print(
                f"a task with {verify}: {wall / copied.wall:.1f} times as long as cp -a; "
                f"aws s3 sync takes {synced.wall / wall:.1f} times as long as it"
            )
        print("The task reads the export and writes into the object store without HTTP; aws s3 sync crosses HTTP.")
        world.datasync.stop()
        few, many = peak(top / "few", max(1, files // 10)), peak(top / "many", files)
        print(f"worker's memory: {few / 1e6:.0f} MB at {files // 10:,} files, {many / 1e6:.0f} MB at {files:,} files")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
