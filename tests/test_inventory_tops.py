"""Entries are counted by top-level folder, wherever those that are in none stand between."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as some

from runbook_lib.display import Table
from runbook_lib.inventory import tops as module
from runbook_lib.inventory.runs import conform
from runbook_lib.inventory.tops import LOOSE, Tops


def test_a_folder_between_two_files_of_the_top_is_counted_as_a_folder() -> None:
    tops = Tops()
    rows = [{"key": key, "kind": "file", "size": 1} for key in ("..a", "images/1", "images/2", "z.txt")]
    tops.add(0, conform(pa.RecordBatch.from_pylist(rows)))
    assert {name: top.entries[0] for name, top in tops.of.items()} == {LOOSE: 2, "images/": 2}


keys = some.text("a/.0é", min_size=1, max_size=4)


@pytest.mark.parametrize("few", [0, 2, 64])  # folders that are found by halving
@given(rows=some.dictionaries(keys, some.integers(0, 9), min_size=1))
def test_every_entry_is_counted_in_the_folder_that_it_is_in(few: int, rows: dict[str, int]) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "FEW", few)
        tops = Tops()
        ordered = sorted(rows.items(), key=lambda row: row[0].encode())
        tops.add(1, conform(pa.RecordBatch.from_pylist([{"key": k, "kind": "file", "size": n} for k, n in ordered])))
    found = {name: (top.entries[1], top.bytes[1]) for name, top in tops.of.items()}
    named = [(key[: key.index("/") + 1] if "/" in key else LOOSE, size) for key, size in rows.items()]
    assert found == {
        name: (sum(one == name for one, _ in named), sum(size for one, size in named if one == name))
        for name in {one for one, _ in named}
    }


def test_columns_are_aligned_beside_characters_that_are_two_wide() -> None:
    lines = str(Table(("Name", "Size"), [("새폴더", 1), ("日本語", 22), ("plain", 3)])).split("\n")
    assert lines == ["Name    Size", "새폴더  1", "日本語  22", "plain   3"]
