"""What does it cost to account for every file, beside rclone, s5cmd, the AWS CLI and boto3, and in how much memory?

Run it as `python -m tests.benchmarks.bench_inventory [--files N] [--rounds N] [--peers rclone,s5cmd] [--only PART,…]`.
A tree of small files and a bucket of the same keys with 53 differences, served by tests/s3_stub.py from a process of
its own without latency, then with 50 ms for each LIST. Whoever is measured has a process of its own, in turns; ratios
are of medians; CPU is user and system of a process and all its children. A run that does not find what was planted
(37 missing, 11 wrong size, and where the peer looks for them 5 extra) fails. `--peers-files`: how many files the slow
peers get. `--keep FOLDER` keeps the trees for another time. `--whole` measures at the sizes that the bounds are for: a
million files, for the slow peers too (an hour or two), memory up to 5 million, or 10 million that each side has alone,
the join of 10 million.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests import trees
from tests.benchmarks import inventories
from tests.benchmarks.inventory_work import BUCKET, KEYS, REGION
from tests.benchmarks.measuring import MB, Cost, judged, measure, middle, ratio
from tests.s3_stub import Spawned, spawned

BIN = Path(sys.executable).parent
MILLION = 1_000_000  # files: what the bounds of peers are for
FAST = ("rclone",)  # the others take minutes for a million
AROUND = 3  # runs of ours before and after those
BOUNDS = {"rclone": (3, 3), "s5cmd": (15, 15), "aws": (30, 0)}  # times our wall and CPU, at least
AIM = {"rclone": 5}  # times our wall: what we would like to reach
HUNGRY = {"s5cmd": 10}  # times the memory that all our processes have at one time, at least
JOINED = 10 * MILLION  # rows: what the bound of the join is for
FLAT = 1.25  # times the memory at a fifth of the entries, at most
LATENCY, LATE_BOUND = 0.05, 4  # seconds of a LIST; times our wall of rclone with 64 checkers, at least
WORKER, MERGER = 100, 300  # MB resident at most
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": KEYS[0], "AWS_SECRET_ACCESS_KEY": KEYS[1], "AWS_DEFAULT_REGION": REGION, "AWS_REGION": REGION,
    "RCLONE_CONFIG": "/dev/null",
}  # fmt: skip


@dataclass(frozen=True)
class Arena:
    """Where one contest takes place."""

    files: int
    tree: Path
    folder: Path  # for what the runs write
    endpoint: Spawned
    planted: trees.Planted

    def run(self, command: Sequence[str], *, statuses: Sequence[int] = (0,)) -> Cost:
        """Measure a command, and count what it asked of the endpoint."""
        before = self.endpoint.ask("requests")["requests"]
        cost = measure(command, statuses=statuses, **ENVIRONMENT)
        after = self.endpoint.ask("requests")["requests"]
        return replace(cost, requests={kind: count - before.get(kind, 0) for kind, count in after.items()})

    def fresh(self, name: str) -> Path:
        """An empty folder."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        (self.folder / name).mkdir()
        return self.folder / name


Peer = Callable[[Arena, bool], Cost]  # the flag: LIST is slow, so it is tuned for that


def work(name: str, *arguments: object) -> list[str]:
    """The command of one piece of our own work."""
    return [sys.executable, "-m", "tests.benchmarks.inventory_work", name, *map(str, arguments)]


def ours(arena: Arena, late: bool) -> Cost:
    """Scan, LIST, both inventories written, compared, every difference in a file."""
    folder = arena.fresh("ours")
    cost = arena.run(work("whole", arena.tree, arena.endpoint.url, folder, 16, 2))
    said = json.loads(cost.output)
    rows = pq.read_table(said["parquet"], columns=["key", "difference"]).to_pylist()
    found = {kind: {row["key"] for row in rows if row["difference"] == kind} for kind in ("missing", "size", "extra")}
    assert found == vars(arena.planted), found
    assert len(rows) == arena.planted.count, rows
    return cost


def rclone(arena: Arena, late: bool) -> Cost:
    """Its `check --size-only`, which lists folder by folder."""
    folder = arena.fresh("rclone")
    files = {"missing": "--missing-on-dst", "size": "--differ", "extra": "--missing-on-src"}
    command = [
        str(BIN / "rclone"), "check", "--size-only", "--checkers", "64" if late else "16", str(arena.tree),
        f":s3:{BUCKET}", "--s3-provider", "Other", "--s3-env-auth", "--s3-endpoint", arena.endpoint.url,
        "--s3-force-path-style", "--s3-list-version", "2", "--s3-list-url-encode=true", "--s3-region", REGION,
        *(part for name, option in files.items() for part in (option, str(folder / name))),
    ]  # fmt: skip
    cost = arena.run(command, statuses=[1])
    assert {name: set((folder / name).read_text().split()) for name in files} == vars(arena.planted)
    return cost


def s5cmd(arena: Arena, late: bool) -> Cost:
    """Its dry sync, which does not report extra objects."""
    where = ["--endpoint-url", arena.endpoint.url, "--dry-run"]
    cost = arena.run([str(BIN / "s5cmd"), *where, "sync", "--size-only", f"{arena.tree}/", f"s3://{BUCKET}/"])
    return _found(arena, cost)


def aws(arena: Arena, late: bool) -> Cost:
    """The AWS CLI's dry sync, which does not report extra objects either."""
    where = ["--endpoint-url", arena.endpoint.url, "s3", "sync", "--dryrun", "--size-only"]
    return _found(arena, arena.run([str(BIN / "aws"), *where, str(arena.tree), f"s3://{BUCKET}"]))


def _found(arena: Arena, cost: Cost) -> Cost:
    assert set(re.findall(rf"s3://{BUCKET}/(\S+)$", cost.output, re.M)) == arena.planted.missing | arena.planted.size
    return cost


PEERS: dict[str, Peer] = {"rclone": rclone, "s5cmd": s5cmd, "aws": aws}


@contextmanager
def arena_of(files: int, folder: Path) -> Iterator[Arena]:
    """A tree and its bucket."""
    tree = folder / f"tree-{files}"
    if not tree.exists():
        trees.plant(folder / "growing", files).rename(tree)
    with spawned(files) as endpoint, tempfile.TemporaryDirectory(dir=folder) as runs:
        yield Arena(files, tree, Path(runs), endpoint, trees.planted(files))


def contest(arena: Arena, peers: Sequence[str], rounds: int, *, late: bool = False, around: int = 0) -> None:
    """Everyone in turns, then the ratios; `around`: we run so often before and after peers that take minutes.

    One run of ours would be a sample of what the machine did in those seconds, theirs is an average of it.
    """
    latency = LATENCY if late else 0
    arena.endpoint.ask(f"latency/{latency}")
    print(f"{arena.files:,} files, LIST takes {latency * 1000:.0f} ms, {rounds} rounds", flush=True)
    costs: dict[str, list[Cost]] = {name: [] for name in ("ours", *peers)}
    for _ in range(rounds):
        for name in (*["ours"] * max(around, 1), *peers, *["ours"] * around):
            cost = {"ours": ours, **PEERS}[name](arena, late)
            costs[name].append(cost)
            print(cost.line(name), cost.output.strip() if name == "ours" else "", flush=True)
    most = middle(costs["ours"]).resident
    judged("MB of the merging process", most[0], "<=", MERGER)
    judged("MB of the largest other process", most[1], "<=", WORKER)
    for name in peers:
        bounds = (LATE_BOUND, 0) if late else BOUNDS[name]
        for what, bound in zip(("wall", "cpu"), bounds, strict=True):
            told(f"{name}: times our {what}", ratio(costs[name], costs["ours"], what), bound, arena.files >= MILLION)
        if name in AIM and not late:
            print(f"           {name}: times our wall, the aim: {AIM[name]}")
        memory = middle(costs[name]).together / middle(costs["ours"]).together
        what = f"{name}: times the memory that all our processes have at one time"
        told(what, memory, HUNGRY.get(name, 0), arena.files >= MILLION)


def told(what: str, value: float, bound: float, enough: bool) -> None:
    """Judge a ratio where there are as many files as the bound is for: with fewer, starting up is most of it."""
    if bound and enough:
        judged(what, value, ">=", bound)
    else:
        print(f"           {what}: {value:.2f}", flush=True)


def list_alone(arena: Arena, rounds: int) -> None:
    """CPU of LIST alone, ours with its inventory written, against boto3's paginator that keeps nothing."""
    arena.endpoint.ask("latency/0")
    arena.run(work("whole", arena.tree, arena.endpoint.url, arena.fresh("made"), 16, 2))
    per_key: dict[str, list[float]] = {"ours": [], "boto3": []}
    for _ in range(rounds):
        runs = {"ours": work("lists", arena.endpoint.url, arena.fresh("listed"), arena.folder / "made" / "source")}
        runs["boto3"] = work("boto3", arena.endpoint.url)
        for name, command in runs.items():
            cost = arena.run(command)
            said = json.loads(cost.output)
            per_key[name].append(said["list"]["cpu"] / said["keys"] * 1e6)
            print(cost.line(f"LIST alone, {name}"), f"{per_key[name][-1]:.1f} µs of CPU a key", flush=True)
    times = min(per_key["boto3"]) / min(per_key["ours"])
    told("LIST alone: times our CPU", times, 15, arena.files >= MILLION)


def small(folder: Path) -> None:
    """How long 200 files take after import."""
    with arena_of(200, folder) as arena:
        took = [json.loads(ours(arena, False).output)["after import"]["wall"] for _ in range(3)]
    judged("seconds for 200 files", min(took), "<=", 1)


def growing(what: str, rows: int, asked: Callable[[int], tuple[Cost, str]]) -> None:
    """Judge the merging process's memory with a fifth and with all; `asked` measures so many, and says how long."""
    most: list[float] = []
    for count in (rows // 5, rows):
        cost, said = asked(count)
        print(cost.line(f"{count:,} {what}"), said)
        judged("MB of the merging process", cost.resident[0], "<=", MERGER)
        most.append(cost.resident[0])
    even(what, most, rows)


def _made(folder: Path, count: int) -> Path:
    """Inventories of both sides, kept for the next who asks."""
    made = folder / f"made-{count}"
    if not made.exists():
        inventories.make(made, count)
    return made


def merging(rows: int, folder: Path) -> None:
    """Whether memory and time of a comparison are flat."""

    def compared(count: int) -> tuple[Cost, str]:
        cost = measure(work("compares", _made(folder, count)))
        said = json.loads(cost.output)
        assert said["counts"] == {"missing": 37, "size": 11, "extra": 5}, said
        return cost, str(said["compare"])

    growing("entries compared", rows, compared)


def filling(rows: int, folder: Path) -> None:
    """Whether memory and time are flat when checksums of many small files come back."""

    def filled(count: int) -> tuple[Cost, str]:
        cost = measure(work("fills", _made(folder, count)))
        return cost, f"{json.loads(cost.output)['fill']['cpu'] / count * 1e6:.0f} µs a file"

    growing("checksums filled in", rows, filled)


def differing(rows: int, folder: Path) -> None:
    """Whether memory of a comparison is flat when nothing is the same."""

    def compared(count: int) -> tuple[Cost, str]:
        made = folder / f"differing-{count}"
        planted = inventories.differing(made, count)
        cost = measure(work("compares", made))
        said = json.loads(cost.output)
        assert said["counts"] == planted, said
        shutil.rmtree(made)
        return cost, str(said["compare"])

    growing("missing and extra", rows, compared)


def flat(files: int, folder: Path) -> None:
    """Whether the memory of the scanning and listing processes is flat."""
    most: list[float] = []
    for count in (files // 5, files):
        with arena_of(count, folder) as arena:
            cost = ours(arena, False)
        print(cost.line(f"whole, {count:,} files"), flush=True)
        judged("MB of the merging process", cost.resident[0], "<=", MERGER)
        judged("MB of the largest other process", cost.resident[1], "<=", WORKER)
        most.append(cost.resident[1])
    even("files", most, files)


def even(what: str, most: Sequence[float], count: int) -> None:
    """Judge growth from a fifth to the whole: below some million, most of it is what a process begins with."""
    if count >= 3 * MILLION:
        judged(f"times the memory at a fifth of the {what}", most[1] / most[0], "<=", FLAT)
    else:
        print(f"           times the memory at a fifth of the {what}: {most[1] / most[0]:.2f}")


def joining(rows: int, folder: Path) -> None:
    """How long DuckDB takes for the same."""
    made = folder / f"made-{rows}"
    if not made.exists():
        inventories.make(made, rows)
    cost = measure(work("joins", made))
    said = json.loads(cost.output)
    print(cost.line(f"DuckDB, {rows:,} entries"), said)
    assert said["bare"] == said["found"] == 53, said
    for name in ("bare join", "join.sql"):
        if rows >= JOINED:
            judged(f"seconds of DuckDB, {name}, for {rows:,}", said[name]["wall"], "<=", 6)
        else:
            print(f"           seconds of DuckDB, {name}: {said[name]['wall']:.2f}; the bound is for {JOINED:,} rows")


def content(megabytes: int, folder: Path) -> None:
    """Checksums of files against what one core does in memory, and what is read without them."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        piece = os.urandom(MB)
        for number in range(8):
            (Path(name) / str(number)).write_bytes(piece * (megabytes // 8))
        for processes in (1, 2):
            said: dict[str, Any] = json.loads(measure(work("hashes", name, processes)).output)
            rates = {each: said["bytes"] / said[each]["wall"] / MB for each in said if each != "bytes"}
            print(f"  {processes} processes: " + ", ".join(f"{each} {rate:,.0f} MB/s" for each, rate in rates.items()))
            least = min(rates["checksum"], rates["read from disk"])
            judged(
                f"{processes} processes: of the lesser of disk and core", rates["digests from disk"] / least, ">=", 0.8
            )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--peers-files", type=int, default=50_000, help="how many files s5cmd and the AWS CLI get")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--peers", default="rclone,s5cmd,aws")
    parser.add_argument("--merge", type=int, default=1_000_000, metavar="ROWS")
    parser.add_argument("--differing", type=int, default=100_000, metavar="ROWS", help="that each side has alone")
    parser.add_argument("--join", type=int, default=1_000_000, metavar="ROWS")
    parser.add_argument("--flat", type=int, default=100_000, metavar="FILES")
    parser.add_argument("--whole", action="store_true", help="the sizes that the bounds are for")
    parser.add_argument("--content", type=int, default=1024, metavar="MB")
    parser.add_argument("--only", default="check,late,slow,list,small,merge,fill,differing,flat,join,content")
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    if given.whole:
        given.files = given.peers_files = MILLION
        given.merge = given.flat = 5 * MILLION
        given.join = given.differing = JOINED
    only, peers = given.only.split(","), [name for name in given.peers.split(",") if name]
    fast = [name for name in peers if name in FAST]
    slow = [name for name in peers if name not in FAST]
    with tempfile.TemporaryDirectory() as name:
        folder = given.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        if {"check", "late", "list"} & set(only):
            with arena_of(given.files, folder) as arena:
                if "check" in only:
                    contest(arena, fast, given.rounds)
                if "late" in only:
                    contest(arena, fast, given.rounds, late=True)
                if "list" in only:
                    list_alone(arena, given.rounds)
        if "slow" in only and slow:
            with arena_of(given.peers_files, folder) as arena:
                contest(arena, slow, 1, around=AROUND)
        parts: dict[str, Callable[[], None]] = {
            "small": lambda: small(folder),
            "merge": lambda: merging(given.merge, folder),
            "fill": lambda: filling(given.merge, folder),
            "differing": lambda: differing(given.differing, folder),
            "flat": lambda: flat(given.flat, folder),
            "join": lambda: joining(given.join, folder),
            "content": lambda: content(given.content, folder),
        }
        for part, run in parts.items():
            if part in only:
                print(part, flush=True)
                run()


if __name__ == "__main__":
    main()
