"""The result of a comparison can be read by people, by spreadsheets and by machines, however the names look."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from runbook_lib.checks import Finding
from runbook_lib.inventory.merge import compare
from runbook_lib.inventory.result import Comparison
from runbook_lib.inventory.rules import Rules
from tests.inventories import Row, file, inventory

HOSTILE = ["=1+1", "+a", "-a", "@SUM(A1)", "\tx", 'a,"b"', "new\nline", "\rcr", "plain", "d/=x"]


def compared(folder: Path, source: list[Row], other: list[Row]) -> Comparison:
    sides = inventory(folder / "source", source), inventory(folder / "other", other, side="bucket")
    return compare(*sides, level="size", rules=Rules(), out=folder / "out")


@pytest.fixture
def differing(tmp_path: Path) -> Comparison:
    """Three top-level folders: one is the same, one lacks two files, in one a size is wrong."""
    source = [file("same/a", 10), file("lost/a", 3), file("lost/b", 4), file("wrong/a", 1), file("loose", 1)]
    other = [file("same/a", 10), file("wrong/a", 2), file("loose", 1), file("loose2", 9)]
    return compared(tmp_path, source, other)


def test_it_is_a_finding_with_its_verdict_first(differing: Comparison) -> None:
    assert isinstance(differing, Finding)
    assert not differing.ok
    assert repr(differing).startswith(
        "Not every file is accounted for. 4 differences between the source and the bucket"
    )
    assert ": 2 missing, " in differing.reason


def test_counts_and_bytes_are_said_for_each_difference_and_folder(differing: Comparison) -> None:
    assert {(count.difference, count.lines, count.bytes) for count in differing.counts} == {
        ("missing", 2, 7), ("extra", 1, 9), ("size", 1, 1),
    }  # fmt: skip
    tops = {name: (top.entries, top.bytes, top.failing) for name, top in differing.tops.items()}
    assert tops == {
        "same/": ([1, 1], [10, 10], {}),
        "lost/": ([2, 0], [7, 0], {"missing": 2}),
        "wrong/": ([1, 1], [1, 2], {"size": 1}),
        "(not in a folder)": ([1, 2], [1, 10], {"extra": 1}),
    }
    assert [name for name, _ in differing.worst()] == ["lost/", "(not in a folder)", "wrong/"]


def test_the_plot_has_a_sentence_that_says_what_it_shows(differing: Comparison) -> None:
    plot = differing.plot()
    assert plot.sentence == "Differences by top-level folder: lost/ 2, (not in a folder) 1, wrong/ 1."
    assert plot.png.startswith(b"\x89PNG")


def test_two_sides_that_are_the_same_say_so_in_numbers(tmp_path: Path) -> None:
    rows = [file("d/"), file("d/a"), file("d/b")]
    result = compared(tmp_path, rows, rows)
    assert result.headline() == "Every file is accounted for. Names, kinds and sizes: the same for 2 files."
    assert result.plot().sentence == "No differences: the plot is empty."
    assert pq.read_table(result.parquet).num_rows == 0
    assert len(result.csv.read_text().splitlines()) == 1


def test_no_cell_of_the_spreadsheet_is_a_formula_and_every_name_survives(tmp_path: Path) -> None:
    result = compared(tmp_path, [file(name) for name in HOSTILE] + [file("x")], [file("x")])
    with result.csv.open(encoding="utf-8-sig", newline="") as sheet:
        cells = [row["key"] for row in csv.DictReader(sheet)]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert sorted(cell.removeprefix("'") for cell in cells) == sorted(HOSTILE)
    assert sorted(pq.read_table(result.parquet)["key"].to_pylist()) == sorted(HOSTILE)


def test_what_is_shown_is_printable_and_one_line_each(tmp_path: Path) -> None:
    result = compared(tmp_path, [file("a\nb\x1b[31m"), file("x")], [file("x")])
    assert "a\\nb\\x1b[31m" in repr(result)
    assert "\x1b" not in repr(result)


def test_only_the_first_ten_are_shown_and_the_rest_is_where_it_says(tmp_path: Path) -> None:
    result = compared(tmp_path, [file(f"{n:03d}") for n in range(50)] + [file("x")], [file("x")])
    assert len(result.first) == 10
    assert "10 of 50, failing first; all are in differences.csv and differences.parquet" in repr(result)
    assert pq.read_table(result.parquet).num_rows == 50


def test_what_fails_is_shown_before_what_is_only_worth_knowing(tmp_path: Path) -> None:
    alike = [file(name) for n in range(20) for name in (f"A{n:02d}", f"a{n:02d}")]
    result = compared(tmp_path, [*alike, file("zz/lost")], alike)
    assert (result.first[0].key, result.first[0].difference) == ("zz/lost", "missing")
    assert [line.fails for line in result.first] == [True] + [False] * 9


def test_spellings_that_look_alike_are_told_apart_on_the_screen(tmp_path: Path) -> None:
    composed, decomposed = "\ud55c.jpg", "\u1112\u1161\u11ab.jpg"
    result = compared(tmp_path, [file(composed), file("x")], [file(decomposed), file("x")])
    assert f"(decomposed) {decomposed}" in repr(result)
    assert f"(decomposed) {composed}" not in repr(result)


def test_the_spreadsheet_says_that_it_is_utf_8(differing: Comparison) -> None:
    assert differing.csv.read_bytes().startswith(b"\xef\xbb\xbfkey,")


def test_machines_get_the_same(differing: Comparison) -> None:
    body = json.loads(json.dumps(differing.body()))
    assert set(body) == {
        "ok", "reason", "level", "source", "other", "compared", "not_compared", "counts", "first",
        "top_level_folders", "again", "sample", "hard_links", "sparse", "decomposed", "files",
    }  # fmt: skip
    assert (body["ok"], body["level"], body["compared"]["files"]) == (False, "size", 3)
    assert body["source"]["files"] == 5
    assert body["files"] == {"parquet": "differences.parquet", "csv": "differences.csv"}


def test_nothing_but_the_result_is_left_in_the_folder(differing: Comparison) -> None:
    assert {path.name for path in differing.parquet.parent.iterdir()} == {"differences.parquet", "differences.csv"}
