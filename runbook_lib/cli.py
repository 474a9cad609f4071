"""The `runbook` command: run, list, doctor, jupyter, lab; the verbs about records are in evidence_cli.

Exit codes: 0 everything holds · 1 a check failed · 2 usage or settings · 3 AWS or the lab answered with an error ·
4 a bug, or a notebook broke: a cell out of its time, a dead kernel · 129, 130 or 143 interrupted
(the terminal was closed, Ctrl-C, SIGTERM).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from . import compare_cli, evidence_cli, files_cli
from .databases import Database
from .display import printable
from .errors import RunbookError, SettingsError
from .redaction import masked

app = typer.Typer(
    help="Walk, prove and rehearse the last steps of a migration to AWS.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
console = Console(highlight=False)
aside = Console(stderr=True, highlight=False)  # for errors: what --json prints stays JSON

INTERRUPTED = (
    "Interrupted. Nothing is left running but the lab (`runbook lab stop` ends it); what was started at AWS goes on."
)
_signalled: list[int] = []

EnvironmentOption = Annotated[
    str, typer.Option("--environment", "-e", help="A name below parameters/, or a YAML file.")
]
ParameterOption = Annotated[
    list[str] | None, typer.Option("--parameter", "-p", help="name=value; beats the environment's file.")
]


@app.command()
def run(
    notebooks: Annotated[
        list[str] | None, typer.Argument(help="Which notebooks, as 02 or by name; none: all of them.")
    ] = None,
    environment: Annotated[
        str | None, typer.Option("--environment", "-e", help="A name below parameters/, or a YAML file; none: lab.")
    ] = None,
    parameter: ParameterOption = None,
    plan_only: Annotated[
        bool, typer.Option("--plan", help="Write and print what would happen; change nothing, run nothing.")
    ] = False,
    approved: Annotated[
        Path | None, typer.Option(help="A plan (plan.json) that this run must be the run of, in everything.")
    ] = None,
    ticket: Annotated[str | None, typer.Option(help="The change ticket, for the record.")] = None,
    resume: Annotated[
        str | None, typer.Option(help="An earlier run: look at what it finished, skip what holds, and go on.")
    ] = None,
    afresh: Annotated[bool, typer.Option(help="With --resume: run all of that run's notebooks again.")] = False,
    share: Annotated[bool, typer.Option(help="Mask account ids and ARNs too: for a record that is shown.")] = False,
) -> None:
    """Run notebooks headlessly into outputs/, stop at the first failure."""
    from .evidence.folder import RunFolder
    from .evidence.seal import keep_sources, sealed
    from .runs import request
    from .runs.run import run as run_notebooks
    from .settings import load_environment

    given = _parameters(parameter or [])
    if resume is None:
        asked = request.request(notebooks or [], environment, given)
    else:
        asked = request.resumed(resume, notebooks or [], environment, given, afresh)
    steps, parameters = asked.steps, asked.parameters
    loaded = load_environment(asked.environment)
    if share:
        os.environ["RUNBOOK_MASK"] = "share"
    if plan_only:
        return evidence_cli.planned(asked.environment, steps, parameters)
    folder = RunFolder.create(loaded.environment, "headless", **asked.about())
    console.print(
        f"Run {folder.run_id}: {len(steps)} notebooks, environment {loaded.environment}, account {loaded.account}"
    )
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, _terminated)
    outcomes = []
    keep_sources(folder, [step.path for step in steps])
    with sealed(folder), console.status("starting") as status:
        evidence_cli.admit(folder, approved, ticket, asked.environment, steps, parameters)
        begin = lambda step: status.update(f"{step.name} …")  # noqa: E731
        for outcome in run_notebooks(steps, folder, parameters, begin, asked.verified(folder)):
            outcomes.append(outcome)
            _say(outcome)
    evidence_cli.said(folder.path)
    if loaded.lab is not None:
        console.print("The lab keeps running for the next run; `runbook lab stop` ends it.")
    _finish(outcomes, folder.path)


def _say(outcome: Any) -> None:
    marks = {"passed": "[green]PASS[/]", "not run": "[dim]not run[/]", "skipped": "[green]skipped[/]"}
    mark = marks.get(outcome.status, f"[red]{outcome.status.upper()}[/]")
    how = escape(outcome.error) if outcome.status == "skipped" else f"{outcome.checks} checks, {outcome.seconds:.1f} s"
    console.print(f"  {mark}  {outcome.step}  {how}", soft_wrap=True)


def _finish(outcomes: list[Any], path: Path) -> NoReturn:
    failed = next((outcome for outcome in outcomes if not outcome.ok), None)
    table = Table("Notebook", "Verdict", "Checks", "Seconds")
    for outcome in outcomes:
        table.add_row(outcome.step, outcome.status, str(outcome.checks), f"{outcome.seconds:.1f}")
    console.print(table)
    console.print(f"Executed notebooks: {os.path.relpath(path)}")
    if failed is None:
        console.print("[green]Every check holds.[/]")
        raise typer.Exit(0)
    go_on = f"runbook run --resume {path.name}"
    if failed.status == "interrupted":
        console.print(f"{INTERRUPTED} Go on with: {go_on}", soft_wrap=True)
        raise typer.Exit(128 + (_signalled[0] if _signalled else signal.SIGINT))
    console.print(f"[red]{failed.step} {failed.status}[/]: {escape(failed.error)}", soft_wrap=True)
    console.print(f"See {os.path.relpath(failed.output or path)}", soft_wrap=True)
    console.print(f"When it is repaired: {go_on}", soft_wrap=True)
    raise typer.Exit({"check failed": 1, "failed": 3}.get(failed.status, 4))


def _terminated(number: int, frame: Any) -> None:
    _signalled.append(number)
    if number == signal.SIGHUP:
        from .runs.aside import nobody_listens

        nobody_listens()
    raise KeyboardInterrupt


def _parameters(pairs: list[str]) -> dict[str, Any]:
    """name=value pairs; values as YAML reads them, but times, and digits that begin with 0, stay text."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise SettingsError(f"-p {pair!r}: write name=value")
        read = yaml.safe_load(value)
        found[name] = value if isinstance(read, date) or (value.startswith("0") and len(value) > 1) else read
    return found


@app.command("list")
def list_notebooks() -> None:
    """List the notebooks with their titles."""
    from .runs import plan

    table = Table("Notebook", "What it does")
    for step in plan.steps():
        table.add_row(step.name, step.title())
    console.print(table)


@app.command()
def doctor(
    notebooks: Annotated[list[str] | None, typer.Argument(help="Which notebooks the policy is for; none: all.")] = None,
    environment: EnvironmentOption = "lab",
    iam: Annotated[
        bool, typer.Option("--iam", help="Print the IAM policy that the notebooks need, and nothing else.")
    ] = False,
) -> None:
    """Is everything there that the notebooks need? Changes nothing."""
    from . import permissions
    from .runs import plan
    from .settings import load_environment

    if iam:
        loaded = load_environment(environment)
        names = [step.name for step in plan.chosen(notebooks or [])]
        regions = (loaded.regions.cloud, loaded.regions.premises)
        print(json.dumps(permissions.policy(names, loaded.account, regions), indent=2))
        return
    from .runbook import Runbook

    rb = Runbook.open(environment, notebook="00_start_here", command="runbook doctor")
    console.print(repr(rb))
    answers: list[Any] = []
    for question in (rb.agent_online, rb.task_available, rb.same_place, rb.server_reachable, rb.permitted):
        try:
            answer: Any = question()
            ok, reason = answer.ok, answer.reason
        except RunbookError as error:
            ok, reason = False, str(error)
        answers.append(ok)
        console.print(
            f"  {'[green]PASS[/]' if ok else '[red]FAIL[/]'}  {question.__name__.replace('_', ' ')}: {reason}"
        )
    raise typer.Exit(0 if all(answers) else 1)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def jupyter(context: typer.Context, environment: EnvironmentOption = "lab") -> None:
    """Open JupyterLab on a working copy without outputs; more arguments go to JupyterLab."""
    from .evidence.folder import RunFolder
    from .evidence.seal import keep_sources
    from .runs import plan
    from .runs.jupyter import open_jupyter
    from .settings import load_environment

    folder = RunFolder.create(load_environment(environment).environment, "interactive")
    keep_sources(folder, [step.path for step in plan.steps()])
    open_jupyter(folder, context.args)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def lab(context: typer.Context) -> None:
    """The embedded lab: start, status, stop, reset, break, mend, logs, env, pace, profile, databases, workload."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "runbook_lib.lab", *context.args])


class _Databases:
    """The databases of an environment's DMS task."""

    def __init__(self, environment: str) -> None:
        from .runbook import Runbook

        self._rb = Runbook.open(environment, notebook="06_validate_dms", command="runbook compare-tables")

    def database(self, side: str) -> Database:
        """The source or the target."""
        return self._rb.dms.source if side == "source" else self._rb.dms.target

    def keep(self, found: dict[str, Any]) -> None:
        """A line of the run's record, which its report shows."""
        self._rb.record("note", key="tables compared", value=found)


def _environment_files(environment: str, wins: dict[str, Any], gentle: bool, confirm: str | None) -> Any:
    """The files of an environment, looked at as its file says, but for what wins."""
    from .runbook import Runbook

    rb = Runbook.open(
        environment, notebook="03_inspect_transfer_stats", command="runbook compare-files", confirm=confirm
    )
    return rb.files_as(**(rb.environment.inventory.gently() if gentle else {}), **wins)


def _stored_secret(kind: str) -> Callable[[str], str]:
    """How a password is read from Secrets Manager or Parameter Store, as the shell is signed in."""

    def read(name: str) -> str:
        from .aws.client import default_session
        from .aws.secrets import resolve

        session, region = default_session()
        return resolve(session, region, f"{kind}:{name}").password

    return read


evidence_cli.register(app)
files_cli.register(app, _environment_files)
compare_cli.register(app, _Databases, {kind: _stored_secret(kind) for kind in ("secretsmanager", "ssm")})


def _refused(error: RunbookError, code: int) -> NoReturn:
    """An answer of ours on stderr; what it quotes may be meant for the reader's terminal."""
    said = printable(masked(str(error)), keep="\n")
    aside.print(f"[red]{type(error).__name__}[/]: {escape(said)}", soft_wrap=True)
    sys.exit(code)


def main() -> None:
    """Entry point: errors of ours are one clear sentence, not a stack."""
    try:
        app()
    except SettingsError as error:
        _refused(error, 2)
    except RunbookError as error:
        _refused(error, 3)
    except KeyboardInterrupt:
        aside.print(INTERRUPTED)
        sys.exit(130)
    except Exception:  # a bug, which 1 would let pass for a check that failed
        aside.print(escape(masked(traceback.format_exc())), soft_wrap=True)
        sys.exit(4)


if __name__ == "__main__":
    main()
