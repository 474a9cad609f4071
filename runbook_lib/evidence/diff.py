"""What is different between two runs, such as a rehearsal and production: surprises first, what was expected folded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import EvidenceError
from .files import RUN
from .record import Record
from .report import TEMPLATES, plainly

EXPECTED = ("run", "started", "ended", "sealed", "endpoint", "host", "operator", "ticket", "signer", "plan", "caller")
PLACES = ("environment", "world", "account", "regions", "mode")  # a rehearsal has others; said, and no surprise
GIVEN = ("environment", "confirm")  # parameters that say which world
VARIES = re.compile(
    r"\barn:aws[\w-]*:[^\s\"']+|\b[0-9a-f]{8}-[0-9a-f-]{27}\b"  # ids
    r"|\b(?:exec|task|loc|agent|share|sgw|mi|i|msg)-[0-9A-Za-z]+\b"
    r"|\b\d{4}-\d\d-\d\d[T ][\d:.]+(?:Z|\+00:00)?|\d+(?:[.,]\d+)*"  # times, counts, sizes, durations
)


@dataclass(frozen=True)
class Difference:
    """One thing that the two runs do not share."""

    where: str
    what: str
    first: str
    second: str


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side."""

    first: str
    second: str
    surprises: tuple[Difference, ...]
    expected: tuple[Difference, ...]

    @property
    def sentence(self) -> str:
        """The verdict, in a line."""
        if not self.surprises:
            return f"No surprise: the runs differ in {len(self.expected)} expected ways only."
        noun = "surprise" if len(self.surprises) == 1 else "surprises"
        return f"{len(self.surprises)} {noun}, and {len(self.expected)} expected differences."


def compare(first: Path, second: Path) -> Comparison:
    """Compare two sealed runs by what their statements and events say; `EvidenceError` when one is not sealed."""
    before, after = _run(first), _run(second)
    found = [*_notebooks(before, after), *_code(before, after), *_calls(Record.read(first), Record.read(second))]
    found += [(name in EXPECTED or name in PLACES, one) for name, one in _about(before, after)]
    surprises = tuple(one for expected, one in found if not expected)
    return Comparison(before["run"], after["run"], surprises, tuple(one for expected, one in found if expected))


def as_html(comparison: Comparison) -> str:
    """A self-contained page, as free of scripts as the report."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    page = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    return page.get_template("diff.html").render(found=comparison)


def _run(folder: Path) -> dict[str, Any]:
    try:
        run: dict[str, Any] = json.loads((folder / RUN).read_text(encoding="utf-8"))["predicate"]
    except (OSError, ValueError, KeyError) as error:
        raise EvidenceError(
            f"{folder.name} is not sealed, so there is nothing to compare: `runbook seal` it"
        ) from error
    return run


Found = Iterator[tuple[bool, Difference]]  # True: it was to be expected


def _about(before: dict[str, Any], after: dict[str, Any]) -> Iterator[tuple[str, Difference]]:
    for name in (*EXPECTED, *PLACES, "verdict"):
        if before[name] != after[name]:
            yield name, Difference("the run", name, plainly(before[name]), plainly(after[name]))
    given = [{k: v for k, v in run["parameters"].items() if k not in GIVEN} for run in (before, after)]
    if given[0] != given[1]:
        yield "parameters", Difference("the run", "parameters", plainly(given[0]), plainly(given[1]))
    if before["maskings"].keys() != after["maskings"].keys():
        rules = (", ".join(run["maskings"]) or "none" for run in (before, after))
        yield "maskings", Difference("the run", "what was masked, by rule", *rules)


def _code(before: dict[str, Any], after: dict[str, Any]) -> Found:
    for name in ("code", "lock", "python", "libraries"):
        if before[name] != after[name]:
            yield False, Difference("the code", name, plainly(before[name]), plainly(after[name]))
    for name, entry, other in _pairs(before, after):
        if entry and other and entry["source"] != other["source"]:
            yield False, Difference(name, "the notebook itself", str(entry["source"]), str(other["source"]))


def _pairs(before: dict[str, Any], after: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    first = {entry["name"]: entry for entry in before["notebooks"]}
    second = {entry["name"]: entry for entry in after["notebooks"]}
    for name in [*first, *(name for name in second if name not in first)]:
        yield name, first.get(name, {}), second.get(name, {})


def _notebooks(before: dict[str, Any], after: dict[str, Any]) -> Found:
    for name, entry, other in _pairs(before, after):
        if not entry or not other:
            yield (
                False,
                Difference(name, "in one run only", *("there" if one else "not there" for one in (entry, other))),
            )
            continue
        if entry["status"] != other["status"]:
            yield False, Difference(name, "how it ended", entry["status"], other["status"])
        if entry["seconds"] != other["seconds"]:
            yield True, Difference(name, "seconds", plainly(entry["seconds"]), plainly(other["seconds"]))
        for knob in sorted(entry["knobs"].keys() | other["knobs"].keys()):
            values = entry["knobs"].get(knob), other["knobs"].get(knob)
            if values[0] != values[1]:
                yield (
                    before["environment"] != after["environment"],
                    Difference(name, f"knob {knob}", plainly(values[0]), plainly(values[1])),
                )
        yield from _checks(name, entry["checks"], other["checks"])


def _checks(name: str, before: list[dict[str, Any]], after: list[dict[str, Any]]) -> Found:
    first, second = ({check["name"]: check for check in checks} for checks in (before, after))
    for check in [*first, *(one for one in second if one not in first)]:
        one, other = first.get(check, {}), second.get(check, {})
        verdicts = one.get("verdict", "not there"), other.get("verdict", "not there")
        if verdicts[0] != verdicts[1]:
            yield False, Difference(name, check, *verdicts)
            continue
        for key in ("expected", "seen"):
            if one[key] != other[key]:
                alike = steady(plainly(one[key])) == steady(plainly(other[key]))
                yield alike, Difference(name, f"{check}: {key}", plainly(one[key]), plainly(other[key]))


def _calls(before: Record, after: Record) -> Found:
    """Operations that one run alone called are a surprise when they can change something; counts scale.

    Not those of notebooks that are in one run only: these are a surprise themselves.
    """
    first, second = before.calls(), after.calls()
    lone_notebooks = set(before.names()) ^ set(after.names())
    shared = before.calls(but=lone_notebooks), after.calls(but=lone_notebooks)
    for key in sorted(first.keys() | second.keys()):
        service, operation, changes = key
        if first[key] != second[key]:
            lone = bool(shared[0][key]) != bool(shared[1][key])
            counts = f"{first[key]:,}", f"{second[key]:,}"
            yield not (lone and changes), Difference("calls to AWS", f"{service} {operation}", *counts)


def steady(value: str) -> str:
    """A text without what is different in every run: times, ids and numbers."""
    return VARIES.sub("~", value)
