"""The lab's S3 writes inventories where S3 does, and they say what a LIST says."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest
from botocore.exceptions import ClientError

from runbook_lib.aws.stored_inventory import from_s3_inventory
from tests.lab import s3_server
from tests.lab.s3_server import BUCKET
from tests.listing import ODD_KEYS, REGION, inventory_configuration, put_inventory, rows, session


@pytest.fixture
def server(tmp_path: Path) -> Iterator[s3_server.S3Server]:
    """The lab's S3 with awkward keys below `p/`, and a bucket for inventories."""
    with s3_server.serving(tmp_path / "state") as found:
        s3 = s3_server.client(found.url)
        s3.create_bucket(Bucket="lists", CreateBucketConfiguration={"LocationConstraint": REGION})
        for key in [*("p/" + key for key in ODD_KEYS), "other"]:
            s3.put_object(Bucket=BUCKET, Key=key, Body=key.encode())
        yield found


def written(s3: Any) -> dict[str, bytes]:
    """What lies in the bucket for inventories."""
    listed = s3.list_objects_v2(Bucket="lists").get("Contents", [])
    return {item["Key"]: s3.get_object(Bucket="lists", Key=item["Key"])["Body"].read() for item in listed}


@pytest.mark.parametrize("versions", ["Current", "All"])
@pytest.mark.parametrize("kind", ["CSV", "Parquet", "ORC"])
def test_an_inventory_says_what_is_there(server: s3_server.S3Server, tmp_path: Path, kind: str, versions: str) -> None:
    s3 = s3_server.client(server.url)
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket=BUCKET, Key="p/a&b", Body=b"another version")
    s3.delete_object(Bucket=BUCKET, Key="p/100%")
    put_inventory(s3, inventory_configuration(kind=kind, versions=versions, destination={"Prefix": "of/ours"}))
    found = written(s3)
    manifest = next(key for key in found if key.endswith("/manifest.json"))
    assert manifest.startswith(f"of/ours/{BUCKET}/daily/20") and manifest[-19:-14].endswith("Z")
    checksum = found[manifest.replace(".json", ".checksum")].decode()
    assert checksum == hashlib.md5(found[manifest]).hexdigest()
    (link,) = (
        key for key in found if key.startswith(f"of/ours/{BUCKET}/daily/hive/dt=") and key.endswith("/symlink.txt")
    )
    said = json.loads(found[manifest])
    assert found[link].decode() == f"s3://lists/{said['files'][0]['key']}"
    begins = {"CSV": "Bucket, Key, ", "ORC": "struct<bucket:string,key:string,"}
    assert said["fileSchema"].startswith(begins.get(kind, "message s3.inventory { required binary bucket (UTF8); "))
    read = from_s3_inventory(session(server.url), REGION, f"s3://lists/{manifest}", BUCKET, "p/", tmp_path / "read")
    listed = {
        item["Key"].removeprefix("p/"): (item["Size"], item["ETag"].strip('"'), item["LastModified"])
        for item in s3.list_objects_v2(Bucket=BUCKET, Prefix="p/")["Contents"]
    }
    rows_of = {row["key"]: row for row in rows(read)}
    assert rows_of.keys() == listed.keys() and "100%" not in rows_of
    for key, (size, etag, modified) in listed.items():
        assert rows_of[key]["size"] == (0 if key.endswith("/") else size)
        assert rows_of[key]["etag"] == etag and rows_of[key]["last_modified_us"] == modified.timestamp() * 1e6


def test_only_what_is_asked_for_is_listed(server: s3_server.S3Server) -> None:
    s3 = s3_server.client(server.url)
    put_inventory(s3, inventory_configuration(Filter={"Prefix": "p/g"}, OptionalFields=["Size"]))
    found = written(s3)
    said = json.loads(found[next(key for key in found if key.endswith("/manifest.json"))])
    assert said["fileSchema"] == "Bucket, Key, Size" and said["sourceBucket"] == BUCKET
    data = s3.get_object(Bucket="lists", Key=said["files"][0]["key"])["Body"].read()
    keys = ("p/grüße/été.txt", "p/g\u0308")  # URL-encoded
    lines = [f'"{BUCKET}","{quote_plus(key)}","{len(key.encode())}"' for key in keys]
    assert gzip.decompress(data).decode().splitlines() == lines


def test_configurations_are_kept_listed_in_pages_and_removed(server: s3_server.S3Server) -> None:
    s3 = s3_server.client(server.url)
    for number in range(101):
        put_inventory(s3, inventory_configuration(f"n{number:03d}", IsEnabled=False))
    assert written(s3) == {}
    first = s3.list_bucket_inventory_configurations(Bucket=BUCKET)
    assert len(first["InventoryConfigurationList"]) == 100 and first["IsTruncated"]
    rest = s3.list_bucket_inventory_configurations(Bucket=BUCKET, ContinuationToken=first["NextContinuationToken"])
    assert [one["Id"] for one in rest["InventoryConfigurationList"]] == ["n100"] and not rest["IsTruncated"]
    assert s3.get_bucket_inventory_configuration(Bucket=BUCKET, Id="n007")[
        "InventoryConfiguration"
    ] == inventory_configuration("n007", IsEnabled=False)
    s3.delete_bucket_inventory_configuration(Bucket=BUCKET, Id="n007")
    with pytest.raises(ClientError, match="NoSuchConfiguration"):
        s3.get_bucket_inventory_configuration(Bucket=BUCKET, Id="n007")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"destination": {"Bucket": "arn:aws:s3:::nowhere"}}, "InvalidS3DestinationBucket"),
        ({"OptionalFields": ["Size", "ReplicationStatus"]}, "NotImplemented"),
        ({"destination": {"Encryption": {"SSEKMS": {"KeyId": "arn:aws:kms:::key/1"}}}}, "NotImplemented"),
        ({"Schedule": {"Frequency": "Hourly"}}, "MalformedXML"),
    ],
)
def test_what_cannot_be_written_is_refused(server: s3_server.S3Server, change: dict[str, Any], code: str) -> None:
    s3 = s3_server.client(server.url)
    with pytest.raises(ClientError, match=code):
        put_inventory(s3, inventory_configuration(**change))
    assert "InventoryConfigurationList" not in s3.list_bucket_inventory_configurations(Bucket=BUCKET)
    assert written(s3) == {}
