"""Real database servers for tests, each in a folder of its own, stopped and deleted at the end."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runbook_lib.databases import Database
from runbook_lib.errors import LabError
from runbook_lib.lab import mariadb, postgres


@contextmanager
def postgresql(folder: Path) -> Iterator[postgres.Server]:
    """A running PostgreSQL server."""
    server = postgres.Server(folder, secrets.token_hex(8))
    server.start()
    try:
        yield server
    finally:
        server.remove()


def need_mariadb() -> None:
    """Without MariaDB's binaries the test is skipped, and fails where CI says so."""
    try:
        mariadb.find_binaries()
    except LabError as error:
        if os.environ.get("CI"):
            pytest.fail(f"{error} .ci/run installs it.")
        pytest.skip(str(error))


@contextmanager
def mariadb_server(folder: Path) -> Iterator[mariadb.Server]:
    """A running MariaDB server, when its binaries are there."""
    need_mariadb()
    server = mariadb.Server(folder, secrets.token_hex(8))
    server.start()
    try:
        yield server
    finally:
        server.remove()


def in_postgresql(server: postgres.Server, name: str, script: str) -> Database:
    """A new database of a server, after the script; its descriptor as the superuser."""
    with server.connect("postgres") as session:
        session.execute(f'create database "{name}"')
    with server.connect(name) as session:
        session.execute(script)
    return Database("postgresql", "127.0.0.1", server.port, name, postgres.SUPERUSER, server.password)


def in_mariadb(server: mariadb.Server, name: str, statements: list[str]) -> Database:
    """A new database of a server, after the statements; its descriptor as the superuser."""
    with server.connect("mysql") as session, session.cursor() as cursor:
        cursor.execute(f"create database `{name}` character set utf8mb4")
        cursor.execute(f"use `{name}`")
        for statement in statements:
            cursor.execute(statement)
    return Database("mysql", "127.0.0.1", server.port, name, mariadb.SUPERUSER, server.password)
