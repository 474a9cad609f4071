"""Does the stub answer as S3 does? boto3 is the judge, and a plain reading of S3's rules is the oracle for pages."""

from __future__ import annotations

import hashlib
import socket
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError
from hypothesis import given
from hypothesis import strategies as st

from tests import trees
from tests.lab.s3_server import client
from tests.s3_stub import Endpoint, Fault, spawned, stub
from tests.s3_stub_pages import Bucket, Object, Query

ODD = ["a b", "a//b", "../x", "a&b<c>", "new\nline", "per%cent", "plus+", "snow☃", "a/", "a/b", "a0", "ü", "é", "\x01"]
MANY = [(f"many/{n:05d}", n) for n in range(2500)]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    """One that nothing ails."""
    with stub([*((key, 3) for key in ODD), *MANY]) as serving:
        yield serving


def listed(url: str, version: int = 2, **parameters: Any) -> list[str]:
    """Every key and then every common prefix that boto3's paginator finds."""
    operation = {1: "list_objects", 2: "list_objects_v2"}[version]
    pages = list(client(url).get_paginator(operation).paginate(Bucket="any", **parameters))
    keys = [each["Key"] for page in pages for each in page.get("Contents", [])]
    return keys + [each["Prefix"] for page in pages for each in page.get("CommonPrefixes", [])]


@pytest.mark.parametrize("version", [1, 2])
def test_boto3_lists_every_key_in_byte_order(endpoint: Endpoint, version: int) -> None:
    assert listed(endpoint.url, version) == sorted([*ODD, *(key for key, _ in MANY)], key=str.encode)


def test_a_plain_listing_without_url_encoding_is_escaped_as_xml(endpoint: Endpoint) -> None:
    with urllib.request.urlopen(f"{endpoint.url}/any?list-type=2&prefix=a%26") as answer:
        assert b"<Key>a&amp;b&lt;c&gt;</Key>" in answer.read()


@pytest.mark.parametrize("version", [1, 2])
def test_a_delimiter_folds_keys_over_several_pages(endpoint: Endpoint, version: int) -> None:
    folded = {key.partition("/")[0] + "/" for key in [*ODD, "many/"] if "/" in key}
    plain = [key for key in ODD if "/" not in key]
    found = listed(endpoint.url, version, Delimiter="/", PaginationConfig={"PageSize": 2})
    assert found == sorted(plain, key=str.encode) + sorted(folded)


def test_start_after_and_prefix_are_kept_over_pages(endpoint: Endpoint) -> None:
    found = listed(endpoint.url, Prefix="many/0", StartAfter="many/00499", PaginationConfig={"PageSize": 7})
    assert found == [key for key, _ in MANY if key > "many/00499"]


@given(st.sets(st.text("ab/é", min_size=1, max_size=5)), st.text("ab/", max_size=2), st.integers(1, 4), st.booleans())
def test_pages_are_those_of_a_naive_listing(keys: set[str], prefix: str, limit: int, folds: bool) -> None:
    bucket = Bucket([(key, 0) for key in keys])
    expected: list[bytes] = []
    for key in sorted(key.encode() for key in keys if key.startswith(prefix)):
        head, slash, _ = key[len(prefix) :].partition(b"/")
        item = prefix.encode() + head + slash if folds and slash else key
        if item not in expected:
            expected.append(item)
    after, found = b"", []
    while True:
        page = bucket.page(Query(prefix.encode(), after, b"/" if folds else b"", limit))
        assert page.count <= limit
        found += sorted([*(bucket.keys[n] for run in page.runs for n in range(*run)), *page.prefixes])
        if page.following is None:
            break
        assert page.count == limit
        after = page.following
    assert found == expected


def test_an_object_has_its_metadata_checksums_parts_and_bytes() -> None:
    kept = Object(
        "key",
        body=b"0123456789",
        metadata={"file-mtime": "1700000000123ms"},
        checksums={"CRC64NVME": "YRTV7/g+ACQ="},
        parts=(6, 4),
        encryption="aws:kms",
        storage_class="GLACIER",
    )
    with stub([kept, ("zeros", 3 << 20)]) as endpoint:
        s3 = client(endpoint.url)
        head = s3.head_object(Bucket="any", Key="key", ChecksumMode="ENABLED")
        assert head["Metadata"] == {"file-mtime": "1700000000123ms"}
        assert (head["ChecksumCRC64NVME"], head["ChecksumType"]) == ("YRTV7/g+ACQ=", "FULL_OBJECT")
        assert (head["ContentLength"], head["StorageClass"], head["ServerSideEncryption"]) == (10, "GLACIER", "aws:kms")
        assert "ChecksumCRC64NVME" not in s3.head_object(Bucket="any", Key="key", ChecksumMode="")
        part = s3.head_object(Bucket="any", Key="key", PartNumber=2)
        assert (part["ContentLength"], part["PartsCount"]) == (4, 2)
        assert s3.get_object(Bucket="any", Key="key", Range="bytes=2-4")["Body"].read() == b"234"
        zeros = s3.get_object(Bucket="any", Key="zeros")["Body"].read()
        assert hashlib.md5(zeros).digest() == hashlib.md5(bytes(3 << 20)).digest()
        with pytest.raises(ClientError, match="404"):
            s3.head_object(Bucket="any", Key="none")
        s3.head_bucket(Bucket="any")
        assert s3.get_bucket_location(Bucket="any")["LocationConstraint"] == "eu-central-1"
        assert endpoint.requests == {"HEAD": 4, "GET": 2, "HEAD BUCKET": 1, "LOCATION": 1}


@pytest.mark.parametrize(
    ("what", "code"),
    [("slow down", "SlowDown"), ("too many", "TooManyRequests"), ("internal", "InternalError"),
     ("expired", "ExpiredToken"), ("denied", "AccessDenied"), ("error in 200", "InternalError")],
)  # fmt: skip
def test_every_nth_request_is_refused_with_s3s_code(what: str, code: str) -> None:
    with stub([("a", 1)], faults=[Fault(what, every=2)]) as endpoint:
        assert listed(endpoint.url) == ["a"]
        with pytest.raises(ClientError) as raised:
            listed(endpoint.url)
        assert raised.value.response["Error"]["Code"] == code
        assert listed(endpoint.url) == ["a"]
        assert endpoint.failed == {what: 1}


def test_a_fault_ends_after_its_times() -> None:
    with stub([("a", 1)], faults=[Fault("internal", times=1)]) as endpoint:
        with pytest.raises(ClientError):
            listed(endpoint.url)
        assert listed(endpoint.url) == ["a"]


def exchange(endpoint: Endpoint) -> tuple[bytes, bytes]:
    """Head and body of a LIST, as they come until the connection closes."""
    where = urllib.parse.urlsplit(endpoint.url)
    with socket.create_connection((str(where.hostname), where.port or 0)) as connection:
        connection.sendall(b"GET /any?list-type=2 HTTP/1.1\r\nHost: any\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        whole = b"".join(iter(lambda: connection.recv(1 << 20), b""))
    head, _, body = whole.partition(b"\r\n\r\n")
    return head, body


def test_bodies_are_torn_with_a_length_without_one_and_in_chunks() -> None:
    with stub(MANY) as endpoint:
        whole = exchange(endpoint)[1]
    for what, said in (("torn", b"Content-Length"), ("torn open", b"Connection: close"), ("torn chunked", b"chunked")):
        with stub(MANY, faults=[Fault(what)]) as endpoint:
            head, body = exchange(endpoint)
            assert said in head
            assert len(whole) // 2 <= len(body) <= len(whole) // 2 + 50
            assert not body.endswith(b"0\r\n\r\n")


def test_chunked_pages_are_whole() -> None:
    with stub(MANY, chunked=True) as endpoint:
        assert b"Transfer-Encoding: chunked" in exchange(endpoint)[0]
        assert listed(endpoint.url) == [key for key, _ in MANY]


def test_a_lost_key_is_one_less_than_the_count() -> None:
    with stub(MANY[:10], faults=[Fault("lost key")]) as endpoint:
        page = client(endpoint.url).list_objects_v2(Bucket="any")
        assert (page["KeyCount"], len(page["Contents"])) == (10, 9)


def test_silence_lasts_until_the_client_leaves() -> None:
    import botocore.config

    config = botocore.config.Config(read_timeout=0.2, retries={"max_attempts": 0}, proxies={})
    with stub([("a", 1)], faults=[Fault("silent", times=1)]) as endpoint:
        with pytest.raises(ReadTimeoutError):
            client(endpoint.url, config=config).list_objects_v2(Bucket="any")
        assert listed(endpoint.url) == ["a"]


def test_an_unknown_fault_is_refused() -> None:
    with pytest.raises(ValueError, match="no fault"):
        Fault("slow")


def test_the_tree_and_the_bucket_differ_as_planted(tmp_path: Path) -> None:
    root = trees.plant(tmp_path / "tree", 300)
    here = {}
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix() + ("/" if path.is_dir() else "")
        here[name] = 0 if path.is_dir() else path.stat().st_size
    with spawned(300) as endpoint:
        pages = client(endpoint.url).get_paginator("list_objects_v2").paginate(Bucket="any")
        there = {each["Key"]: each["Size"] for page in pages for each in page["Contents"]}
        assert endpoint.ask("requests")["requests"] == {"LIST": 1}
        assert endpoint.ask("latency/0.01")["latency"] == 0.01
    differing = trees.planted(300)
    assert here.keys() - there.keys() == differing.missing
    assert there.keys() - here.keys() == differing.extra
    assert {key for key in here.keys() & there.keys() if here[key] != there[key]} == differing.size
    assert (len(differing.missing), len(differing.size), len(differing.extra), differing.count) == (37, 11, 5, 53)
    with pytest.raises(urllib.error.URLError):
        endpoint.ask("requests")
