"""A comparison is gone on with as what it was begun, on the same day, and as nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from runbook_lib.asked import DONE, WISH, Asked, Wish, asked, begun, placed
from runbook_lib.errors import InventoryError, SettingsError

SIDES: dict[str, Any] = {
    "endpoint": None,
    "task": "arn:task",
    "filters": ["", ""],
    "places": ["nfs://here/", "s3://there/"],
}


SIZE = Wish("size")


def start(top: Path, wish: Wish = SIZE) -> Path:
    """Begin a comparison, or go on with one, and leave it unfinished."""
    wanted = asked(wish, SIDES, None)
    folder = placed(top, wanted)
    with begun(folder, wanted):
        pass
    return folder


def make_older(folder: Path, hours: int) -> None:
    known = Asked.read(folder)
    replace(known, began=known.began - timedelta(hours=hours)).put(folder)


def test_what_was_begun_is_gone_on_with_as_the_same(tmp_path: Path) -> None:
    first = start(tmp_path, Wish("sample"))
    assert start(tmp_path, Wish("sample")) == first
    seed = Asked.read(first).wish.seed
    assert seed is not None and start(tmp_path, Wish("sample", seed=seed)) == first
    (first / DONE).write_text("{}")
    assert start(tmp_path, Wish("sample")).name == "bucket-sample-02"


@pytest.mark.parametrize("other", [Wish("sample", within="/"), Wish("sample", take=20), Wish("sample", seed=1)])
def test_an_unfinished_comparison_is_in_nobodys_way(tmp_path: Path, other: Wish) -> None:
    first = start(tmp_path, Wish("sample", within="/images"))
    second = start(tmp_path, replace(other, within="/"))
    assert first != second
    assert start(tmp_path, Wish("sample", within="/images")) == first


@pytest.mark.parametrize("name", SIDES)
def test_other_sides_are_looked_at_anew(tmp_path: Path, name: str) -> None:
    first, wanted = start(tmp_path), asked(Wish("size"), {**SIDES, name: "another"}, None)
    assert placed(tmp_path, wanted) != first
    with pytest.raises(InventoryError, match=f"begun with another {name}.*choose another folder"), begun(first, wanted):
        pass


def test_what_is_older_than_a_day_is_looked_at_anew(tmp_path: Path) -> None:
    first = start(tmp_path)
    make_older(first, 23)
    wanted = asked(SIZE, SIDES, None)
    with begun(first, wanted) as (_, so_old):
        assert so_old == "This goes on with what was begun 23 h 0 min ago."
    make_older(first, 2)
    assert start(tmp_path) != first
    with pytest.raises(InventoryError, match="25 h 0 min ago: what it has is too old"), begun(first, wanted):
        pass


def test_an_earlier_comparison_is_of_the_same_sides_and_of_today(tmp_path: Path) -> None:
    earlier = start(tmp_path)
    (earlier / "source").mkdir()
    (earlier / "source" / "inventory.json").write_text("1")
    first = asked(Wish("metadata"), SIDES, earlier)
    (earlier / "source" / "inventory.json").write_text("2")
    assert first.unlike(asked(Wish("metadata"), SIDES, earlier)) == ["of"]
    with pytest.raises(InventoryError, match=r"of other sides \(another source\)"):
        asked(Wish("size", source="report"), SIDES, earlier)
    with pytest.raises(InventoryError, match=r"of other sides \(another task\)"):
        asked(Wish("size"), {**SIDES, "task": "arn:other"}, earlier)
    make_older(earlier, 25)
    with pytest.raises(InventoryError, match="too old"):
        asked(Wish("metadata"), SIDES, earlier)


def test_of_a_comparison_with_another_side_the_source_is_taken(tmp_path: Path) -> None:
    earlier = start(tmp_path)
    for name in ("source", "bucket", "report"):
        (earlier / name).mkdir()
        (earlier / name / "inventory.json").write_text(name)
    assert set(asked(SIZE, SIDES, earlier).of) == {"source", "bucket", "report"}
    assert set(asked(Wish("metadata", "share"), {**SIDES, "s3_inventory": "s3://…"}, earlier).of) == {"source"}
    assert set(asked(Wish("size", "report"), {**SIDES, "report": "arn:latest"}, earlier).of) == {"source"}
    with pytest.raises(InventoryError, match=r"of other sides \(another task\)"):
        asked(Wish("size", "share"), {**SIDES, "task": "arn:other"}, earlier)
    from_report = start(tmp_path, Wish("size", source="report"))
    with pytest.raises(InventoryError, match=r"of other sides \(another report\)"):
        asked(Wish("size", "share", source="report"), {**SIDES, "report": "arn:latest"}, from_report)


def test_two_at_once_do_not_write_into_one_folder(tmp_path: Path) -> None:
    wanted = asked(SIZE, SIDES, None)
    with begun(tmp_path, wanted), pytest.raises(InventoryError, match="Another process"), begun(tmp_path, wanted):
        pass


def test_a_folder_that_says_nothing_of_itself_is_not_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / WISH).write_text(json.dumps({"wish": {"level": "size"}}))
    wanted = asked(SIZE, SIDES, None)
    with pytest.raises(InventoryError, match="does not say what was compared"), begun(tmp_path, wanted):
        pass


@pytest.mark.parametrize(
    ("wish", "why"),
    [
        (Wish("size", "report", source="report"), "the report with the report"),
        (Wish("content", "report"), "has no content"),
        (Wish("sample", "report"), "has no content"),
        (Wish("sample", seed=-1), "give 0 or more"),
        (Wish("sample", take=0), "take 1 or more"),
    ],
)
def test_what_would_prove_nothing_is_refused(wish: Wish, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        wish.refuse()
