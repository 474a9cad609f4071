"""Two runs side by side: what nobody expected comes first, what was expected is folded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runbook_lib.errors import EvidenceError
from runbook_lib.evidence.diff import Comparison, as_html, compare, steady
from runbook_lib.evidence.seal import seal
from tests.records import Json, check, command, synthetic


@pytest.fixture(autouse=True)
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNBOOK_KEY", str(tmp_path / "signing-key.pem"))
    monkeypatch.setenv("RUNBOOK_OUTPUTS", str(tmp_path))


def pair(tmp_path: Path, first: list[Json], second: list[Json], **more: Any) -> Comparison:
    """The comparison of two sealed runs with these checks; an event more in the second."""
    rehearsal = synthetic(tmp_path, "20260101T000000Z-aaaaaa", {"01_look": first})
    production = synthetic(tmp_path, "20260102T000000Z-bbbbbb", {"01_look": second})
    if more:
        production.events("aws-call", **more)
    return compare(seal(rehearsal), seal(production))


def test_equal_runs_have_no_surprise_and_times_and_ids_are_folded(tmp_path: Path) -> None:
    found = pair(tmp_path, [check("It is there")], [check("It is there")])
    assert found.surprises == ()
    assert {"run", "started", "ended"} <= {one.what for one in found.expected}


def test_counts_that_scale_are_folded_and_other_values_are_not(tmp_path: Path) -> None:
    found = pair(
        tmp_path,
        [check("Only what differed", "PASS", 2, 2), check("The bucket", "PASS", "s3://rehearsal", "s3://rehearsal")],
        [check("Only what differed", "PASS", 9001, 9001), check("The bucket", "PASS", "s3://real", "s3://real")],
    )
    assert {one.what for one in found.surprises} == {"The bucket: expected", "The bucket: seen"}
    assert any(one.what == "Only what differed: seen" for one in found.expected)


def test_another_verdict_and_a_missing_check_are_surprises(tmp_path: Path) -> None:
    found = pair(tmp_path, [check("It is there"), check("It is equal")], [check("It is there", "FAIL")])
    said = {(one.what, one.first, one.second) for one in found.surprises}
    assert ("It is there", "PASS", "FAIL") in said
    assert ("It is equal", "PASS", "not there") in said
    assert ("how it ended", "passed", "check failed") in said


def test_a_call_that_changes_something_in_one_run_alone_is_a_surprise(tmp_path: Path) -> None:
    found = pair(tmp_path, [check("A")], [check("A")], service="s3", operation="DeleteObject", changes=True)
    assert [(one.what, one.first, one.second) for one in found.surprises] == [("s3 DeleteObject", "0", "1")]


def test_another_notebook_is_a_surprise(tmp_path: Path) -> None:
    first = seal(synthetic(tmp_path, "20260101T000000Z-aaaaaa", {"01_look": [check("A")]}))
    second = seal(synthetic(tmp_path, "20260102T000000Z-bbbbbb", {"01_look": [check("A")], "02_copy": [check("B")]}))
    assert ("02_copy", "in one run only") in {(one.where, one.what) for one in compare(first, second).surprises}


def test_the_calls_of_a_notebook_that_is_in_one_run_only_are_folded(tmp_path: Path) -> None:
    first = synthetic(tmp_path, "20260101T000000Z-aaaaaa", {"01_look": [check("A")]})
    second = synthetic(tmp_path, "20260102T000000Z-bbbbbb", {"01_look": [check("A")], "02_copy": [check("B")]})
    second.events("aws-call", notebook="02_copy", service="s3", operation="DeleteObject", changes=True)
    found = compare(seal(first), seal(second))
    assert [one.where for one in found.surprises] == ["02_copy"]
    assert "s3 DeleteObject" in {one.what for one in found.expected}


def test_an_open_run_cannot_be_compared(tmp_path: Path) -> None:
    first = seal(synthetic(tmp_path, "20260101T000000Z-aaaaaa"))
    with pytest.raises(EvidenceError, match="not sealed"):
        compare(first, synthetic(tmp_path, "20260102T000000Z-bbbbbb").path)


def test_times_ids_and_numbers_are_what_varies() -> None:
    first = "exec-0f1e2d3c4b5a69788 took 1,234.5 s at 2026-01-02T03:04:05+00:00, arn:aws:s3:::one"
    second = "exec-aabbccddeeff00112 took 9 s at 2027-11-12T13:14:15+00:00, arn:aws:s3:::another"
    assert steady(first) == steady(second)
    assert steady("eu-central-1 is online") != steady("eu-west-1 is online")


def test_the_command_folds_and_writes_a_page_without_scripts(tmp_path: Path) -> None:
    found = pair(tmp_path, [check("<script>alert(1)</script>")], [check("<script>alert(1)</script>", "FAIL")])
    html = as_html(found)
    assert "<script" not in html and "default-src 'none'" in html
    assert html.index("Surprises") < html.index("expected differences: ids")
    page = tmp_path / "diff.html"
    code, said = command("diff", "20260101", "20260102", "--html", str(page))
    assert (code, "Expected, and folded" in said, page.read_text() == html) == (1, True, True)
