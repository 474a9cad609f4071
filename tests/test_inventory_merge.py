"""What differs between two inventories is found, all of it, and named; what agrees is not."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runbook_lib.errors import InventoryError
from runbook_lib.filters import Filters
from runbook_lib.inventory import pairing
from runbook_lib.inventory.merge import compare
from runbook_lib.inventory.pairing import joined
from runbook_lib.inventory.result import Comparison
from runbook_lib.inventory.rules import Level, Rules
from runbook_lib.inventory.sampling import Sample, sample
from runbook_lib.inventory.scope import Scope
from tests.inventories import Row, batch, file, inventory

ODD = st.text("aA/.-_é0 中😀\n", min_size=1, max_size=5)
META: Row = {"mtime_ns": 1_700_000_000_123_456_789, "mode": 0o644, "uid": 1000, "gid": 100}
WRITTEN = META["mtime_ns"] // 1000 + 60_000_000  # when its object was written, microseconds
PATTERN = st.text("ab/.*\\|(", max_size=6)
INCLUDED = st.builds(str.__add__, st.text("ab/.\\|(", max_size=4), st.sampled_from(["", "*"]))  # * at the end alone
FILTERS = st.builds(Filters, st.lists(INCLUDED, max_size=3).map("|".join), st.lists(PATTERN, max_size=3).map("|".join))


def found(result: Comparison) -> list[tuple[str, str]]:
    """Key and difference of every line."""
    lines = pq.read_table(result.parquet).to_pylist()
    return [(line["key"], line["difference"]) for line in lines]


class Sides:
    """Two folders for inventories, and the comparison of them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.number = folder, 0

    def __call__(
        self, source: list[Row], other: list[Row], level: Level = "size", rules: Rules | None = None, **more: Any
    ) -> Comparison:
        self.number += 1
        at = self.folder / str(self.number)
        two = inventory(at / "source", source), inventory(at / "other", other, side="bucket")
        return compare(*two, level=level, rules=rules or Rules(), out=at / "out", **more)


@pytest.fixture
def sides(tmp_path: Path) -> Sides:
    return Sides(tmp_path)


def torn(keys: set[str], dice: random.Random) -> Iterator[pa.RecordBatch]:
    """Keys in order, in batches of any length, empty ones too."""
    left = sorted(keys, key=lambda key: key.encode())
    while left:
        count = dice.randint(0, 4)
        yield batch(file(key) for key in left[:count])
        left = left[count:]


@settings(max_examples=300, deadline=None)
@given(st.sets(ODD, max_size=30), st.sets(ODD, max_size=30), st.randoms(use_true_random=False))
def test_joining_blocks_is_the_same_as_joining_sets(mine: set[str], other: set[str], dice: random.Random) -> None:
    both, missing, extra = [], [], []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pairing, "LOOK", dice.randint(1, 5))
        for part in joined(torn(mine, dice), torn(other, dice)):
            assert part.source.column("key").equals(part.other.column("key"))
            both += part.source.column("key").to_pylist()
            missing += part.missing.column("key").to_pylist()
            extra += part.extra.column("key").to_pylist()
    for keys, wanted in ((both, mine & other), (missing, mine - other), (extra, other - mine)):
        assert keys == sorted(wanted, key=lambda key: key.encode())


@st.composite
def rows(draw: st.DrawFn) -> list[Row]:
    """Files, folders and links with odd names, which differ in more than case and form."""
    made = {}
    for stem in draw(st.lists(st.text("ab/.-é0 中😀", max_size=3), max_size=12)):
        kind = draw(st.sampled_from(["file", "file", "folder", "link"]))
        key = stem + {"file": "f", "folder": "d/", "link": "f"}[kind]
        made[key] = {
            "key": key, "kind": kind, "size": 0 if kind == "folder" else draw(st.integers(0, 2)),
            "mtime_ns": draw(st.sampled_from([-5, 999_999, 1_000_000, 1_999_999])),
            "mode": draw(st.sampled_from([1, 2])), "mtime_step_ns": draw(st.sampled_from([None, 1_000_000])),
            "uid": draw(st.integers(0, 1)), "gid": draw(st.integers(0, 1)),
            "target": draw(st.sampled_from("xy")) if kind == "link" else None,
        }  # fmt: skip
    return list(made.values())


def naive(source: list[Row], other: list[Row], level: Level) -> set[tuple[str, str]]:
    """The same question, answered one entry at a time."""
    left, right = {row["key"]: row for row in source}, {row["key"]: row for row in other}
    said = {(key, "missing") for key in left.keys() - right.keys()}
    said |= {(key, "extra") for key in right.keys() - left.keys()}
    for key in left.keys() & right.keys():
        a, b = left[key], right[key]
        if a["kind"] != b["kind"]:
            said.add((key, "kind"))
            continue
        if a["size"] != b["size"] and level != "names":
            said.add((key, "size"))
        if level != "metadata":
            continue
        step = max(row["mtime_step_ns"] or 1 for row in (a, b))
        if a["mtime_ns"] // step != b["mtime_ns"] // step:
            said.add((key, "mtime"))
        for field, name in (("mode", "mode"), ("uid", "owner"), ("gid", "group"), ("target", "link target")):
            if a[field] != b[field] and not (field == "mode" and a["kind"] == "link"):
                said.add((key, name))
    return said


@settings(max_examples=100, deadline=None)
@given(rows(), rows(), st.sampled_from(["names", "size", "metadata"]), st.data())
def test_differences_are_those_of_a_comparison_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, source: list[Row], other: list[Row], level: Level, data: st.DataObject
) -> None:
    keep = data.draw(st.lists(st.booleans(), min_size=len(source), max_size=len(source)))
    names = {row["key"] for row in other}
    other = other + [row for row, kept in zip(source, keep, strict=True) if kept and row["key"] not in names]
    filters = data.draw(st.none() | FILTERS)
    result = Sides(tmp_path_factory.mktemp("naive"))(source, other, level, Rules(filters))
    lines = found(result)
    if filters is not None:
        counted = [result.source.left_out, result.other.left_out]
        before = [len(source), len(other)]
        source, other = ([row for row in side if filters.in_scope(row["key"].rstrip("/"))] for side in (source, other))
        assert counted == [count - len(side) for count, side in zip(before, (source, other), strict=True)]
    assert sorted(lines) == sorted(naive(source, other, level))
    assert [key.encode() for key, _ in lines] == sorted(key.encode() for key, _ in lines)
    assert result.failing == len(lines)
    assert result.ok == (not lines and any(row["kind"] == "file" for row in source))


SAME: dict[str, tuple[Row, Row]] = {
    "a link that a LIST cannot tell": (file("l", kind="link", target="four"), file("l")),
    "a time that is written down more coarsely": (
        file("t", **META), file("t", **META | {"mtime_ns": 1_700_000_000_123_000_000, "mtime_step_ns": 1_000_000}),
    ),
    "an object that is newer than the file": (file("n", **META), file("n", last_modified_us=WRITTEN)),
    "clocks that differ by a second": (
        file("c", **META), file("c", last_modified_us=META["mtime_ns"] // 1000 - 1_000_000),
    ),
    "a time in the future, which proves nothing": (
        file("u", **META | {"mtime_ns": 4_000_000_000_000_000_000}), file("u", last_modified_us=WRITTEN),
    ),
    "folders, whatever their size is said to be": (file("d/"), file("d/") | {"size": 4096}),
}  # fmt: skip


@pytest.mark.parametrize("what", SAME)
def test_no_difference_is(sides: Sides, what: str) -> None:
    source, other = SAME[what]
    result = sides([file("x"), source], [file("x"), other])
    assert found(result) == []
    assert result.ok


PLANTED: dict[str, tuple[Level, Row | None, Row | None]] = {
    "missing": ("names", file("p"), None),
    "extra": ("names", None, file("p")),
    "kind": ("metadata", file("p", kind="link", target="x", **META), file("p", **META)),
    "size": ("size", file("p", 1), file("p", 2)),
    "mtime": ("metadata", file("p", **META), file("p", **META | {"mtime_ns": 1})),
    "mode": ("metadata", file("p/", **META), file("p/", **META | {"mode": 0o755})),
    "owner": ("metadata", file("p", **META), file("p", **META | {"uid": 0})),
    "group": ("metadata", file("p", **META), file("p", **META | {"gid": 0})),
    "link target": (
        "metadata", file("p", kind="link", target="a", **META), file("p", kind="link", target="b", **META),
    ),
    "not recorded": ("metadata", file("p", **META), file("p", **META | {"mode": None, "uid": None})),
    "content": (
        "content",
        file("p", checksum_algorithm="CRC32C", checksum_type="FULL_OBJECT", checksum="AAAA", **META),
        file("p", checksum_algorithm="CRC32C", checksum_type="FULL_OBJECT", checksum="AAAB", **META),
    ),
    "no evidence": ("content", file("p", **META), file("p", **META)),
    "stale": ("size", file("p", **META), file("p", last_modified_us=META["mtime_ns"] // 1000 - 3_000_000)),
    "unreadable": ("names", file("p", problem="unreadable: EACCES (Permission denied)"), file("p")),
    "changed while looking": ("names", file("p", problem="changed while looking"), file("p")),
    "not UTF-8": ("names", file("p\\xff", problem="not UTF-8", raw=b"p\xff"), None),
    "key too long": ("names", file("p" * 1020), None),
    "same name but for normalisation": ("names", file("e\u0301"), file("\u00e9")),
    "same name but for case": ("names", file("READ.ME"), file("Read.Me")),
}  # fmt: skip


@pytest.mark.parametrize("difference", PLANTED)
def test_a_planted_difference_is_found_and_named(sides: Sides, difference: str) -> None:
    level, source, other = PLANTED[difference]
    sums = {"checksum_algorithm": "CRC32C", "checksum_type": "FULL_OBJECT", "checksum": "x"}
    rest = [file(name, **META, **sums) for name in ("a", "z")] + [file("m/", **META)]
    result = sides(
        rest + [source] * (source is not None), rest + [other] * (other is not None), level, Rules(prefix="/deep"),
    )  # fmt: skip
    assert [name for _, name in found(result)] == [difference]
    assert not result.ok
    assert f"1 {difference}" in result.reason
    assert result.counts[0].lines == 1


def test_a_file_where_the_other_side_has_a_folder_is_one_difference_of_kind(sides: Sides) -> None:
    result = sides([file("x"), file("a")], [file("x"), file("a/"), file("a-b")], "names")
    assert found(result) == [("a", "kind"), ("a-b", "extra")]


def test_two_names_of_the_source_that_differ_by_case_or_form_are_said_and_do_not_fail(sides: Sides) -> None:
    names = ["A/x", "a/x", "e\u0301", "\u00e9", "plain"]
    result = sides([file(name) for name in names], [file(name) for name in names])
    assert found(result) == [
        ("A/x", "same name but for case"), ("a/x", "same name but for case"),
        ("e\u0301", "same name but for normalisation"), ("\u00e9", "same name but for normalisation"),
    ]  # fmt: skip
    assert result.ok
    assert "2 same name but for case, no failure." in result.headline()


def test_special_files_are_said_and_fail_only_where_the_rules_say_so(sides: Sides) -> None:
    source = [file("x"), file("p") | {"kind": "other"}]
    assert found(sides(source, [file("x")])) == [("p", "special")]
    assert sides(source, [file("x")]).ok
    assert not sides(source, [file("x")], rules=Rules(special_fails=True)).ok


def test_what_lies_in_an_unreadable_folder_is_not_called_extra(sides: Sides) -> None:
    source = [file("a"), file("d/", problem="unreadable: EACCES (Permission denied)"), file("d0")]
    other = [file("a"), file("d/"), file("d/1"), file("d/s/2"), file("d-"), file("d0")]
    lines = found(sides(source, other))
    assert lines == [("d-", "extra"), ("d/", "unreadable"), ("d/1", "unreadable"), ("d/s/2", "unreadable")]


def test_what_the_filters_leave_out_and_datasyncs_own_object_are_counted_apart(sides: Sides) -> None:
    source = [file("keep/a"), file("keep/b.tmp"), file("drop/"), file("drop/x"), file("keep/")]
    other = [file("keep/a"), file("keep/"), file(".aws-datasync-metadata"), file("drop/y")]
    rules = Rules(filters=Filters(None, "/drop|*.tmp"))
    result = sides(source, other, rules=rules)
    assert (found(result), result.ok) == ([], True)
    assert (result.source.left_out, result.other.left_out, result.other.datasync_objects) == (3, 1, 1)


@settings(max_examples=400, deadline=None)
@given(FILTERS, st.sets(st.text("ab/.(\\\n", min_size=1, max_size=6).filter("/".__ne__), max_size=8))
def test_filters_on_columns_are_the_filters_on_paths(filters: Filters, keys: set[str]) -> None:
    kept = Scope(filters).inside(batch(file(key) for key in sorted(keys))).column("key").to_pylist()
    assert kept == [key for key in sorted(keys) if filters.in_scope(key.removesuffix("/"))]


def test_unlike_algorithms_are_the_callers_mistake_and_not_a_difference(sides: Sides) -> None:
    mine, other = (
        file("p", checksum="x", checksum_type="FULL_OBJECT", checksum_algorithm=name, **META)
        for name in ("CRC32C", "SHA256")
    )
    with pytest.raises(InventoryError, match=r"'p' are CRC32C FULL_OBJECT and SHA256 FULL_OBJECT"):
        sides([mine], [other], "content")


def test_two_empty_sides_are_not_the_same(sides: Sides) -> None:
    result = sides([], [])
    assert not result.ok
    assert "Not one file was compared" in result.reason


def test_folders_alone_are_not_files_that_were_compared(sides: Sides) -> None:
    assert not sides([file("d/")], [file("d/")]).ok


def test_metadata_that_the_source_was_not_scanned_for_is_not_the_same(sides: Sides) -> None:
    result = sides([file("a")], [file("a", **META)], "metadata")
    assert not result.ok
    assert "mtime of 1" in result.reason


def test_hard_links_and_sparse_files_are_counted(sides: Sides) -> None:
    rows = [file("a", links=2, inode=7), file("b", links=2, inode=7), file("c", allocated=0)]
    result = sides(rows, [file("a"), file("b"), file("c")])
    assert (result.hard_links, result.sparse, result.ok) == (2, 1, True)


def test_names_that_are_not_normalised_are_counted_and_do_not_fail(sides: Sides) -> None:
    rows = [file("e\u0301.txt"), file("\u00e9.txt"), file("grüße/"), file("plain"), file("\u1112\u1161\u11ab")]
    result = sides(rows, rows)
    assert (result.ok, result.decomposed) == (True, 2)
    assert "2 names at the source not in Unicode's composed form (NFC)" in repr(result)


class World:
    """What both sides are at the second look."""

    def __init__(self, source: list[Row], other: list[Row]) -> None:
        self.sides = source, other
        self.asked: list[str] = []

    def __call__(self, keys: list[str]) -> tuple[pa.RecordBatch, pa.RecordBatch]:
        self.asked += keys
        found = [batch(row for row in side if row["key"] in keys) for side in self.sides]
        return found[0], found[1]


def test_what_differs_is_looked_at_again_batch_by_batch(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairing, "LOOK", 10)
    rows = [file(f"{number:05}") for number in range(1000)]
    other = [row for number, row in enumerate(rows) if number % 100 != 7]
    now, calls = World(rows, other), list[int]()

    def again(keys: list[str]) -> tuple[pa.RecordBatch, pa.RecordBatch]:
        calls.append(len(keys))
        return now(keys)

    assert len(found(sides(rows, other, recheck=again))) == 10
    assert calls == [10]  # each call is a command on the application server and a round of HEADs


def test_an_error_leaves_no_thread_behind(sides: Sides) -> None:
    before = set(threading.enumerate())

    def interrupted(said: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as kept:  # as a notebook keeps it, with its frames
        sides([file("a"), file("b")], [file("a")], progress=interrupted)
    assert set(threading.enumerate()) == before and kept.traceback


def test_what_is_equal_at_the_second_look_is_settled(sides: Sides) -> None:
    now = World([file("a", 2), file("n")], [file("a", 2), file("n")])
    result = sides([file("x"), file("a", 2)], [file("x"), file("a", 1), file("n")], recheck=now)
    assert (found(result), now.asked) == ([], ["a", "n"])
    assert result.ok
    assert result.again is not None
    assert (result.again.keys, result.again.settled) == (2, 2)


def test_a_source_that_changed_and_still_differs_changed_while_looking(sides: Sides) -> None:
    now = World([file("a", 3), file("b", 7)], [file("a", 1), file("b", 8)])
    result = sides([file("a", 2), file("b", 7), file("gone")], [file("a", 1), file("b", 8), file("new")], recheck=now)
    assert found(result) == [("a", "changed while looking"), ("b", "size")]
    assert not result.ok


def test_content_that_differs_stays_different_unless_the_source_changed(sides: Sides) -> None:
    def summed(key: str, checksum: str, **more: Any) -> Row:
        sums = {"checksum_algorithm": "CRC32C", "checksum_type": "FULL_OBJECT", "checksum": checksum}
        return file(key, **META | sums | more)

    now = World([file("a", **META), file("b", **META | {"mtime_ns": 1})], [file("a", **META), file("b", **META)])
    result = sides(
        [summed("a", "1"), summed("b", "1"), summed("c", "1")], [summed("a", "2"), summed("b", "2"), summed("c", "1")],
        "content", recheck=now,
    )  # fmt: skip
    assert found(result) == [("a", "content"), ("b", "changed while looking")]


def test_more_differences_than_are_looked_at_again_are_kept_and_said(sides: Sides) -> None:
    now = World([], [])
    result = sides([file(f"{n:03d}") for n in range(9)], [], rules=Rules(rechecked=4), recheck=now)
    assert found(result) == [(f"{n:03d}", "missing") for n in range(4, 9)]
    assert "5 entries not looked at again" in result.headline()


def test_a_sample_is_random_reproducible_and_of_files_only(tmp_path: Path) -> None:
    whole = inventory(tmp_path / "i", [file(f"d{n}/") for n in range(50)] + [file(f"f{n:04d}") for n in range(2000)])
    one, same, another = (sample(whole, 100, seed) for seed in (1, 1, 2))
    assert one == same != another
    assert (len(set(one.keys)), one.of) == (100, 2000)
    assert all(key.startswith("f") for key in one.keys)
    assert list(one.keys) == sorted(one.keys)
    assert len(sample(whole, 5000, 1).keys) == 2000
    filtered = sample(whole, 5000, 1, Filters(None, "/f1*"))
    assert filtered.of == 1000


def test_each_file_is_as_likely_as_any_other_to_be_sampled(tmp_path: Path) -> None:
    whole = inventory(tmp_path / "i", [file(f"{n}") for n in range(10)], parts=3)
    drawn = [key for seed in range(2000) for key in sample(whole, 3, seed).keys]
    assert all(500 < drawn.count(str(n)) < 700 for n in range(10))


@pytest.mark.parametrize(
    ("of", "taken", "fewer"),
    [(100, 100, 1), (10, 5, 4), (1_000_000, 2995, 1000), (50_000_000, 299_572, 500), (1, 0, 2)],
)
def test_the_confidence_of_a_sample_is_exact_for_a_finite_number_of_files(of: int, taken: int, fewer: int) -> None:
    bound = Sample(tuple(str(n) for n in range(taken)), of, 1).fewer_than
    assert abs(bound - fewer) <= fewer // 400


def test_a_sample_compares_the_content_of_its_files_and_says_what_that_means(sides: Sides) -> None:
    sums = {"checksum_algorithm": "CRC32C", "checksum_type": "FULL_OBJECT", "checksum": "1"}
    rows = [file(f"{n}", **(sums if n < 3 else {})) for n in range(9)]
    chosen = Sample(("0", "1", "2"), 9, 7)
    result = sides(rows, rows, "sample", sample=chosen)
    assert result.ok
    assert result.compared["content"] == 3
    assert "compared of 3 of 9 files, chosen at random (seed 7), and is the same" in result.reason
    assert "with 95 % confidence fewer than 5 of all differ." in result.reason
    wrong = [row | ({"checksum": "2"} if row["key"] == "1" else {}) for row in rows]
    assert found(sides(rows, wrong, "sample", sample=chosen)) == [("1", "content")]
    lacking = sides(rows, rows, "sample", sample=Sample(("3",), 9, 7))
    assert found(lacking) == [("3", "no evidence")]
    with pytest.raises(InventoryError, match="go together"):
        sides(rows, rows, "sample")


@pytest.mark.parametrize("kind", ["file", "link", "folder"])
def test_a_special_file_does_not_hide_an_object_of_its_name(sides: Sides, kind: str) -> None:
    key = "s/" if kind == "folder" else "s"
    result = sides([file("s") | {"kind": "other"}, file("x")], [file(key) | {"kind": kind}, file("x")])
    assert not result.ok
    assert ("s", "kind") in found(result) or (key, "extra") in found(result)


def test_a_special_file_on_both_sides_is_no_failure(sides: Sides) -> None:
    rows = [file("s") | {"kind": "other"}, file("x")]
    result = sides(rows, rows)
    assert (found(result), result.ok) == ([("s", "special")], True)


@pytest.mark.parametrize("level", ["names", "size"])
def test_a_link_that_became_a_file_is_told_where_the_other_side_knows_its_mode(sides: Sides, level: Level) -> None:
    link = file("l", kind="link", target="x", **META)
    assert found(sides([link, file("x")], [file("l", **META), file("x")], level)) == [("l", "kind")]
    assert found(sides([file("l", **META), file("x")], [link, file("x")], level)) == [("l", "kind")]


def test_a_link_whose_target_is_not_utf8_is_not_called_unreadable(sides: Sides) -> None:
    link = file("l", kind="link", target="\\xff", problem="target not UTF-8")
    assert found(sides([link, file("x")], [file("l"), file("x")])) == [("l", "not UTF-8")]


def test_a_key_has_one_line_for_a_name_that_differs_by_case(sides: Sides) -> None:
    lines = found(sides([file("A"), file("a"), file("k")], [file("a/"), file("k")]))
    assert len(lines) == len(set(lines))
    assert ("A", "same name but for case") in lines


@pytest.mark.parametrize("name", ["key=prod", "out[1]", "out*"])
def test_a_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    at = tmp_path / name
    two = inventory(at / "s", [file("b"), file("B")]), inventory(at / "o", [file("c")], side="bucket")
    result = compare(*two, level="size", rules=Rules(), out=at / "out")
    assert {key for key, _ in found(result)} == {"b", "B", "c"}


def test_arrows_memory_is_as_it_was_after_a_comparison(sides: Sides) -> None:
    before = pa.default_memory_pool().backend_name
    sides([file("a")], [file("a")])
    assert pa.default_memory_pool().backend_name == before
