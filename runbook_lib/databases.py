"""Which database, reached how? A descriptor whose password is never shown, and sessions whose errors are ours."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from . import redaction
from .errors import DatabaseError

Engine = Literal["postgresql", "mysql"]
ENGINES: dict[str, Engine] = {
    "postgresql": "postgresql",
    "postgres": "postgresql",
    "aurora-postgresql": "postgresql",
    "mysql": "mysql",
    "mariadb": "mysql",
    "aurora": "mysql",
}
PORTS: dict[Engine, int] = {"postgresql": 5432, "mysql": 3306}
CONNECT_TIMEOUT = 10  # seconds


@dataclass(frozen=True)
class Database:
    """Where a database is and who asks. For a read replica, point at it."""

    engine: Engine
    host: str
    port: int
    name: str
    user: str
    password: str = field(default="", repr=False)
    options: tuple[tuple[str, str], ...] = ()  # PostgreSQL: libpq's, such as sslmode; MySQL: ssl_ca

    def __post_init__(self) -> None:
        redaction.register(self.password)

    def __str__(self) -> str:
        return f"{self.engine}://{self.user}@{self.host}:{self.port}/{self.name}"

    def with_password(self, password: str) -> Database:
        """The same with a password."""
        return replace(self, password=password)

    @contextmanager
    def session(
        self, *, read_only: bool = True, statement_timeout: float = 0, snapshot: bool | str = False
    ) -> Iterator[Any]:
        """A DB-API connection, closed at the end; errors inside become `DatabaseError`.

        `statement_timeout` is in seconds, 0 is none. With `snapshot` all reads are of one moment (repeatable read),
        PostgreSQL: that of the session which exported the named one; without, every statement commits by itself.
        """
        open_session = _open_postgresql if self.engine == "postgresql" else _open_mysql
        with translated(self):
            connection = open_session(self, read_only, statement_timeout, snapshot)
            try:
                yield connection
            finally:
                connection.close()


def from_url(url: str) -> Database:
    """`postgresql://user@host:port/name?sslmode=require` or `mysql://…`; DatabaseError for what is not one.

    A password in it is refused: command lines and notebooks are stored.
    """
    parts = urlsplit(url)
    shown = re.sub(r"//.*@", "//…@", url)
    if parts.scheme not in ENGINES:
        raise DatabaseError(
            f"{shown!r} is not the address of a database: write postgresql://user@host:port/name or "
            "mysql://user@host:port/name."
        )
    if parts.password is not None:
        raise DatabaseError(
            f"{shown!r} holds a password, and what is typed is kept in histories and records: leave it out, and give "
            "the name of a secret (env:VARIABLE, secretsmanager:NAME, ssm:NAME)."
        )
    engine = ENGINES[parts.scheme]
    missing = [what for what, given in (("host", parts.hostname), ("name", parts.path.strip("/"))) if not given]
    if missing:
        raise DatabaseError(f"{shown!r} has no {' and no '.join(missing)}: write {engine}://user@host:port/name.")
    try:
        port = parts.port or PORTS[engine]
    except ValueError as error:
        raise DatabaseError(f"{shown!r}: {error}") from error
    options = tuple(parse_qsl(parts.query))
    name, user = unquote(parts.path.strip("/")), unquote(parts.username or "")
    return Database(engine, cast(str, parts.hostname), port, name, user, options=options)


def secret(reference: str, readers: Mapping[str, Callable[[str], str]] | None = None) -> str:
    """What a named secret holds: `env:VARIABLE`, or a kind that `readers` know, such as `secretsmanager:NAME`."""
    kind, _, name = reference.partition(":")
    known: dict[str, Callable[[str], str]] = {"env": _variable, **(readers or {})}
    if kind not in known or not name:
        ways = ", ".join(f"{way}:NAME" for way in known)
        raise DatabaseError(f"A password is given by the name of a secret ({ways}), not as {kind[:3]}….")
    return known[kind](name)


def _variable(name: str) -> str:
    if name not in os.environ:
        raise DatabaseError(
            f"There is no environment variable {name} to take the secret from. Export it, then run this again."
        )
    return os.environ[name]


@contextmanager
def translated(database: Database) -> Iterator[None]:
    """Errors of its driver as ours: which database, what it said, what to do."""
    refused: type[Exception]
    if database.engine == "postgresql":
        from psycopg import Error as refused
    else:
        from pymysql import MySQLError as refused
    try:
        yield
    except UnicodeDecodeError as error:
        raise DatabaseError(
            f"{database} sent a text that is none in its character set ({error.object[:20]!r}): it cannot be shown or "
            "looked up. Correct it there, or leave its column out."
        ) from error
    except refused as error:
        said = " ".join(str(part) for part in error.args[-1:] if part).strip() or type(error).__name__
        advice = _advice(said)
        stop = "" if not advice or said.endswith((".", "?", "!")) else "."
        raise DatabaseError(f"{database}: {' '.join(said.split())}{stop}{' ' * bool(advice)}{advice}") from error


def _advice(said: str) -> str:
    """What to do about the errors that everybody meets once."""
    known = {
        r"no password supplied|using password: NO": "Name the secret that holds its password: env:VARIABLE, "
        "secretsmanager:NAME or ssm:NAME (--source-password, --target-password).",
        r"password authentication failed|Access denied for user": "Is it the right user, and does the secret hold "
        "its password?",
        r"refused|Can't connect|could not translate host|Name or service not known|timed out|timeout expired": "Is the "
        "address right, and does the network (security group, VPN) let this machine reach it?",
        r"permission denied": "Grant it to this user, or use one that may.",
        r"statement timeout|max_statement_time|maximum statement execution time": "Allow more time, or compare fewer "
        "rows at once.",
        r"conflict with recovery": "A standby gives up reads that hold back its replay: allow it more time "
        "(max_standby_streaming_delay), or set hot_standby_feedback there.",
        r"does not exist|Unknown (table|column|database)": "Is the name spelt as the database spells it?",
    }
    return next((advice for pattern, advice in known.items() if re.search(pattern, said)), "")


def _open_postgresql(database: Database, read_only: bool, statement_timeout: float, snapshot: bool | str) -> Any:
    import psycopg
    import psycopg.sql

    connection = psycopg.connect(
        host=database.host, port=database.port, dbname=database.name, user=database.user,
        password=database.password or None, application_name="migration-runbook", connect_timeout=CONNECT_TIMEOUT,
        autocommit=not snapshot, **dict(cast(Any, database.options)),
    )  # fmt: skip
    connection.read_only = read_only
    if snapshot:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    if isinstance(snapshot, str):
        connection.execute(psycopg.sql.SQL("set transaction snapshot {}").format(snapshot))
    milliseconds = str(int(statement_timeout * 1000))
    only = "on" if read_only else "off"  # without a transaction of psycopg's own its read_only is not sent
    connection.execute(
        f"set statement_timeout = {milliseconds}; set timezone = 'UTC'; set default_transaction_read_only = {only}"
    )
    return connection


def _open_mysql(database: Database, read_only: bool, statement_timeout: float, snapshot: bool | str) -> Any:
    import pymysql

    connection = pymysql.connect(
        host=database.host, port=database.port, database=database.name, user=database.user,
        password=database.password, charset="utf8mb4", connect_timeout=CONNECT_TIMEOUT, autocommit=not snapshot,
        **dict(cast(Any, database.options)),
    )  # fmt: skip
    with connection.cursor() as cursor:
        cursor.execute("set session time_zone = '+00:00'")
        if statement_timeout:
            _limit_mysql(cursor, statement_timeout)
        if read_only:  # of the session: DDL ends a transaction by itself, and would not be held by that one's
            cursor.execute("set session transaction read only")
        if snapshot:
            cursor.execute("set session transaction isolation level repeatable read")
            cursor.execute("start transaction with consistent snapshot")
    return connection


def _limit_mysql(cursor: Any, seconds: float) -> None:
    """MariaDB and MySQL name and count it differently."""
    cursor.execute("select version()")
    if "mariadb" in str(cursor.fetchone()[0]).lower():
        cursor.execute(f"set session max_statement_time = {seconds}")
    else:
        cursor.execute(f"set session max_execution_time = {int(seconds * 1000)}")
