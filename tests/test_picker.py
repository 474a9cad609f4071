"""Which one is meant: a parameter wins, headless never asks, a person gets a list."""

from __future__ import annotations

import ipywidgets
import pytest

from runbook_lib import picker
from runbook_lib.errors import Ambiguous, NotFound


def find(name: str | None) -> str:
    names = ["one", "two"]
    if name is None:
        raise Ambiguous("Several tasks fit. Name one: one, two.")
    if name not in names:
        raise NotFound(f"There is no {name}.")
    return name.upper()


def test_a_parameter_wins_and_nothing_is_asked() -> None:
    assert picker.pick("task", "two", find, list) == "TWO"


def test_headless_never_asks_and_says_what_the_candidates_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNBOOK_UI", "static")
    with pytest.raises(Ambiguous, match="one, two"):
        picker.pick("task", None, find, list)


def test_a_person_chooses_and_runs_the_cell_again(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[ipywidgets.Dropdown] = []
    monkeypatch.setenv("RUNBOOK_UI", "live")
    monkeypatch.setattr("IPython.display.display", shown.append)
    monkeypatch.setattr(picker, "_chosen", {})
    with pytest.raises(picker.ChooseFirst, match="choose the task"):
        picker.pick("task", None, find, lambda: ["one", "two"])
    assert [label for label, _ in shown[0].options] == ["choose…", "one", "two"]
    shown[0].value = "one"
    assert picker.pick("task", None, find, list) == "ONE"
