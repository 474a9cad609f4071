"""MariaDB from a system's binaries: created, started, killed, removed; it asks for a password."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pymysql
import pytest

from runbook_lib.errors import LabError
from runbook_lib.lab.mariadb import Server, find_binaries

PASSWORD = "one of the tests' own \\"


@pytest.fixture(scope="module")
def binaries() -> None:
    try:
        find_binaries()
    except LabError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def server(binaries: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server, started by the test that needs it."""
    made = Server(tmp_path_factory.mktemp("mariadb") / "server", PASSWORD)
    made.create()
    yield made
    made.remove()
    assert not made.folder.exists() and made.pid is None


def users(server: Server) -> set[tuple[str, str]]:
    with server.connect("mysql") as session, session.cursor() as cursor:
        cursor.execute("select user, host from mysql.user where user <> 'mariadb.sys'")
        return set(cursor.fetchall())


def test_only_its_superuser_has_an_account_and_it_needs_the_password(server: Server) -> None:
    server.start()
    assert users(server) == {("root", "localhost"), ("root", "127.0.0.1")}
    for user, password in (("root", ""), ("root", "wrong"), ("", "")):
        with pytest.raises(pymysql.OperationalError, match="Access denied"):
            server.connect("mysql", user, password=password)


def test_it_keeps_port_and_rows_over_a_stop_and_a_kill(server: Server) -> None:
    server.start()
    port = server.port
    with server.connect("mysql") as session, session.cursor() as cursor:
        cursor.execute("create database shop")
        cursor.execute("create table shop.kept (name varchar(20) primary key)")
    for number, end in enumerate((signal.SIGTERM, signal.SIGKILL), 1):
        with server.connect("shop") as session, session.cursor() as cursor:
            cursor.execute("insert into kept values (%s)", [f"Grüße 안녕 🎂 {number}"])
        os.kill(server.pid or 0, end)
        while server.pid is not None:
            time.sleep(0.01)
        assert not server.running
        server.start()
        assert server.port == port
        with server.connect("shop") as session, session.cursor() as cursor:
            cursor.execute("select name from kept order by 1")
            assert [name[-1] for (name,) in cursor.fetchall()] == ["1", "2"][:number]


def test_a_server_that_runs_is_found_by_whoever_asks(server: Server) -> None:
    server.start()
    other = Server(server.folder, PASSWORD)
    other.start()
    assert other.pid == server.pid and other.running


def test_a_port_that_somebody_else_has_is_left_to_him(server: Server) -> None:
    server.start()
    server.stop()
    port = server.port
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", port))
        squatter.listen()
        server.start()
        assert server.running and server.port != port


def test_binaries_that_are_not_there_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RUNBOOK_MARIADB_BIN", str(tmp_path))
    with pytest.raises(LabError, match=r"no mariadbd .*in .*apt-get install mariadb-server-core.*brew install mariadb"):
        find_binaries()


def test_a_program_that_makes_the_data_folder_is_named_before_it_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("mariadbd", "mariadb-install-db"):
        (tmp_path / name).touch(0o755)
    monkeypatch.setattr(shutil, "which", lambda name, path: next(map(str, tmp_path.glob(name)), None))
    monkeypatch.setenv("RUNBOOK_MARIADB_BIN", str(tmp_path))
    with pytest.raises(LabError, match=r"no my_print_defaults in .*mariadb-server-core mariadb-client-core"):
        find_binaries()


def test_a_server_that_does_not_react_is_killed(server: Server) -> None:
    server.start()
    psutil.Process(server.pid).suspend()
    server.stop(patience=0.2)
    assert server.pid is None
    server.start()
    assert server.running
