"""What does the source database hold? A shop: its schema, its rows, and the roles that may reach them.

The rows are the same in every lab: nothing is random and no clock is read (shop.sql).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any

from .postgres import SECRETIVE, SETTINGS, SUPERUSER, Server, find_binaries

if TYPE_CHECKING:
    import psycopg

ROLES = {
    "source": {"shop": "", "dms": "replication", "runbook": ""},
    "target": {"dms": "", "runbook": "in role dms, pg_read_all_data"},
}  # none may see what others execute (pg_monitor): a subscription is made with a password
OWNER = {"source": "shop", "target": "dms"}


def roles(side: str) -> list[str]:
    """Who may log in on a side."""
    return [SUPERUSER, *ROLES[side]]


def edition() -> str:
    """Another one whenever a new database would not be like the last: schema, rows, roles, settings, PostgreSQL."""
    what = repr((_script(), ROLES, OWNER, SETTINGS, find_binaries().version))
    return f"shop-{hashlib.sha256(what.encode()).hexdigest()[:12]}"


def found(server: Server, side: str, database: str, passwords: Mapping[str, str]) -> None:
    """Make roles and the database on a new server: the source gets the shop, the target an empty schema."""
    from psycopg import sql

    with server.connect("postgres", options=SECRETIVE) as session:
        for role, rights in ROLES[side].items():
            create = sql.SQL("create role {} login password {} " + rights)
            session.execute(create.format(sql.Identifier(role), sql.Literal(passwords[role])))
        create = sql.SQL("create database {} owner {}")
        session.execute(create.format(sql.Identifier(database), sql.Identifier(OWNER[side])))
    with server.connect(database) as session:
        if side == "source":
            _fill(session)
        else:
            session.execute("create schema shop authorization dms")


def _fill(session: psycopg.Connection[Any]) -> None:
    with session.transaction():
        session.execute(_script())
    session.execute("vacuum (analyze)")


def _script() -> bytes:
    return resources.files(__package__).joinpath("shop.sql").read_bytes()
