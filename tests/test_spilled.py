"""Rows come in order, those of one key together, however little memory there is; what fits leaves the disk alone."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runbook_lib.inventory import spilled
from runbook_lib.inventory.spilled import Spilled

ORDER = [("key", "ascending"), ("more", "ascending")]
ROWS = st.lists(st.tuples(st.text("aé/", max_size=2), st.integers(0, 3)), max_size=12)


def rows(some: list[tuple[str, int]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"key": [key for key, _ in some], "more": [more for _, more in some]})


@settings(max_examples=150, deadline=None)
@given(st.lists(ROWS, max_size=12), st.sampled_from([1, 100, 1 << 20]))
def test_rows_come_in_order_and_those_of_one_key_together(
    tmp_path_factory: pytest.TempPathFactory, written: list[list[tuple[str, int]]], memory: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("MEMORY", memory), ("PIECE", 40), ("RUNS_AT_ONCE", 3)):
            patch.setattr(spilled, name, value)
        sorter = Spilled(tmp_path_factory.mktemp("runs"), ORDER)
        for some in written:
            if some:
                sorter.write(rows(some))
        batches = [batch.to_pylist() for batch in sorter.batches()]
    found = [(row["key"], row["more"]) for batch in batches for row in batch]
    wanted = sorted((row for some in written for row in some), key=lambda row: (row[0].encode(), row[1]))
    assert found == wanted
    ends = [{batch[0]["key"], batch[-1]["key"]} for batch in batches]
    assert all(not one & other for one, other in pairwise(ends))


def test_what_fits_in_memory_is_not_written(tmp_path: Path) -> None:
    sorter = Spilled(tmp_path / "runs", ORDER)
    sorter.write(rows([("b", 1), ("a", 1)]))
    assert [row["key"] for batch in sorter.batches() for row in batch.to_pylist()] == ["a", "b"]
    assert not (tmp_path / "runs").exists()


def test_merged_runs_are_taken_off_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spilled, "MEMORY", 1)
    sorter = Spilled(tmp_path / "runs", ORDER)
    for number in range(spilled.RUNS_AT_ONCE**2):
        sorter.write(rows([("a", number)]))
    assert len(list((tmp_path / "runs").iterdir())) == 1
