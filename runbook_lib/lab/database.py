"""Where the lab remembers: one SQLite file (WAL) that several processes share.

A write is on disk before `writing()` returns, so whatever was acknowledged survives a SIGKILL of any process at any
instant. (WAL with synchronous=NORMAL: safe against killed processes, not against a power cut.)
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import LabError

SCHEMA_VERSION = 1

DOCUMENTS = """
create table if not exists documents (
    kind text not null,            -- 'datasync.task', 'storagegateway.share', …
    id text not null,              -- its ARN or name
    body text not null,            -- JSON
    sequence integer not null,     -- order of creation
    primary key (kind, id)
) without rowid;
create table if not exists settings (name text primary key, value text not null) without rowid;
"""


class SchemaMismatch(LabError):
    """The file was written by another version of the lab."""


class Database:
    """One SQLite file, a connection for each thread, short transactions."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()
        with self.writing() as cursor:
            cursor.executescript(DOCUMENTS)
            found = cursor.execute("pragma user_version").fetchone()[0]
            if found not in (0, SCHEMA_VERSION):
                raise SchemaMismatch(
                    f"{path} has schema version {found}, this lab reads {SCHEMA_VERSION}: run `runbook lab reset`"
                )
            cursor.execute(f"pragma user_version = {SCHEMA_VERSION}")

    @property
    def connection(self) -> sqlite3.Connection:
        """This thread's connection; autocommit, transactions are explicit."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
            connection.row_factory = sqlite3.Row
            connection.execute("pragma journal_mode = wal")
            connection.execute("pragma synchronous = normal")
            connection.execute("pragma busy_timeout = 30000")
            self._local.connection = connection
        return connection

    def close(self) -> None:
        """Close this thread's connection."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Cursor]:
        """A transaction that may write: all of it or nothing. Nested use joins the outer one."""
        connection = self.connection
        if connection.in_transaction:
            yield connection.cursor()
            return
        connection.execute("begin immediate")
        try:
            yield connection.cursor()
        except BaseException:
            if connection.in_transaction:
                connection.execute("rollback")
            raise
        if connection.in_transaction:  # executescript() commits by itself
            connection.execute("commit")

    def read(self, sql: str, parameters: tuple[Any, ...] | dict[str, Any] = ()) -> list[sqlite3.Row]:
        """All rows of a query."""
        return self.connection.execute(sql, parameters).fetchall()

    # Documents: the control planes' resources, as JSON by kind and id.

    def put(self, kind: str, identity: str, body: dict[str, Any]) -> None:
        """Create or replace a document; its place in the order of creation is kept."""
        with self.writing() as cursor:
            cursor.execute(
                "insert into documents values"
                " (?, ?, ?, (select coalesce(max(sequence), 0) + 1 from documents where kind = ?))"
                " on conflict (kind, id) do update set body = excluded.body",
                (kind, identity, json.dumps(body), kind),
            )

    def get(self, kind: str, identity: str) -> dict[str, Any] | None:
        """A document, or None."""
        rows = self.read("select body from documents where kind = ? and id = ?", (kind, identity))
        return json.loads(rows[0]["body"]) if rows else None

    def update(self, kind: str, identity: str, **changes: Any) -> dict[str, Any]:
        """Change members of a document in one transaction and return it; KeyError when it is not there."""
        with self.writing():
            body = self.get(kind, identity)
            if body is None:
                raise KeyError(identity)
            body.update(changes)
            self.put(kind, identity, body)
        return body

    def delete(self, kind: str, identity: str) -> bool:
        """Remove a document; False when it was not there."""
        with self.writing() as cursor:
            return cursor.execute("delete from documents where kind = ? and id = ?", (kind, identity)).rowcount > 0

    def all(self, kind: str) -> list[dict[str, Any]]:
        """All documents of a kind in the order of their creation."""
        rows = self.read("select body from documents where kind = ? order by sequence", (kind,))
        return [json.loads(row["body"]) for row in rows]

    # Settings: single values (pace, faults, …).

    def setting(self, name: str, default: Any = None) -> Any:
        """A stored value, or the default."""
        rows = self.read("select value from settings where name = ?", (name,))
        return json.loads(rows[0]["value"]) if rows else default

    def set(self, name: str, value: Any) -> None:
        """Store a value."""
        with self.writing() as cursor:
            cursor.execute(
                "insert into settings values (?, ?) on conflict (name) do update set value = excluded.value",
                (name, json.dumps(value)),
            )
