"""The object store: what is visible, in which order, and what is left after a kill."""

from __future__ import annotations

import base64
import hashlib
import io
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from runbook_lib.lab import checksums
from runbook_lib.lab.database import Database
from runbook_lib.lab.objects import Blob, NewObject, ObjectStore, StoreRefusal
from runbook_lib.lab.segments import Segment, open_segments
from runbook_lib.lab.uploads import Part, Uploads

BUCKET = "migration-lab"


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    made = ObjectStore(Database(tmp_path / "lab.sqlite"), tmp_path / "blobs")
    made.create_bucket(BUCKET, "eu-central-1")
    return made


def files(store: ObjectStore) -> int:
    return sum(1 for _ in store.blobs.glob("*/*"))


def test_an_object_comes_back_with_its_bytes_and_everything_said_about_it(store: ObjectStore) -> None:
    put = store.put(BUCKET, "a/b.txt", b"hello", {"file-mtime": "1ns"}, content_type="text/plain", tags={"by": "me"})
    found = store.head(BUCKET, "a/b.txt")
    assert found == put
    assert (found.size, found.etag, found.version_id) == (5, hashlib.md5(b"hello").hexdigest(), "null")
    assert (found.metadata, found.content_type, found.tags) == ({"file-mtime": "1ns"}, "text/plain", {"by": "me"})
    assert found.checksums == {"CRC64NVME": checksums.of("CRC64NVME", b"hello")}
    assert store.open(found).read() == b"hello"


def test_the_default_checksum_is_the_published_crc64nvme_of_the_check_string(store: ObjectStore) -> None:
    # CRC-64/NVME in the catalogue of parametrised CRC algorithms: check = 0xae8b14860a799888
    stored = store.put(BUCKET, "check", b"123456789")
    assert base64.b64decode(stored.checksums["CRC64NVME"]).hex() == "ae8b14860a799888"


def test_staged_bytes_are_invisible_until_they_are_committed(store: ObjectStore) -> None:
    blob = store.stage(io.BytesIO(b"x" * 3_000_000))
    assert list(store.list(BUCKET)) == [] and files(store) == 1
    store.commit([NewObject(BUCKET, "k", blob)])
    assert [found.key for found in store.list(BUCKET)] == ["k"]


def test_a_commit_is_all_or_nothing(store: ObjectStore) -> None:
    blobs = [store.stage(b"1"), store.stage(b"2")]
    with pytest.raises(StoreRefusal) as refused:
        store.commit([NewObject(BUCKET, "one", blobs[0]), NewObject("no-such-bucket", "two", blobs[1])])
    assert refused.value.code == "NoSuchBucket"
    assert store.head(BUCKET, "one") is None


def test_a_replaced_object_leaves_no_file_and_does_not_disturb_its_reader(store: ObjectStore) -> None:
    store.put(BUCKET, "k", b"old")
    found = store.read(BUCKET, "k")
    assert found is not None
    store.put(BUCKET, "k", b"newer")
    assert files(store) == 1
    assert found[1].read() == b"old"
    assert store.open(found[0]).read() == b"newer"
    with pytest.raises(FileNotFoundError):
        store.open_exactly(found[0])


def test_opening_a_deleted_object_says_that_it_was_deleted(store: ObjectStore) -> None:
    stored = store.put(BUCKET, "k", b"old")
    store.delete(BUCKET, "k")
    with pytest.raises(FileNotFoundError, match="was deleted"):
        store.open(stored)
    assert files(store) == 0


def test_files_stay_when_the_callers_own_transaction_is_rolled_back(store: ObjectStore) -> None:
    store.put(BUCKET, "k", b"old")
    with pytest.raises(ZeroDivisionError), store.database.writing():
        store.put(BUCKET, "k", b"new")
        raise ZeroDivisionError
    found = store.head(BUCKET, "k")
    assert found is not None and store.open(found).read() == b"old"


def test_listing_is_in_the_order_of_utf8_bytes(store: ObjectStore) -> None:
    keys = ["a", "a!", "a/", "a/b", "aB", "Z", "é", "e\u0301", "\uffff", "\U0001f600", "\ue000", " ", "a b"]
    store.commit([NewObject(BUCKET, key, store.stage(b"")) for key in keys])
    assert [found.key for found in store.list(BUCKET)] == sorted(keys, key=str.encode)
    assert [found.key for found in store.list(BUCKET, "a/")] == ["a/", "a/b"]
    assert [found.key for found in store.list(BUCKET, after="a/", limit=2)] == ["a/b", "aB"]
    assert [found.key for found in store.list(BUCKET, "\U0001f600")] == ["\U0001f600"]


def test_a_listing_of_many_pages_sees_every_key_once(store: ObjectStore) -> None:
    keys = [f"k{number:05}" for number in range(2500)]
    blobs = [store.stage(b"") for _ in keys]
    store.commit([NewObject(BUCKET, key, blob) for key, blob in zip(keys, blobs, strict=True)])
    assert [found.key for found in store.list(BUCKET)] == keys
    assert len(list(store.list(BUCKET, limit=1500))) == 1500


def test_versions_and_delete_markers_come_and_go_as_on_s3(store: ObjectStore) -> None:
    store.put(BUCKET, "k", b"before versioning")
    store.set_versioning(BUCKET, "Enabled")
    first, second = store.put(BUCKET, "k", b"1"), store.put(BUCKET, "k", b"2")
    marker = store.delete(BUCKET, "k")
    assert marker is not None and marker.delete_marker
    assert store.head(BUCKET, "k") is None and list(store.list(BUCKET)) == []
    assert store.head(BUCKET, "k", first.version_id) == first
    shown = [(found.version_id, found.delete_marker) for found in store.versions(BUCKET, "", "", "", 10)]
    assert [version for version, _ in shown] == [marker.version_id, second.version_id, first.version_id, "null"]
    store.delete(BUCKET, "k", marker.version_id)
    assert store.head(BUCKET, "k") == second
    store.delete(BUCKET, "k", second.version_id)
    assert store.head(BUCKET, "k") == first
    assert files(store) == 2


def test_a_suspended_bucket_overwrites_only_its_null_version(store: ObjectStore) -> None:
    store.set_versioning(BUCKET, "Enabled")
    kept = store.put(BUCKET, "k", b"kept")
    store.set_versioning(BUCKET, "Suspended")
    store.put(BUCKET, "k", b"a")
    store.put(BUCKET, "k", b"b")
    assert [found.version_id for found in store.versions(BUCKET, "", "", "", 10)] == ["null", kept.version_id]
    marker = store.delete(BUCKET, "k")
    assert marker is not None and marker.version_id == "null"
    assert store.head(BUCKET, "k") is None and store.head(BUCKET, "k", kept.version_id) == kept


def test_a_bucket_with_objects_cannot_be_deleted(store: ObjectStore) -> None:
    store.put(BUCKET, "k", b"1")
    with pytest.raises(StoreRefusal) as refused:
        store.delete_bucket(BUCKET)
    assert refused.value.code == "BucketNotEmpty"
    store.delete(BUCKET, "k")
    store.delete_bucket(BUCKET)
    assert store.bucket(BUCKET) is None


def test_recovery_removes_what_no_row_names_and_nothing_else(store: ObjectStore) -> None:
    stored = store.put(BUCKET, "k", b"kept")
    uploads = Uploads(store)
    upload = uploads.create(BUCKET, "m", {"object": {}, "algorithm": "CRC64NVME", "checksum_type": "FULL_OBJECT"})
    part = uploads.add(upload, 1, store.stage(b"a part"))
    left = store.stage(b"left over")
    store.recover()
    assert not left.path.exists() and files(store) == 2
    assert part is not None and uploads.complete(upload, [part]) is not None
    store.recover()
    found = store.read(BUCKET, "m")
    assert found is not None and found[1].read() == b"a part"
    assert store.open(stored).read() == b"kept"


def test_a_blob_that_recovery_removed_cannot_be_committed(store: ObjectStore) -> None:
    blob = store.stage(b"staged by a worker whose daemon died")
    store.recover()
    with pytest.raises(FileNotFoundError):
        store.commit([NewObject(BUCKET, "k", blob)])
    assert store.head(BUCKET, "k") is None


WRITER = """
import sys
from pathlib import Path
from runbook_lib.lab.database import Database
from runbook_lib.lab.objects import ObjectStore
store = ObjectStore(Database(Path(sys.argv[1]) / "lab.sqlite"), Path(sys.argv[1]) / "blobs")
number = 0
while True:
    number += 1
    store.put("migration-lab", f"k{number % 7}", str(number).encode() * 100_000)
    print(number, flush=True)
"""


def test_a_writer_killed_in_mid_put_leaves_nothing_half_written(store: ObjectStore, tmp_path: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    for _ in range(25):
        acknowledged = int(writer.stdout.readline())
    writer.send_signal(signal.SIGKILL)
    acknowledged = int((writer.stdout.read().split("\n")[-2:-1] or [acknowledged])[0])
    writer.wait()
    store.recover()
    seen = []
    for found in store.list(BUCKET):
        data = store.open(found).read()
        assert hashlib.md5(data).hexdigest() == found.etag
        seen.append(int(data[: len(data) // 100_000]))
    assert len(seen) == 7 and max(seen) >= acknowledged
    assert set(range(acknowledged - 5, acknowledged + 1)) <= set(seen)
    assert files(store) == 7


def test_two_processes_write_one_key_and_readers_see_whole_objects(store: ObjectStore, tmp_path: Path) -> None:
    other = ObjectStore(Database(tmp_path / "lab.sqlite"), tmp_path / "blobs")

    def write(which: ObjectStore, letter: bytes) -> None:
        for _ in range(60):
            which.put(BUCKET, "k", letter * 50_000)

    store.put(BUCKET, "k", b"a" * 50_000)
    writers = [threading.Thread(target=write, args=pair) for pair in ((store, b"a"), (other, b"b"))]
    for writer in writers:
        writer.start()
    reads = 0
    while any(writer.is_alive() for writer in writers) or reads == 0:
        found = store.read(BUCKET, "k")
        assert found is not None
        with found[1] as reader:
            assert hashlib.md5(reader.read()).hexdigest() == found[0].etag
        reads += 1
    assert files(store) == 1


def test_segments_read_as_one_object_from_any_place(tmp_path: Path) -> None:
    whole, segments = bytes(range(256)) * 5, []
    for number, (start, end) in enumerate([(0, 500), (500, 500), (500, 501), (501, 1280)]):
        path = tmp_path / str(number)
        path.write_bytes(whole[start:end])
        segments.append(Segment(path, end - start))
    for start, end in [(0, 1280), (0, 1), (499, 502), (500, 500), (501, 1280), (1279, 1280), (7, 900)]:
        with open_segments(segments, start, end) as reader:
            assert reader.read() == whole[start:end]


def test_the_checksum_of_parts_is_the_checksum_of_the_whole() -> None:
    pieces = [b"a" * 1000, b"", b"b" * 37]
    for algorithm in checksums.COMBINERS:
        parts = [(checksums.of(algorithm, piece), len(piece)) for piece in pieces]
        assert checksums.combine(algorithm, parts) == checksums.of(algorithm, b"".join(pieces))


def test_a_part_that_was_replaced_meanwhile_is_not_completed(store: ObjectStore) -> None:
    uploads = Uploads(store)
    upload = uploads.create(BUCKET, "m", {"object": {}, "algorithm": "CRC64NVME", "checksum_type": "FULL_OBJECT"})
    part: Part | None = uploads.add(upload, 1, store.stage(b"first"))
    uploads.add(upload, 1, store.stage(b"second"))
    assert part is not None and uploads.complete(upload, [part]) is None
    assert store.head(BUCKET, "m") is None


def test_staging_a_broken_source_leaves_no_file(store: ObjectStore) -> None:
    class Broken(io.RawIOBase):
        def read(self, size: int = -1, /) -> bytes:
            raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        store.stage(Broken())  # type: ignore[arg-type]
    assert files(store) == 0


def test_a_blob_travels_between_processes(store: ObjectStore) -> None:
    import pickle

    blob: Blob = pickle.loads(pickle.dumps(store.stage(b"staged elsewhere")))
    assert store.commit([NewObject(BUCKET, "k", blob)])[0].size == 16
