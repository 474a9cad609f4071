"""LIST against a naive oracle: any keys, prefix, delimiter and page size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from runbook_lib.lab.core import CLOUD_REGION
from runbook_lib.lab.objects import NewObject

from .s3_server import BUCKET, S3Server, client, serving

LETTERS = some.sampled_from(
    ["a", "b", "/", "//", "-", " ", "+", "%", "&", "é", "\ud7ff", "\ue000", "\uffff", "\U0010ffff"]
)
KEY = some.lists(LETTERS, min_size=1, max_size=6).map("".join)
TEXT = some.lists(LETTERS, max_size=3).map("".join)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with serving(tmp_path_factory.mktemp("state")) as found:
        yield found


@pytest.fixture(scope="module")
def s3(server: S3Server) -> Any:
    return client(server.url)


def fill(server: S3Server, keys: set[str]) -> None:
    store = server.lab.objects
    store.clear()
    store.create_bucket(BUCKET, CLOUD_REGION)
    store.commit([NewObject(BUCKET, key, store.stage(b"")) for key in sorted(keys)])


def oracle(keys: set[str], prefix: str, delimiter: str, after: str) -> list[str]:
    """Keys and common prefixes in the order of UTF-8; a common prefix that was the marker is not shown again."""
    shown = set()
    for key in keys:
        if not key.startswith(prefix) or key.encode() <= after.encode():
            continue
        at = key.find(delimiter, len(prefix)) if delimiter else -1
        rolled = key if at < 0 else key[: at + len(delimiter)]
        if at < 0 or rolled != after:
            shown.add(rolled)
    return sorted(shown, key=str.encode)


@settings(max_examples=150, deadline=None)
@given(keys=some.sets(KEY, max_size=30), prefix=TEXT, delimiter=TEXT, after=TEXT, size=some.integers(1, 7))
def test_pages_of_any_size_make_what_one_would_list_by_hand(
    server: S3Server, s3: Any, keys: set[str], prefix: str, delimiter: str, after: str, size: int
) -> None:
    fill(server, keys)
    found: list[str] = []
    asked = {"Bucket": BUCKET, "Prefix": prefix, "Delimiter": delimiter, "MaxKeys": size}
    more: dict[str, Any] = {"StartAfter": after}
    while True:
        page = s3.list_objects_v2(**asked, **more)
        entries = [item["Key"] for item in page.get("Contents", [])]
        entries += [item["Prefix"] for item in page.get("CommonPrefixes", [])]
        assert page["KeyCount"] == len(entries) <= size
        found += sorted(entries, key=str.encode)
        if not page["IsTruncated"]:
            break
        more = {"ContinuationToken": page["NextContinuationToken"]}
    assert found == oracle(keys, prefix, delimiter, after)


@settings(max_examples=60, deadline=None)
@given(keys=some.sets(KEY, max_size=20), prefix=TEXT, delimiter=TEXT, marker=TEXT, size=some.integers(1, 7))
def test_the_old_list_and_the_list_of_versions_agree_with_it(
    server: S3Server, s3: Any, keys: set[str], prefix: str, delimiter: str, marker: str, size: int
) -> None:
    fill(server, keys)
    expected = oracle(keys, prefix, delimiter, marker)
    old: list[str] = []
    asked = {"Bucket": BUCKET, "Prefix": prefix, "Delimiter": delimiter, "MaxKeys": size}
    position: dict[str, Any] = {"Marker": marker}
    while True:
        page = s3.list_objects(**asked, **position)
        entries = [item["Key"] for item in page.get("Contents", [])]
        entries += [item["Prefix"] for item in page.get("CommonPrefixes", [])]
        old += sorted(entries, key=str.encode)
        if not page["IsTruncated"]:
            break
        assert ("NextMarker" in page) == bool(delimiter)
        position = {"Marker": page.get("NextMarker") or old[-1]}
    assert old == expected
    versions: list[str] = []
    position = {"KeyMarker": marker}
    while True:
        page = s3.list_object_versions(**asked, **position)
        entries = [item["Key"] for item in page.get("Versions", [])]
        entries += [item["Prefix"] for item in page.get("CommonPrefixes", [])]
        assert all(item["IsLatest"] for item in page.get("Versions", []))
        versions += sorted(entries, key=str.encode)
        if not page["IsTruncated"]:
            break
        position = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page.get("NextVersionIdMarker", "")}
    assert versions == expected


def test_a_folder_of_many_keys_costs_one_look_not_a_scan(server: S3Server, s3: Any) -> None:
    fill(server, {f"folder-{number % 3}/{number:05}" for number in range(3000)} | {"last"})
    statements: list[str] = []
    connections = server.lab.database.read
    rows = 0

    def counted(sql: str, parameters: Any = ()) -> list[Any]:
        nonlocal rows
        statements.append(sql)
        found = connections(sql, parameters)
        rows += len(found)
        return found

    server.lab.database.read = counted  # type: ignore[method-assign]
    try:
        page = s3.list_objects_v2(Bucket=BUCKET, Delimiter="/")
    finally:
        server.lab.database.read = connections  # type: ignore[method-assign]
    assert [item["Prefix"] for item in page["CommonPrefixes"]] == ["folder-0/", "folder-1/", "folder-2/"]
    assert [item["Key"] for item in page["Contents"]] == ["last"]
    assert rows < 100 and len(statements) < 10
