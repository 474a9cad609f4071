"""Entries are counted by top-level folder, wherever those that are in none stand between."""

from __future__ import annotations

import pyarrow as pa

from runbook_lib.display import Table
from runbook_lib.inventory.runs import conform
from runbook_lib.inventory.tops import LOOSE, Tops


def test_a_folder_between_two_files_of_the_top_is_counted_as_a_folder() -> None:
    tops = Tops()
    rows = [{"key": key, "kind": "file", "size": 1} for key in ("..a", "images/1", "images/2", "z.txt")]
    tops.add(0, conform(pa.RecordBatch.from_pylist(rows)))
    assert {name: top.entries[0] for name, top in tops.of.items()} == {LOOSE: 2, "images/": 2}


def test_columns_are_aligned_beside_characters_that_are_two_wide() -> None:
    lines = str(Table(("Name", "Size"), [("새폴더", 1), ("日本語", 22), ("plain", 3)])).split("\n")
    assert lines == ["Name    Size", "새폴더  1", "日本語  22", "plain   3"]
