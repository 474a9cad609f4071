"""Who reads, and of which moment? Sessions on both sides, those of one side in one snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from ..databases import Database, translated
from ..errors import DatabaseError
from . import dialect as dialects
from .dialect import ASKS, BYTES_HASHED, MODERN, TRIMS, Common, Dialect, Method, Server, Statement
from .finding import unlike
from .model import Options, View

BY_CODE_POINT = {"UTF8", "utf8mb4", "LATIN1"}  # encodings whose bytes are in the order of the characters' numbers
PER_WORKER = 2_000_000  # rows: for fewer than so many another session is not worth its place on a server


def read(database: Database, session: Any, statement: Statement) -> list[Any]:
    """The answer to a statement."""
    return statement.taken(_raw(database, session, statement))


def _raw(database: Database, session: Any, statement: Statement) -> list[Any]:
    with translated(database), session.cursor() as cursor:
        cursor.execute(statement.sql, statement.parameters)
        return list(cursor.fetchall())


@dataclass(frozen=True)
class Side:
    """One side: its sessions, which become more, are read-only and see the same moment."""

    database: Database
    dialect: Dialect
    server: Server
    sessions: list[Any]
    another: Callable[[bool | str], Any]  # opens one, given the name of the moment; True: of a new one

    def reach(self, count: int) -> int:
        """Open sessions until there are so many; how many there are: one, where a server lets no others see its moment,
        and fewer than asked for where it has no place for more."""
        if len(self.sessions) < count:
            with translated(self.database):
                shared = self.dialect.share(self.sessions[0], self.server)
            with suppress(DatabaseError):
                while shared and len(self.sessions) < count:
                    self.sessions.append(self.another(shared))
        return min(count, len(self.sessions))

    def ask(self, number: int, statement: Statement) -> list[Any]:
        """The answer of one session, read."""
        return statement.taken(self.raw(number, statement))

    def raw(self, number: int, statement: Statement) -> list[Any]:
        """The answer of one session as it comes."""
        return _raw(self.database, self.sessions[number], statement)

    def cancel(self) -> None:
        """End what its sessions are doing."""
        for session in self.sessions:
            with suppress(Exception):  # its server may be gone; the others are to stop all the same
                self.dialect.cancel(session)


@dataclass(frozen=True)
class Sides:
    """Both sides, and what they can do alike."""

    source: Side
    target: Side
    common: Common
    helpers: ThreadPoolExecutor
    most: int  # sessions of each

    def workers(self, rows: int) -> int:
        """How many ranges of so many rows are to be compared at a time, with a session each."""
        return self.target.reach(self.source.reach(min(self.most, 1 + max(0, rows) // PER_WORKER)))

    def ask(
        self, number: int, views: tuple[View, View], statement: Callable[[Dialect, View], Statement]
    ) -> tuple[list[Any], list[Any]]:
        """The answers of both sides, asked at the same time."""
        source, target = statement(self.source.dialect, views[0]), statement(self.target.dialect, views[1])
        here, there = self._raw(number, source, target)
        return source.taken(here), target.taken(there)

    def unlike(
        self, number: int, views: tuple[View, View], statement: Callable[[Dialect, View], Statement]
    ) -> tuple[list[Any], list[Any]]:
        """What only one side answers; all of it where an answer has equal rows, or the sides do not answer alike."""
        source, target = statement(self.source.dialect, views[0]), statement(self.target.dialect, views[1])
        here, there = self._raw(number, source, target)
        if self.source.database.engine == self.target.database.engine:
            here, there = unlike(here, there)
        return source.taken(here), target.taken(there)

    def _raw(self, number: int, source: Statement, target: Statement) -> tuple[list[Any], list[Any]]:
        asked = self.helpers.submit(self.source.raw, number, source)
        try:
            there = self.target.raw(number, target)
            return asked.result(), there
        except BaseException:
            with suppress(Exception):  # its server may be gone, and why we stop is what is told
                self.source.dialect.cancel(self.source.sessions[number])
            raise

    def cancel(self) -> None:
        """End what both sides are doing."""
        self.source.cancel()
        self.target.cancel()


@contextmanager
def opened(source: Database, target: Database, options: Options) -> Iterator[Sides]:
    """Sessions on both sides; each side's see one moment, the two moments lie close together."""
    workers = 1 if options.gentle else max(1, options.workers)
    with ExitStack() as stack:
        sessions = stack.enter_context(ExitStack())  # also those opened later are closed after the helpers have ended
        first, second = (_side(sessions, database, options.statement_timeout) for database in (source, target))
        helpers = stack.enter_context(ThreadPoolExecutor(workers, "source"))
        yield Sides(first, second, _common((first.server, second.server), options.method), helpers, workers)


def _side(stack: ExitStack, database: Database, timeout: float) -> Side:
    dialect = dialects.of(database)

    def another(moment: bool | str) -> Any:
        session = stack.enter_context(database.session(statement_timeout=timeout, snapshot=moment))
        dialect.prepare(session)
        return session

    first = another(True)
    return Side(database, dialect, dialect.server(first), [first], another)


def _common(servers: Sequence[Server], method: Method) -> Common:
    versions = {(server.engine, server.version, server.encoding) for server in servers}
    alike = len(versions) == 1 and servers[0].engine == "postgresql" and servers[0].version >= MODERN
    if method == "native" and not alike:
        shown = " and ".join(f"{server.engine} {server.version} ({server.encoding})" for server in servers)
        raise DatabaseError(
            f"{shown} do not hash alike: the native method needs PostgreSQL {MODERN} or newer, of the same major "
            "version and encoding on both sides. Use md5."
        )
    encodings = {server.encoding for server in servers}
    utf8 = encodings <= {"UTF8", "utf8mb4"}
    alike_in_order = len(encodings) == 1 or encodings <= BY_CODE_POINT
    engines = {server.engine for server in servers}
    hashed = alike and servers[0].version >= BYTES_HASHED
    return Common(
        portable=len(engines) > 1,
        method=method,
        modern=alike,
        utf8=utf8,
        bytes_alike=alike_in_order,
        trims=all(server.version >= TRIMS for server in servers if server.engine == "postgresql"),
        asks=all(server.version >= ASKS for server in servers if server.engine == "postgresql"),
        bytes_hashed=hashed,
    )
