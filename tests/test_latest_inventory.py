"""The latest S3 Inventory is found by the bucket's configurations: the youngest that is whole and serves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runbook_lib.aws.latest_inventory import latest
from runbook_lib.errors import CredentialsExpired, NotFound
from tests.lab import s3_server
from tests.lab.s3_server import BUCKET
from tests.listing import REGION, inventory_configuration, put_inventory, session


@pytest.fixture
def server(tmp_path: Path) -> Iterator[s3_server.S3Server]:
    """The lab's S3 with an object, and a bucket for inventories."""
    with s3_server.serving(tmp_path / "state") as found:
        s3 = s3_server.client(found.url)
        s3.create_bucket(Bucket="lists", CreateBucketConfiguration={"LocationConstraint": REGION})
        s3.put_object(Bucket=BUCKET, Key="p/one", Body=b"1")
        yield found


def folders(s3: Any, name: str) -> list[str]:
    """Where the inventories of a configuration are."""
    listed = s3.list_objects_v2(Bucket="lists", Prefix=f"{BUCKET}/{name}/2")["Contents"]
    return sorted({item["Key"].rpartition("/")[0] for item in listed})


def copied(s3: Any, of: str, to: str, *, but: str = "", created: int | None = None) -> None:
    """The same inventory as if made at another time; `but` is left out."""
    for name in {"manifest.json", "manifest.checksum"} - {but}:
        body = s3.get_object(Bucket="lists", Key=f"{of}/{name}")["Body"].read().decode()
        if created is not None and name == "manifest.json":
            before = body.partition('"creationTimestamp": "')[2].partition('"')[0]
            body = body.replace(before, str(created))
        s3.put_object(Bucket="lists", Key=f"{to}/{name}", Body=body.encode())


def test_the_youngest_that_is_whole_is_taken(server: s3_server.S3Server) -> None:
    s3, asked = s3_server.client(server.url), session(server.url)
    put_inventory(s3, inventory_configuration("weekly"))
    put_inventory(s3, inventory_configuration("daily", destination={"Prefix": "some/where"}))
    (weekly,) = folders(s3, "weekly")
    copied(s3, weekly, f"{BUCKET}/weekly/2999-01-01T00-00Z", created=32_472_144_000_000)
    copied(s3, weekly, f"{BUCKET}/weekly/2999-01-02T00-00Z", but="manifest.checksum")  # still being written
    copied(s3, weekly, f"{BUCKET}/weekly/hive/dt=2999-01-03-00-00")
    found = latest(asked, REGION, BUCKET, "p/")
    assert found.manifest == f"s3://lists/{BUCKET}/weekly/2999-01-01T00-00Z/manifest.json"
    assert f"{found.created:%Y-%m-%d %H:%M %Z}" == "2999-01-01 00:00 UTC"
    assert asked.asked == {"LIST": 5, "GET": 2}  # two places, and three folders of which one is not whole


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"Filter": {"Prefix": "p/q"}}, "ours lists only what is below p/q"),
        ({"OptionalFields": ["Size"]}, "ours lists no LastModifiedDate"),
        ({"OptionalFields": []}, "ours lists no Size and no LastModifiedDate"),
        ({"IsEnabled": False}, f"ours has no whole one at s3://lists/{BUCKET}/ours/ .it is disabled."),
    ],
)
def test_one_that_does_not_serve_is_named_with_the_reason(
    server: s3_server.S3Server, change: dict[str, Any], why: str
) -> None:
    s3 = s3_server.client(server.url)
    put_inventory(s3, inventory_configuration("ours", **change))
    with pytest.raises(NotFound, match=f"1 S3 Inventory configuration of {BUCKET}, and none serves: {why}"):
        latest(session(server.url), REGION, BUCKET, "p/")
    put_inventory(s3, inventory_configuration("wide", Filter={"Prefix": "p"}))
    assert "/wide/" in latest(session(server.url), REGION, BUCKET, "p/").manifest


def test_a_bucket_without_configurations_says_so(server: s3_server.S3Server) -> None:
    with pytest.raises(NotFound, match=f"The bucket {BUCKET} has no S3 Inventory configuration"):
        latest(session(server.url), REGION, BUCKET, "p/")


def test_more_configurations_than_a_page_are_all_looked_at(server: s3_server.S3Server) -> None:
    s3 = s3_server.client(server.url)
    for number in range(100):
        put_inventory(s3, inventory_configuration(f"a{number:03d}", IsEnabled=False))
    put_inventory(s3, inventory_configuration("last"))
    assert "/last/" in latest(session(server.url), REGION, BUCKET, "").manifest


def test_one_that_cannot_be_read_is_in_no_others_way(server: s3_server.S3Server) -> None:
    s3 = s3_server.client(server.url)
    s3.create_bucket(Bucket="gone", CreateBucketConfiguration={"LocationConstraint": REGION})
    put_inventory(s3, inventory_configuration("lost", IsEnabled=False, destination={"Bucket": "arn:aws:s3:::gone"}))
    s3.delete_bucket(Bucket="gone")
    put_inventory(s3, inventory_configuration("torn"))
    (place,) = folders(s3, "torn")
    s3.put_object(Bucket="lists", Key=f"{place}/manifest.json", Body=b"{}")
    with pytest.raises(NotFound, match=r"lost cannot be read: .*NoSuchBucket.*; torn cannot be read: .* lacks "):
        latest(session(server.url), REGION, BUCKET, "")
    put_inventory(s3, inventory_configuration("whole"))
    assert "/whole/" in latest(session(server.url), REGION, BUCKET, "").manifest


def test_credentials_that_ended_are_no_lack_of_an_inventory(server: s3_server.S3Server) -> None:
    s3, asked = s3_server.client(server.url), session(server.url)
    put_inventory(s3, inventory_configuration("ours"))
    client = asked.client("s3", REGION)
    look = client.look

    def ended(operation: str, **parameters: Any) -> dict[str, Any]:
        if operation == "list_objects_v2":
            raise CredentialsExpired("The session has ended.")
        return look(operation, **parameters)

    client.look = ended  # type: ignore[method-assign]
    with pytest.raises(CredentialsExpired):
        latest(asked, REGION, BUCKET, "")
