"""Checksums of the same algorithm are had of both sides, or none are, however the sides change meanwhile."""

from __future__ import annotations

import base64
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from awscrt import checksums

from runbook_lib import digesting
from runbook_lib.aws import heads
from runbook_lib.aws.listing import list_bucket
from runbook_lib.digesting import Beat, Digests, Reading, Wanted, digested, read_again, to_read
from runbook_lib.hosts import ProcessHost
from runbook_lib.inventory.merge import compare
from runbook_lib.inventory.rules import Rules
from runbook_lib.inventory.store import Inventory
from runbook_lib.scanning import capabilities, digests, scan
from tests.inventories import Row, batch, file, inventory
from tests.lab import s3_server
from tests.lab.s3_server import BUCKET
from tests.listing import REGION, rows, session

HERE = ProcessHost("here", lambda: None)
META: Row = {"mtime_ns": 1_700_000_000_123_456_789, "mode": 0o644, "uid": 1000, "gid": 100}


def summed(algorithm: str, checksum: str, kind: str = "FULL_OBJECT") -> Row:
    return {**META, "checksum_algorithm": algorithm, "checksum_type": kind, "checksum": checksum}


def contents(of: dict[str, str], gone: Collection[str] = (), size: int = 5) -> Digests:
    """Reads files whose checksum is their content."""

    def digests(wanted: Sequence[Wanted], beat: Beat) -> list[pa.RecordBatch]:
        rows = [
            file(key, size, **summed(name, of.get(key, "same"), "COMPOSITE" if parts else "FULL_OBJECT"))
            for key, name, parts in wanted
            if key not in gone
        ]
        return [batch(rows)] if rows else []

    return digests


def reading(
    source: Digests, other: Digests, parts: Callable[[Sequence[str]], dict[str, tuple[int, ...]]] = lambda keys: {}
) -> Reading:
    return Reading(source, other, parts, ("SHA256", "CRC32"), "SHA256")


def found(folder: Path, source: Inventory, other: Inventory, how: Reading) -> list[tuple[str, str]]:
    sides = digested(source, other, folder / "with-checksums", how)
    result = compare(*sides, level="content", rules=Rules(), out=folder / "out")
    return [(line["key"], line["difference"]) for line in pq.read_table(result.parquet).to_pylist()]


@pytest.fixture
def two(tmp_path: Path) -> Callable[[Row], tuple[Inventory, Inventory]]:
    """A file on both sides, whose object has a checksum, beside one that has none."""

    def sides(stored: Row) -> tuple[Inventory, Inventory]:
        here = inventory(tmp_path / "source", [file("a", **META), file("k", **META)])
        return here, inventory(tmp_path / "bucket", [file("a", **stored), file("k", **META)], side="bucket")

    return sides


def test_progress_counts_the_files_that_were_read_and_goes_on_from_an_earlier_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digesting, "ROWS", 4)
    rows = [file(f"{number:02}", **META) for number in range(10)]
    sides = inventory(tmp_path / "source", rows), inventory(tmp_path / "bucket", rows, side="bucket")

    def one_by_one(wanted: Sequence[Wanted], beat: Beat) -> Iterator[pa.RecordBatch]:
        for one in wanted:
            if stopped and one[0] == stopped:
                raise KeyboardInterrupt
            yield from contents({})([one], beat)

    how, told, stopped = reading(one_by_one, contents({})), list[int](), "05"
    with pytest.raises(KeyboardInterrupt):
        digested(*sides, tmp_path / "sums", how, progress=lambda files, _: told.append(files))
    assert told == sorted(told) and told[-1] == 5
    again, stopped = list[int](), ""
    digested(*sides, tmp_path / "sums", how, progress=lambda files, _: again.append(files))
    assert again[0] in (0, 3) and again[-1] == 10 and again == sorted(again), again


def test_progress_counts_the_bytes_of_both_sides_and_moves_within_a_file(tmp_path: Path) -> None:
    rows = [file("huge", size=1000, **META), file("small", size=1, **META)]
    stored = [rows[0], file("small", size=1, **summed("SHA256", "same")), file("extra", size=70, **META)]
    sides = inventory(tmp_path / "source", rows), inventory(tmp_path / "bucket", stored[::-1], side="bucket")

    def in_pieces(wanted: Sequence[Wanted], beat: Beat) -> Iterator[pa.RecordBatch]:
        for one in wanted:
            for _ in range(4 if one[0] == "huge" else 0):
                beat(250)
            yield from contents({}, size=1000 if one[0] == "huge" else 1)([one], beat)

    how, told = reading(in_pieces, in_pieces), list[tuple[int, int]]()
    digested(*sides, tmp_path / "sums", how, progress=lambda *said: told.append(said))
    ours = [(0, 0), (0, 250), (0, 500), (0, 750), (0, 1000), (1, 1000), (2, 1001)]
    assert told == [*ours, (2, 1251), (2, 1501), (2, 1751), (2, 2001), (2, 2001)]
    assert to_read(*sides, how) == 2001 + 70 and to_read(*sides, how, ["small"]) == 1


def test_what_was_asked_of_aws_is_kept_with_each_part_whoever_asked_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digesting, "ROWS", 4)
    rows = [file(f"{number:02}", **META) for number in range(10)]
    sides = inventory(tmp_path / "source", rows), inventory(tmp_path / "bucket", rows, side="bucket")
    sent, stopped = Counter[str](), "05"

    def of_bucket(wanted: Sequence[Wanted], beat: Beat) -> Iterator[pa.RecordBatch]:
        if any(key == stopped for key, _, _ in wanted):
            raise KeyboardInterrupt
        sent.update(GET=len(wanted))
        yield from contents({})(wanted, beat)

    how = replace(reading(contents({}), of_bucket), sent=sent.copy)
    with pytest.raises(KeyboardInterrupt):
        digested(*sides, tmp_path / "sums", how)
    assert 0 < sent["GET"] < 10
    stopped = ""
    here, there = digested(*sides, tmp_path / "sums", how)
    assert (there.facts["requests"], there.facts["read"]) == ({"GET": 10}, 10) and here.facts["requests"] == {}


def test_what_content_was_read_for_is_as_old_as_its_names_and_sizes(tmp_path: Path) -> None:
    rows = [file("a", **META)]
    sides = inventory(tmp_path / "source", rows), inventory(tmp_path / "bucket", rows, side="bucket")
    filled = digested(*sides, tmp_path / "sums", reading(contents({}), contents({})))
    for before, after in zip(sides, filled, strict=True):
        assert after.began == before.began and after.ended > before.ended


Two = Callable[[Row], tuple[Inventory, Inventory]]


def test_an_object_whose_parts_nobody_knows_is_read(tmp_path: Path, two: Two) -> None:
    how = reading(contents({}), contents({"a": "other"}))
    assert found(tmp_path, *two(summed("SHA256", "v-2", "COMPOSITE")), how) == [("a", "content")]


def test_an_object_in_parts_that_vanishes_is_without_evidence(tmp_path: Path, two: Two) -> None:
    how = reading(contents({}), contents({}, gone={"a"}))
    assert found(tmp_path, *two(summed("SHA256", "v-2", "COMPOSITE")), how) == [("a", "no evidence")]


def test_an_object_that_vanishes_before_it_is_read_keeps_no_checksum_of_another_algorithm(
    tmp_path: Path, two: Two
) -> None:
    how = reading(contents({}), contents({}, gone={"a"}))
    assert found(tmp_path, *two(summed("CRC64NVME", "v")), how) == [("a", "no evidence")]


def test_a_file_that_vanishes_before_it_is_read_is_without_evidence(tmp_path: Path, two: Two) -> None:
    how = reading(contents({}, gone={"a"}), contents({}))
    assert found(tmp_path, *two(summed("SHA256", "same")), how) == [("a", "no evidence")]


def test_no_side_has_more_rows_in_memory_than_are_held_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digesting, "ROWS", 10)
    held: list[int] = []

    def watched(ours: pa.RecordBatch, theirs: pa.RecordBatch, *more: object) -> object:
        held.extend((ours.num_rows, theirs.num_rows))
        return read_again(ours, theirs, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(digesting, "read_again", watched)
    source = inventory(tmp_path / "s", [file("a"), *(file(f"b{n:03}") for n in range(50))])
    other = inventory(tmp_path / "o", [file("a"), *(file(f"c{n:03}") for n in range(95))], side="bucket")
    sides = digested(source, other, tmp_path / "w", reading(contents({}), contents({})))
    assert max(held) <= 10
    assert [side.rows for side in sides] == [51, 96]


PART = 5 * 1024 * 1024  # bytes: the least that S3 takes of a part that is not the last
BODY = bytes(range(251)) * (2 * PART // 251) + b"the end"
PIECES = [BODY[:PART], BODY[PART:]]
SUMS: dict[str, Callable[[bytes], bytes]] = {
    "CRC32C": lambda data: checksums.crc32c(data).to_bytes(4, "big"),
    "CRC64NVME": lambda data: checksums.crc64nvme(data).to_bytes(8, "big"),
    "SHA256": lambda data: hashlib.sha256(data).digest(),
}


def spelt(algorithm: str, data: bytes) -> str:
    """As S3 spells a checksum."""
    return base64.b64encode(SUMS[algorithm](data)).decode()


def in_pieces(algorithm: str) -> str:
    """The checksum of the pieces' checksums, as S3 spells it."""
    return spelt(algorithm, b"".join(map(SUMS[algorithm], PIECES))) + f"-{len(PIECES)}"


STORED = {  # key: algorithm, type, value
    "crc32c": ("CRC32C", "FULL_OBJECT", spelt("CRC32C", BODY)),
    "crc32c in parts": ("CRC32C", "COMPOSITE", in_pieces("CRC32C")),
    "crc64nvme in parts": ("CRC64NVME", "FULL_OBJECT", spelt("CRC64NVME", BODY)),
    "sha256": ("SHA256", "FULL_OBJECT", spelt("SHA256", BODY)),
    "sha256 in parts": ("SHA256", "COMPOSITE", in_pieces("SHA256")),
}


def upload(s3: Any, key: str) -> None:
    """Put the body there with the checksum that the client computed; S3 refuses one that is wrong."""
    (algorithm, kind, value), member = STORED[key], f"Checksum{STORED[key][0]}"
    place = {"Bucket": BUCKET, "Key": "d/" + key}
    if not key.endswith("in parts"):
        s3.put_object(**place, Body=BODY, **{member: value})
        return
    begun = s3.create_multipart_upload(**place, ChecksumAlgorithm=algorithm, ChecksumType=kind)["UploadId"]
    parts = []
    for number, piece in enumerate(PIECES, 1):
        summed = {member: spelt(algorithm, piece)}
        done = s3.upload_part(**place, UploadId=begun, PartNumber=number, Body=piece, **summed)
        parts.append({"PartNumber": number, "ETag": done["ETag"], **summed})
    s3.complete_multipart_upload(
        **place, UploadId=begun, MultipartUpload={"Parts": parts}, ChecksumType=kind, **{member: value}
    )


class Stored:
    """A tree and, on the lab's S3, objects of its files with checksums that their writers computed."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.tree, self.session = folder, folder / "tree", session(url)
        self.tree.mkdir()
        for key in STORED:
            upload(s3_server.client(url), key)
            self.write(key, BODY)

    def write(self, key: str, body: bytes) -> None:
        """Make a local file that is older than any object."""
        (self.tree / key).write_bytes(body)
        os.utime(self.tree / key, (1_000_000_000, 1_000_000_000))

    def compared(self, name: str) -> tuple[Inventory, Inventory, list[tuple[str, str]]]:
        """Both sides with their checksums, and what differs."""
        at, asked, root = self.folder / name, (self.session, REGION, BUCKET, "d/"), str(self.tree)
        source, able = scan(HERE, root, at / "source", side="source"), capabilities(HERE)
        listed = list_bucket(*asked, at / "listed", cut_from=source)
        bucket = heads.describe(*asked, listed, at / "bucket", keys=None, computable=able)

        def of_bucket(wanted: Sequence[Wanted], beat: Beat) -> Iterable[pa.RecordBatch]:
            return heads.content(*asked, [(key, algorithm) for key, algorithm, _ in wanted], beat=beat)

        how = Reading(
            lambda wanted, beat: digests(HERE, root, wanted, beat=beat), of_bucket,
            lambda keys: heads.part_sizes(*asked, keys), able, "SHA256",
        )  # fmt: skip
        here, there = digested(source, bucket, at / "with-checksums", how)
        result = compare(here, there, level="content", rules=Rules(fields=frozenset()), out=at / "out")
        lines = pq.read_table(result.parquet).to_pylist()
        assert (result.ok, result.compared["content"]) == (not lines, len(STORED))
        return here, there, [(line["key"], line["difference"]) for line in lines]


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[Stored]:
    with s3_server.serving(tmp_path / "s3") as server:
        yield Stored(tmp_path, server.url)


def test_the_checksums_that_s3_keeps_are_compared_and_no_object_is_read(stored: Stored) -> None:
    here, there, lines = stored.compared("same")
    assert (lines, there.facts["read"], there.facts["read_bytes"]) == ([], 0, 0)
    assert (here.facts["read"], here.facts["read_bytes"]) == (len(STORED), len(STORED) * len(BODY))
    names = ("checksum_algorithm", "checksum_type", "checksum")
    for side in (here, there):
        assert {row["key"]: tuple(row[name] for name in names) for row in rows(side)} == STORED
    assert stored.session.asked["GET"] == 0


def test_one_other_byte_is_found_by_each_checksum_that_s3_keeps(stored: Stored) -> None:
    for at, key in enumerate(STORED):
        where = at * (len(BODY) - 1) // (len(STORED) - 1)  # from the first byte to the last
        stored.write(key, BODY[:where] + bytes([BODY[where] ^ 1]) + BODY[where + 1 :])
    _, there, lines = stored.compared("other")
    assert (lines, there.facts["read"]) == ([(key, "content") for key in sorted(STORED)], 0)
