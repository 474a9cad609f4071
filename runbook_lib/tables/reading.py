"""Who reads, and of which moment? Sessions on both sides, those of one side in one snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from ..databases import Database, translated
from ..errors import DatabaseError
from . import dialect as dialects
from .dialect import BYTES_HASHED, MODERN, Common, Dialect, Server, Statement
from .model import Options, View


def read(database: Database, session: Any, statement: Statement) -> list[Any]:
    """The answer to a statement."""
    with translated(database), session.cursor() as cursor:
        cursor.execute(statement.sql, statement.parameters)
        rows = cursor.fetchall()
    return list(rows) if statement.read is None else [statement.read(row) for row in rows]


@dataclass(frozen=True)
class Side:
    """One side: its sessions are read-only and see the same moment."""

    database: Database
    dialect: Dialect
    server: Server
    sessions: tuple[Any, ...]

    def ask(self, number: int, statement: Statement) -> list[Any]:
        """The answer of one session, read."""
        return read(self.database, self.sessions[number], statement)

    def cancel(self) -> None:
        """End what its sessions are doing."""
        for session in self.sessions:
            self.dialect.cancel(session)


@dataclass(frozen=True)
class Sides:
    """Both sides, and what they can do alike."""

    source: Side
    target: Side
    common: Common
    helpers: ThreadPoolExecutor

    @property
    def workers(self) -> int:
        """How many ranges can be compared at a time."""
        return min(len(self.source.sessions), len(self.target.sessions))

    def ask(
        self, number: int, views: tuple[View, View], statement: Callable[[Dialect, View], Statement]
    ) -> tuple[list[Any], list[Any]]:
        """The answers of both sides, asked at the same time."""
        source, target = views
        asked = self.helpers.submit(self.source.ask, number, statement(self.source.dialect, source))
        try:
            there = self.target.ask(number, statement(self.target.dialect, target))
        except BaseException:
            self.source.dialect.cancel(self.source.sessions[number])
            raise
        return asked.result(), there

    def cancel(self) -> None:
        """End what both sides are doing."""
        self.source.cancel()
        self.target.cancel()


@contextmanager
def opened(source: Database, target: Database, options: Options) -> Iterator[Sides]:
    """Sessions on both sides; each side's see one moment, the two moments lie close together."""
    workers = 1 if options.gentle else max(1, options.workers)
    with ExitStack() as stack:
        first, second = (_side(stack, database, workers, options.statement_timeout) for database in (source, target))
        helpers = stack.enter_context(ThreadPoolExecutor(workers, "source"))
        yield Sides(first, second, _common((first.server, second.server), options.method), helpers)


def _side(stack: ExitStack, database: Database, workers: int, timeout: float) -> Side:
    dialect = dialects.of(database)
    first = stack.enter_context(database.session(statement_timeout=timeout, snapshot=True))
    dialect.prepare(first)
    server = dialect.server(first)
    shared = dialect.share(first, server) if workers > 1 else None
    sessions = [first]
    for _ in range(workers - 1 if shared else 0):
        sessions.append(stack.enter_context(database.session(statement_timeout=timeout, snapshot=shared or True)))
        dialect.prepare(sessions[-1])
    return Side(database, dialect, server, tuple(sessions))


def _common(servers: Sequence[Server], method: str) -> Common:
    versions = {(server.engine, server.version, server.encoding) for server in servers}
    alike = len(versions) == 1 and servers[0].engine == "postgresql" and servers[0].version >= MODERN
    if method == "native" and not alike:
        shown = " and ".join(f"{server.engine} {server.version} ({server.encoding})" for server in servers)
        raise DatabaseError(
            f"{shown} do not hash alike: the native method needs PostgreSQL {MODERN} or newer, of the same major "
            "version and encoding on both sides. Use md5."
        )
    utf8 = all(server.encoding in ("UTF8", "utf8mb4") for server in servers)
    engines = {server.engine for server in servers}
    hashed = alike and servers[0].version >= BYTES_HASHED
    return Common(portable=len(engines) > 1, modern=alike, utf8=utf8, bytes_hashed=hashed)
