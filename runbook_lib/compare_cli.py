"""`runbook compare-tables`: are the rows the same in two databases? For use outside the notebooks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from . import tables
from .databases import Database, from_url, secret
from .errors import DatabaseError, SettingsError


class Environment(Protocol):
    """An environment whose databases are compared."""

    def database(self, side: str) -> Database:
        """The `source` or the `target` of its DMS task."""

    def keep(self, found: dict[str, Any]) -> None:
        """Write what was found into the run's record."""


Environments = Callable[[str], Environment]
COLUMN = "schema.table=name,name"
RENAME = "schema.table=schema.table or schema.table.column=column"
PasswordHelp = "Where the password is: env:VARIABLE, secretsmanager:NAME or ssm:NAME; none: as libpq finds it."


def register(
    app: typer.Typer,
    environments: Environments | None = None,
    secrets: Mapping[str, Callable[[str], str]] | None = None,
) -> None:
    """Add the command. `secrets` reads a secret by name, for each kind of name beside env."""

    @app.command("compare-tables")
    def compare_tables(
        source: Annotated[str, typer.Argument(help="postgresql://user@host:port/name, mysql://…, or lab:source.")],
        target: Annotated[str, typer.Argument(help="The same, or lab:target.")],
        names: Annotated[
            list[str] | None, typer.Argument(metavar="[TABLE]...", help="schema.table, % for anything; none: all.")
        ] = None,
        source_password: Annotated[str | None, typer.Option(help=PasswordHelp)] = None,
        target_password: Annotated[str | None, typer.Option(help="The same for the target.")] = None,
        exclude: Annotated[list[str] | None, typer.Option(help="Tables to leave out; % for anything.")] = None,
        column: Annotated[list[str] | None, typer.Option(help=f"Compare only these and the key: {COLUMN}.")] = None,
        rename: Annotated[list[str] | None, typer.Option(help=f"Called otherwise on the target: {RENAME}.")] = None,
        empty: Annotated[list[str] | None, typer.Option(help="Tables that may have no rows.")] = None,
        method: Annotated[str, typer.Option(help="md5, the evidence of record, or native, a fast look.")] = "md5",
        rounds: Annotated[int, typer.Option(min=0, help="How often to look again at what differs.")] = 3,
        pause: Annotated[float, typer.Option(min=0, help="Seconds before looking again.")] = 2.0,
        sample: Annotated[int, typer.Option(min=0, help="Differing rows to show of each table.")] = 10,
        workers: Annotated[
            int, typer.Option(min=1, max=32, help="Sessions of each side, at most: one for every two million rows.")
        ] = 2,
        gentle: Annotated[bool, typer.Option(help="One session, small ranges, rests between them.")] = False,
        statement_timeout: Annotated[float, typer.Option(min=0, help="Seconds a statement may take; 0: any.")] = 0,
        checkpoint: Annotated[
            Path | None, typer.Option(help="Remember finished ranges here, and go on from them.")
        ] = None,
        as_json: Annotated[bool, typer.Option("--json", help="The result for machines.")] = False,
    ) -> None:
        """Compare tables row by row inside the databases; changes nothing. Exit code 0 same, 1 not the same."""
        if method not in ("md5", "native"):
            raise SettingsError(f"--method {method!r}: md5 or native.")
        known: dict[str, Environment] = {}
        sides = [
            _database(given, password, environments, known, secrets or {})
            for given, password in ((source, source_password), (target, target_password))
        ]
        pairs = tables.pairs(
            sides[0], sides[1], names or ["%"], exclude=exclude or [], renamed=dict(_split(rename, "--rename", RENAME)),
            columns={table: chosen.split(",") for table, chosen in _split(column, "--column", COLUMN)},
        )  # fmt: skip
        pairs = pairs if names else _without_own(pairs)
        options = tables.Options(
            method="native" if method == "native" else "md5", rounds=rounds, pause=pause, sample=sample,
            workers=workers, gentle=gentle, statement_timeout=statement_timeout, empty=tuple(empty or ()),
            checkpoint=checkpoint,
        )  # fmt: skip
        tables.refuse_itself(sides[0], sides[1], pairs)
        about = {"source": str(sides[0]), "target": str(sides[1])}
        try:
            with _shown() as progress:
                result = tables.compare(sides[0], sides[1], pairs, options, progress)
        except DatabaseError as error:
            _keep(known, {**about, "ok": False, "method": method, "reason": str(error)})
            raise
        print(json.dumps(result.body(), indent=2, ensure_ascii=False) if as_json else repr(result), flush=True)
        _keep(known, {**about, **result.counts()})
        raise typer.Exit(0 if result.ok else 1)


def _keep(environments: Mapping[str, Environment], found: dict[str, Any]) -> None:
    for environment in environments.values():
        environment.keep(found)


def _database(
    given: str,
    password: str | None,
    environments: Environments | None,
    known: dict[str, Environment],
    secrets: Mapping[str, Callable[[str], str]],
) -> Database:
    """A database from what was typed; `known` are the environments that were opened for it, by name."""
    name, colon, side = given.partition(":")
    if environments is not None and colon and side not in ("source", "target") and not side.startswith("//"):
        raise SettingsError(
            f"{given!r}: write {name}:source or {name}:target for a database of the environment {name}, or an address: "
            "postgresql://user@host:port/name or mysql://user@host:port/name."
        )
    try:
        if environments is not None and side in ("source", "target"):
            if name not in known:
                known[name] = environments(name)
            found = known[name].database(side)
        else:
            found = from_url(given)
        return found if password is None else found.with_password(secret(password, secrets))
    except DatabaseError as error:
        raise SettingsError(str(error)) from error


def _without_own(pairs: list[tables.Pair]) -> list[tables.Pair]:
    """The tables without those that DMS keeps for itself: nobody migrates them. What is left out is said."""
    from .migration.source import OWN

    own = [pair for pair in pairs if pair.name.rpartition(".")[2].startswith(OWN)]
    if own:
        left_out = ", ".join(pair.name for pair in own)
        Console(stderr=True).print(f"Left out, as DMS's own: {left_out}. Name a table to compare it.", soft_wrap=True)
    return [pair for pair in pairs if pair not in own]


def _split(given: list[str] | None, option: str, form: str) -> Iterator[tuple[str, str]]:
    for text in given or ():
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise SettingsError(f"{option} {text!r}: write {form}.")
        yield name, value


@contextmanager
def _shown() -> Iterator[Callable[[tables.Progress], None]]:
    """A bar on the terminal, on standard error."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task("")

        def progress(said: tables.Progress) -> None:
            found = f"[red]{said.differing:,} differ[/]" if said.differing else ""
            text = f"{escape(said.table)} ({said.number} of {said.tables}), {said.doing} {found}"
            bars.update(bar, description=text, completed=said.rows, total=max(said.expected, said.rows))

        yield progress
