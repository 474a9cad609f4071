"""The `runbook` command: run, list, doctor, jupyter, lab.

Exit codes: 0 everything holds · 1 a check failed · 2 usage or settings · 3 AWS or the lab answered with an error, or
a notebook failed · 130 or 143 interrupted.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Annotated, Any, NoReturn

import typer
import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .errors import RunbookError, SettingsError

app = typer.Typer(
    help="Walk, prove and rehearse the last steps of a migration to AWS.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
console = Console(highlight=False)

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
    environment: EnvironmentOption = "lab",
    parameter: ParameterOption = None,
) -> None:
    """Run notebooks headlessly into outputs/, stop at the first failure."""
    from .evidence.folder import RunFolder
    from .runs import plan
    from .runs.run import parameter_names
    from .runs.run import run as run_notebooks
    from .settings import load_environment

    loaded = load_environment(environment)
    steps = plan.chosen(notebooks or [])
    parameters = {**_parameters(parameter or []), "environment": environment}
    _refuse_unknown(set(parameters), {name for step in steps for name in parameter_names(step)})
    folder = RunFolder.create(loaded.environment, "headless")
    console.print(
        f"Run {folder.run_id}: {len(steps)} notebooks, environment {loaded.environment}, account {loaded.account}"
    )
    signal.signal(signal.SIGTERM, _terminated)
    outcomes = []
    with console.status("starting") as status:
        for outcome in run_notebooks(steps, folder, parameters, lambda step: status.update(f"{step.name} …")):
            outcomes.append(outcome)
            mark = {"passed": "[green]PASS[/]", "not run": "[dim]not run[/]"}.get(
                outcome.status, f"[red]{outcome.status.upper()}[/]"
            )
            console.print(f"  {mark}  {outcome.step}  {outcome.checks} checks, {outcome.seconds:.1f} s")
    if loaded.lab is not None:
        console.print("The lab keeps running for the next run; `runbook lab stop` ends it.")
    again = "".join(f" -p {pair}" for pair in parameter or []) + (f" -e {environment}" if environment != "lab" else "")
    _finish(outcomes, folder.path, again)


def _finish(outcomes: list[Any], path: Any, again: str) -> NoReturn:
    failed = next((outcome for outcome in outcomes if not outcome.ok), None)
    table = Table("Notebook", "Verdict", "Checks", "Seconds")
    for outcome in outcomes:
        table.add_row(outcome.step, outcome.status, str(outcome.checks), f"{outcome.seconds:.1f}")
    console.print(table)
    console.print(f"Executed notebooks: {os.path.relpath(path)}")
    if failed is None:
        console.print("[green]Every check holds.[/]")
        raise typer.Exit(0)
    if failed.status == "interrupted":
        console.print(f"{INTERRUPTED} Go on with: runbook run {failed.step[:2]}{escape(again)}")
        raise typer.Exit(128 + (signal.SIGTERM if _signalled else signal.SIGINT))
    console.print(f"[red]{failed.step} {failed.status}[/]: {escape(failed.error)}", soft_wrap=True)
    console.print(f"See {os.path.relpath(failed.output or path)}", soft_wrap=True)
    console.print(f"When it is repaired: runbook run {failed.step[:2]}{escape(again)}", soft_wrap=True)
    raise typer.Exit(1 if failed.status == "check failed" else 3)


def _terminated(number: int, frame: Any) -> None:
    _signalled.append(number)
    raise KeyboardInterrupt


def _parameters(pairs: list[str]) -> dict[str, Any]:
    """name=value pairs; values as YAML reads them, but digits that begin with 0 stay text."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise SettingsError(f"-p {pair!r}: write name=value")
        found[name] = value if value.startswith("0") and len(value) > 1 else yaml.safe_load(value)
    return found


def _refuse_unknown(given: set[str], known: set[str]) -> None:
    import difflib

    for name in sorted(given - known):
        close = difflib.get_close_matches(name, sorted(known), 1)
        raise SettingsError(
            f"no chosen notebook has a parameter {name!r}." + (f" Did you mean {close[0]!r}?" if close else "")
        )


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

    rb = Runbook.open(environment, notebook="00_start_here")
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
    from .runs.jupyter import open_jupyter
    from .settings import load_environment

    folder = RunFolder.create(load_environment(environment).environment, "interactive")
    open_jupyter(folder, context.args)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def lab(context: typer.Context) -> None:
    """The embedded lab: start, status, stop, reset, break, mend, logs, env, pace."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "runbook_lib.lab", *context.args])


def main() -> None:
    """Entry point: errors of ours are one clear sentence, not a stack."""
    try:
        app()
    except SettingsError as error:
        console.print(f"[red]{type(error).__name__}[/]: {escape(str(error))}", soft_wrap=True)
        sys.exit(2)
    except RunbookError as error:
        console.print(f"[red]{type(error).__name__}[/]: {escape(str(error))}", soft_wrap=True)
        sys.exit(3)
    except KeyboardInterrupt:
        console.print(INTERRUPTED)
        sys.exit(130)


if __name__ == "__main__":
    main()
