"""The README tells the truth: its commands, notebooks and faults exist."""

from __future__ import annotations

import re

from typer.main import get_command

from runbook_lib.cli import app
from runbook_lib.runs.plan import steps
from runbook_lib.settings import PACKAGE_ROOT

README = (PACKAGE_ROOT / "README.md").read_text()
SHELL = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL))


def test_every_make_target_of_the_readme_exists() -> None:
    makefile = (PACKAGE_ROOT / "Makefile").read_text()
    named = set(re.findall(r"`?make ([a-z]+)", README))
    assert named >= {"run", "test", "jupyter", "references", "lock", "benchmark"}
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_runbook_command_of_the_readme_exists() -> None:
    known = set(get_command(app).commands)  # type: ignore[attr-defined]
    named = set(re.findall(r"^runbook ([a-z-]+)", SHELL, re.MULTILINE))
    assert named and named <= known


def test_the_readme_names_every_notebook() -> None:
    for step in steps():
        assert f"(notebooks/{step.path.name})" in README
