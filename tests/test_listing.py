"""LIST by many at once gives what boto3's own paginator gives, whatever the keys and whatever S3 does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest

from runbook_lib.aws import listing, listing_process, listing_worker, wire, workers
from runbook_lib.aws.listing import ListOptions, gaps, list_bucket
from runbook_lib.aws.listing_worker import Gate
from runbook_lib.aws.pages import NAMESPACE
from runbook_lib.errors import AccessDenied, AwsError, CredentialsExpired, InventoryError, TornStream
from runbook_lib.inventory.progress import Progress
from runbook_lib.inventory.store import Inventory, Writer
from runbook_lib.inventory.underway import Underway, thinned
from tests.inventories import file, inventory
from tests.lab import s3_server
from tests.lab.s3_server import BUCKET
from tests.listing import ODD_KEYS, REGION, rows, session
from tests.s3_stub import Fault, stub
from tests.s3_stub_pages import Object

STOCK = ListOptions(method="boto3")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The lab's S3, with awkward keys under two prefixes."""
    with s3_server.serving(tmp_path_factory.mktemp("s3")) as server:
        s3 = s3_server.client(server.url)
        for prefix in ("", "exp ort/ä&+%/"):
            for key in ODD_KEYS:
                s3.put_object(Bucket=BUCKET, Key=prefix + key, Body=key.encode())
        yield server.url


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between attempts are short; in this process only."""
    monkeypatch.setattr(wire, "LONGEST_PAUSE", 0.01)


def test_a_listing_process_does_without_the_crt() -> None:
    command = [sys.executable, "-X", "importtime", "-m", listing_process.__name__]
    door = json.dumps(asdict(wire.Door("http://127.0.0.1:1", BUCKET, REGION))) + "\n"
    done = subprocess.run(command, input=door, capture_output=True, text=True, check=True)
    assert done.stdout.endswith('{"end of stream": true}\n')
    assert "botocore.auth" in done.stderr and "_awscrt" not in done.stderr


@pytest.mark.parametrize(
    ("most", "times", "expected"),
    [
        (16, [], 4),
        (16, [(0.001, 0.002, 1000)], 4),  # near: pages come faster than they are parsed
        (16, [(0.020, 0.002, 1000)], 12),
        (16, [(0.050, 0.002, 1000)], 16),
        (16, [(0.008, 0.002, 1000)] * 9 + [(0.1, 0.002, 1000)] * 30, 6),  # many wait for this process
        (16, [(0.010, 0.002, 1000)] * 2 + [(0.080, 0.002, 1000)] * 38, 16),  # few come early
        (16, [(0.001, 0.002, 1000)] * 99 + [(0.080, 0.002, 1000)] * 40, 16),  # the endpoint became slow
        (16, [(0.008, 0.002, 1000), (0.008, 0.0003, 150)], 6),  # the last page of a range
        (16, [(0.008, 0.0005, 250)], 16),  # pages are short
        (16, [(0.020, 0.0001, 1)], 4),
        (16, [(0.050, 0.0, 1000)], 16),
        (2, [(0.050, 0.002, 1000)], 2),
    ],
)
def test_as_many_ranges_at_a_time_as_keep_the_parser_busy(
    most: int, times: list[tuple[float, float, int]], expected: int
) -> None:
    gate = Gate(most)
    for seen in times:
        gate.saw(*seen)
    assert gate.limit == expected


def test_a_far_endpoint_is_asked_for_more_ranges_at_a_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    limits: list[int] = []

    class Seen(Gate):
        def saw(self, away: float, parsing: float, keys: int) -> None:
            super().saw(away, parsing, keys)
            limits.append(self.limit)

    monkeypatch.setattr(listing_worker, "Gate", Seen)
    source = inventory(tmp_path / "source", [file(f"{number:06d}") for number in range(40_000)])
    with stub([Object(f"{number:06d}", 1) for number in range(40_000)], latency=0.05) as endpoint:
        options = ListOptions(processes=0)
        found = list_bucket(
            session(endpoint.url), REGION, "bench", "", tmp_path / "b", cut_from=source, options=options
        )
    assert found.rows == 40_000
    assert max(limits) == 16


def test_no_more_ranges_at_a_time_than_the_gate_lets_through() -> None:
    gate = Gate(16)
    inside: list[int] = []
    most = 0
    enter, let_go = threading.Barrier(4), threading.Event()

    def listed() -> None:
        nonlocal most
        with gate:
            inside.append(1)
            most = max(most, len(inside))
            if not let_go.is_set():
                enter.wait(10)
                let_go.set()
            inside.pop()

    with ThreadPoolExecutor(12) as threads:
        for done in [threads.submit(listed) for _ in range(12)]:
            done.result(10)
    assert most == 4


def test_awkward_keys_are_the_same_as_with_boto3(lab: str, tmp_path: Path) -> None:
    for number, prefix in enumerate(("", "exp ort/ä&+%/")):
        ours, theirs = (
            list_bucket(
                session(lab), REGION, BUCKET, prefix, tmp_path / f"{number}{method}", cut_from=None, options=options
            )
            for method, options in (("pages", ListOptions()), ("boto3", STOCK))
        )
        assert rows(ours) == rows(theirs)
        assert {row["key"] for row in rows(ours, "key")} >= set(ODD_KEYS)
        assert ours.root == f"s3://{BUCKET}/{prefix}"


def test_a_plain_s3_endpoint_gives_the_same_as_with_boto3(tmp_path: Path) -> None:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        url = "http://{}:{}".format(*server.get_host_and_port())
        s3 = s3_server.client(url)
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        keys = [
            key for key in ODD_KEYS if key not in ("p/../q", "./r", "a//b", "new\nline")
        ]  # its web server refuses these
        for key in keys:
            s3.put_object(Bucket=BUCKET, Key=key, Body=b"x")
        ours = list_bucket(session(url), REGION, BUCKET, "", tmp_path / "a", cut_from=None)
        theirs = list_bucket(session(url), REGION, BUCKET, "", tmp_path / "b", cut_from=None, options=STOCK)
        assert rows(ours) == rows(theirs) and len(rows(ours)) == len(keys)
    finally:
        server.stop()


def test_delete_markers_and_old_versions_are_not_listed(lab: str, tmp_path: Path) -> None:
    s3 = s3_server.client(lab)
    s3.create_bucket(Bucket="versions", CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_bucket_versioning(Bucket="versions", VersioningConfiguration={"Status": "Enabled"})
    for body in (b"old", b"newer"):
        s3.put_object(Bucket="versions", Key="kept", Body=body)
    s3.put_object(Bucket="versions", Key="deleted", Body=b"gone")
    s3.delete_object(Bucket="versions", Key="deleted")
    found = list_bucket(session(lab), REGION, "versions", "", tmp_path / "i", cut_from=None)
    assert [(row["key"], row["size"]) for row in rows(found)] == [("kept", 5)]


def many(count: int) -> list[tuple[str, int]]:
    """Keys in folders, some of them markers of folders."""
    keys = [(f"tree/{number // 100:04d}/f{number:06d}", number % 1000) for number in range(count)]
    return sorted([*keys, *((f"tree/{number:04d}/", 0) for number in range(-(-count // 100)))])


def listed_keys(inventory: Inventory) -> list[tuple[str, int]]:
    return [(row["key"], row["size"]) for row in rows(inventory, "key", "size")]


def test_pages_follow_each_other_in_one_thread_and_in_many(tmp_path: Path) -> None:
    objects = many(5000)
    with stub(objects) as endpoint:
        alone = list_bucket(session(endpoint.url), REGION, "bench", "", tmp_path / "a", cut_from=None)
        cut = list_bucket(session(endpoint.url), REGION, "bench", "", tmp_path / "b", cut_from=alone)
    assert listed_keys(alone) == listed_keys(cut) == objects
    assert len(alone.parts) == 1 and len(cut.parts) > 1


def test_processes_list_ranges_cut_from_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "FEW", 100)
    objects = many(5000)
    with Writer(tmp_path / "source", side="source", root="/", parameters={}) as writer:
        with writer.shard("all", 0) as shard:  # the source lacks some keys, and has others
            keys = sorted([key for key, _ in objects[1000:]] + [f"tree/{number:04d}/extra" for number in range(40)])
            shard.write(pa.RecordBatch.from_pylist([{"key": key, "kind": "file"} for key in keys]))
        source = writer.finish()
    with stub(objects) as endpoint:
        found = list_bucket(session(endpoint.url), REGION, "bench", "", tmp_path / "i", cut_from=source)
    assert listed_keys(found) == objects and len(found.parts) > 20


@pytest.mark.parametrize("objects", [many(9000), [(f"one/huge/folder/f{n:06d}", n) for n in range(9000)]])
def test_without_a_source_what_is_left_is_cut_at_folders(
    objects: list[tuple[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "FEW_PAGES", 1)
    with stub(objects) as endpoint:
        options = ListOptions(pages=1)
        found = list_bucket(session(endpoint.url), REGION, "bench", "", tmp_path / "i", cut_from=None, options=options)
    assert listed_keys(found) == objects


FAULTS = ("slow down", "too many", "internal", "torn", "torn open", "torn chunked", "lost key", "error in 200")


@pytest.mark.parametrize("what", FAULTS)
def test_a_page_that_fails_is_asked_again(what: str, tmp_path: Path, quick: None) -> None:
    objects = many(5000)
    with stub(objects, faults=[Fault(what, every=2)]) as endpoint:
        found = list_bucket(session(endpoint.url), REGION, "bench", "", tmp_path / "i", cut_from=None)
        assert listed_keys(found) == objects
        assert endpoint.failed[what] > 0 and found.facts["requests"]["again"] > 0


@pytest.mark.parametrize("what", ["slow down", "torn"])
def test_processes_ask_again_for_a_page_that_fails(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "FEW", 100)
    objects, started = many(5000), list[bool]()
    begin = workers._Worker.__init__

    def counted(self: workers._Worker, door: wire.Door, process: bool) -> None:
        started.append(process)
        begin(self, door, process)

    monkeypatch.setattr(workers._Worker, "__init__", counted)
    source = inventory(tmp_path / "source", [file(key) for key, _ in objects if not key.endswith("/")])
    with stub(objects, faults=[Fault(what, every=3)]) as endpoint:
        found = list_bucket(session(endpoint.url), REGION, "bench", "", tmp_path / "i", cut_from=source)
        assert listed_keys(found) == objects
        assert found.facts["requests"]["again"] == endpoint.failed[what] > 1
    assert started == [True, True]


def test_a_page_that_never_comes_whole_is_an_error_and_what_is_finished_is_kept(tmp_path: Path, quick: None) -> None:
    objects = many(3000)
    with stub(objects, faults=[Fault("lost key", every=1)]) as endpoint, pytest.raises(AwsError, match="10 attempts"):
        list_bucket(session(endpoint.url), REGION, "bench", "", tmp_path / "i", cut_from=None)
    with pytest.raises(InventoryError, match="no finished inventory"):
        Inventory.open(tmp_path / "i")
    with stub(objects) as endpoint:
        found = list_bucket(session(endpoint.url), REGION, "bench", "", tmp_path / "i", cut_from=None)
    assert listed_keys(found) == objects


def test_a_silent_endpoint_is_asked_again_after_the_timeout(tmp_path: Path, quick: None) -> None:
    objects = many(1500)
    with stub(objects, faults=[Fault("silent", every=2, times=1)]) as endpoint:
        options = ListOptions(timeout=0.3)
        found = list_bucket(session(endpoint.url), REGION, "bench", "", tmp_path / "i", cut_from=None, options=options)
    assert listed_keys(found) == objects


def test_an_expired_token_says_so(tmp_path: Path) -> None:
    with stub(many(1500), faults=[Fault("expired", every=2)]) as endpoint, pytest.raises(CredentialsExpired):
        list_bucket(session(endpoint.url), REGION, "bench", "", tmp_path / "i", cut_from=None)


def test_errors_say_what_to_do(lab: str, tmp_path: Path) -> None:
    with pytest.raises(AwsError, match="NoSuchBucket"):
        list_bucket(session(lab), REGION, "not-there", "", tmp_path / "i", cut_from=None)
    with pytest.raises(AwsError, match="does not end in '/'"):
        list_bucket(session(lab), REGION, BUCKET, "exp", tmp_path / "i", cut_from=None)
    at = wire.Door("http://x", "b", "eu-central-1")
    with pytest.raises(wire.Refused, match="needs s3:ListBucket") as denied:
        wire.refuse("LIST", at, 403, "AccessDenied", "no")
    assert workers.ERRORS[denied.value.kind] is AccessDenied
    with pytest.raises(wire.Refused, match="is in us-west-2, it was asked in eu-central-1"):
        wire.refuse("LIST", at, 301, "PermanentRedirect", "", "us-west-2")


def test_a_listing_that_was_killed_goes_on_and_leaves_no_process(tmp_path: Path) -> None:
    objects = many(30_000)
    program = (
        "import sys; from pathlib import Path; from runbook_lib.aws import listing; from tests.listing import session\n"
        "listing.list_bucket(session(sys.argv[1]), 'eu-central-1', 'bench', '', Path(sys.argv[2]), cut_from=None,"
        "    options=listing.ListOptions(pages=1, requests_per_second=20))\n"
    )
    folder = tmp_path / "i"
    with stub(objects) as endpoint:
        with subprocess.Popen([sys.executable, "-c", program, endpoint.url, str(folder)]) as process:
            started = psutil.Process(process.pid)
            while len(list(folder.glob("*.parquet"))) < 3:
                assert process.poll() is None
                time.sleep(0.02)
            workers_then = started.children(recursive=True)
            os.kill(process.pid, signal.SIGKILL)
        psutil.wait_procs(workers_then, timeout=30)
        assert not [worker for worker in workers_then if worker.is_running()]
        before = endpoint.requests["LIST"]
        found = list_bucket(session(endpoint.url), REGION, "bench", "", folder, cut_from=None)
        assert endpoint.requests["LIST"] - before < 31 + 33  # pages of all keys, and looks at folders
    assert listed_keys(found) == objects


def test_gaps_are_what_finished_ranges_leave_over() -> None:
    assert gaps([]) == [("", None)]
    assert gaps([("", "b"), ("d", None)]) == [("b", "d")]
    assert gaps([("", "b"), ("b", "c")]) == [("c", None)]
    assert gaps([("", None)]) == []
    assert thinned(list("abcdefgh"), 4) == list("aceg")


def test_progress_is_said(tmp_path: Path) -> None:
    seen: list[Any] = []
    with stub(many(1500)) as endpoint:
        list_bucket(session(endpoint.url), REGION, "bench", "", tmp_path / "i", cut_from=None, progress=seen.append)
    assert seen[-1].entries == 1515 and seen[-1].requests == 2


def test_the_requests_that_are_said_are_those_that_were_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "LONGEST_PAUSE", 0.01)
    seen: list[Any] = []
    with stub(many(1500), faults=[Fault("slow down", every=2)]) as endpoint:
        one = session(endpoint.url)
        list_bucket(one, REGION, "bench", "", tmp_path / "i", cut_from=None, progress=seen.append)
        assert seen[-1].requests == one.asked["LIST"] - 1 == endpoint.requests["LIST"] - 1  # the first finds the bucket


def test_a_page_that_is_not_after_the_one_before_names_both_causes(tmp_path: Path) -> None:
    # each page is in order: an endpoint that takes no token, or a directory bucket's small folders; who knows which?
    both = "begins with .* directory bucket .* continuation token"
    with stub(many(2500), faults=[Fault("same page", every=3)]) as endpoint, pytest.raises(AwsError, match=both):
        list_bucket(session(endpoint.url), REGION, "bench", "", tmp_path / "i", cut_from=None)


def test_a_key_that_is_too_long_for_s3_cuts_no_range(tmp_path: Path) -> None:
    long = "é" * 509  # 1,018 bytes
    source = inventory(tmp_path / "source", [file(f"{long}{number}") for number in range(9)])
    for prefix, cuts in (("", 7), ("export/", 0)):
        with Writer(tmp_path / f"i{cuts}", side="bucket", root="s3://b/", parameters={}) as writer:
            found = listing._Listing(writer, prefix, source, ListOptions(), None)._cuts(8)
        assert len(found) == cuts


def test_the_address_of_a_bucket_is_not_taken_from_what_another_thread_asks() -> None:
    with stub(many(10), latency=0.3) as endpoint, ThreadPoolExecutor(1) as aside:
        one = session(endpoint.url)
        client = one.client("s3", REGION)
        door = aside.submit(workers.door, one, REGION, "bench", "", ListOptions())
        while not endpoint.requests["LIST"]:
            time.sleep(0.001)
        client.look("head_object", Bucket="another", Key="tree/0000/f000000")
        assert door.result().url == f"{endpoint.url}/bench"


def test_a_worker_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'no such library' >&2\nexit 1\n")
    broken.chmod(0o755)
    source = inventory(tmp_path / "source", [file(f"{number:05}") for number in range(20_000)])
    monkeypatch.setattr(sys, "executable", str(broken))
    with stub(many(300)) as endpoint, pytest.raises(TornStream) as error:
        list_bucket(session(endpoint.url), REGION, "bench", "", tmp_path / "i", cut_from=source)
    assert "no such library" in " ".join(error.value.__notes__)


def listed_as(keys: list[str], token: str = "") -> bytes:
    """A page of LIST with these keys, in this order."""
    entries = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2026-11-21T10:00:00.000Z</LastModified><ETag>&quot;0a&quot;</ETag>"
        "<Size>7</Size><StorageClass>STANDARD</StorageClass></Contents>" for key in keys
    )  # fmt: skip
    more = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    return (
        f'<ListBucketResult xmlns="{NAMESPACE}"><Name>bench</Name><Prefix></Prefix><KeyCount>{len(keys)}</KeyCount>'
        f"<MaxKeys>1000</MaxKeys><IsTruncated>{'true' if token else 'false'}</IsTruncated>{more}{entries}"
        "</ListBucketResult>"
    ).encode()


def test_pages_without_a_key_are_passed_over_however_many_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def page(self: wire.Wire, **query: str) -> bytes:
        seen = int(query.get("continuation-token", "0"))
        return listed_as([], str(seen + 1)) if seen < 45 else listed_as(["a", "b"])

    with stub([Object("a", 1)]) as endpoint:
        monkeypatch.setattr(wire.Wire, "page", page)
        found = list_bucket(
            session(endpoint.url), REGION, "bench", "", tmp_path / "b", cut_from=None, options=ListOptions(processes=0)
        )
        assert [row["key"] for row in rows(found)] == ["a", "b"]


@pytest.mark.parametrize("keys", [["a", "y", "z", "b", "zz"], ["a", "b", "b", "c"]], ids=["unordered", "twice"])
def test_a_page_out_of_order_is_refused_before_it_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: list[str]
) -> None:
    def page(self: wire.Wire, **query: str) -> bytes:
        return listed_as([key for key in keys if key > query.get("start-after", "")])

    with stub([Object("a", 1)]) as endpoint, pytest.raises(AwsError, match="not in UTF-8 order"):
        monkeypatch.setattr(wire.Wire, "page", page)
        list_bucket(
            session(endpoint.url), REGION, "bench", "", tmp_path / "b", cut_from=Underway(["m"]),
            options=ListOptions(processes=0),
        )  # fmt: skip


def test_threads_that_are_stopped_ask_nothing_more_and_nobody_waits_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "LINGER", 0.1)
    asked, silent = threading.Event(), threading.Event()

    def page(self: wire.Wire, **query: str) -> bytes:
        asked.set()
        silent.wait(60)
        raise wire.Torn("nothing came")

    def stop(said: Progress) -> None:
        if asked.is_set():
            raise KeyboardInterrupt

    with stub([Object("a", 1)]) as endpoint:
        monkeypatch.setattr(wire.Wire, "page", page)
        try:
            with pytest.raises(KeyboardInterrupt):
                list_bucket(
                    session(endpoint.url), REGION, "bench", "", tmp_path / "b", cut_from=None,
                    options=ListOptions(processes=0), progress=stop,
                )  # fmt: skip
            assert not silent.is_set()
        finally:
            silent.set()


def test_what_is_stopped_is_not_asked() -> None:
    stopped = threading.Event()
    one = wire.Wire(wire.Door("http://127.0.0.1:9/bench", "bench", REGION), stopped=stopped)
    stopped.set()
    with pytest.raises(wire.Refused, match="was not asked"):
        one.page()
