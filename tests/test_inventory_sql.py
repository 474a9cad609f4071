"""The join in SQL finds what our own merge finds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import sqlglot
from hypothesis import given, settings
from hypothesis import strategies as st

from runbook_lib.inventory import sql
from runbook_lib.inventory.merge import compare
from runbook_lib.inventory.rules import Rules
from tests.inventories import Row, file, inventory

NOT_IN_SQL = {"not recorded", "no evidence", "same name but for case", "same name but for normalisation"}


def by_sql(folder: Path, source: list[Row], other: list[Row]) -> set[tuple[str, str]]:
    sides = inventory(folder / "s", source), inventory(folder / "o", other, side="bucket")
    found = [row for some in sql.on_duckdb(*sides, spill=folder / "spill") for row in some.to_pylist()]
    return {(row["key"], name) for row in found for name in row["differences"].split(", ")}


def by_merge(folder: Path, source: list[Row], other: list[Row]) -> set[tuple[str, str]]:
    sides = inventory(folder / "ms", source), inventory(folder / "mo", other, side="bucket")
    result = compare(*sides, level="content", rules=Rules(), out=folder / "out")
    lines = pq.read_table(result.parquet).to_pylist()
    return {(line["key"], line["difference"]) for line in lines} - {
        (line["key"], name) for line in lines for name in NOT_IN_SQL
    }


@st.composite
def rows(draw: st.DrawFn) -> list[Row]:
    made: dict[str, Row] = {}
    for stem in draw(st.lists(st.text("ab/.-é 中😀", max_size=3), max_size=10)):
        kind = draw(st.sampled_from(["file", "file", "folder", "link", "other"]))
        maybe: dict[str, Any] = {
            "mtime_ns": draw(st.sampled_from([None, -5, 1_700_000_000_123_000_000, 1_700_000_000_123_456_789])),
            "mtime_step_ns": draw(st.sampled_from([None, 1_000_000])), "mode": draw(st.sampled_from([1, 2])),
            "uid": draw(st.sampled_from([None, 1, 2])), "gid": 0,
            "target": draw(st.sampled_from("xy")) if kind == "link" else None,
            "last_modified_us": draw(st.sampled_from([None, 1_600_000_000_000_000, 1_800_000_000_000_000])),
            "problem": draw(
                st.sampled_from([None, None, None, "unreadable: EACCES", "not UTF-8", "changed while looking"])
            ),
        }  # fmt: skip
        if kind == "file" and draw(st.booleans()):
            maybe |= {
                "checksum_algorithm": "CRC32C",
                "checksum_type": "FULL_OBJECT",
                "checksum": draw(st.sampled_from("pq")),
            }
        key = stem + ("d/" if kind == "folder" else "f")
        made[key] = file(key, draw(st.integers(0, 1))) | {"kind": kind} | maybe
    return [row for row in made.values() if not (row["kind"] == "folder" and row["problem"])]


@settings(max_examples=60, deadline=None)
@given(rows(), rows())
def test_the_join_in_sql_finds_what_the_merge_finds(
    tmp_path_factory: pytest.TempPathFactory, source: list[Row], other: list[Row]
) -> None:
    folder = tmp_path_factory.mktemp("sql")
    other = [row for row in other if row["kind"] != "other"]
    assert by_sql(folder, source, other) == by_merge(folder, source, other)


def test_datasyncs_own_object_is_no_difference_in_sql(tmp_path: Path) -> None:
    assert by_sql(tmp_path, [file("a")], [file("a"), file(".aws-datasync-metadata")]) == set()


def test_an_empty_side_can_be_joined(tmp_path: Path) -> None:
    assert by_sql(tmp_path, [file("a")], []) == {("a", "missing")}


def test_the_statement_keeps_to_words_that_all_engines_know() -> None:
    words = set(re.findall(r"\b([A-Z_]+)(?=\()", re.sub(r"--.*", "", sql.statement())))
    assert words <= {"COALESCE", "CONCAT_WS", "GREATEST", "FROM"}


@pytest.mark.parametrize("engine", ["athena", "trino", "spark"])
def test_the_statement_is_one_of_each_engine_and_means_the_same_there(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (parsed,) = sqlglot.parse(sql.statement(), read=engine, error_level=sqlglot.ErrorLevel.RAISE)
    assert isinstance(parsed, sqlglot.exp.Select)
    assert not list(parsed.find_all(sqlglot.exp.Anonymous, sqlglot.exp.Command))  # what it does not know
    source = [file("a"), file("b"), file("c") | {"uid": 1, "mode": 1}, file("d") | {"problem": "not UTF-8"}, file("e")]
    other = [file("a"), file("c", 7) | {"uid": 2, "mode": 2}, file("d"), file("e"), file("f")]
    expected = {("b", "missing"), ("c", "size"), ("c", "mode"), ("c", "owner"), ("d", "not UTF-8"), ("f", "extra")}
    assert by_sql(tmp_path / "ours", source, other) == expected
    monkeypatch.setattr(sql, "statement", lambda: parsed.sql("duckdb"))  # as that engine reads it
    assert by_sql(tmp_path / engine, source, other) == expected
