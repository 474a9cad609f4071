"""What counts as different between source and destination."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib.inventory import METADATA_KEY, Entry, entry_of_object, nanoseconds, parse_scan, pending, posix

T = 1_740_819_600_000_000_000
ROOT = Entry("", "folder", 0, T, 0o755, 0, 0)
IMAGES = Entry("images", "folder", 0, T, 0o755, 0, 0)
ONE = Entry("images/1.jpg", "file", 10, T, 0o644, 0, 0)
COPIED = datetime.fromtimestamp(T / 1e9 + 60, UTC)


def test_nothing_differs_on_equal_sides() -> None:
    found = pending([ROOT, IMAGES, ONE], [IMAGES, ONE], root_copied=COPIED)
    assert (found.items, found.looked_at) == (0, 3)


def test_a_new_file_at_the_top_counts_with_its_folder() -> None:
    later = T + 120 * 10**9
    found = pending(
        [replace(ROOT, mtime_ns=later), Entry("new", "file", 1, later, 0o644, 0, 0)], [], root_copied=COPIED
    )
    assert (found.files, found.folders, found.items) == (("new",), ("",), 2)


def test_a_rewrite_in_place_is_one_item() -> None:
    found = pending([ROOT, IMAGES, replace(ONE, size=11)], [IMAGES, ONE], root_copied=COPIED)
    assert (found.files, found.folders) == (("images/1.jpg",), ())


@pytest.mark.parametrize("change", [{"mtime_ns": T + 1}, {"mode": 0o600}, {"uid": 5}, {"gid": 5}])
def test_each_kind_of_metadata_counts(change: dict[str, int]) -> None:
    assert pending([ROOT, IMAGES, replace(ONE, **change)], [IMAGES, ONE], root_copied=COPIED).items == 1


def test_metadata_that_the_task_does_not_keep_does_not_count() -> None:
    found = pending([IMAGES, replace(ONE, uid=5)], [IMAGES, ONE], root_copied=COPIED, compare=frozenset({"mtime"}))
    assert found.items == 0


def test_an_object_altered_at_the_destination_counts() -> None:
    assert pending([ROOT, IMAGES, ONE], [IMAGES, replace(ONE, size=9)], root_copied=COPIED).items == 1


def test_never_overwrite_leaves_what_is_there() -> None:
    assert pending([IMAGES, ONE], [IMAGES, replace(ONE, size=9)], root_copied=COPIED, never_overwrite=True).items == 0


def test_transfer_mode_all_counts_everything() -> None:
    assert pending([ROOT, IMAGES, ONE], [IMAGES, ONE], root_copied=COPIED, everything=True).items == 3


def test_datasyncs_own_metadata_object_is_not_an_entry() -> None:
    assert pending([ROOT], [Entry(METADATA_KEY, "file", 1, T, 0o644, 0, 0)], root_copied=COPIED).items == 0


def test_an_empty_source_is_not_ok() -> None:
    assert not pending([], [], root_copied=None).ok


@given(st.integers(0, 2**62))
def test_the_three_spellings_of_a_time_mean_the_same(ns: int) -> None:
    assert nanoseconds(f"{ns}ns") == ns
    assert nanoseconds(f"{ns // 10**9}/{ns % 10**9}") == ns
    assert nanoseconds(str(ns // 10**6)) == ns // 10**6 * 10**6


def test_a_scan_keeps_odd_names_and_nanoseconds() -> None:
    record = "f 12 1740819600.1234567891 1740819601.0000000000 644 1000 1000 ./a b\nc é"
    (entry,) = parse_scan(record.encode() + b"\0")
    assert entry.path == "a b\nc é"
    assert entry.mtime_ns == 1_740_819_600_123_456_789
    assert (entry.mode, entry.size) == (0o644, 12)


def test_an_object_tells_its_kind_by_key_and_mode() -> None:
    assert entry_of_object("a/", 0, {"file-permissions": "0040755"}).kind == "folder"
    assert entry_of_object("l", 5, {"file-permissions": "0120777"}).kind == "link"
    assert entry_of_object("f", 5, {"file-permissions": "0100644", "file-mtime": "5ns"}) == Entry(
        "f", "file", 5, 5, 0o644, None, None
    )


@pytest.mark.parametrize(
    ("text", "step"), [("1500", 10**6), ("-1500", 10**6), ("-1500000000ns", 1), ("-2/500000000", 1)]
)
def test_milliseconds_are_no_more_exact_before_1970(text: str, step: int) -> None:
    assert posix({"file-mtime": text}).mtime_step == step
