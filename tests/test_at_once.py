"""A scan and a LIST beside it find what they find one after the other, and neither goes on without the other."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from runbook_lib.at_once import at_once
from runbook_lib.aws import listing
from runbook_lib.aws.listing import ListOptions, list_bucket
from runbook_lib.errors import AccessDenied, CommandFailed
from runbook_lib.hosts import ProcessHost
from runbook_lib.inventory.merge import compare
from runbook_lib.inventory.progress import Beside, Look, Progress
from runbook_lib.inventory.rules import Rules
from runbook_lib.inventory.store import Inventory, Writer
from runbook_lib.inventory.underway import Underway
from runbook_lib.scanning import scan
from tests import trees
from tests.inventories import file, inventory
from tests.listing import REGION, rows, session
from tests.s3_stub import Spawned, spawned

HERE = ProcessHost("localhost", lambda: None)
FILES = 21_000  # more than are scanned without a plan
LONG = 30.0  # seconds, where a test would otherwise hang


def seen(side: str, doing: str) -> Progress:
    return Progress(side, doing, 1, 0, 0, None, time.monotonic())


@pytest.fixture
def one(tmp_path: Path) -> Inventory:
    return inventory(tmp_path / "one", [file("a")])


def test_the_listing_begins_with_the_plan_and_learns_all_keys_when_the_scan_ends(one: Inventory) -> None:
    begun, scanned, said, told = threading.Event(), threading.Event(), list[int](), list[Look]()

    def scans(planned: Any, told: Any) -> Inventory:
        planned(["k"], 7)
        assert said == [7] and begun.wait(LONG)
        told(seen("source", "scanning"))
        scanned.set()
        return one

    def lists(keys: Any, told: Any) -> Inventory:
        assert isinstance(keys, Underway) and (keys.rows, keys.cut(100)) == (0, ["k"])
        told(seen("bucket", "listing"))
        begun.set()
        assert scanned.wait(LONG)
        deadline = time.monotonic() + LONG
        while keys.inventory is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (keys.rows, keys.cut(100)) == (1, [])
        return one

    assert at_once(scans, lists, told.append, said.append) == (one, one)
    assert isinstance(told[0], Beside) and told[0].doing == "scanning, listing"
    assert told[0].sentence(told[0].began).count("entries") == 2


def test_without_a_plan_the_listing_comes_after_the_scan(one: Inventory) -> None:
    def scans(planned: Any, told: Any) -> Inventory:
        planned([], 7)
        return one

    def lists(keys: Any, told: Any) -> Inventory:
        assert keys is one and threading.current_thread() is threading.main_thread()
        return one

    assert at_once(scans, lists, lambda said: None, lambda used: pytest.fail("it does not begin beside")) == (one, one)


def test_what_stops_the_listing_stops_the_scan(one: Inventory) -> None:
    def scans(planned: Any, told: Any) -> Inventory:
        planned(["k"], 7)
        deadline = time.monotonic() + LONG
        while time.monotonic() < deadline:
            told(seen("source", "scanning"))
            time.sleep(0.01)
        return one

    def lists(keys: Any, told: Any) -> Inventory:
        raise AccessDenied("LIST was denied")

    with pytest.raises(AccessDenied, match="LIST was denied"):
        at_once(scans, lists, lambda said: None)


@pytest.mark.parametrize("error", [CommandFailed("no such folder"), KeyboardInterrupt()])
def test_what_stops_the_scan_stops_the_listing(error: BaseException, one: Inventory) -> None:
    ended: list[str] = []

    def scans(planned: Any, told: Any) -> Inventory:
        planned(["k"], 7)
        raise error

    def lists(keys: Any, told: Any) -> Inventory:
        deadline = time.monotonic() + LONG
        try:
            while time.monotonic() < deadline:
                told(seen("bucket", "listing"))
                time.sleep(0.01)
        except Exception as stopped:
            ended.append(str(stopped))
            raise
        return one

    with pytest.raises(type(error)) as raised:
        at_once(scans, lists, lambda said: None)
    assert raised.value is error and ended == ["The listing was stopped, because the scan beside it was."]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tree, and the bucket beside it."""
    tree = trees.plant(tmp_path_factory.mktemp("trees") / "tree", FILES)
    with spawned(FILES) as endpoint:
        yield tree, endpoint


def both(world: tuple[Path, Spawned], folder: Path, told: Any = lambda said: None) -> tuple[Inventory, Inventory]:
    tree, endpoint = world
    return at_once(
        lambda planned, said: scan(HERE, str(tree), folder / "source", side="source", progress=said, planned=planned),
        lambda keys, said: list_bucket(
            session(endpoint.url), REGION, "bucket", "", folder / "bucket", cut_from=keys, progress=said
        ),
        told,
    )


def test_both_find_what_they_find_alone_and_after_an_interruption(world: Any, tmp_path: Path) -> None:
    tree, endpoint = world

    def interrupted(said: Look) -> None:
        if isinstance(said, Beside) or said.entries:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        both(world, tmp_path, interrupted)
    source, bucket = both(world, tmp_path)
    alone = scan(HERE, str(tree), tmp_path / "alone", side="source")
    listed = list_bucket(session(endpoint.url), REGION, "bucket", "", tmp_path / "listed", cut_from=alone)
    assert rows(source) == rows(alone) and rows(bucket) == rows(listed)
    assert source.rows == FILES + len(trees.folders(FILES))


def test_each_difference_that_was_planted_is_found_and_no_other(world: Any, tmp_path: Path) -> None:
    found = compare(*both(world, tmp_path), level="size", rules=Rules(), out=tmp_path / "out")
    lines = [(line["key"], line["difference"]) for line in pq.read_table(found.parquet).to_pylist()]
    planted = trees.planted(FILES)
    wanted = {"missing": planted.missing, "size": planted.size, "extra": planted.extra}
    assert lines == sorted((key, name) for name, keys in wanted.items() for key in keys) and len(lines) == 53
    assert {count.difference: count.lines for count in found.counts} == {"missing": 37, "size": 11, "extra": 5}
    assert (found.ok, found.files) == (False, FILES - len(planted.missing))


def test_what_a_range_leaves_over_is_cut_by_all_keys_once_they_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "FEW", 100)
    source = inventory(tmp_path / "source", [file(f"flat/{number:05}") for number in range(1000)])
    keys = Underway(["flat/00500"])
    options = ListOptions(processes=1, connections=4, range_keys=100)
    with Writer(tmp_path / "i", side="bucket", root="s3://b/", parameters={}) as writer:
        made = listing._Listing(writer, "", keys, options, None)
        assert [job["do"] for job in made._rest("flat/00250", "flat/00500")] == ["cuts"]
        keys.inventory = source
        jobs = made._rest("flat/00250", "flat/00500")
    assert [job["after"] for job in jobs] == ["flat/00250", "flat/00333", "flat/00416"]
    assert {job["do"] for job in jobs} == {"keys"} and jobs[-1]["last"] == "flat/00500"
