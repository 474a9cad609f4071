"""The scanner against os.walk and lstat: hostile names, hostile trees, shards, and runs of huge folders."""

from __future__ import annotations

import ast
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from runbook_lib.errors import CommandFailed, TornStream
from runbook_lib.filters import Filters
from runbook_lib.hosts import ProcessHost
from runbook_lib.inventory import job
from runbook_lib.inventory.blocks import read_blocks
from runbook_lib.inventory.encoding import FORMAT, begin, encode, end_of_shard, end_of_stream, failure, numbers, strings
from runbook_lib.inventory.looking import Tree
from runbook_lib.inventory.scanner import Scan
from runbook_lib.scanning import MODULES, ScanOptions, scan

HERE = ProcessHost("here", lambda: None)
ODD = [
    b"new\nline", b"it's \"quoted\"", b" space ", b"-leading", b"*glob*", b"$(date)", b"a\\b", b"\\xff", b"tab\t",
    b"caf\xc3\xa9", b"cafe\xcc\x81", b"n" * 255, b"plain.txt", b"plain", b"plain-0", b"\xf0\x9f\x98\x80",
]  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with every odd name as a file and as a folder with something in it."""
    root = tmp_path / "tree"
    for at, name in enumerate(ODD):
        folder = os.fsencode(root) + b"/folders/" + name
        os.makedirs(folder)
        with open(os.fsencode(root) + b"/" + name, "wb") as file:
            file.write(b"x" * at)
        with open(folder + b"/inside", "wb") as file:
            file.write(b"inside")
    (root / "plain.d" / "deep" / "deeper").mkdir(parents=True)
    os.symlink("../elsewhere", root / "dangling")
    os.symlink(".", root / "loop")
    os.symlink("/", root / "plain.d" / "out")
    return root


def naive(root: Path) -> dict[bytes, os.stat_result]:
    """What os.walk and lstat say, by key."""
    top = os.fsencode(root)
    found = {}
    for folder, folders, files in os.walk(top):
        for name in folders + files:
            path = os.path.join(folder, name)
            seen = os.lstat(path)
            found[os.path.relpath(path, top) + (b"/" if stat.S_ISDIR(seen.st_mode) else b"")] = seen
    return found


def rows(root: Path, folder: Path, **options: Any) -> list[dict[str, Any]]:
    """A scan's rows, in order."""
    inventory = scan(HERE, str(root), folder, side="source", options=ScanOptions(**options))
    return [row for batch in inventory.batches() for row in batch.to_pylist()]


def agrees(found: list[dict[str, Any]], root: Path) -> None:
    """Assert that these rows are what is there, in byte order."""
    keys = [row["key"].encode() for row in found]
    assert keys == sorted(keys)
    expected = naive(root)
    assert {row["raw"] or row["key"].encode() for row in found} == set(expected)
    for row in found:
        seen = expected[row["raw"] or row["key"].encode()]
        kind = {8: "file", 4: "folder", 10: "link"}.get(seen.st_mode >> 12, "other")
        size = seen.st_size if kind in ("file", "link") else 0
        assert row["kind"] == kind
        assert (row["size"], row["mtime_ns"], row["mode"]) == (size, seen.st_mtime_ns, stat.S_IMODE(seen.st_mode))
        assert (row["uid"], row["gid"]) == (seen.st_uid, seen.st_gid)


def by_key(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["key"]: row for row in found}


def test_every_odd_name_is_seen_with_what_lstat_says(tree: Path, tmp_path: Path) -> None:
    agrees(rows(tree, tmp_path / "out"), tree)


def test_links_are_not_followed_and_say_where_they_point(tree: Path, tmp_path: Path) -> None:
    found = by_key(rows(tree, tmp_path / "out"))
    assert {row["target"]: key for key, row in found.items() if row["kind"] == "link"} == {
        "../elsewhere": "dangling", ".": "loop", "/": "plain.d/out",
    }  # fmt: skip


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems refuse names that are not UTF-8")
def test_names_that_are_not_utf8_are_written_so_that_no_other_name_is_meant(tree: Path, tmp_path: Path) -> None:
    top = os.fsencode(tree)
    os.makedirs(top + b"/bad\xff/deep")
    for name in (b"\xff", b"bad\xff/deep/file", b"caf\xe9", b"bad\xff/deep/\xfe"):
        (Path(os.fsdecode(top + b"/" + name))).touch()
    found = rows(tree, tmp_path / "out")
    agrees(found, tree)
    keys = by_key(found)
    assert keys[r"\xff"]["raw"] is None  # the name that is spelt so
    assert keys[r"\\xff"]["raw"] == b"\xff"
    assert (keys[r"bad\xff/"]["raw"], keys[r"bad\xff/"]["problem"]) == (b"bad\xff/", "not UTF-8")
    assert keys[r"bad\xff/deep/file"]["raw"] == b"bad\xff/deep/file"
    assert keys["plain.txt"]["problem"] is None


def test_hard_links_sparse_and_special_files_are_named(tmp_path: Path) -> None:
    root = tmp_path / "t"
    root.mkdir()
    (root / "one").write_text("same")
    os.link(root / "one", root / "two")
    with (root / "sparse").open("wb") as file:
        file.truncate(10_000_000)
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        before = Path.cwd()
        os.chdir(root)  # a socket's whole path may have 100 bytes
        listening.bind("socket")
        os.chdir(before)
        found = by_key(rows(root, tmp_path / "out"))
    assert found["one"]["links"] == 2
    assert found["one"]["inode"] == found["two"]["inode"] == (root / "one").stat().st_ino
    assert found["sparse"]["size"] == 10_000_000
    assert found["sparse"]["allocated"] < 10_000_000
    assert {key for key, row in found.items() if row["kind"] == "other"} == {"pipe", "socket"}
    assert found["sparse"]["links"] is None


def test_a_tree_deeper_than_any_path_may_be_is_walked_to_its_end(tmp_path: Path) -> None:
    root = tmp_path / "deep"
    root.mkdir()
    top, levels = os.open(root, os.O_RDONLY), 1500
    here = os.dup(top)
    for _ in range(levels):
        os.mkdir("level", dir_fd=here)
        below = os.open("level", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    found = rows(root, tmp_path / "out")
    assert len(found) == levels + 1
    assert found[-1]["key"] == "level/" * levels + "bottom"
    os.close(top)
    subprocess.run(["rm", "-rf", str(root)], check=True)  # shutil.rmtree is stopped by the depth


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """Folders of several sizes, one of them huge for the limits used here."""
    root = tmp_path / "wide"
    for at in range(40):
        (root / f"f{at % 7}" / f"g{at}").mkdir(parents=True)
        for number in range(at):
            (root / f"f{at % 7}" / f"g{at}" / f"{number}").write_text("x" * number)
    (root / "f3" / "huge").mkdir()
    for number in range(500):
        (root / "f3" / "huge" / f"{number * 7919 % 1000}").touch()
    for number in range(0, 50):
        (root / "f3" / "huge" / f"sub{number}").mkdir()
        (root / "f3" / "huge" / f"sub{number}" / "file").touch()
    return root


@pytest.mark.parametrize("limit", [10, 37, 10_000])
def test_a_folder_with_more_names_than_the_limit_comes_in_runs_and_ends_sorted(
    wide: Path, tmp_path: Path, limit: int
) -> None:
    agrees(rows(wide, tmp_path / "out", limit=limit), wide)


def shards(root: Path, cuts: list[bytes], limit: int = 10_000) -> Iterator[bytes]:
    """Run the scanner in this process over the shards between these keys; the keys that it writes."""
    before = Path.cwd()
    options = {
        "limit": limit, "compress": 0, "includes": [], "excludes": [], "skipped": [], "entries_per_second": None,
    }  # fmt: skip
    try:
        bounds = [b"", *cuts, None]
        for low, high in pairwise(bounds):
            walk = Scan(Tree(str(root)), options, lambda data: None)
            seen: list[bytes] = []
            walk.flush = lambda walk=walk, seen=seen: (seen.extend(walk.block.keys), walk.block.__init__())  # type: ignore
            walk.run("s", low or b"", high)
            yield from sorted(seen)
    finally:
        os.chdir(before)


@pytest.mark.parametrize("every", [1, 3, 50])
def test_shards_cut_at_any_key_hold_every_key_once(wide: Path, every: int) -> None:
    whole = sorted(naive(wide))
    cuts = whole[::every][:120]
    assert list(shards(wide, cuts)) == whole
    assert list(shards(wide, cuts, limit=20)) == whole


def test_shards_cut_at_keys_that_are_gone_or_never_were_hold_every_key_once(wide: Path) -> None:
    cuts = sorted([b"f3/huge/1.5", b"f3/nothing/", b"f3/nothing/here", b"f3.", b"f3/huge", b"zz"])
    assert list(shards(wide, cuts)) == sorted(naive(wide))


def test_a_large_tree_is_cut_into_shards_for_several_processes(
    wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = Path(job.__file__).read_text("utf-8").replace("SMALL = 20000", "SMALL = 20")
    assert "SMALL = 20 " in text
    sent = tmp_path / "inventory"
    sent.mkdir()
    for name in MODULES:
        source = Path(job.__file__).with_name(f"{name}.py").read_text("utf-8")
        (sent / f"{name}.py").write_text(text if name == "job" else source)
    monkeypatch.setattr("runbook_lib.scanning.__file__", str(tmp_path / "scanning.py"))
    inventory = scan(HERE, str(wide), tmp_path / "out", side="source", options=ScanOptions(processes=3, limit=100))
    assert inventory.facts["shards"] > 20
    agrees([row for batch in inventory.batches() for row in batch.to_pylist()], wide)


class Meddled(Scan):
    """A scan of a tree in which something goes, always at the same moment."""

    def beat(self, count: int) -> None:
        """Before the names of the working folder are looked at, after it was listed."""
        super().beat(count)
        here = Path.cwd()
        if here.name == "thinned":
            for name in "024":
                (here / name).unlink()
        elif here.name == "inner":
            shutil.rmtree(here.parent)

    def opened(self, key: bytes, path: bytes, seen: os.stat_result) -> Any:
        """After a folder was looked at, before it is opened."""
        if key == b"swapped/":
            os.rename("swapped", "../aside")
            os.mkdir("swapped")
        return super().opened(key, path, seen)


def test_what_goes_after_it_was_listed_is_counted_and_all_that_stays_has_one_row(tmp_path: Path) -> None:
    root = tmp_path / "t"
    for folder in ("first", "gone/inner", "swapped", "thinned", "unchanged"):
        (root / folder).mkdir(parents=True)
        for name in "01234":
            (root / folder / name).touch()
    for name in ("0", "1", "2", "jam", "kit", "lee"):
        (root / "gone" / name).touch()
    options = {
        "limit": 10_000, "compress": 0, "includes": [], "excludes": [], "skipped": [], "entries_per_second": None,
    }  # fmt: skip
    before, walk = Path.cwd(), Meddled(Tree(str(root)), options, lambda data: None)
    walk.chunk, walk.flush = 5, lambda: None  # type: ignore[method-assign]
    try:
        walk.run("s", b"", None)
    finally:
        os.chdir(before)
    assert [key.decode() for key in walk.block.keys] == [
        "first/", *(f"first/{name}" for name in "01234"),
        "gone/", *(f"gone/{name}" for name in ("0", "1", "2", "inner/", "jam")),
        "swapped/", "thinned/", "thinned/1", "thinned/3", "unchanged/", *(f"unchanged/{name}" for name in "01234"),
    ]  # fmt: skip
    problems = {walk.block.keys[row]: text for row, text in walk.block.texts["problem"].items()}
    assert (problems, walk.facts["vanished"]) == ({b"swapped/": b"changed while looking"}, 5 + 2 + 3)


EXCLUDED = ["/f3", "*/g2*", "g11", "/f1/g*|/f2", "/f3/huge/sub1*|*file", "/f0/g7/3"]


@pytest.mark.parametrize("excludes", EXCLUDED)
def test_what_the_exclude_filter_leaves_out_is_not_looked_into_and_all_else_is_seen(
    wide: Path, tmp_path: Path, excludes: str
) -> None:
    filters = Filters(None, excludes)
    found = {row["key"] for row in rows(wide, tmp_path / "out", filters=filters)}
    for key in (raw.decode() for raw in naive(wide)):
        above = [key[: at + 1] for at, letter in enumerate(key[:-1]) if letter == "/"]
        assert (key in found) == (not any(filters.excluded(folder[:-1]) for folder in above)), key


@pytest.mark.parametrize("includes", ["/f3", "/f3/huge/sub1*", "/f1/g8|/f2", "g11"])
def test_what_the_include_filter_lets_through_is_seen(wide: Path, tmp_path: Path, includes: str) -> None:
    filters = Filters(includes, None)
    found = {row["key"] for row in rows(wide, tmp_path / "out", filters=filters)}
    everything = {key.decode() for key in naive(wide)}
    assert {key for key in everything if filters.included(key.rstrip("/"))} <= found
    assert found == everything if includes == "g11" else len(found) < len(everything)


def test_the_snapshot_folder_of_the_top_has_no_row_and_is_counted_and_one_below_is_like_any_other(
    tmp_path: Path,
) -> None:
    (tmp_path / "t" / ".snapshot" / "hourly").mkdir(parents=True)
    (tmp_path / "t" / "a" / ".snapshot").mkdir(parents=True)
    (tmp_path / "t" / "a" / ".snapshot" / "precious").write_text("x")
    inventory = scan(HERE, str(tmp_path / "t"), tmp_path / "out", side="source")
    keys = [row["key"] for batch in inventory.batches() for row in batch.to_pylist()]
    assert keys == ["a/", "a/.snapshot/", "a/.snapshot/precious"]
    assert inventory.facts["skipped"] == 1


def test_a_snapshot_folder_is_counted_once_however_many_shards_there_are(wide: Path) -> None:
    (wide / ".snapshot").mkdir()
    options = {
        "limit": 10_000, "compress": 0, "includes": [], "excludes": [], "skipped": [".snapshot"],
        "entries_per_second": None,
    }  # fmt: skip
    before, counted = Path.cwd(), 0
    try:
        for low, high in pairwise([b"", b".s", b".snapshot/", b"f1/", b"f3/huge/", None]):
            walk = Scan(Tree(str(wide)), options, lambda data: None)
            walk.run("s", low or b"", high)
            counted += walk.facts["skipped"]
    finally:
        os.chdir(before)
    assert counted == 1


@pytest.mark.parametrize("alone", [True, False])
def test_a_time_that_no_column_holds_is_a_problem_of_its_file_and_of_no_other(tmp_path: Path, alone: bool) -> None:
    (tmp_path / "t").mkdir()
    names = ["b"] if alone else ["a", "b", "c"]
    for name in names:
        (tmp_path / "t" / name).write_text("x")
        os.utime(tmp_path / "t" / name, ns=(10**18, 10**18))
    os.utime(tmp_path / "t" / "b", (10**9, 13_569_465_600))  # in the year 2400
    if (tmp_path / "t" / "b").stat().st_mtime_ns < 1 << 63:
        pytest.skip("this file system has no such times")
    found = {row["key"]: (row["size"], row["mtime_ns"], row["problem"]) for row in rows(tmp_path / "t", tmp_path / "o")}
    why = "modification time before 1678 or after 2262: cannot be compared"
    assert found == {name: (1, None, why) if name == "b" else (1, 10**18, None) for name in names}


def test_the_scanner_is_python_3_6_and_imports_only_the_standard_library() -> None:
    for name in MODULES:
        parsed = ast.parse(Path(job.__file__).with_name(f"{name}.py").read_text("utf-8"), feature_version=(3, 6))
        for node in ast.walk(parsed):
            imported = [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            imported += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert set(imported) <= {*sys.stdlib_module_names, "awscrt"}, name


def stream(*frames: bytes) -> Any:
    import io

    return io.BytesIO(b"".join([begin(), *frames]))


BLOCK = encode("0", 2, {"key": strings([b"a", b"b"]), "kind": [b"", b"\0\0"], "size": numbers("q", [1, 0], [1], 2)})


@pytest.mark.parametrize("compress", [0, 6])
def test_a_block_comes_back_as_it_was(compress: int) -> None:
    columns = {"key": strings([b"a", "é".encode()]), "kind": [b"", b"\0\1"], "uid": numbers("q", [1 << 40, 0], [1], 2)}
    (block, end) = read_blocks(stream(encode("7", 2, columns, compress), end_of_shard("7", n=1), end_of_stream()))
    assert block.batch.select(["key", "kind", "uid", "etag"]).to_pylist() == [
        {"key": "a", "kind": "file", "uid": 1 << 40, "etag": None},
        {"key": "é", "kind": "folder", "uid": None, "etag": None},
    ]
    assert (end.shard, end.end, end.facts) == ("7", True, {"n": 1})


def test_a_stream_that_is_cut_anywhere_is_torn() -> None:
    whole = begin() + BLOCK + end_of_shard("0") + end_of_stream()
    for length in range(len(whole)):
        with pytest.raises(TornStream):
            list(read_blocks(stream_of(whole[:length])))


def stream_of(data: bytes) -> Any:
    import io

    return io.BytesIO(data)


def test_a_stream_that_was_damaged_on_its_way_is_torn() -> None:
    block = encode("0", 2, {"key": strings([b"a", b"b"]), "kind": [b"", b"\0\0"]}, 6)
    whole = begin() + block + end_of_stream()
    for at in range(whole.index(b"\n", len(begin())) + 1, len(begin() + block)):
        damaged = bytes(byte ^ (at == place) for place, byte in enumerate(whole))
        with pytest.raises(TornStream, match="A block of shard 0 is damaged"):
            list(read_blocks(stream_of(damaged)))


def test_what_is_no_stream_is_shown_and_an_error_comes_as_it_was_said() -> None:
    with pytest.raises(TornStream, match="Welcome to"):
        list(read_blocks(stream_of(b"Welcome to this server\n")))
    with pytest.raises(TornStream, match="update the older"):
        list(read_blocks(stream_of(json.dumps({"runbook": "blocks", "format": FORMAT + 1}).encode() + b"\n")))
    with pytest.raises(CommandFailed, match="the disk burns"):
        list(read_blocks(stream(failure("the disk burns"))))
