"""An inventory is sorted, whole, and survives a kill of whoever writes it."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runbook_lib.errors import InventoryError
from runbook_lib.inventory.progress import Progress
from runbook_lib.inventory.runs import NULLS, gathered, nulls
from runbook_lib.inventory.schema import SCHEMA
from runbook_lib.inventory.store import Inventory, Writer
from tests.inventories import batch, file, inventory

KEYS = st.text("ab/.-Zé中😀 ", min_size=1, max_size=6)


def keys(found: Inventory, **between: str) -> list[str]:
    return [key for rows in found.batches(["key"], **between) for key in rows.column("key").to_pylist()]


def write(writer: Writer, name: str, *batches: list[str], order: int = 0) -> None:
    with writer.shard(name, order) as shard:
        for some in batches:
            shard.write(batch(file(key) for key in some))


@pytest.mark.parametrize(
    ("sizes", "expected"), [([], []), ([5], [5]), ([1, 2, 3, 4, 1], [3, 3, 4, 1]), ([9, 1], [9, 1])]
)
def test_small_batches_are_gathered(sizes: list[int], expected: list[int]) -> None:
    some = [batch(file(f"{number} {row}") for row in range(size)) for number, size in enumerate(sizes)]
    found = list(gathered(iter(some), 3))
    assert [each.num_rows for each in found] == expected
    assert pa.Table.from_batches(found, SCHEMA).equals(pa.Table.from_batches(some, SCHEMA))


@pytest.mark.parametrize("rows", [0, 3, NULLS, NULLS + 1])
@pytest.mark.parametrize("kind", [pa.int64(), pa.string(), pa.binary()])
def test_unknown_columns_are_nulls_of_any_number(rows: int, kind: pa.DataType) -> None:
    found = nulls(rows, kind)
    found.validate(full=True)
    assert found.equals(pa.nulls(rows, kind)) and found.null_count == rows


def test_rows_come_back_in_byte_order_with_all_their_columns(tmp_path: Path) -> None:
    row = file("a.txt", 7, mtime_ns=1, mode=0o644, uid=1, gid=2, etag="e", checksum="c", raw=b"\xff")
    found = inventory(tmp_path / "i", [file("a/"), row, file("a-x"), file("\uffff"), file("\U00010000")])
    assert keys(found) == ["a-x", "a.txt", "a/", "\uffff", "\U00010000"]
    rows = [line for some in found.batches() for line in some.to_pylist()]
    assert rows[1] == {name: None for name in SCHEMA.names} | row
    assert (found.rows, found.bytes, found.kinds) == (5, 22, {"file": 4, "folder": 1})


def test_the_files_are_plain_parquet_with_the_documented_schema(tmp_path: Path) -> None:
    found = inventory(tmp_path / "i", [file("b"), file("a")])
    table = pq.read_table(found.files[0])
    assert table.schema.names == SCHEMA.names
    assert table.schema.metadata[b"runbook.inventory"] == b"1"


@settings(max_examples=60, deadline=None)
@given(st.sets(KEYS, max_size=40), st.integers(1, 5), st.randoms(use_true_random=False))
def test_batches_in_any_order_become_one_sorted_inventory(
    tmp_path_factory: pytest.TempPathFactory, wanted: set[str], shards: int, dice: random.Random
) -> None:
    folder = tmp_path_factory.mktemp("any")
    pieces: list[list[str]] = [[] for _ in range(shards)]
    for key in sorted(wanted, key=lambda _: dice.random()):
        dice.choice(pieces).append(key)
    with Writer(folder, side="source", root="/", parameters={}) as writer:
        for number, some in enumerate(pieces):
            write(writer, str(number), some[:3], some[3:5], some[5:], order=number)
        found = writer.finish()
    assert keys(found) == sorted(wanted, key=lambda key: key.encode())
    found.verify()


def test_more_runs_than_are_merged_at_once_are_merged_too(tmp_path: Path) -> None:
    with Writer(tmp_path, side="source", root="/", parameters={}) as writer:
        write(writer, "all", *([f"{number:03d}"] for number in reversed(range(100))))
        found = writer.finish()
    assert keys(found) == [f"{number:03d}" for number in range(100)]
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".run"] == []


def test_shards_whose_ranges_lie_between_each_other_become_one_part(tmp_path: Path) -> None:
    with Writer(tmp_path, side="source", root="/", parameters={}) as writer:
        write(writer, "top", ["a", "m", "z"])
        write(writer, "b", ["b/", "b/1"], order=1)
        write(writer, "zz", ["zz"], order=2)
        found = writer.finish()
    assert keys(found) == ["a", "b/", "b/1", "m", "z", "zz"]
    assert [(part.first, part.last) for part in found.parts] == [("a", "z"), ("zz", "zz")]
    assert sorted(path.name for path in tmp_path.glob("*.parquet")) == sorted(part.name for part in found.parts)


@pytest.mark.parametrize("second", [["b"], ["a", "c"]])
def test_a_key_that_comes_twice_is_an_error_that_names_it(tmp_path: Path, second: list[str]) -> None:
    with Writer(tmp_path, side="source", root="/", parameters={}) as writer:
        write(writer, "one", ["a", "b"])
        write(writer, "two", second, order=1)
        with pytest.raises(InventoryError, match=f"'{second[0]}' came twice"):
            writer.finish()


def test_a_range_reads_only_what_lies_in_it(tmp_path: Path) -> None:
    found = inventory(tmp_path / "i", [file(f"{number:04d}") for number in range(1000)], parts=3)
    assert keys(found, start="0100", stop="0900") == [f"{number:04d}" for number in range(100, 900)]
    assert keys(found, start="0999a") == keys(found, stop="0000") == []


@pytest.mark.parametrize(("rows", "ranges"), [(1000, 7), (3, 8), (1, 4), (0, 4), (10, 1)])
def test_cuts_make_ranges_of_about_equal_rows(tmp_path: Path, rows: int, ranges: int) -> None:
    found = inventory(tmp_path / "i", [file(f"{number:04d}") for number in range(rows)], parts=2)
    cuts = found.cut(ranges)
    edges = [None, *cuts, None]
    sizes = [
        len(keys(found, **{name: edge for name, edge in (("start", a), ("stop", b)) if edge is not None}))
        for a, b in pairwise(edges)
    ]
    assert sum(sizes) == rows
    assert len(cuts) == min(ranges, max(rows, 1)) - 1
    assert max(sizes) - min(sizes) <= 1


def test_finished_shards_are_known_after_opening_again(tmp_path: Path) -> None:
    with Writer(tmp_path, side="source", root="/", parameters={"level": "size"}) as writer:
        with writer.shard("one", 0) as shard:
            shard.write(batch([file("a")]))
            shard.facts["requests"] = 3
        with pytest.raises(ZeroDivisionError), writer.shard("two", 1) as shard:
            shard.write(batch([file("b")]))
            1 / 0  # noqa: B018
    with Writer(tmp_path, side="source", root="/", parameters={"level": "size"}) as writer:
        assert writer.finished == {"one"}
        assert writer.shard_facts == {"one": {"requests": 3}}
        with pytest.raises(InventoryError, match="finished already"), writer.shard("one", 0):
            pass
        write(writer, "two", ["c"], order=1)
        write(writer, "empty", order=2)
        assert keys(writer.finish(method="again")) == ["a", "c"]
    assert Inventory.open(tmp_path).facts == {"method": "again"}


@pytest.mark.parametrize(
    ("changed", "value"), [("side", "bucket"), ("root", "/other"), ("parameters", {"level": "names"})]
)
def test_an_inventory_is_not_gone_on_with_as_another(tmp_path: Path, changed: str, value: Any) -> None:
    asked: dict[str, Any] = {"side": "source", "root": "/", "parameters": {"level": "size"}}
    Writer(tmp_path, **asked).close()
    with pytest.raises(InventoryError, match=f"begun with {changed}"):
        Writer(tmp_path, **(asked | {changed: value}))


def test_two_processes_cannot_write_one_inventory(tmp_path: Path) -> None:
    with (
        Writer(tmp_path, side="source", root="/", parameters={}),
        pytest.raises(InventoryError, match="Another process"),
    ):
        Writer(tmp_path, side="source", root="/", parameters={})


def test_a_finished_inventory_is_not_written_again(tmp_path: Path) -> None:
    inventory(tmp_path, [file("a")])
    with pytest.raises(InventoryError, match="finished inventory already"):
        Writer(tmp_path, side="source", root="/export", parameters={})


def test_rows_that_are_no_inventory_are_refused(tmp_path: Path) -> None:
    with Writer(tmp_path, side="source", root="/", parameters={}) as writer:
        with pytest.raises(InventoryError, match="a kind that is none of"), writer.shard("x", 0) as shard:
            shard.write(pa.RecordBatch.from_pydict({"key": ["a"], "kind": ["socket"]}))
        bad = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")])
        with pytest.raises(InventoryError, match="not what an inventory holds"), writer.shard("x", 0) as shard:
            shard.write(pa.RecordBatch.from_arrays([bad, pa.array(["file"])], ["key", "kind"]))
        assert writer.finished == frozenset()


def test_opening_says_what_is_wrong_with_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InventoryError, match="no finished inventory"):
        Inventory.open(tmp_path / "nothing")
    found = inventory(tmp_path / "i", [file("a")])
    manifest = tmp_path / "i" / "inventory.json"
    text = manifest.read_text()
    for broken in ("", "[]", "{}", json.dumps(json.loads(text) | {"parts": [{}]})):
        manifest.write_text(broken)
        with pytest.raises(InventoryError, match="is not the manifest"):
            Inventory.open(tmp_path / "i")
    manifest.write_text(json.dumps(json.loads(text) | {"version": 99}))
    with pytest.raises(InventoryError, match="version 99"):
        Inventory.open(tmp_path / "i")
    manifest.write_text(text)
    data = bytearray(found.files[0].read_bytes())
    data[len(data) // 2] ^= 1
    found.files[0].write_bytes(data)
    with pytest.raises(InventoryError, match="SHA-256 differs"):
        Inventory.open(tmp_path / "i").verify()
    found.files[0].write_bytes(data[:-1])
    with pytest.raises(InventoryError, match="not as long"):
        Inventory.open(tmp_path / "i")


KILLED = """
import sys
from itertools import pairwise
from pathlib import Path
from runbook_lib.inventory.store import Writer
from tests.inventories import batch, file
with Writer(Path(sys.argv[1]), side="source", root="/", parameters={}) as writer:
    for number in range(20):
        if str(number) in writer.finished:
            continue
        with writer.shard(str(number), number) as shard:
            for start in (500, 0):
                shard.write(batch(file(f"{number:02d}/{at:04d}") for at in range(start, start + 500)))
                print(number, flush=True)
    writer.finish()
"""


def test_a_killed_writer_goes_on_from_its_finished_shards(tmp_path: Path) -> None:
    folder, ends = tmp_path / "i", []
    for patience in (3, 8, 1, 10, 100):
        command = [sys.executable, "-c", KILLED, str(folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _, _ in zip(range(patience), writer.stdout, strict=False):
                pass
            if patience < 100:
                writer.send_signal(signal.SIGKILL)
                with pytest.raises(InventoryError, match="no finished inventory"):
                    Inventory.open(folder)
        ends.append(writer.returncode)
    assert ends == [-signal.SIGKILL] * 4 + [0]
    found = Inventory.open(folder)
    found.verify()
    assert keys(found) == [f"{number:02d}/{at:04d}" for number in range(20) for at in range(1000)]
    assert {path.name for path in folder.iterdir()} == {"inventory.json", *(part.name for part in found.parts)}


@pytest.mark.parametrize("left", [b"", b'{"shard": "two", "fa', b'{"version": 1'])
def test_a_torn_last_line_of_the_journal_is_not_believed(tmp_path: Path, left: bytes) -> None:
    with Writer(tmp_path, side="source", root="/", parameters={}) as writer:
        write(writer, "one", ["a"])
    journal = tmp_path / "journal.jsonl"
    whole = b"" if left.startswith(b'{"version') else journal.read_bytes()
    journal.write_bytes(whole + left)
    (tmp_path / "stray.parquet").write_bytes(b"half")
    with Writer(tmp_path, side="source", root="/", parameters={}) as writer:
        assert writer.finished == ({"one"} if whole else frozenset())
        write(writer, "two", ["b"], order=1)
        assert keys(writer.finish()) == (["a", "b"] if whole else ["b"])


def test_where_bytes_take_the_time_it_is_they_that_tell_what_is_left() -> None:
    said = Progress("both sides", "reading content", 1, 3 << 30, 0, 2, began=100.0, size=6 << 30, bytes_before=1 << 30)
    assert said.left(110.0) == 15.0
    assert said.sentence(110.0) == (
        "both sides: reading content, 3.0 GiB of about 6.0 GiB, 204.8 MiB a second, 1 of about 2 files, about 15 s left"
    )


def test_progress_tells_rate_and_what_is_left() -> None:
    said = Progress("source", "scanning", 500, 0, 0, 2000, began=100.0)
    assert (said.rate(110.0), said.left(110.0)) == (50.0, 30.0)
    assert said.sentence(110.0) == "source: scanning, 500 of about 2,000 entries, 50 a second, about 30 s left"
    assert Progress("bucket", "listing", 500, 0, 1, None, began=0.0).left(1.0) is None
    again = Progress("source", "scanning", 1500, 0, 0, 2000, began=100.0, before=1000)  # not done in these 10 s
    assert (again.rate(110.0), again.left(110.0)) == (50.0, 10.0)
    assert Progress("source", "scanning", 1000, 0, 0, 2000, began=100.0, before=1000).left(110.0) is None
    ends = [Progress("source", "scanning", 1, 0, 0, left + 1, began=0.0).sentence(1.0) for left in (89, 3600, 7500)]
    assert [end.rpartition("about ")[2] for end in ends] == ["89 s left", "1 h 0 min left", "2 h 5 min left"]
