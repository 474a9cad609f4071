"""What did AWS itself list? S3 Inventory's files, by their manifest, as an inventory; as old as it says it is.

It has no user metadata and no checksum values (S3 user guide, Amazon S3 Inventory): it serves the level `size`.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import re
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import pyarrow as pa
import pyarrow.orc as orc
import pyarrow.parquet as pq

from ..errors import AwsError, NotFound, TooOld
from ..inventory.store import Inventory, Writer
from .client import Client, Session
from .pages import microseconds

# As the Parquet and ORC files name them, and the CSV's fileSchema.
NAMES = {
    "key": ("key",), "size": ("size",), "etag": ("e_tag", "etag"),
    "modified": ("last_modified_date", "lastmodifieddate"),
    "storage": ("storage_class", "storageclass"), "latest": ("is_latest", "islatest"),
    "marker": ("is_delete_marker", "isdeletemarker"),
}  # fmt: skip
MEMBERS = {"sourceBucket", "destinationBucket", "creationTimestamp", "fileFormat", "fileSchema", "files"}
NEEDED = ("key", "size", "modified")
ROWS = 16_384  # at once
PLACE = re.compile(r"s3://([^/]+)/(.+)")


def from_s3_inventory(
    session: Session,
    region: str,
    manifest: str,
    of: str,
    prefix: str,
    folder: Path,
    *,
    since: datetime | None = None,
    because: str = "",
) -> Inventory:
    """An inventory of bucket `of` and a prefix from `s3://…/manifest.json`: latest versions, no delete markers.

    Memory: some thousand rows; the files come to a temporary folder one by one. It began and ended when AWS began to
    look, and is eventually consistent (S3 user guide): what was written just before may be absent, and what was written
    later may be there. TooOld when that was before `since`; `because` says what happened then.
    """
    found = PLACE.fullmatch(manifest)
    if found is None:
        raise AwsError(f"{manifest!r} is not the address of a manifest. Give it as s3://bucket/path/manifest.json.")
    client = session.client("s3", region)
    said = manifest_of(client, manifest, found[1], found[2])
    created = created_at(said)
    if said["sourceBucket"] != of:
        raise AwsError(
            f"{manifest} lists the bucket {said['sourceBucket']}, not {of}. Give a manifest of {of}, or LIST."
        )
    if since is not None and created < since:
        raise TooOld(
            f"{manifest} is of {created:%Y-%m-%d %H:%M:%S} UTC, and {because}: it does not say what that left."
        )
    root, parameters = f"s3://{said['sourceBucket']}/{prefix}", {"manifest": manifest, "created": created.isoformat()}
    bucket = said["destinationBucket"].removeprefix("arn:aws:s3:::").rpartition(":")[2]
    with Writer(folder, side="bucket", root=root, parameters=parameters) as writer:
        for order, file in enumerate(said["files"]):
            if file["key"] in writer.finished:
                continue
            with tempfile.TemporaryDirectory(dir=folder) as place, writer.shard(file["key"], order) as shard:
                local = _fetched(client, bucket, file, Path(place))
                for rows in _rows(local, said):
                    shard.write(_batch(rows, prefix))
        return writer.finish(
            seen=(created, created), method="S3 Inventory", manifest=manifest, requests={"GET": 1 + len(said["files"])}
        )


def created_at(said: dict[str, Any]) -> datetime:
    """When AWS began to look at the bucket, as a manifest says it; UTC, to the millisecond."""
    return datetime.fromtimestamp(int(said["creationTimestamp"]) / 1000, UTC)


def manifest_of(client: Client, manifest: str, bucket: str, key: str) -> dict[str, Any]:
    """The manifest of that address, with all that is needed of it."""
    try:
        body = client.look("get_object", Bucket=bucket, Key=key)["Body"].read()
    except AwsError as error:
        if error.code not in ("NoSuchKey", "NoSuchBucket"):
            raise
        raise NotFound(f"There is no {manifest} ({error.code}). Give the manifest.json of an S3 Inventory.") from error
    try:
        said: dict[str, Any] = json.loads(body)
        missing = MEMBERS - set(said)
    except (ValueError, TypeError) as error:
        raise AwsError(
            f"{manifest} is not an S3 Inventory manifest: {error}. Give the manifest.json itself."
        ) from error
    if missing:
        raise AwsError(
            f"{manifest} lacks {sorted(missing)}: not an S3 Inventory manifest. Give the manifest.json itself."
        )
    if said["fileFormat"] not in READERS:
        raise AwsError(f"{manifest} is of {said['fileFormat']}; {', '.join(READERS)} can be read. Use LIST instead.")
    return said


def _fetched(client: Client, bucket: str, file: dict[str, Any], place: Path) -> Path:
    """One file, on the disk; its MD5 is what the manifest says."""
    local, digest = place / "file", hashlib.md5(usedforsecurity=False)
    with local.open("wb") as out:
        for piece in client.look("get_object", Bucket=bucket, Key=file["key"])["Body"].iter_chunks(1 << 20):
            digest.update(piece)
            out.write(piece)
    if digest.hexdigest() != file["MD5checksum"].lower():
        raise AwsError(
            f"s3://{bucket}/{file['key']} is not the file that the manifest names: its MD5 is {digest.hexdigest()}, "
            f"not {file['MD5checksum']}. Take the next inventory, or LIST."
        )
    return local


Rows = dict[str, list[Any]]


def _rows(local: Path, said: dict[str, Any]) -> Iterator[Rows]:
    """The columns that are of use, some rows at a time; old versions and delete markers left out."""
    for columns in READERS[said["fileFormat"]](local, said):
        named = {name: next((columns[one] for one in ones if one in columns), None) for name, ones in NAMES.items()}
        missing = [name for name in NEEDED if named[name] is None]
        if missing:
            raise AwsError(
                f"The S3 Inventory of {said['sourceBucket']} has no {', '.join(missing)}. Add the optional fields Size "
                "and LastModifiedDate to its configuration, or use LIST."
            )
        rows = {name: values for name, values in named.items() if values is not None}
        kept = [
            at
            for at in range(len(rows["key"]))
            if _true(rows.get("latest"), at, True) and not _true(rows.get("marker"), at, False)
        ]
        yield {name: [values[at] for at in kept] for name, values in rows.items()}


def _true(values: list[Any] | None, at: int, otherwise: bool) -> bool:
    if values is None or values[at] in (None, ""):
        return otherwise
    return str(values[at]).lower() == "true"


def _batch(rows: Rows, prefix: str) -> pa.RecordBatch:
    """Rows below the prefix, keys relative to it; the prefix itself has none."""
    below = [at for at, key in enumerate(rows["key"]) if key.startswith(prefix) and key != prefix]
    made = [_row(rows["key"][at][len(prefix) :], {name: values[at] for name, values in rows.items()}) for at in below]
    return pa.RecordBatch.from_pylist(made) if made else pa.RecordBatch.from_pylist([], schema=pa.schema([]))


def _row(key: str, row: dict[str, Any]) -> dict[str, Any]:
    modified, storage = row["modified"], row.get("storage") or "STANDARD"
    if isinstance(modified, datetime):
        modified = (modified if modified.tzinfo else modified.replace(tzinfo=UTC)).isoformat()
    folder = key.endswith("/")
    return {
        "key": key,
        "kind": "folder" if folder else "file",
        "size": 0 if folder else int(row["size"] or 0),
        "etag": (row.get("etag") or "").strip('"') or None,
        "last_modified_us": microseconds(modified),
        "storage_class": None if storage == "STANDARD" else storage,
    }


def _from_parquet(local: Path, said: dict[str, Any]) -> Iterator[Rows]:
    with pq.ParquetFile(local) as file:
        for batch in file.iter_batches(ROWS):
            yield {name.lower(): batch.column(name).to_pylist() for name in batch.schema.names}


def _from_orc(local: Path, said: dict[str, Any]) -> Iterator[Rows]:
    file = orc.ORCFile(local)
    for number in range(file.nstripes):
        stripe = file.read_stripe(number)
        for at in range(0, stripe.num_rows, ROWS):
            piece = stripe.slice(at, ROWS)
            yield {name.lower(): piece.column(name).to_pylist() for name in piece.schema.names}


def _from_csv(local: Path, said: dict[str, Any]) -> Iterator[Rows]:
    """Without a head line; keys are URL-encoded."""
    names = [name.strip().lower() for name in said["fileSchema"].split(",")]
    with gzip.open(local, "rt", encoding="utf-8", newline="") as text:
        reader = csv.reader(text)
        while some := [row for row, _ in zip(reader, range(ROWS), strict=False)]:
            columns: Rows = dict(zip(names, map(list, zip(*some, strict=True)), strict=True))
            if "key" in columns:
                columns["key"] = [unquote_plus(key) for key in columns["key"]]
            yield columns


READERS = {"Parquet": _from_parquet, "ORC": _from_orc, "CSV": _from_csv}
