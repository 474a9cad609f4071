"""`runbook compare-files`: what is typed arrives, and the exit code says how it ended."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from runbook_lib import cli, files_cli
from runbook_lib.errors import AwsError, RunbookError, SettingsError

MANIFEST = "s3://inventories/2026/manifest.json"
USUAL = {"against": "bucket", "within": None, "take": 3000, "seed": None, "source": "scan", "out": None, "of": None}


@dataclass
class Found:
    """What a comparison found, as far as the command looks at it."""

    ok: bool = True
    folder: Path = Path("/where/it/is")
    comparison: Any = field(default_factory=lambda: SimpleNamespace(files=1))
    elsewhere: str = "Athena would join them."

    def __repr__(self) -> str:
        return "What was found."

    def body(self) -> dict[str, Any]:
        return {"ok": self.ok}


class Recorded:
    """The files of an environment, which only write down what they are asked."""

    def __init__(self, answer: Found | BaseException) -> None:
        self.answer = answer
        self.opened: tuple[Any, ...] = ()
        self.level, self.asked, self.calls = "", dict[str, Any](), list[dict[str, Any]]()

    def open(self, *how: Any) -> Recorded:
        self.opened = how
        return self

    def compare(self, level: str, *, told: Any, said: Any, **asked: Any) -> Found:
        self.level, self.asked = level, asked
        self.calls.append(asked)
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer

    @property
    def app(self) -> typer.Typer:
        """The command on these files, beside another, so that it keeps its name."""
        made = typer.Typer()
        made.command("other")(lambda: None)
        files_cli.register(made, self.open)
        return made


def typed(files: Recorded, *arguments: str) -> Result:
    return CliRunner().invoke(files.app, ["compare-files", "lab", *arguments])


@pytest.mark.parametrize(
    ("arguments", "arrives"),
    [
        ((), {}),
        *((("--against", against), {"against": against}) for against in files_cli.AGAINST),
        *((("--source", source), {"source": source}) for source in files_cli.SOURCES),
        (("--within", "images/ä"), {"within": "images/ä"}),
        (("--within", "/"), {"within": "/"}),
        (("--sample", "17"), {"take": 17}),
        (("--seed", "0"), {"seed": 0}),
        (("--out", "there"), {"out": Path("there")}),
    ],
)
def test_what_is_typed_arrives(arguments: tuple[str, ...], arrives: dict[str, Any]) -> None:
    files = Recorded(Found())
    done = typed(files, *arguments)
    assert done.exit_code == 0, done.output
    assert (files.opened, files.level, files.asked) == (("lab", {}, False, None), "size", {**USUAL, **arrives})


@pytest.mark.parametrize("level", files_cli.LEVELS)
def test_the_level_arrives(level: str) -> None:
    files = Recorded(Found())
    assert typed(files, "--level", level).exit_code == 0
    assert (files.level, files.asked) == (level, USUAL)


@pytest.mark.parametrize(
    ("arguments", "opened"),
    [
        (("--s3-inventory", MANIFEST), ({"s3_inventory": MANIFEST}, False, None)),
        (("--gentle",), ({}, True, None)),
        (("--confirm", "123456789012"), ({}, False, "123456789012")),
    ],
)
def test_what_is_of_the_environment_arrives_where_it_is_opened(
    arguments: tuple[str, ...], opened: tuple[Any, ...]
) -> None:
    files = Recorded(Found())
    assert typed(files, *arguments).exit_code == 0
    assert (files.opened, files.asked) == (("lab", *opened), USUAL)


@pytest.mark.parametrize(("ok", "code"), [(True, 0), (False, 1)])
def test_the_finding_is_the_exit_code_and_machines_read_it_alone(ok: bool, code: int) -> None:
    done = typed(Recorded(Found(ok)))
    assert (done.exit_code, done.stdout) == (code, "What was found.\n")
    assert done.stderr == "Inventories and differences: /where/it/is\n"
    done = typed(Recorded(Found(ok)), "--json")
    assert (done.exit_code, json.loads(done.stdout)) == (code, {"ok": ok})


def test_of_a_large_comparison_what_another_engine_would_cost_is_said() -> None:
    large = Found(comparison=SimpleNamespace(files=files_cli.MANY))
    assert "Athena would join them." in typed(Recorded(large)).stderr


def test_several_sides_are_compared_one_after_another_with_one_scan() -> None:
    files = Recorded(Found())
    done = typed(files, "--against", "share", "--against", "bucket", "--against", "share", "--out", "there")
    assert (done.exit_code, done.stdout) == (
        0,
        "With the share:\nWhat was found.\n\nWith the bucket:\nWhat was found.\n\nshare: the same; bucket: the same.\n",
    )
    assert "Inventories and differences: /where/it/is (of the source: /where/it/is)" in done.stderr
    assert [(one["against"], one["of"], one["out"]) for one in files.calls] == [
        ("share", None, Path("there/share")), ("bucket", files.answer, Path("there/bucket")),
    ]  # fmt: skip
    done = typed(Recorded(Found(ok=False)), "--against", "share", "--against", "bucket", "--json")
    assert (done.exit_code, json.loads(done.stdout)) == (1, [{"ok": False}] * 2)
    files = Recorded(Found())
    typed(files, "--level", "sample", "--against", "bucket", "--against", "share")
    one, other = (call["seed"] for call in files.calls)
    assert one == other is not None  # one sample for both
    files = Recorded(Found())
    done = typed(files, "--level", "content", "--against", "bucket", "--against", "report")
    assert isinstance(done.exception, SettingsError) and "no content" in str(done.exception)
    assert files.opened == ()  # before hours have gone into the first


def test_what_ended_before_an_interruption_or_an_error_is_told() -> None:
    files = Recorded(Found())
    answers: list[Any] = [KeyboardInterrupt(), Found()]
    files.compare = lambda *a, **k: _given(answers.pop())  # type: ignore[method-assign]
    done = typed(files, "--against", "bucket", "--against", "share")
    assert done.exit_code == 130 and done.stdout.endswith("\n\nbucket: the same; share: not finished.\n")
    assert "give --against with that side alone; the NFS server is scanned again." in done.stderr
    for error, code in ((KeyboardInterrupt(), 130), (AwsError("gone"), 1)):  # an error's own code is main's to give
        answers[:] = [error, Found()]
        done = typed(files, "--against", "bucket", "--against", "share", "--json")
        assert (done.exit_code, json.loads(done.stdout)) == (code, [{"ok": True}])


def _given(answer: Any) -> Any:
    if isinstance(answer, BaseException):
        raise answer
    return answer


def test_an_interrupted_comparison_ends_with_130_and_says_how_to_go_on() -> None:
    done = typed(Recorded(KeyboardInterrupt()))
    assert (done.exit_code, done.stdout) == (130, "")
    assert "the same command goes on with it" in done.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AwsError("The bucket is gone."), 3),
        (RunbookError("Something else."), 3),
        (SettingsError("--out is a file."), 2),
        (ValueError("a bug"), 4),
    ],
)
def test_an_error_is_never_taken_for_a_difference(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "app", Recorded(error).app)
    monkeypatch.setattr(sys, "argv", ["runbook", "compare-files", "lab"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == code
    shown = capsys.readouterr()
    assert shown.out == "" and str(error) in shown.err


@pytest.mark.parametrize("arguments", [("--level", "all"), ("--against", "tape"), ("--source", "memory")])
def test_a_word_that_is_not_known_is_refused_before_anything_is_opened(arguments: tuple[str, str]) -> None:
    files = Recorded(Found())
    done = typed(files, *arguments)
    assert isinstance(done.exception, SettingsError) and f"{arguments[0]} '{arguments[1]}'" in str(done.exception)
    assert files.opened == ()


@pytest.mark.parametrize("arguments", [("--sample", "0"), ("--seed", "-1")])
def test_a_number_that_is_out_of_range_is_a_usage_error(arguments: tuple[str, str]) -> None:
    files = Recorded(Found())
    assert typed(files, *arguments).exit_code == 2
    assert files.opened == ()
