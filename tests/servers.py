"""Real database servers for tests, each in a folder of its own, stopped and deleted at the end."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pymysql
import pytest

from runbook_lib.databases import Database, from_url
from runbook_lib.errors import LabError
from runbook_lib.lab import mariadb, postgres

MYSQL = os.environ.get("RUNBOOK_MYSQL_URL", "")  # mysql://user@host:port/any: a MySQL server stands in for MariaDB
only_mariadb = pytest.mark.skipif(bool(MYSQL), reason="MySQL has no such thing")


USERS = "select concat('`', user, '`@`', host, '`') from mysql.user"


@dataclass
class MySQL:
    """A MySQL server of yours, its password in RUNBOOK_MYSQL_PASSWORD. What tests make there is dropped at the end.

    A database that is there already is left alone: the test that wants its name fails.
    """

    address: Database
    made: list[str] = field(default_factory=list)
    users: set[str] = field(default_factory=set)  # that were there before

    def __post_init__(self) -> None:
        with self.connect("mysql") as session, session.cursor() as cursor:
            cursor.execute(USERS)
            self.users = {name for (name,) in cursor.fetchall()}

    def connect(self, database: str) -> pymysql.Connection[Any]:
        """A session of its user; autocommit."""
        given = self.address
        return pymysql.connect(
            host=given.host, port=given.port, user=given.user, password=given.password, database=database,
            autocommit=True, charset="utf8mb4",
        )  # fmt: skip

    def remove(self) -> None:
        """Drop what was made."""
        with self.connect("mysql") as session, session.cursor() as cursor:
            for name in self.made:
                cursor.execute(f"drop database if exists `{name}`")
            cursor.execute(USERS)
            for (name,) in cursor.fetchall():
                if name not in self.users:
                    cursor.execute(f"drop user {name}")


MySQLOrMariaDB = mariadb.Server | MySQL


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
def mariadb_server(folder: Path) -> Iterator[MySQLOrMariaDB]:
    """A running MariaDB server, when its binaries are there; or the MySQL server that RUNBOOK_MYSQL_URL names."""
    server: MySQLOrMariaDB
    if MYSQL:
        server = MySQL(from_url(MYSQL).with_password(os.environ.get("RUNBOOK_MYSQL_PASSWORD", "")))
    else:
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


def in_mariadb(server: MySQLOrMariaDB, name: str, statements: list[str]) -> Database:
    """A new database of a server, after the statements; its descriptor as the superuser."""
    with server.connect("mysql") as session, session.cursor() as cursor:
        cursor.execute(f"create database `{name}` character set utf8mb4")
        if isinstance(server, MySQL):
            server.made.append(name)
        cursor.execute(f"use `{name}`")
        for statement in statements:
            cursor.execute(statement)
    if isinstance(server, MySQL):
        return replace(server.address, name=name)
    return Database("mysql", "127.0.0.1", server.port, name, mariadb.SUPERUSER, server.password)


def series(first: int, last: int) -> str:
    """A table expression of the numbers `seq`, at most a thousand, as MySQL and MariaDB both know it."""
    return (
        f"(with recursive s(seq) as (select {first} union all select seq + 1 from s where seq < {last})"
        " select seq from s) numbers"
    )
