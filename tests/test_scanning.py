"""A scan on a host: resumed after a kill, of a tree that changes, of what may not be read; through SSM and ssh too."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from awscrt import checksums

from runbook_lib.aws.client import Credentials, Session
from runbook_lib.aws.ssm import RunCommand
from runbook_lib.errors import CommandFailed, InventoryError, RunbookError
from runbook_lib.hosts import Host, ProcessHost
from runbook_lib.inventory.progress import Progress
from runbook_lib.inventory.store import Inventory
from runbook_lib.lab.core import PREMISES_REGION
from runbook_lib.managed_host import SsmHost
from runbook_lib.scanning import ScanOptions, capabilities, digests, look_again, scan
from tests.test_scanner import agrees
from tests.throwaway import ThrowawayLab, connection

HERE = ProcessHost("here", lambda: None)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Enough folders for a few shards, when a shard is small."""
    root = tmp_path / "tree"
    for at in range(30):
        (root / f"folder{at:02}").mkdir(parents=True)
        for number in range(20):
            (root / f"folder{at:02}" / f"file {number}").write_bytes(b"x" * number)
    os.symlink("folder00/file 1", root / "link")
    return root


def found(inventory: Any) -> list[dict[str, Any]]:
    return [row for batch in inventory.batches() for row in batch.to_pylist()]


LARGE = """
import sys
from pathlib import Path
from runbook_lib.hosts import ProcessHost
from runbook_lib.scanning import ScanOptions, scan
options = ScanOptions(entries_per_second=float(sys.argv[3]) or None)
scan(ProcessHost("here", lambda: None), sys.argv[1], Path(sys.argv[2]), side="source", options=options)
"""


def grow(root: Path) -> Path:
    """More entries than are scanned as one shard."""
    for at in range(110):
        (root / f"{at:03}").mkdir(parents=True)
        for number in range(200):
            (root / f"{at:03}" / f"{number}").touch()
    return root


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A large tree that no test changes."""
    return grow(tmp_path_factory.mktemp("large") / "tree")


def shards_in(folder: Path) -> int:
    """Finished shards, the plan among them."""
    journal = folder / "journal.jsonl"
    return journal.read_text().count('"shard"') if journal.exists() else 0


@pytest.mark.parametrize("victim", ["all of it", "a scanning process"])
def test_a_scan_that_is_killed_goes_on_from_its_finished_shards(large: Path, tmp_path: Path, victim: str) -> None:
    out = tmp_path / "out"
    running = subprocess.Popen(
        [sys.executable, "-c", LARGE, str(large), str(out), "8000"], stderr=subprocess.PIPE, text=True
    )
    while shards_in(out) < 6:
        assert running.poll() is None, running.stderr.read() if running.stderr else ""
        time.sleep(0.01)
    family = psutil.Process(running.pid).children(recursive=True)
    assert len(family) == 3
    if victim == "all of it":
        running.kill()
    else:
        family[-1].kill()
    _, said = running.communicate(timeout=60)
    assert (victim == "all of it") == (running.returncode == -signal.SIGKILL)
    assert victim == "all of it" or "finished shards are kept" in said
    _, left = psutil.wait_procs(family, timeout=60)
    assert not left
    before = shards_in(out)
    assert 6 <= before < 60
    kept = {path.name: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
    inventory = scan(HERE, str(large), out, side="source")
    agrees(found(inventory), large)
    now = {path.name: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
    assert len(set(kept.items()) & set(now.items())) >= before - 3


def test_a_scan_is_not_gone_on_with_for_another_root_or_other_filters(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    out = tmp_path / "out"
    with pytest.raises(CommandFailed, match="No such file"):
        scan(HERE, str(tmp_path / "nowhere"), out, side="source")
    with pytest.raises(InventoryError, match="root"):
        scan(HERE, str(tmp_path / "other"), out, side="source")
    with pytest.raises(InventoryError, match="parameters"):
        scan(HERE, str(tmp_path / "nowhere"), out, side="source", options=ScanOptions(skipped=()))


def test_of_a_tree_that_changes_meanwhile_all_that_stayed_has_its_row(tmp_path: Path) -> None:
    large, out = grow(tmp_path / "changing"), tmp_path / "out"
    running = subprocess.Popen([sys.executable, "-c", LARGE, str(large), str(out), "12000"])
    number = 0
    while running.poll() is None:  # the even folders change, the odd ones stay
        number += 1
        gone, grown = (large / f"{number * step % 55 * 2:03}" for step in (37, 53))
        shutil.rmtree(gone, ignore_errors=True)
        gone.mkdir(exist_ok=True)
        if grown.exists():
            (grown / f"new{number}").touch()
    assert running.returncode == 0
    inventory = Inventory.open(out)
    rows = found(inventory)
    keys = [row["key"] for row in rows]
    assert keys == sorted(set(keys)) and len(keys) == inventory.rows
    again = scan(HERE, str(large), tmp_path / "again", side="source")
    agrees(found(again), large)
    changing = {f"{at:03}" for at in range(0, 110, 2)}
    for name in changing:
        shutil.rmtree(large / name)
    agrees([row for row in rows if row["key"][:3] not in changing], large)
    assert {row["problem"] for row in rows if row["key"][:3] not in changing} == {None}
    assert {row["problem"] for row in rows} <= {None, "changed while looking"}


def test_progress_is_told_and_ends_at_all_entries(large: Path, tmp_path: Path) -> None:
    told: list[Progress] = []
    inventory = scan(HERE, str(large), tmp_path / "out", side="source", progress=told.append)
    assert told[-1].entries == inventory.rows == 110 * 201
    assert [one.entries for one in told] == sorted(one.entries for one in told)
    assert told[-1].side == "source"
    estimated = [one.expected for one in told if one.expected is not None]  # once a shard is finished
    assert estimated and estimated[-1] == inventory.rows
    assert all(one.expected is None or one.expected >= one.entries for one in told)


@pytest.fixture
def unreadable() -> Iterator[tuple[Path, ScanOptions]]:
    """A tree with what may not be read, and options by which the scan is not root's."""
    folder = Path(tempfile.mkdtemp(prefix="runbook-test-"))
    options = ScanOptions()
    if os.geteuid() == 0:
        options = ScanOptions(privilege="setpriv --reuid=65534 --regid=65534 --clear-groups")
        allowed = subprocess.run(
            [*options.privilege.split(), sys.executable, "-c", ""], capture_output=True, check=False
        )
        if allowed.returncode:
            pytest.skip("no other user can be had here")
    folder.chmod(0o755)
    for name in ("closed", "listed"):
        (folder / name).mkdir()
        (folder / name / "file").touch()
    (folder / "open").mkdir()
    (folder / "open" / "secret").write_text("secret")
    (folder / "open" / "secret").chmod(0)
    (folder / "closed").chmod(0)
    (folder / "listed").chmod(0o744 if os.geteuid() == 0 else 0o444)
    yield folder, options
    for name in ("closed", "listed"):
        (folder / name).chmod(0o755)
    shutil.rmtree(folder)


def test_what_may_not_be_read_has_a_row_that_says_so(unreadable: tuple[Path, ScanOptions], tmp_path: Path) -> None:
    root, options = unreadable
    rows = {row["key"]: row for row in found(scan(HERE, str(root), tmp_path / "o", side="source", options=options))}
    assert rows["closed/"]["problem"] == "unreadable: EACCES (Permission denied)"
    assert rows["closed/"]["mode"] == 0
    listed = rows["listed/"]["problem"] or rows["listed/file"]["problem"]
    assert listed == "unreadable: EACCES (Permission denied)"
    (batch,) = digests(HERE, str(root), [("open/secret", "SHA256", ())], options)
    assert batch.to_pylist()[0]["problem"] == "unreadable: EACCES (Permission denied)"
    again = look_again(HERE, str(root), ["closed/file", "open/secret", "open/gone"], options).to_pylist()
    assert [(row["key"], row["problem"]) for row in again] == [
        ("closed/file", "unreadable: EACCES (Permission denied)"), ("open/secret", None),
    ]  # fmt: skip


def test_looking_again_sees_what_is_there_now(tree: Path) -> None:
    (tree / "folder00" / "file 3").write_text("longer than before")
    (tree / "folder00" / "file 4").unlink()
    (tree / "now a folder").mkdir()
    os.symlink("folder01", tree / "way")
    bad = os.fsdecode(b"bad\xff")
    if sys.platform == "linux":
        (tree / bad).mkdir()
        (tree / bad / "inside").write_text("12345")
    keys = [
        "folder00/file 3", "folder00/file 4", "folder00/", "link", "now a folder", "now a folder/", "way/file 1",
        r"bad\xff/inside",
    ]  # fmt: skip
    again = {row["key"]: row for row in look_again(HERE, str(tree), keys).to_pylist()}
    odd = {r"bad\xff/inside"} if sys.platform == "linux" else set()
    assert set(again) == {"folder00/file 3", "folder00/", "link", "now a folder/"} | odd
    assert again["folder00/file 3"]["size"] == 18
    assert again["link"]["target"] == "folder00/file 1"
    if odd:
        assert again[r"bad\xff/inside"]["raw"] == b"bad\xff/inside"
    assert look_again(HERE, str(tree), []).num_rows == 0


CONTENT = os.urandom(3 * 1024 * 1024 + 17)
FUNCTIONS: dict[str, Any] = {
    "SHA256": lambda data: hashlib.sha256(data).digest(),
    "SHA1": lambda data: hashlib.sha1(data).digest(),
    "MD5": lambda data: hashlib.md5(data).digest(),
    "CRC32": lambda data: zlib.crc32(data).to_bytes(4, "big"),
    "CRC32C": lambda data: checksums.crc32c(data).to_bytes(4, "big"),
    "CRC64NVME": lambda data: checksums.crc64nvme(data).to_bytes(8, "big"),
}


@pytest.mark.parametrize("algorithm", sorted(FUNCTIONS))
@pytest.mark.parametrize("parts", [(), (1024 * 1024,), (10, 1_000_000, 77_777), (len(CONTENT),)])
def test_digests_are_those_that_s3_keeps(tmp_path: Path, algorithm: str, parts: tuple[int, ...]) -> None:
    (tmp_path / "content").write_bytes(CONTENT)
    (batch,) = digests(HERE, str(tmp_path), [("content", algorithm, parts)])
    of = FUNCTIONS[algorithm]
    expected = base64.b64encode(of(CONTENT)).decode()
    if parts:
        pieces, at, sizes = [], 0, list(parts)
        while at < len(CONTENT):
            size = sizes.pop(0) if len(sizes) > 1 else sizes[0]
            pieces.append(CONTENT[at : at + size])
            at += size
        expected = f"{base64.b64encode(of(b''.join(map(of, pieces)))).decode()}-{len(pieces)}"
    (row,) = batch.to_pylist()
    assert (row["checksum"], row["size"]) == (expected, len(CONTENT))
    assert (row["checksum_algorithm"], row["checksum_type"]) == (algorithm, "COMPOSITE" if parts else "FULL_OBJECT")


def test_many_files_are_hashed_by_several_processes_and_those_that_are_gone_have_no_row(tree: Path) -> None:
    os.mkfifo(tree / "pipe")
    wanted = [(f"folder{at:02}/file {number}", "CRC64NVME", ()) for at in range(30) for number in range(21)]
    rows = [row for batch in digests(HERE, str(tree), wanted) for row in batch.to_pylist()]
    assert len(rows) == 600
    for row in rows:
        content = (tree / row["key"]).read_bytes()
        assert row["checksum"] == base64.b64encode(FUNCTIONS["CRC64NVME"](content)).decode()
    asked = [(key, "SHA1", ()) for key in ("pipe", "link", "gone")]
    odd = {row["key"]: row for batch in digests(HERE, str(tree), asked) for row in batch.to_pylist()}
    assert set(odd) == {"pipe", "link"}
    assert "has no content" in odd["pipe"]["problem"]
    assert odd["link"]["checksum"] == base64.b64encode(hashlib.sha1(b"folder00/file 1").digest()).decode()


def test_reading_one_large_file_is_heard_of_before_it_ends(tmp_path: Path) -> None:
    rate = 4 << 20  # bytes a second: it takes longer than scanner.BEAT
    (tmp_path / "large").write_bytes(bytes(4 * rate))
    said: list[int] = []
    found = digests(HERE, str(tmp_path), [("large", "MD5", ())], ScanOptions(bytes_per_second=rate), said.append)
    assert next(found).num_rows == 1
    assert said and 0 < sum(said) <= 4 * rate


def test_a_file_that_grows_while_it_is_hashed_has_no_checksum(tmp_path: Path) -> None:
    target = tmp_path / "log"
    target.write_bytes(b"x" * 4 * 1024 * 1024)
    grower = subprocess.Popen(["sh", "-c", 'while :; do printf x >> "$0"; done', str(target)])
    try:
        (batch,) = digests(HERE, str(tmp_path), [("log", "MD5", ())], ScanOptions(bytes_per_second=4 * 1024 * 1024))
    finally:
        grower.kill()
        grower.wait()
    (row,) = batch.to_pylist()
    assert (row["checksum"], row["problem"]) == (None, "changed while looking")


def test_an_algorithm_that_the_host_cannot_compute_is_refused_by_name() -> None:
    assert {"CRC64NVME", "CRC32C", "CRC32", "SHA256", "SHA1"} <= capabilities(HERE)
    with pytest.raises(CommandFailed, match=r"cannot compute XXHASH; it can: .*CRC64NVME"):
        list(digests(HERE, "/", [("a", "XXHASH", ())]))


def test_a_consumer_that_stops_early_leaves_nothing_running(large: Path, tmp_path: Path) -> None:
    def stop(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan(
            HERE,
            str(large),
            tmp_path / "out",
            side="source",
            options=ScanOptions(entries_per_second=5000),
            progress=stop,
        )
    assert not [child for child in psutil.Process().children(recursive=True) if child.status() != "zombie"]


def test_a_program_that_fails_says_why() -> None:
    with (
        pytest.raises(CommandFailed, match="exit status 3: oh dear"),
        HERE.stream(["sh", "-c", "echo oh dear >&2; exit 3"], b"x" * 10**6),
    ):
        pass
    with pytest.raises(RunbookError, match="not installed"), HERE.stream(["no-such-program"], b""):
        pass
    with pytest.raises(CommandFailed, match="No module"):
        capabilities(HERE, ScanOptions(privilege=f"{sys.executable} -m no_such_module"))


def test_through_ssh_the_command_is_quoted_for_the_other_shell(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    ssh = tmp_path / "bin" / "ssh"
    ssh.write_text('#!/bin/sh\nfor last; do :; done\nexec sh -c "$last"\n')  # as sshd does, without a network
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")
    host = ProcessHost("server", lambda: None, ssh=True)
    agrees(found(scan(host, str(tree), tmp_path / "out", side="source")), tree)


@pytest.fixture
def managed(lab: ThrowawayLab) -> Host:
    """The lab's application server, through SSM."""
    at = connection(lab)
    session = Session(
        record=lambda kind, **facts: None,
        endpoint_url=at["url"],
        credentials=Credentials(at["access_key"], at["secret_key"]),
        home_region="eu-central-1",
    )
    return SsmHost(RunCommand(session, PREMISES_REGION), "application-server")


def test_through_ssm_the_answer_is_fetched_in_pieces_and_nothing_stays_there(
    managed: Host, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(600):
        (tree / hashlib.sha256(str(number).encode()).hexdigest()).touch()  # names that do not compress
    made: list[str] = []
    run = managed.run

    def watched(script: str, **options: Any) -> Any:
        done = run(script, **options)
        made.extend([done.output.split("\n")[0]] if "mktemp -d" in script else [])
        return done

    monkeypatch.setattr(managed, "run", watched)
    agrees(found(scan(managed, str(tree), tmp_path / "out", side="source")), tree)
    (batch,) = digests(managed, str(tree), [("folder00/file 9", "SHA256", ())])
    assert batch.to_pylist()[0]["checksum"] == base64.b64encode(hashlib.sha256(b"x" * 9).digest()).decode()
    assert len(made) == 2
    assert not managed.run(f"ls -d {' '.join(made)} 2>/dev/null").output


def test_through_ssm_an_answer_that_is_too_long_says_what_to_use_instead(
    managed: Host, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runbook_lib.fetching.LIMIT", 1000)
    with pytest.raises(RunbookError, match="reach: ssh"):
        scan(managed, str(tree), tmp_path / "out", side="source")
    with pytest.raises(CommandFailed, match="No such file"):
        scan(managed, str(tree / "nowhere"), tmp_path / "out2", side="source")


def test_another_folder_in_the_place_of_the_scanned_one_is_not_looked_at(tree: Path, tmp_path: Path) -> None:
    top = scan(HERE, str(tree), tmp_path / "made", side="source").facts["top"]
    assert look_again(HERE, str(tree), ["link"], top=top).num_rows == 1
    tree.rename(tmp_path / "unmounted")
    tree.mkdir()
    with pytest.raises(CommandFailed, match="not the folder any more that was scanned"):
        look_again(HERE, str(tree), ["link"], top=top)
