"""HEAD shows metadata, links and checksums as they are; what cannot be read says why."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest
from awscrt import checksums

from runbook_lib.aws import heads, listing_process, listing_worker, wire
from runbook_lib.aws.heads import content, describe, look_again, part_sizes
from runbook_lib.aws.listing import ListOptions, list_bucket
from runbook_lib.aws.object_headers import row_of
from runbook_lib.aws.parts import Parts
from runbook_lib.errors import AccessDenied, CredentialsExpired
from runbook_lib.inventory.progress import Progress
from runbook_lib.inventory.store import Inventory
from tests.lab import s3_server
from tests.lab.s3_server import BUCKET
from tests.listing import ODD_KEYS, REGION, rows, session
from tests.s3_stub import Endpoint, Fault, stub
from tests.s3_stub_pages import Object
from tests.s3_stub_wire import Asked

PART = 5 * 1024 * 1024
POSIX = {"file-owner": "1001", "file-group": "1002", "file-permissions": "0100640"}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The lab's S3 with objects of all sorts under `d/`."""
    with s3_server.serving(tmp_path_factory.mktemp("s3")) as server:
        s3 = s3_server.client(server.url)

        def put(key: str, body: bytes, metadata: dict[str, str], **more: Any) -> None:
            s3.put_object(Bucket=BUCKET, Key="d/" + key, Body=body, Metadata=metadata, **more)

        put("ns", b"abc", {**POSIX, "file-mtime": "1740819600123456789ns"})
        put("ms", b"abc", {**POSIX, "file-mtime": "1740819600123", "file-permissions": "0640"})
        put("pair", b"abc", {**POSIX, "file-mtime": "1740819600/123456789"})
        put("rclone", b"abc", {"mtime": "1740819600.123456"})
        put("wrong", b"abc", {**POSIX, "file-mtime": "yesterday"})
        put("sha", b"abc", {}, ChecksumAlgorithm="SHA256")
        put("folder/", b"", {**POSIX, "file-permissions": "040750", "file-mtime": "1740819600000"})
        put("link", b"../to/there", {**POSIX, "file-permissions": "0120777"})
        put("many parts", b"", {})
        for key in ODD_KEYS:
            put("odd/" + key, key.encode(), {"file-mtime": "1000"})
        upload = s3.create_multipart_upload(Bucket=BUCKET, Key="d/many parts", ChecksumAlgorithm="CRC32C")["UploadId"]
        parts = []
        for number, body in ((1, b"a" * PART), (2, b"b" * 10)):
            done = s3.upload_part(
                Bucket=BUCKET,
                Key="d/many parts",
                UploadId=upload,
                PartNumber=number,
                Body=body,
                ChecksumAlgorithm="CRC32C",
            )
            parts.append({"PartNumber": number, "ETag": done["ETag"], "ChecksumCRC32C": done["ChecksumCRC32C"]})
        s3.complete_multipart_upload(
            Bucket=BUCKET, Key="d/many parts", UploadId=upload, MultipartUpload={"Parts": parts}
        )
        yield server.url


@pytest.fixture
def described(lab: str, tmp_path: Path) -> dict[str, dict[str, Any]]:
    """Rows of everything below `d/`, by key."""
    listed = list_bucket(session(lab), REGION, BUCKET, "d/", tmp_path / "listed", cut_from=None)
    found = describe(session(lab), REGION, BUCKET, "d/", listed, tmp_path / "described", keys=None)
    assert found.rows == listed.rows and found.facts["gone"] == 0
    return {row["key"]: row for row in rows(found)}


def test_the_spellings_of_posix_metadata_are_read(described: dict[str, dict[str, Any]]) -> None:
    exact = 1740819600123456789
    times = {
        key: (described[key]["mtime_ns"], described[key]["mtime_step_ns"]) for key in ("ns", "ms", "pair", "rclone")
    }
    assert times == {
        "ns": (exact, None), "ms": (1740819600123000000, 1_000_000), "pair": (exact, None),
        "rclone": (1740819600123456000, 1000),
    }  # fmt: skip
    assert {(row["mode"], row["uid"], row["gid"]) for key, row in described.items() if key in ("ns", "ms")} == {
        (0o640, 1001, 1002)
    }
    assert described["wrong"]["problem"].startswith("unreadable: its POSIX metadata")


def test_folders_and_links_are_what_they_were(described: dict[str, dict[str, Any]]) -> None:
    folder, link = described["folder/"], described["link"]
    assert (folder["kind"], folder["size"], folder["mode"]) == ("folder", 0, 0o750)
    assert (link["kind"], link["size"], link["target"], link["mode"]) == ("link", 11, "../to/there", 0o777)


def test_checksums_are_those_that_s3_keeps(described: dict[str, dict[str, Any]], lab: str) -> None:
    names = ("checksum_algorithm", "checksum_type", "checksum")
    sha = base64.b64encode(hashlib.sha256(b"abc").digest()).decode()
    assert tuple(described["sha"][name] for name in names) == ("SHA256", "FULL_OBJECT", sha)
    composite = described["many parts"]
    assert composite["checksum_type"] == "COMPOSITE" and composite["checksum"].endswith("-2")
    assert part_sizes(session(lab), REGION, BUCKET, "d/", ["many parts", "sha"]) == {
        "many parts": (PART, 10),
        "sha": (),
    }


MANY = tuple(PART + number for number in range(10_000))
IN_PARTS = Object("many", sum(MANY), parts=MANY, checksums={"SHA256": "sum-10000"}, checksum_type="COMPOSITE")


def test_the_sizes_of_ten_thousand_parts_are_asked_for_in_ten_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "LONGEST_PAUSE", 0.01)
    with stub([IN_PARTS, Object("one", body=b"abc")]) as endpoint:
        found = part_sizes(session(endpoint.url), REGION, "bench", "", ["many", "one", "gone"])
        assert found == {"many": MANY, "one": (), "gone": ()}
        assert dict(endpoint.requests) == {"LIST": 1, "ATTRIBUTES": 12}
    torn = [Fault("torn", every=3, operation="ATTRIBUTES"), Fault("slow down", every=4, operation="ATTRIBUTES")]
    with stub([IN_PARTS], faults=torn) as endpoint:
        one = session(endpoint.url)
        assert part_sizes(one, REGION, "bench", "", ["many"]) == {"many": MANY}
        assert one.asked["ATTRIBUTES"] == endpoint.requests["ATTRIBUTES"] == 10 + endpoint.failed.total() > 15
        assert endpoint.requests["HEAD"] == 0


@pytest.mark.parametrize("what", ["denied", "not here", "object"])
def test_where_the_parts_cannot_be_listed_each_is_asked_for(what: str) -> None:
    few = Object("few", sum(MANY[:3]), parts=MANY[:3], checksums={"SHA256": "sum-3"}, checksum_type="COMPOSITE")
    also = few._replace(key="also")
    with stub([few, also], faults=[Fault(what, operation="ATTRIBUTES")]) as endpoint:
        one = session(endpoint.url)
        for key in ("few", "also"):
            assert part_sizes(one, REGION, "bench", "", [key]) == {key: MANY[:3]}
        assert endpoint.requests["HEAD"] == 6


def test_the_parts_of_an_object_without_their_checksums_are_asked_for_one_by_one() -> None:
    whole = Object("whole", sum(MANY[:3]), parts=MANY[:3], checksums={"CRC64NVME": "sum"})
    with stub([whole]) as endpoint:  # S3 says how many there are, and lists none
        assert part_sizes(session(endpoint.url), REGION, "bench", "", ["whole"]) == {"whole": MANY[:3]}


def test_expired_credentials_are_no_reason_to_ask_for_each_part() -> None:
    expired = [Fault("expired", operation="ATTRIBUTES")]
    with stub([IN_PARTS], faults=expired) as endpoint, pytest.raises(CredentialsExpired, match="Sign in"):
        part_sizes(session(endpoint.url), REGION, "bench", "", ["many"])


def test_an_object_that_is_replaced_while_its_parts_are_listed_has_none() -> None:
    class Changing:
        """Another ETag with each page."""

        door = wire.Door("http://127.0.0.1", "bench", REGION)

        def attributes(self, key: str, after: int) -> bytes:
            part = f"<ObjectParts><PartsCount>3</PartsCount><Part><Size>{after + 7}</Size></Part>"
            page = f"<NextPartNumberMarker>{after + 1}</NextPartNumberMarker><IsTruncated>true</IsTruncated>"
            etag = f"<ETag>{after}</ETag>"
            whole = f"<GetObjectAttributesResponse>{etag}{part}{page}</ObjectParts></GetObjectAttributesResponse>"
            return whole.encode()

        def again(self, attempt: int) -> None:
            raise AssertionError(attempt)

    assert Parts(Changing()).sizes("key") == []  # type: ignore[arg-type]


def test_every_awkward_key_is_asked_for_as_it_is(described: dict[str, dict[str, Any]], lab: str) -> None:
    for key in ODD_KEYS:
        assert described["odd/" + key]["mtime_ns"] == 1_000_000_000, key
    found = look_again(session(lab), REGION, BUCKET, "d/odd/", [*ODD_KEYS, "not there"])
    assert sorted(found.column("key").to_pylist()) == sorted(ODD_KEYS) == found.column("key").to_pylist()


def test_keys_that_are_not_wanted_stay_as_listed(lab: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "SHARD", 7)
    listed = list_bucket(session(lab), REGION, BUCKET, "d/", tmp_path / "listed", cut_from=None)
    found = describe(session(lab), REGION, BUCKET, "d/", listed, tmp_path / "i", keys=["pair", "ns"])
    assert [row["key"] for row in rows(found) if row["mtime_ns"]] == ["ns", "pair"]
    assert [row["key"] for row in rows(found)] == [row["key"] for row in rows(listed)]


def test_content_is_read_and_hashed_the_same_as_s3_did(lab: str, described: dict[str, dict[str, Any]]) -> None:
    wanted = [
        (key, row["checksum_algorithm"]) for key, row in described.items() if row["checksum_type"] == "FULL_OBJECT"
    ]
    wanted = [*wanted, ("ns", "MD5"), ("ns", "SHA1"), ("ns", "CRC32"), ("gone", "MD5")]
    found = [row for batch in content(session(lab), REGION, BUCKET, "d/", wanted) for row in batch.to_pylist()]
    assert len(found) == len(wanted) - 1
    same = [row for row in found if row["checksum_algorithm"] == described[row["key"]]["checksum_algorithm"]]
    assert len(same) >= len(described) - 2
    assert all(row["checksum"] == described[row["key"]]["checksum"] for row in same)
    md5 = next(row for row in found if row["checksum_algorithm"] == "MD5" and row["key"] == "ns")
    assert md5["checksum"] == base64.b64encode(hashlib.md5(b"abc").digest()).decode()


ABC = hashlib.md5(b"abc").hexdigest()


def seen(objects: list[Object], tmp_path: Path, faults: tuple[Fault, ...] = ()) -> dict[str, dict[str, Any]]:
    with stub(objects, faults=faults) as endpoint:
        found = look_again(session(endpoint.url), REGION, "bench", "", [one.key for one in objects])
    return {row["key"]: row for row in found.to_pylist()}


def test_an_etag_is_an_md5_only_where_it_truly_is_one(tmp_path: Path) -> None:
    found = seen(
        [
            Object("plain", body=b"abc"),
            Object("kms", body=b"abc", encryption="aws:kms"),
            Object("parts", body=b"abc", etag=f"{ABC}-2"),
        ],
        tmp_path,
    )
    assert {key: row["checksum_algorithm"] for key, row in found.items()} == {
        "plain": "MD5",
        "kms": None,
        "parts": None,
    }
    assert base64.b64decode(found["plain"]["checksum"]).hex() == ABC


def test_the_best_of_several_checksums_is_taken(tmp_path: Path) -> None:
    both = Object("two", body=b"abc", checksums={"SHA256": "x", "CRC64NVME": "y"})
    assert seen([both], tmp_path)["two"]["checksum_algorithm"] == "CRC64NVME"


def test_archived_objects_are_unreadable_for_a_reason(tmp_path: Path) -> None:
    with stub([Object("cold", body=b"abc", storage_class="GLACIER")]) as endpoint:
        (batch,) = content(session(endpoint.url), REGION, "bench", "", [("cold", "MD5")])
    row = batch.to_pylist()[0]
    assert row["checksum"] is None and row["problem"].startswith("unreadable: archived in GLACIER")


def test_a_torn_body_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "LONGEST_PAUSE", 0.01)
    body = bytes(range(256)) * 20_000
    with stub([Object("large", body=body)], faults=[Fault("torn", every=1, times=3, operation="GET")]) as endpoint:
        (batch,) = content(session(endpoint.url), REGION, "bench", "", [("large", "SHA256")], ListOptions(processes=0))
        assert endpoint.failed["torn"] == 3
    assert batch.to_pylist()[0]["checksum"] == base64.b64encode(hashlib.sha256(body).digest()).decode()


@pytest.mark.parametrize("processes", [0, 1])
def test_a_process_loads_the_crt_for_its_checksums(processes: int) -> None:
    with stub([Object("small", body=b"abc")]) as endpoint:
        wanted = [("small", "CRC64NVME")]
        options = ListOptions(processes=processes)
        (batch,) = content(session(endpoint.url), REGION, "bench", "", wanted, options)
    expected = base64.b64encode(checksums.crc64nvme(b"abc").to_bytes(8, "big")).decode()
    assert batch.to_pylist()[0]["checksum"] == expected


def test_reading_one_large_object_is_heard_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing_worker, "BEAT", 0)
    said: list[int] = []
    with stub([Object("large", 5 << 20)]) as endpoint:
        wanted, options = [("large", "MD5")], ListOptions(processes=0)
        assert len(list(content(session(endpoint.url), REGION, "bench", "", wanted, options, said.append))) == 1
    assert len(said) > 1 and sum(said) == 5 << 20


def test_throttled_heads_are_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "LONGEST_PAUSE", 0.01)
    objects = [Object(f"{number:04d}", body=b"abc") for number in range(200)]
    assert len(seen(objects, tmp_path, (Fault("slow down", every=3, operation="HEAD"),))) == 200


DATED = {"file-mtime": "1000"}


def numbered(count: int, folder: Path) -> tuple[list[Object], Inventory]:
    """So many objects, and their listing."""
    objects = [Object(f"{number:04d}", body=b"abc", metadata=DATED) for number in range(count)]
    with stub(objects) as endpoint:
        return objects, list_bucket(session(endpoint.url), REGION, "bench", "", folder, cut_from=None)


def test_processes_ask_as_many_heads_at_once_as_they_have_connections_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "FEW", 100)
    monkeypatch.setattr(heads, "SHARD", 100)
    objects, listed = numbered(1000, tmp_path / "listed")
    answer, counting, running = Endpoint._object, threading.Lock(), list[psutil.Process]()
    inside = most = 0

    def look() -> None:
        ours = psutil.Process().children()
        running.extend(one for one in ours if listing_process.__name__ in one.cmdline())

    together = threading.Barrier(2 * 4, look, timeout=30)  # nobody is answered before so many have asked
    met = threading.Event()

    def counted(self: Endpoint, connection: socket.socket, asked: Asked, fault: str) -> bool:
        nonlocal inside, most
        with counting:
            inside += 1
            most = max(most, inside)
        with suppress(threading.BrokenBarrierError):
            if not met.is_set():
                together.wait()
                met.set()
        with counting:
            inside -= 1
        return answer(self, connection, asked, fault)

    monkeypatch.setattr(Endpoint, "_object", counted)
    with stub(objects) as endpoint:
        options = ListOptions(processes=2, connections=4)
        found = describe(session(endpoint.url), REGION, "bench", "", listed, tmp_path / "i", keys=None, options=options)
        assert endpoint.requests["HEAD"] == 1000
    assert (most, len(running)) == (8, 2)
    assert {(row["mtime_ns"], row["problem"]) for row in rows(found)} == {(1_000_000_000, None)}
    assert [row["key"] for row in rows(found)] == [one.key for one in objects]


class Held:
    """From a HEAD on, none is answered until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        self.reached, self.let_go = threading.Event(), threading.Event()
        answer = Endpoint._object

        def hold(endpoint: Endpoint, connection: socket.socket, asked: Asked, fault: str) -> bool:
            if endpoint.requests["HEAD"] >= number:
                self.reached.set()
                self.let_go.wait(60)
            return answer(endpoint, connection, asked, fault)

        monkeypatch.setattr(Endpoint, "_object", hold)


def test_a_worker_whose_asker_is_gone_asks_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    held, stopped = Held(monkeypatch, 10), threading.Event()
    objects = [Object(f"{number:04d}", body=b"abc") for number in range(500)]
    with stub(objects) as endpoint, ThreadPoolExecutor(1) as aside, open(os.devnull, "wb") as nobody:
        jobs, ours = os.pipe()
        with os.fdopen(jobs, "rb") as lines, os.fdopen(ours, "wb") as asker:
            done = aside.submit(listing_worker.run, lines, nobody, stopped)
            keys = {
                "keys": [one.key for one in objects],
                "prefix": "",
                "computable": None,
                "credentials": ["a", "b", None],
            }
            door = wire.Door(f"{endpoint.url}/bench", "bench", REGION, connections=1)
            for line in (asdict(door), {"do": "head", "shard": "0", **keys}):
                asker.write(json.dumps(line).encode() + b"\n")
            asker.flush()
            held.reached.wait(30)
            asker.close()  # as when its process is killed
            assert stopped.wait(30)
            held.let_go.set()
            done.result(30)
        assert endpoint.requests["HEAD"] == 10


def test_of_a_description_that_was_killed_the_finished_shards_are_not_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "FEW", 100)
    monkeypatch.setattr(heads, "SHARD", 100)
    objects, listed = numbered(500, tmp_path / "listed")
    program = (
        "import sys; from pathlib import Path; from runbook_lib.aws import heads; from tests.listing import session\n"
        "from runbook_lib.inventory.store import Inventory\n"
        "heads.FEW = heads.SHARD = 100\n"
        "listed, folder = Inventory.open(Path(sys.argv[2])), Path(sys.argv[3])\n"
        "heads.describe(session(sys.argv[1]), 'eu-central-1', 'bench', '', listed, folder, keys=None,"
        "    options=heads.ListOptions(processes=1, connections=1))\n"
    )
    folder = tmp_path / "i"
    held = Held(monkeypatch, 250)  # in the middle of the third shard
    with stub(objects) as endpoint:
        places = [endpoint.url, str(tmp_path / "listed"), str(folder)]
        with subprocess.Popen([sys.executable, "-c", program, *places]) as process:
            journal = folder / "journal.jsonl"
            held.reached.wait(30)
            while journal.read_bytes().count(b"\n") < 1 + 2:  # its head, and two shards
                assert process.poll() is None
                time.sleep(0.02)
            then = psutil.Process(process.pid).children(recursive=True)
            os.kill(process.pid, signal.SIGKILL)
        held.let_go.set()
        psutil.wait_procs(then, timeout=30)
        assert then and not [one for one in then if one.is_running()]
        before = endpoint.requests["HEAD"]
        found = describe(session(endpoint.url), REGION, "bench", "", listed, folder, keys=None)
        assert endpoint.requests["HEAD"] - before == 300
    assert [(row["key"], row["mtime_ns"]) for row in rows(found)] == [(one.key, 1_000_000_000) for one in objects]


def test_one_denied_object_is_a_problem_and_all_denied_is_an_error(tmp_path: Path) -> None:
    objects = [Object(f"{number:04d}", body=b"abc") for number in range(30)]
    found = seen(objects, tmp_path, (Fault("denied", times=1, operation="HEAD"),))
    assert [row["problem"] for row in found.values() if row["problem"]] == ["unreadable: HTTP 403 to HEAD"]
    with pytest.raises(AccessDenied, match="s3:GetObject"):
        seen(objects, tmp_path, (Fault("denied", operation="HEAD"),))


def test_credentials_that_expire_while_heads_are_sent_are_no_problem_of_the_objects(tmp_path: Path) -> None:
    objects = [Object(f"{number:04d}", body=b"abc") for number in range(50)]
    with stub(objects) as endpoint:
        listed = list_bucket(session(endpoint.url), REGION, "bench", "", tmp_path / "listed", cut_from=None)
    expired = (Fault("expired", every=2, operation="HEAD"), Fault("expired", every=2))  # a HEAD's answer has no body
    with stub(objects, faults=expired) as endpoint, pytest.raises(CredentialsExpired, match="Sign in"):
        describe(session(endpoint.url), REGION, "bench", "", listed, tmp_path / "described", keys=None)
    with stub(objects) as endpoint:  # signed in again: nothing of it was kept
        found = describe(session(endpoint.url), REGION, "bench", "", listed, tmp_path / "described", keys=None)
    assert [row["problem"] for row in rows(found) if row["problem"]] == []


def test_of_what_s3_keeps_the_checksum_is_taken_that_can_be_computed_beside_the_file() -> None:
    headers = {
        "content-length": "3", "etag": f'"{ABC}"', "last-modified": "Thu, 26 Nov 2026 21:00:00 GMT",
        "x-amz-checksum-crc64nvme": "AAAAAAAAAAA=", "x-amz-checksum-type": "FULL_OBJECT",
    }  # fmt: skip

    def taken(computable: set[str] | None, **more: str) -> str:
        return str(row_of("key", {**headers, **more}, computable)["checksum_algorithm"])

    assert taken(None) == taken({"CRC64NVME", "MD5"}) == "CRC64NVME"
    assert taken({"MD5", "SHA256"}) == "MD5"  # else what leaves the bucket would be all its bytes
    assert taken({"MD5", "SHA256"}, etag=f'"{ABC}-2"') == "CRC64NVME"  # in parts: no MD5 of the content
    encryption = "x-amz-server-side-encryption"
    for kms in ("aws:kms", "aws:kms:dsse"):
        assert taken({"MD5", "SHA256"}, **{encryption: kms}) == "CRC64NVME"
    assert taken({"MD5", "SHA256"}, **{f"{encryption}-customer-algorithm": "AES256"}) == "CRC64NVME"  # SSE-C
    assert taken({"MD5", "SHA256"}, **{encryption: "AES256"}) == "MD5"  # by S3's own key: of the content


def test_what_is_asked_is_counted_by_the_session_with_what_kms_charges(tmp_path: Path) -> None:
    keyed = {"encryption": "aws:kms"}
    objects = [Object(str(number), body=b"abc", **(keyed if number < 3 else {})) for number in range(5)]
    with stub(objects) as endpoint:
        one, another = session(endpoint.url), session(endpoint.url)
        for _ in range(2):
            look_again(one, REGION, "bench", "", [str(number) for number in range(5)])
        assert list(content(one, REGION, "bench", "", [("4", "SHA256")]))
        assert {name: one.asked[name] for name in ("LIST", "HEAD", "GET")} == dict(endpoint.requests)
    assert one.asked["KMS"] == 6 and one.asked["LIST"] == 1
    assert not another.asked and not another.places


def test_the_requests_that_are_said_are_those_that_were_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "LONGEST_PAUSE", 0.01)
    objects = [Object(f"{number:02}", body=b"abc", encryption="aws:kms") for number in range(20)]
    said: list[Progress] = []
    with stub(objects, faults=[Fault("slow down", every=4, operation="HEAD")]) as endpoint:
        one = session(endpoint.url)
        listed = list_bucket(one, REGION, "bench", "", tmp_path / "listed", cut_from=None)
        describe(one, REGION, "bench", "", listed, tmp_path / "i", keys=None, progress=said.append)
        assert one.asked["again"] and one.asked["KMS"]
        assert said[-1].requests == endpoint.requests["HEAD"]  # neither the pauses nor what S3 asked of KMS
