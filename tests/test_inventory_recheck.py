"""The second look settles what is equal now, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from runbook_lib.inventory.merge import compare
from runbook_lib.inventory.recheck import Digest
from runbook_lib.inventory.rules import Rules
from runbook_lib.inventory.sampling import Sample
from tests.inventories import Row, batch, file, inventory
from tests.test_inventory_merge import META, WRITTEN, Sides, World, found

SUM: Row = {"checksum_algorithm": "SHA256", "checksum_type": "FULL_OBJECT", "checksum": "x"}
K: Row = file("k", **META, **SUM)  # a file that is the same on both sides, always
HOUR = 3_600_000_000_000


@pytest.fixture
def sides(tmp_path: Path) -> Sides:
    return Sides(tmp_path)


def reads(ours: str, theirs: str, asked: list[str] | None = None) -> Digest:
    """Reads the files that both sides have: these are their checksums."""

    def digest(
        here: pa.RecordBatch, there: pa.RecordBatch, keys: Sequence[str] | None
    ) -> tuple[pa.RecordBatch, pa.RecordBatch]:
        wanted = [key for key in here.column("key").to_pylist() if keys is None or key in keys]
        if asked is not None:
            asked.extend(wanted)
        some = [
            batch(row | (SUM | {"checksum": value} if row["key"] in wanted else {}) for row in side.to_pylist())
            for side, value in ((here, ours), (there, theirs))
        ]
        return some[0], some[1]

    return digest


@pytest.mark.parametrize("level", ["names", "size"])
@pytest.mark.parametrize("now", [WRITTEN, None])
def test_an_object_that_is_older_than_its_file_stays_stale_when_a_head_tells_its_time(
    sides: Sides, level: Any, now: int | None
) -> None:
    source = [file("a", **META | {"mtime_ns": META["mtime_ns"] + HOUR}), K]
    listed = [file("a", last_modified_us=WRITTEN), file("k", last_modified_us=WRITTEN)]
    head = [file("a", **META, last_modified_us=now), K]
    result = sides(source, listed, level, recheck=World(source, head))
    assert found(result) == ([("a", "stale")] if level == "size" else [])


def test_a_stale_object_is_settled_once_it_has_its_files_time(sides: Sides) -> None:
    later = META | {"mtime_ns": META["mtime_ns"] + HOUR}
    source, listed = [file("a", **later), K], [file("a", last_modified_us=WRITTEN), K]
    coarse = later | {"mtime_ns": later["mtime_ns"] // 10**6 * 10**6, "mtime_step_ns": 10**6}
    result = sides(source, listed, recheck=World(source, [file("a", **coarse, last_modified_us=WRITTEN + 10**10), K]))
    assert (found(result), result.ok) == ([], True)


def test_an_object_that_turns_up_later_and_is_older_than_its_file_is_stale(sides: Sides) -> None:
    source = [file("a", **META | {"mtime_ns": META["mtime_ns"] + HOUR}), K]
    now = World(source, [file("a", **META, last_modified_us=WRITTEN), K])
    assert found(sides(source, [K], recheck=now)) == [("a", "stale")]


def test_what_was_not_listed_and_is_there_now_is_read_before_it_is_settled(sides: Sides) -> None:
    source, now = [file("a", **META), K], World([file("a", **META)], [file("a", **META)])
    for theirs, lines in (("y", [("a", "content")]), ("x", [])):
        result = sides(source, [K], "content", recheck=now, digest=reads("x", theirs))
        assert (found(result), result.ok) == (lines, not lines)
        assert result.compared["content"] == 2


def test_what_cannot_be_read_at_the_second_look_is_without_evidence(sides: Sides) -> None:
    now = World([file("a", **META)], [file("a", **META)])
    result = sides([file("a", **META), K], [K], "content", recheck=now)
    assert found(result) == [("a", "no evidence")]


def test_only_what_would_be_settled_is_read_again(sides: Sides) -> None:
    names = ["gone", "late", "mode"]
    here = [file(name, **META, **SUM) for name in names]
    there = [file("late", **META), file("mode", **META | {"mode": 0o600}, **SUM)]
    asked: list[str] = []
    result = sides(
        [*here, K], [there[1], K], "content",
        recheck=World([file(name, **META) for name in names], there), digest=reads("x", "x", asked),
    )  # fmt: skip
    assert (found(result), asked) == ([("gone", "missing"), ("mode", "mode")], ["late"])


def test_a_file_of_the_sample_that_turns_up_later_is_read_and_others_are_not(sides: Sides) -> None:
    source = [file("a", **META), file("b", **META), K]
    now, asked = World(source, source), []  # type: ignore[var-annotated]
    result = sides(source, [K], "sample", sample=Sample(("a", "k"), 3, 1), recheck=now, digest=reads("x", "x", asked))
    assert (found(result), asked, result.compared["content"], result.ok) == ([], ["a"], 2, True)
    result = sides(source, [K], "sample", sample=Sample(("a", "k"), 3, 1), recheck=now, digest=reads("x", "y"))
    assert found(result) == [("a", "content")]


def test_what_the_second_look_could_not_compare_is_not_the_same(sides: Sides) -> None:
    unknown = {"key": "a", "kind": "file"}
    result = sides([file("a", **META), K], [K], recheck=World([unknown], [unknown]))
    assert (result.ok, result.not_compared["size"]) == (False, 1)


def test_what_cannot_be_read_twice_is_told_once(sides: Sides) -> None:
    source, other = [file("a", **META), K], [file("a", problem="unreadable: HTTP 403 to HEAD"), K]
    assert found(sides(source, other, "metadata", recheck=World(source, other))) == [("a", "unreadable")]


def test_what_lies_below_an_unreadable_folder_did_not_change_while_looking(sides: Sides) -> None:
    source = [file("d/", **META, problem="unreadable: EACCES"), K]
    other = [file("d/", **META), file("d/x", **META), K]
    below = {"key": "d/x", "kind": "file", "problem": "unreadable: EACCES"}
    result = sides(source, other, "metadata", recheck=World([file("d/", **META), below], other))
    assert found(result) == [("d/", "unreadable"), ("d/x", "unreadable")]


def test_an_object_that_is_gone_by_now_is_missing_and_no_longer_without_evidence(sides: Sides) -> None:
    rows = [file("a", **META), K]
    result = sides(rows, rows, "content", recheck=World(rows, [K]))
    assert found(result) == [("a", "missing")]


def test_a_time_that_was_known_in_whole_seconds_is_no_change_of_the_file(sides: Sides) -> None:
    coarse = META | {"mtime_ns": META["mtime_ns"] // 10**9 * 10**9, "mtime_step_ns": 10**9}
    result = sides([file("a", **coarse), K], [K], recheck=World([file("a", **META)], []))
    assert found(result) == [("a", "missing")]


def test_datasyncs_report_is_not_a_look_at_the_source_before(tmp_path: Path) -> None:
    reported = inventory(tmp_path / "report", [file("a", 1, **META), K], side="report")
    bucket = inventory(tmp_path / "bucket", [K], side="bucket")
    result = compare(
        reported, bucket, level="size", rules=Rules(), out=tmp_path / "out", recheck=World([file("a", 9)], [])
    )
    assert found(result) == [("a", "missing")]
