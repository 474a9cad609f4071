"""The verbs of `runbook` that read and close records: seal, verify, sign, runs, diff."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from .display import printable

console = Console(highlight=False)


def plain(said: object) -> str:
    """What a record says, as it may be printed: its writer may have meant it for the reader's terminal."""
    return escape(printable(said))


RunArgument = Annotated[str, typer.Argument(help="A run: its folder, its id, or the beginning of its id.")]
JsonOption = Annotated[bool, typer.Option("--json", help="For machines.")]


def register(app: typer.Typer) -> None:
    """Give the command these verbs."""
    for verb in (runs, seal, verify, sign, diff):
        app.command()(verb)


def found(name: str) -> Path:
    """A run's folder."""
    from .evidence.folder import outputs
    from .evidence.seal import find

    return find(name, outputs())


def runs(
    run: Annotated[str | None, typer.Argument(help="One run, by id; none: a table of all.")] = None,
    machine: JsonOption = False,
) -> None:
    """List all runs with their verdicts, or show one."""
    from .evidence import listing
    from .evidence.folder import outputs

    if run is not None:
        return _one(found(run), machine)
    listed = list(listing.runs(outputs()))
    if machine:
        return print(json.dumps([vars(one) for one in listed], indent=1))
    table = Table("Run", "Verdict", "Checks", "Environment", "Mode", "State")
    table.columns[0].no_wrap = True
    for one in listed:
        held = "" if one.held is None else f"{one.held} of {one.asked}"
        cells = (plain(text) for text in (one.environment, one.mode, one.state))
        table.add_row(plain(one.run), _coloured(one.verdict), held, *cells)
    console.print(table if listed else "There is no run yet: `runbook run` makes one.")


def _one(path: Path, machine: bool) -> None:
    from .evidence import listing
    from .evidence.files import RUN

    if not (path / RUN).is_file():
        one = listing.listed(path)
        if machine:
            return print(json.dumps(vars(one), indent=1))
        return console.print(
            plain(f"{one.run}: {one.state}, {one.mode}, environment {one.environment}, since {one.started}")
        )
    run: dict[str, Any] = json.loads((path / RUN).read_text(encoding="utf-8"))["predicate"]
    if machine:
        return print(json.dumps(run, indent=1))
    console.print(
        f"{plain(run['run'])}: {_coloured(run['verdict'])}, "
        + plain(f"{run['mode']}, {run['world']} account {run['account']}, environment {run['environment']}, ")
        + plain(f"by {run['operator']}, {run['started']} to {run['ended']}")
    )
    table = Table("Notebook", "Verdict", "Check")
    for notebook in run["notebooks"]:
        table.add_row(plain(notebook["name"]), _coloured(notebook["status"]), plain(notebook["error"]))
        for check in notebook["checks"]:
            table.add_row("", _coloured(check["verdict"]), plain(check["name"]))
    console.print(table)
    console.print(plain(f"Is it as it was sealed? runbook verify {run['run']}"))


def planned(environment: str, steps: list[Any], parameters: dict[str, Any]) -> None:
    """Make the plan of a run and print it."""
    from . import preview
    from .evidence.approval import read_plan

    path = preview.make(environment, steps, parameters)
    plan = read_plan(path)
    scope, estimate = plan["scope"], plan["estimate"]
    console.print(
        f"Plan {plan['plan']}: {scope['world']} account {scope['account']}, environment {scope['environment']}, as "
        f"{scope['caller']}, regions {', '.join(f'{k} {v}' for k, v in scope['regions'].items())}, changes "
        f"{'allowed' if scope['changes_allowed'] else 'NOT allowed'}",
        soft_wrap=True,
    )
    named = {name: arn for entry in scope["notebooks"].values() for name, arn in entry["names"].items()}
    for name, arn in named.items():
        console.print(escape(f"  {name}: {arn}"), soft_wrap=True)
    table = Table("Notebook", "Calls that can change something", "Takes about")
    for name, entry in scope["notebooks"].items():
        took = estimate["time"][name]
        about = f"{took['seconds']} s (of {took['of_runs']} runs)" if took["of_runs"] else "no former run"
        table.add_row(name, ", ".join(entry["changing_calls"]) or "none", about)
    console.print(table)
    _scope_of_files(estimate)
    console.print(f"Nothing was changed. Written: {os.path.relpath(path)}, valid until {plan['valid_until']}")
    console.print(
        escape(f"Sign it: runbook sign {plan['plan']} --as approver --comment …\nThen run it: {_command(scope, path)}"),
        soft_wrap=True,
    )


def _command(scope: dict[str, Any], path: Path) -> str:
    """What is typed to run a plan: the same notebooks and parameters."""
    given = [f"{name}={value}" for name, value in scope["parameters"].items() if name != "environment"]
    options = [word for one in given for word in ("-p", one)]
    where = ["--environment", str(scope["parameters"]["environment"])]
    return shlex.join(["runbook", "run", *scope["notebooks"], *options, *where, "--approved", os.path.relpath(path)])


def _scope_of_files(estimate: dict[str, Any]) -> None:
    files = estimate["files"]
    if files is None:
        return console.print("Files in scope: not known, the task was never run (02 counts what differs).")
    console.print(
        f"Files, as the task's last execution saw them ({files['ended']}): {files['transferred']:,} transferred, "
        f"{files['skipped']:,} skipped, {files['bytes']:,} bytes. An estimate of what AWS charges for the same again, "
        "by the prices noted here:"
    )
    table = Table("What", "Quantity", "USD a unit", "USD", Column("List price of", overflow="fold"))
    for line in estimate["money"]:
        quantity, price = f"{line['quantity']:,} {line['unit']}", f"{line['usd_a_unit']:.7f}"
        source = f"{line['price_region']}, {line['price_as_of']}: {line['price_page']}"
        table.add_row(line["what"], quantity, price, f"{line['usd']:.6f}", source)
    console.print(table)


def admit(
    folder: Any, plan: Path | None, ticket: str | None, environment: str, steps: list[Any], parameters: dict[str, Any]
) -> None:
    """Let a run begin: its ticket is recorded, and an approved plan is compared with what would be run now."""
    from .errors import RunbookError, SettingsError

    if ticket is not None:
        folder.events("ticket", ticket=ticket)
    if plan is None:
        return
    if os.environ.get("RUNBOOK_MASK") == "share":
        raise SettingsError(
            "--share and --approved exclude each other: the plan names the account, and is kept as signed."
        )
    from . import preview

    try:
        preview.compare(plan, environment, steps, parameters, folder)
    except RunbookError as error:
        folder.events("guard", allowed=False, reason=str(error))
        raise


def seal(run: Annotated[str | None, typer.Argument(help="Which run; none: the newest open one.")] = None) -> None:
    """Close a run that is open: hash and sign its files, write its report."""
    from .errors import EvidenceError
    from .evidence.folder import MARK, RunFolder, outputs
    from .evidence.seal import newest_open
    from .evidence.seal import seal as close

    path = found(run) if run else newest_open(outputs())
    if not (path / MARK).is_file():
        raise EvidenceError(f"{path.name} is not open. Is it as it was sealed? runbook verify {path.name}")
    said(close(RunFolder(path)))


def said(path: Path) -> None:
    """One line about a run that was sealed."""
    from .evidence.keys import own_key

    key = own_key().public_key.keyid
    console.print(f"Sealed: {os.path.relpath(path)}, report.html in it. Your key's fingerprint: {key}", soft_wrap=True)


def verify(
    run: RunArgument,
    signer: Annotated[str | None, typer.Option(help="The fingerprint of the key you trust.")] = None,
    machine: JsonOption = False,
) -> None:
    """Was a record touched since it was sealed? Offline. Exit codes: 0 intact and by --signer,
    10 intact by an unconfirmed key, 11 unsealed, 12 broken."""
    from .evidence.verify import verify as judge

    seen = judge(found(run), signer)
    if machine:
        print(json.dumps(seen.as_dict(), indent=1))
        raise typer.Exit(seen.exit_code)
    colour = {"intact": "green", "unconfirmed": "yellow"}.get(seen.state, "red")
    console.print(f"[{colour}]{escape(seen.sentence)}[/]", soft_wrap=True)
    if seen.run is not None:
        named, verdict, operator = (seen.run[name] for name in ("run", "verdict", "operator"))
        claims = "says of itself: " if seen.state == "broken" else ""
        console.print(f"Run {plain(named)}{' ' if claims else ': '}{claims}{_coloured(verdict)}, by {plain(operator)}")
        console.print(f"Signed by the key {seen.run['signer']['fingerprint']}", soft_wrap=True)
    for fault in seen.faults:
        console.print(f"  [red]FAULT[/]  {escape(fault)}", soft_wrap=True)
    for remark in seen.remarks:
        console.print(f"  NOTE   {escape(remark)}", soft_wrap=True)
    for one in seen.signatures:
        ticket = f", ticket {one.ticket}" if one.ticket else ""
        console.print(
            plain(f"  SIGNED {one.subject} as {one.role} by {one.name}, {one.signed:%Y-%m-%d %H:%M} UTC{ticket}, ")
            + plain(f"key {one.fingerprint}: {one.comment}"),
            soft_wrap=True,
        )
    raise typer.Exit(seen.exit_code)


def sign(
    target: Annotated[str, typer.Argument(help="A sealed run, or a plan: its folder, file, or id.")],
    role: Annotated[str, typer.Option("--as", help="operator, approver or acceptance.")],
    comment: Annotated[str, typer.Option(help="What you looked at, and what you say to it.")],
    ticket: Annotated[str | None, typer.Option(help="The change ticket.")] = None,
    name: Annotated[str | None, typer.Option(help="Your name; none: the name you are signed in with.")] = None,
) -> None:
    """Sign the hash of a plan or of a sealed run with your key."""
    from .evidence import keys, signoff

    path = Path(target).expanduser()
    file = signoff.sign(path if path.is_file() else found(target), role, comment, ticket, name)
    console.print(f"Signed: {os.path.relpath(file)}, with the key {signoff.read(file).fingerprint}", soft_wrap=True)
    console.print(f"Your private key is {keys.key_file()}: keep it to yourself.", soft_wrap=True)


def diff(
    first: RunArgument,
    second: RunArgument,
    page: Annotated[Path | None, typer.Option("--html", help="Write the comparison into this file.")] = None,
) -> None:
    """Compare two sealed runs: surprises first. Exit code 1 when there are any."""
    from .evidence import diff as differences

    compared = differences.compare(found(first), found(second))
    console.print(compared.sentence)
    if compared.surprises:
        table = Table("Where", "Surprise", plain(compared.first), plain(compared.second))
        for one in compared.surprises:
            table.add_row(*(plain(text) for text in (one.where, one.what, one.first, one.second)))
        console.print(table)
    folded = sorted({one.what if one.where == "the run" else one.where for one in compared.expected})
    if folded:
        console.print(plain(f"Expected, and folded: {', '.join(folded)}. --html FILE has all of them."), soft_wrap=True)
    if page is not None:
        page.write_text(differences.as_html(compared), encoding="utf-8")
    raise typer.Exit(1 if compared.surprises else 0)


def _coloured(verdict: str) -> str:
    good = verdict in ("passed", "PASS")
    quiet = verdict in ("", "not run", "NOT ASKED", "skipped")
    return plain(verdict) if quiet else f"[{'green' if good else 'red'}]{plain(verdict)}[/]"
