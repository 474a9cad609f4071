"""What is asked to be run: which notebooks, where, with which parameters, and after which earlier run?"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import SettingsError
from ..evidence.folder import RunFolder
from ..redaction import refuse_secrets
from ..settings import knobs, load_environment
from .plan import Step, chosen
from .resume import Earlier, Verified, earlier, unchanged
from .run import parameter_names


@dataclass(frozen=True)
class Request:
    """A run before it starts."""

    steps: list[Step]
    parameters: dict[str, Any]
    before: Earlier | None = None
    afresh: bool = False

    @property
    def environment(self) -> str:
        """The environment's name or file."""
        name: str = self.parameters["environment"]
        return name

    def about(self) -> dict[str, Any]:
        """What the run folder says of it."""
        if self.before is None:
            return {}
        return {"resumes": self.before.run_id, **({"afresh": True} if self.afresh else {})}

    def verified(self, folder: RunFolder) -> Callable[[Step], str]:
        """Why a notebook is skipped."""
        if self.before is None or self.afresh:
            return lambda step: ""
        return Verified(self.before, self.parameters, folder)


def request(notebooks: list[str], environment: str | None, parameters: dict[str, Any]) -> Request:
    """A run of notebooks (none: all that are for the environment).

    `SettingsError` for a parameter that none of them has, or that holds a secret.
    """
    loaded = load_environment(environment or "lab")
    steps = [step for step in chosen(notebooks) if notebooks or step.name not in loaded.left_out]
    refuse_secrets(parameters)
    _refuse_unknown(set(parameters), {name for step in steps for name in parameter_names(step)})
    for step in steps:  # wrong values are told now, and not by a kernel
        if step.name in loaded.left_out:
            raise SettingsError(f"{step.name} is not for environment {loaded.environment!r}: it has no section `dms`.")
        given = {
            name: parameters[name] for name in parameter_names(step) & set(parameters) - {"confirm", "environment"}
        }
        if given:
            knobs(loaded, step.name, given)
    return Request(steps, {**parameters, "environment": environment or "lab"})


def resumed(
    run: str, notebooks: list[str], environment: str | None, parameters: dict[str, Any], afresh: bool
) -> Request:
    """What an earlier run was asked, once more; `SettingsError` when it is not the same now, unless `afresh`."""
    before = earlier(run)
    if notebooks:
        raise SettingsError(f"--resume runs the notebooks of run {before.run_id}: name none, or leave --resume out.")
    given = {**parameters, **({"environment": environment} if environment else {})}
    if not afresh:
        unchanged(before, given)
    parameters = {**before.readable(given), **given}
    asked = request(list(before.notebooks), parameters["environment"], parameters)
    return Request(asked.steps, parameters, before, afresh)


def _refuse_unknown(given: set[str], known: set[str]) -> None:
    for name in sorted(given - known):
        close = difflib.get_close_matches(name, sorted(known), 1)
        raise SettingsError(
            f"no chosen notebook has a parameter {name!r}." + (f" Did you mean {close[0]!r}?" if close else "")
        )
