"""What does a comparison cost beside the hashing alone, and beside reladiff, and what memory does it take?

Run it as `python -m tests.benchmarks.bench_tables [--rows N] [--large N] [--repeat N] [--cases CASE …]
[--without-reladiff]`. Two PostgreSQL servers hold the same rows (11 columns). The cost is CPU-seconds of the client
process and of both servers. A limit is one statement per side, both at once, that hashes every row of the table and
returns one row: for native `hash_record_extended`, which is what PostgreSQL has for a row, for md5 the library's own
expression. The library's native hash is another, so what that alone costs is shown too. reladiff 0.6.0 gets a virtual
environment of its own and the same tables in the same run. All take turns, `--repeat` times, and of each the cheapest
run counts: other work on the machine only ever adds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from runbook_lib import tables
from runbook_lib.databases import Database
from runbook_lib.lab.postgres import SUPERUSER, Server
from runbook_lib.tables.dialect import Common, Method
from runbook_lib.tables.model import Span
from runbook_lib.tables.postgresql import PostgreSQL
from tests.servers import postgresql

TABLE = """
create table t (id bigint primary key, customer int not null, status text not null, total numeric(12,2),
    created timestamptz not null, updated timestamp, name text, note text, active boolean not null,
    score float8, doc jsonb)"""
ROWS = """
insert into t select i, i % 5000, (array['new','paid','shipped'])[1 + i % 3], (i * 7919::bigint % 1000000) / 100.0,
    timestamptz '2024-01-01' + i * interval '37.123456 s',
    case when i % 10 <> 0 then timestamp '2024-01-01' + i * interval '1.000001 s' end,
    'customer name ' || i || ' ü', case when i % 4 <> 0 then repeat('note ', 1 + i % 8) end, i % 2 = 0, i / 7.0::float8,
    jsonb_build_object('a', i, 'b', jsonb_build_array(i % 3, 'x'))
from generate_series(1, {rows}) i"""
COLUMNS = ("customer", "status", "total", "created", "updated", "name", "note", "active", "score", "doc")
# What is done to the target, how it is undone, and how many rows then differ.
CASES: dict[str, tuple[str, str, int]] = {
    "identical": ("", "", 0),
    "1 row": ("update t set name = name || '!' where id = {half}", "update t set name = 'customer name ' || id || ' ü' "
              "where id = {half}", 1),
    "1000 scattered": ("update t set customer = customer + 1 where id % {step} = 0 and id <= {step} * 1000",
                       "update t set customer = customer - 1 where id % {step} = 0 and id <= {step} * 1000", 1000),
    "1000 missing": ("create table gone as select * from t where id > {rows} - 1000; delete from t where id > {rows} "
                     "- 1000", "insert into t select * from gone; drop table gone", 1000),
}  # fmt: skip
METHODS: tuple[Method, ...] = ("native", "md5")
LIMITS = {"native": 1.2, "md5": 1.3}  # of the in-database limit, at most, on identical tables
LESS = {("native", "identical"): 4, ("native", "1000 scattered"): 15, ("md5", "identical"): 2.5,
        ("md5", "1000 scattered"): 8}  # times less CPU than reladiff, at least  # fmt: skip
OWN = "native's own hash"  # a limit that is not PostgreSQL's but ours
SESSION = "postgres: postgres postgres"  # how a session is shown in the list of processes
RESIDENT = 100  # MB at most, of the client
OURS = """
import json, sys
from runbook_lib import tables
from runbook_lib.databases import Database
sides = [Database("postgresql", *json.loads(text)) for text in sys.argv[2:]]
pairs = tables.pairs(*sides, ["public.t"])
print(tables.compare(*sides, pairs, tables.Options(method=sys.argv[1], rounds=0)).compared[0].differing)
"""
# Not of rusage: that begins with what the process was before exec.
RESIDENT_OF_CHILD = """
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
RELADIFF = """
import logging, sys
logging.disable()
from reladiff import connect_to_table, diff_tables
columns = tuple(sys.argv[3:])
first, second = (connect_to_table(url, "t", "id", extra_columns=columns, thread_count=1) for url in sys.argv[1:3])
print(len({row[0] for sign, row in diff_tables(first, second, threaded=True)}))
"""


@dataclass(frozen=True)
class Cost:
    """Of one comparison: CPU-seconds, seconds, MB, the rows that it found to differ, the source's temporary bytes."""

    client: float
    servers: float
    wall: float
    resident: float
    found: int
    spilt: int = 0

    @property
    def cpu(self) -> float:
        return self.client + self.servers

    def line(self, name: str) -> str:
        return (
            f"  {name:32} {self.cpu:7.2f} CPU-s ({self.client:.2f} client, {self.servers:.2f} servers) "
            f"{self.wall:6.1f} s wall {self.resident:5.0f} MB  {self.found} rows"
        )


class Pair:
    """Two servers with the same table."""

    def __init__(self, servers: tuple[Server, Server]) -> None:
        self.servers = servers
        self.source, self.target = self.databases = [
            Database("postgresql", "127.0.0.1", server.port, "postgres", SUPERUSER, server.password)
            for server in servers
        ]

    def run(self, script: str, side: int | None = None) -> None:
        for number, server in enumerate(self.servers):
            if side in (None, number) and script:
                with server.connect("postgres") as session:
                    session.execute(script)

    def fill(self, rows: int) -> None:
        self.run("alter system set autovacuum = off")
        self.run("select pg_reload_conf()")
        self.run(f"drop table if exists t; {TABLE}; {ROWS.format(rows=rows)}; analyze t")
        self.run("vacuum t")
        self.run("checkpoint")

    def cpu(self) -> float:
        """CPU-seconds of all sessions of both servers so far, once none is left."""
        total = 0.0
        for server in self.servers:
            postmaster = psutil.Process(server.pid)
            while any(_is_session(child) for child in postmaster.children()):
                time.sleep(0.02)
            times = postmaster.cpu_times()
            total += times.children_user + times.children_system
        return total

    def temporary(self) -> int:
        """Bytes that the source wrote to temporary files."""
        with self.servers[0].connect("postgres") as session:
            row = session.execute("select temp_bytes from pg_stat_database where datname = 'postgres'").fetchone()
            return int(row[0]) if row else 0

    def measure(self, command: list[str]) -> Cost:
        """What a process costs itself and both servers; it prints how many rows differ, and its most kB."""
        spilt = self.temporary()
        servers, began = self.cpu(), time.monotonic()
        with tempfile.TemporaryFile("w+") as output:
            process = subprocess.Popen(command, stdout=output, env={**os.environ, "PGPASSWORD": "unused"})
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            wall = time.monotonic() - began
            output.seek(0)
            found, resident = map(int, output.read().split())
        client = usage.ru_utime + usage.ru_stime
        return Cost(client, self.cpu() - servers, wall, resident / 1024, found, self.temporary() - spilt)


def _is_session(process: psutil.Process) -> bool:
    """Whether it is a session, or one that has ended and is not counted yet."""
    try:
        shown = process.cmdline()
        return not shown or SESSION in shown[0]
    except psutil.Error:
        return True


def fold(pair: Pair, sql: str) -> Cost:
    """What both servers spend on one statement over the whole table, at the same time; the client counts nothing.

    Both at once, as a comparison asks them: two busy cores that share their caches spend more CPU-seconds than one.
    """
    before, began = pair.cpu(), time.monotonic()

    def ask(database: Database) -> None:
        with database.session() as session:
            PostgreSQL().prepare(session)
            session.execute(sql).fetchone()

    with ThreadPoolExecutor(2) as both:
        list(both.map(ask, pair.databases))
    return Cost(0, pair.cpu() - before, time.monotonic() - began, 0, 0)


def folds(pair: Pair) -> dict[str, str]:
    """The statements of the limits. JSON is hashed as text: to jsonb's own hash [[1],2] and [[1,2]] are one."""
    (compared,) = tables.pairs(pair.source, pair.target, ["public.t"])
    assert compared.source is not None
    own = {
        method: PostgreSQL().digest(
            compared.source, Span(), Common(False, method=method, modern=True, bytes_hashed=True)
        )
        for method in METHODS
    }
    row = ", ".join(["id", *COLUMNS]).replace("doc", "doc::text")
    record = f"select count(*), bit_xor(hash_record_extended(row({row}), 0)) from t"
    return {"limit of native": record, OWN: own["native"].sql, "limit of md5": own["md5"].sql}


def ours(pair: Pair, method: str) -> list[str]:
    """The command that compares with our library in a process of its own."""
    where = [json.dumps([d.host, d.port, d.name, d.user, d.password]) for d in pair.databases]
    return [sys.executable, "-c", OURS + RESIDENT_OF_CHILD, method, *where]


def reladiff(pair: Pair, folder: Path) -> list[str]:
    """The command that compares with reladiff, in its own environment."""
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "-qq", "reladiff==0.6.0", "psycopg2-binary"], check=True)
    urls = [f"postgresql://{d.user}:{d.password}@{d.host}:{d.port}/{d.name}" for d in pair.databases]
    return [python, "-W", "ignore", "-c", RELADIFF + RESIDENT_OF_CHILD, *urls, *COLUMNS]


def in_turns(repeat: int, works: Mapping[str, Callable[[], Cost]]) -> dict[str, Cost]:
    """The cheapest run of each, when all take turns: a machine that slows down does so for all of them."""
    runs = [{name: work() for name, work in works.items()} for _ in range(repeat)]
    return {name: min((run[name] for run in runs), key=lambda cost: cost.cpu) for name in works}


def judged(what: str, ratio: float, sign: str, bound: float) -> None:
    met = ratio <= bound if sign == "<=" else ratio >= bound
    print(f"  {'reached' if met else 'MISSED '}  {what}: {ratio:.2f} (wanted {sign} {bound})")


def main(rows: int, large: int, repeat: int, cases: list[str], other: bool) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        with postgresql(folder / "source") as source, postgresql(folder / "target") as target:
            pair = Pair((source, target))
            pair.fill(rows)
            print(f"{rows:,} rows x 11 columns")
            theirs = reladiff(pair, folder / "venv") if other else []
            words = {"rows": rows, "half": rows // 2, "step": rows // 1000}
            spilt = 0
            for case in cases:
                change, undo, differing = CASES[case]
                print(case)
                pair.run(change.format(**words), 1)
                works = {method: partial(pair.measure, ours(pair, method)) for method in LIMITS}
                if case == "identical":
                    works |= {name: partial(fold, pair, sql) for name, sql in folds(pair).items()}
                if theirs:
                    works["reladiff"] = partial(pair.measure, theirs)
                costs = in_turns(repeat, works)
                spilt += sum(costs[method].spilt for method in LIMITS)
                for name, cost in costs.items():
                    print(cost.line(name))
                    assert name == "reladiff" or cost.found == differing, cost
                for method, bound in LIMITS.items():
                    if case == "identical":
                        ratio = costs[method].cpu / costs[f"limit of {method}"].cpu
                        judged(f"{method}: times the limit", ratio, "<=", bound)
                    if theirs and (method, case) in LESS:
                        ratio = costs["reladiff"].cpu / costs[method].cpu
                        judged(f"{method}: times less than reladiff", ratio, ">=", LESS[method, case])
                if case == "identical":
                    print(f"           native: times its own hash: {costs['native'].cpu / costs[OWN].cpu:.2f}")
                pair.run(undo.format(**words), 1)
            judged("bytes in the source's temporary files", spilt, "<=", 0)
            if large:
                pair.fill(large)
                for method in LIMITS:
                    cost = pair.measure(ours(pair, method))
                    print(cost.line(f"{large:,} rows, identical, {method}"))
                    judged("MB resident", cost.resident, "<=", RESIDENT)
                pair.run("update t set customer = customer + 1 where id % 5000 = 0", 1)
                cost = pair.measure(ours(pair, "md5"))
                print(cost.line(f"{large:,} rows, {large // 5000} scattered, md5"))
                judged("MB resident", cost.resident, "<=", RESIDENT)


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--large", type=int, default=0)
    options.add_argument("--repeat", type=int, default=3)
    options.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    options.add_argument("--without-reladiff", action="store_true")
    given = options.parse_args()
    main(given.rows, given.large, given.repeat, given.cases, not given.without_reladiff)
