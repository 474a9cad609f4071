"""Names that are the same but for case or form are told, as a comparison of all with all would, in any memory."""

from __future__ import annotations

import itertools
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runbook_lib.errors import InventoryError
from runbook_lib.filters import Filters
from runbook_lib.inventory import lines, seen, spilled
from runbook_lib.inventory.merge import compare
from runbook_lib.inventory.rules import Rules
from tests.inventories import file, inventory

# 'K' and '\u212a' (Kelvin) both have the lower-case 'k'; '\u0130' composes of a capital; 'ß' is no 'ss'
LETTERS = ["aA", "e\u0301\u00e9\u00c9E", "kK\u212a", "iI\u0130\u0307", "ßsS", "aA\u0301\u00e9\u212akI\u0307b/"]


def sides(letters: str) -> st.SearchStrategy[tuple[dict[str, int], dict[str, int]]]:
    """Names of both sides, of few letters, so that many are alike; with a value of each."""
    names = st.tuples(st.text(letters, min_size=1, max_size=3), st.sampled_from(["f", "/", "/b", ""])).map("".join)
    keys = st.dictionaries(names.filter(lambda name: name.strip("/") != ""), st.integers(1, 2), max_size=24)
    return st.tuples(keys, keys)


Line = tuple[str, str, bool, str | None, str | None, int | None, int | None]


def nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def lower(text: str) -> str:
    """Letter by letter: what becomes two letters ('\u0130') begins with the one that DuckDB takes."""
    return "".join(letter.lower()[0] for letter in text)


def but(one: str, other: str) -> str:
    """What two spellings of a name differ by."""
    bare = one.rstrip("/"), other.rstrip("/")
    if bare[0] == bare[1]:
        return "kind"
    return "same name but for " + ("normalisation" if nfc(bare[0]) == nfc(bare[1]) else "case")


def folded(keys: set[str], fold: Callable[[str], str]) -> dict[str, list[str]]:
    """Keys in order, by their folded names."""
    names = defaultdict(list)
    for key in sorted(keys, key=str.encode):
        names[fold(key)].append(key)
    return names


def naive(source: dict[str, int], other: dict[str, int]) -> list[Line]:
    """The lines, found one by one."""
    sizes = [{key: 0 if key.endswith("/") else size for key, size in side.items()} for side in (source, other)]
    left, right = sizes
    said: dict[tuple[str, str], Line] = {}
    for same in folded(set(left), lambda key: nfc(lower(key))).values():
        for at, key in enumerate(same if len(same) > 1 else []):
            twin = same[at - 1 if at else 1]
            said[key, but(key, twin)] = (key, but(key, twin), False, key, twin, left[key], None)
    fold: Callable[[str], str] = lambda key: nfc(lower(nfc(key.rstrip("/"))))  # noqa: E731
    theirs = folded(right.keys() - left.keys(), fold)
    paired = set()
    for name, keys in folded(left.keys() - right.keys(), fold).items():
        for key, twin in itertools.zip_longest(keys, theirs[name][: len(keys)]):
            paired.add(twin)
            what = "missing" if twin is None else but(key, twin)
            both = (None, None) if twin is None else (key, twin)
            said[key, what] = (key, what, True, *both, left[key], None if twin is None else right[twin])
    for key in right.keys() - left.keys() - paired:
        said[key, "extra"] = (key, "extra", True, None, None, None, right[key])
    for key in left.keys() & right.keys():
        values = source[key], other[key]
        for what, form in (("size", "{}"), ("mode", "060{}"), ("owner", "{}")):
            if values[0] != values[1] and not (what == "size" and key.endswith("/")):
                shown = form.format(values[0]), form.format(values[1])
                said[key, what] = (key, what, True, *shown, left[key], right[key])
    return [said[at] for at in sorted(said, key=lambda at: (at[0].encode(), at[1]))]


@contextmanager
def hardly_any_memory() -> Iterator[None]:
    """Almost every name is a suspect, every row is spilled, and lines are read two at a time."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name, value in (
            (seen, "BITS", 4), (spilled, "MEMORY", 1), (spilled, "PIECE", 200), (spilled, "RUNS_AT_ONCE", 2),
            (lines, "ROW_GROUP", 300), (lines, "AT_ONCE", 2),
        ):  # fmt: skip
            patch.setattr(module, name, value)
        yield


def told(folder: Path, source: dict[str, int], other: dict[str, int], rules: Rules | None = None) -> list[Line]:
    """The lines of a comparison, and nothing else in its folder."""
    rows = [
        [file(key, n, mtime_ns=0, mode=0o600 + n, uid=n, gid=0) for key, n in side.items()] for side in (source, other)
    ]
    two = inventory(folder / "source", rows[0]), inventory(folder / "other", rows[1], side="bucket")
    result = compare(*two, level="metadata", rules=rules or Rules(), out=folder / "out")
    assert {path.name for path in result.parquet.parent.iterdir()} == {"differences.parquet", "differences.csv"}
    table = pq.read_table(result.parquet).drop_columns(["kind"])
    return [tuple(line.values()) for line in table.to_pylist()]  # type: ignore[misc]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(LETTERS).flatmap(sides), st.booleans())
@example(({"0": 1, "A": 1, "a": 1}, {"A": 2, "a": 2}), True)  # lines of one key are read in two parts
def test_names_otherwise_spelled_are_told_as_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, two: tuple[dict[str, int], dict[str, int]], spilling: bool
) -> None:
    folder = tmp_path_factory.mktemp("names")
    source, other = two
    if spilling:
        with hardly_any_memory():
            assert told(folder, source, other) == naive(source, other)
    else:
        assert told(folder, source, other) == naive(source, other)


def test_many_names_on_either_side_are_told_in_hardly_any_memory(tmp_path: Path) -> None:
    spelled = ["file-{0}/é{1}", "File-{0}/é{1}", "file-{0}/e\u0301{1}"]
    source = {spelled[n % 3].format(n % 40, n): 1 for n in range(400)}
    other = {spelled[n % 2].format(n % 40, n): 1 + n % 5 // 4 for n in range(100, 500)}
    with hardly_any_memory():
        found = told(tmp_path, source, other)
    assert found == naive(source, other)
    assert {line[1] for line in found} >= {
        "missing",
        "extra",
        "same name but for case",
        "same name but for normalisation",
    }


def test_twins_that_the_filters_leave_out_are_not_told(tmp_path: Path) -> None:
    keys = {"A": 1, "a": 1, "drop/B": 1, "drop/b": 1}
    found = told(tmp_path, keys, keys, Rules(filters=Filters(None, "/drop")))
    assert [line[0] for line in found] == ["A", "a"]


def test_a_disk_without_room_leaves_no_half_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(spilled, "MEMORY", 1)
    monkeypatch.setattr(spilled, "_write", full)
    with pytest.raises(InventoryError, match="cannot be put in order: no space left"):
        told(tmp_path, {"A": 1, "k": 1}, {"a": 1, "k": 1})
    assert list((tmp_path / "out").iterdir()) == []
