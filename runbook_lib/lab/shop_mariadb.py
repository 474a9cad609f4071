"""What does the optional MariaDB source hold? A smaller shop, the same in every lab, and the roles that may reach it.

What its rows go to is a database of its own on the target, which DMS never makes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib import resources
from typing import TYPE_CHECKING

from . import postgres
from .mariadb import SUPERUSER, Server
from .processes import HOST

if TYPE_CHECKING:
    from pymysql.cursors import Cursor

SCHEMA = "shop"  # a schema in MySQL is a database
TARGET = "shop_mariadb"
RIGHTS = {"dms": "select, show view", "runbook": "select, show view, trigger, references"}
OWNER = "dms"  # of the target's database


def roles() -> list[str]:
    """Who may log in."""
    return [SUPERUSER, *RIGHTS]


def found(server: Server, passwords: Mapping[str, str]) -> None:
    """Make roles and the shop on a running server, unless it has them; what a killed maker left is made anew."""
    made = server.folder / "edition"
    edition = _edition()
    if made.exists() and made.read_text() == edition:
        return
    with server.connect(None) as session, session.cursor() as cursor:
        cursor.execute(f"drop database if exists {SCHEMA}")
        for statement in _script().split(";\n"):
            if statement.strip():
                cursor.execute(statement)
        for role, rights in RIGHTS.items():
            cursor.execute("create or replace user %s@%s identified by %s", [role, HOST, passwords[role]])
            cursor.execute(f"grant {rights} on {SCHEMA}.* to %s@%s", [role, HOST])
        cursor.execute(f"analyze table {', '.join(f'{SCHEMA}.{table}' for table in _tables(cursor))}")
    made.write_text(edition)


def _tables(cursor: Cursor) -> list[str]:
    cursor.execute("select table_name from information_schema.tables where table_schema = %s", [SCHEMA])
    return [name for (name,) in cursor.fetchall()]


def found_target(target: postgres.Server) -> None:
    """Make the database on the target, unless it is there."""
    from psycopg import sql

    with target.connect("postgres") as session:
        there = session.execute("select 1 from pg_database where datname = %s", [TARGET]).fetchone()
        if there is None:
            create = sql.SQL("create database {} owner {}")
            session.execute(create.format(sql.Identifier(TARGET), sql.Identifier(OWNER)))


def drop_target(target: postgres.Server) -> None:
    """Drop the database on the target, and whoever is in it."""
    with target.connect("postgres") as session:
        session.execute(f"drop database if exists {TARGET} with (force)")


def _edition() -> str:
    return hashlib.sha256(repr((_script(), RIGHTS)).encode()).hexdigest()


def _script() -> str:
    return resources.files(__package__).joinpath("shop_mariadb.sql").read_text(encoding="utf-8")
