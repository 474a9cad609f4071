"""What do the tests of listings have in common? A session towards an endpoint, and awkward keys."""

from __future__ import annotations

from typing import Any

from runbook_lib.aws.client import Credentials, Session
from runbook_lib.inventory.store import Inventory
from tests.lab.s3_server import ACCESS_KEY, BUCKET, SECRET_KEY

REGION = "eu-central-1"
ODD_KEYS = [
    "new\nline", "a&b", "100%", "50%25", "one+two", "with space", "grüße/été.txt", "g\u0308", "日本/語", "a//b",
    "p/../q", "./r",
    "folder/", "folder/below", "trailing//", "<tag>", '"quoted"', "'", "\\back", "tab\there", "~tilde",
    "😀",
    "=?#*:;,@!$()[]{}|^`",
]  # fmt: skip


def session(url: str, **options: Any) -> Session:
    """A session towards an endpoint; what it records is dropped."""
    keys = {"record": lambda kind, **fields: None, "home_region": REGION}
    return Session(**{**keys, "endpoint_url": url, "credentials": Credentials(ACCESS_KEY, SECRET_KEY), **options})


def rows(inventory: Inventory, *columns: str) -> list[dict[str, Any]]:
    """An inventory's rows, with these columns or all."""
    found: list[dict[str, Any]] = []
    for batch in inventory.batches(list(columns) or None):
        found += batch.to_pylist()
    return found


def inventory_configuration(
    name: str = "daily", kind: str = "CSV", versions: str = "Current", **more: Any
) -> dict[str, Any]:
    """An S3 Inventory of all fields that the lab has, into the bucket `lists`."""
    destination = {"Bucket": "arn:aws:s3:::lists", "Format": kind, **more.pop("destination", {})}
    return {
        "Id": name, "IsEnabled": True, "IncludedObjectVersions": versions, "Schedule": {"Frequency": "Daily"},
        "OptionalFields": ["Size", "LastModifiedDate", "ETag", "StorageClass"],
        "Destination": {"S3BucketDestination": destination}, **more,
    }  # fmt: skip


def put_inventory(s3: Any, wished: dict[str, Any], bucket: str = BUCKET) -> None:
    """Have it written, now in the lab."""
    s3.put_bucket_inventory_configuration(Bucket=bucket, Id=wished["Id"], InventoryConfiguration=wished)
