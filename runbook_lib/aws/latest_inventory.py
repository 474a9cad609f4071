"""Which S3 Inventory of a bucket did AWS make last? Found by the bucket's own inventory configurations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..display import plural
from ..errors import AwsError, CredentialsExpired, NotFound
from .client import Client, Session
from .stored_inventory import created_at, manifest_of

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\dZ")  # a folder's name: S3 user guide, "Locating your inventory list"
WHOLE = {"manifest.json", "manifest.checksum"}
PAGE = 1000  # names of one LIST
NEEDED = ("Size", "LastModifiedDate")  # optional fields


@dataclass(frozen=True)
class Made:
    """An S3 Inventory that lies where its configuration says."""

    manifest: str  # s3://bucket/…/manifest.json
    created: datetime  # UTC: when AWS began to look at the bucket


def latest(session: Session, region: str, bucket: str, prefix: str) -> Made:
    """The latest of a bucket that has every key below a prefix, with sizes and times; NotFound says why there is none.

    Asks for the bucket's configurations (s3:GetInventoryConfiguration) and LISTs where they write. What an inventory
    holds is told by its configuration as it is now: AWS does not tell what it was when the inventory was made.
    """
    client = session.client("s3", region)
    found: list[Made] = []
    said: list[str] = []
    for configuration in _configurations(client, bucket):
        name, unfit = configuration["Id"], _unfit(configuration, prefix)
        try:
            made = None if unfit else _made(session, client, bucket, configuration)
        except CredentialsExpired:
            raise
        except AwsError as error:  # another configuration may serve
            said.append(f"{name} cannot be read: {error}")
            continue
        if made is not None:
            found.append(made)
        else:
            off = "" if configuration["IsEnabled"] else " (it is disabled)"
            said.append(
                f"{name} {unfit or 'has no whole one at s3://' + '/'.join(_place(bucket, configuration)) + off}"
            )
    if found:
        return max(found, key=lambda made: made.created)
    if not said:
        raise NotFound(f"The bucket {bucket} has no S3 Inventory configuration.")
    raise NotFound(
        f"{plural(len(said), 'S3 Inventory configuration')} of {bucket}, and none serves: {'; '.join(said)}."
    )


def _configurations(client: Client, bucket: str) -> Iterator[dict[str, Any]]:
    more: dict[str, str] = {}
    while True:
        page = client.look("list_bucket_inventory_configurations", Bucket=bucket, **more)
        yield from page.get("InventoryConfigurationList", ())
        if not page.get("IsTruncated"):
            return
        more = {"ContinuationToken": page["NextContinuationToken"]}


def _unfit(configuration: dict[str, Any], prefix: str) -> str:
    """Why what it writes would not do."""
    only = configuration.get("Filter", {}).get("Prefix", "")
    if not prefix.startswith(only):
        return f"lists only what is below {only}"
    missing = [name for name in NEEDED if name not in configuration.get("OptionalFields", ())]
    return f"lists no {' and no '.join(missing)}" if missing else ""


def _place(bucket: str, configuration: dict[str, Any]) -> tuple[str, str]:
    """The bucket and the prefix that it writes to."""
    to = configuration["Destination"]["S3BucketDestination"]
    parts = (to.get("Prefix"), bucket, configuration["Id"])
    return to["Bucket"].rpartition(":")[2], "".join(f"{part}/" for part in parts if part)


def _made(session: Session, client: Client, bucket: str, configuration: dict[str, Any]) -> Made | None:
    """The latest of one configuration that is there as a whole."""
    name, place = _place(bucket, configuration)
    listed = client.pages("list_objects_v2", "CommonPrefixes", Bucket=name, Prefix=place, Delimiter="/")
    folders = [item["Prefix"] for item in listed]
    session.count({"LIST": max(1, -(-len(folders) // PAGE))})
    for folder in sorted(folders, reverse=True):
        if MOMENT.fullmatch(folder.removeprefix(place).rstrip("/")) is None:
            continue
        there = client.look("list_objects_v2", Bucket=name, Prefix=folder).get("Contents", ())
        session.count({"LIST": 1})
        if {item["Key"].removeprefix(folder) for item in there} >= WHOLE:
            session.count({"GET": 1})
            key = f"{folder}manifest.json"
            manifest = f"s3://{name}/{key}"
            return Made(manifest, created_at(manifest_of(client, manifest, name, key)))
    return None
