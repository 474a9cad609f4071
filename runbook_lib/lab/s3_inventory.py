"""Which S3 Inventories of a bucket are wished, and what is in them? Written when a configuration is put.

S3 writes the first within 48 hours, then daily or weekly (S3 user guide, Amazon S3 Inventory); the lab writes one at
once, and another whenever the configuration is put again. Where it lies and what its manifest says is from the guide's
"Locating your inventory list".
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import tempfile
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import IO, Any, BinaryIO, cast
from urllib.parse import quote_plus

from .http import HttpRequest, HttpResponse
from .object_rows import StoredObject
from .protocol import Refusal
from .s3_base import Operations, Parameters

ROWS = 16_384  # at once
PAGE = 100  # configurations of one answer (S3 API, ListBucketInventoryConfigurations)
SETTING = "inventory "  # of the bucket, before the Id
VERSIONS = ("VersionId", "IsLatest", "IsDeleteMarker")  # columns where all versions are listed
COLUMNS = {
    "Bucket": "bucket", "Key": "key", "VersionId": "version_id", "IsLatest": "is_latest",
    "IsDeleteMarker": "is_delete_marker", "Size": "size", "LastModifiedDate": "last_modified_date", "ETag": "e_tag",
    "StorageClass": "storage_class",
}  # fmt: skip
OPTIONAL = ("Size", "LastModifiedDate", "ETag", "StorageClass")
ORC_TYPES = {
    "IsLatest": "boolean", "IsDeleteMarker": "boolean", "Size": "bigint", "LastModifiedDate": "timestamp",
}  # fmt: skip
PARQUET = {
    "Bucket": "required binary bucket (UTF8)", "Key": "required binary key (UTF8)",
    "VersionId": "optional binary version_id (UTF8)", "IsLatest": "optional boolean is_latest",
    "IsDeleteMarker": "optional boolean is_delete_marker", "Size": "optional int64 size",
    "LastModifiedDate": "optional int64 last_modified_date (TIMESTAMP_MILLIS)",
    "ETag": "optional binary e_tag (UTF8)", "StorageClass": "optional binary storage_class (UTF8)",
}  # fmt: skip
ENDINGS = {"CSV": "csv.gz", "Parquet": "parquet", "ORC": "orc"}
Row = tuple[Any, ...]


class InventoryOperations(Operations):
    """S3 Inventory."""

    def put_bucket_inventory_configuration(self, parameters: Parameters, request: HttpRequest) -> HttpResponse:
        """Store it, and write an inventory; Refusal InvalidS3DestinationBucket, NotImplemented."""
        configuration, bucket = parameters["InventoryConfiguration"], self.bucket(parameters)
        if configuration["Id"] != parameters["Id"]:
            raise Refusal("InvalidArgument", "The Id of the request and of its configuration differ.")
        destination = configuration["Destination"]["S3BucketDestination"]
        if self.store.bucket(_name(destination["Bucket"])) is None:
            raise Refusal("InvalidS3DestinationBucket", "The destination bucket does not exist.")
        missing = sorted(set(configuration.get("OptionalFields", ())) - set(OPTIONAL))
        if missing or "SSEKMS" in destination.get("Encryption", {}):
            what = f"the inventory fields {', '.join(missing)}" if missing else "KMS keys"
            raise Refusal("NotImplemented", f"The lab does not have {what}.", status=501)
        self.store.configure(bucket["name"], SETTING + configuration["Id"], configuration)
        if configuration["IsEnabled"]:
            self._write(bucket["name"], configuration, destination)
        return HttpResponse(200)

    def get_bucket_inventory_configuration(self, parameters: Parameters, request: HttpRequest) -> Parameters:
        """Refusal NoSuchConfiguration."""
        return {"InventoryConfiguration": self._stored(parameters)}

    def delete_bucket_inventory_configuration(self, parameters: Parameters, request: HttpRequest) -> None:
        """What it has written stays; Refusal NoSuchConfiguration."""
        self._stored(parameters)
        self.store.configure(parameters["Bucket"], SETTING + parameters["Id"], None)

    def list_bucket_inventory_configurations(self, parameters: Parameters, request: HttpRequest) -> Parameters:
        """All, in pages."""
        settings, after = self.bucket(parameters)["configuration"], SETTING + parameters.get("ContinuationToken", "")
        names = sorted(name for name in settings if name.startswith(SETTING) and name > after)
        more = len(names) > PAGE
        return {
            "InventoryConfigurationList": [settings[name] for name in names[:PAGE]],
            "IsTruncated": more,
            "NextContinuationToken": names[PAGE - 1].removeprefix(SETTING) if more else None,
        }

    def _stored(self, parameters: Parameters) -> dict[str, Any]:
        found: dict[str, Any] | None = self.bucket(parameters)["configuration"].get(SETTING + parameters["Id"])
        if found is None:
            message = "The specified configuration does not exist."
            raise Refusal("NoSuchConfiguration", message, status=404)
        return found

    def _write(self, bucket: str, configuration: dict[str, Any], destination: dict[str, Any]) -> None:
        """The data, then the manifest, then its checksum."""
        began, kind, to = time.time(), destination["Format"], _name(destination["Bucket"])
        place = "/".join(part for part in (destination.get("Prefix"), bucket, configuration["Id"]) if part)
        everything = configuration["IncludedObjectVersions"] == "All"
        wished = configuration.get("OptionalFields", ())
        fields = ["Bucket", "Key", *(VERSIONS if everything else ()), *(name for name in OPTIONAL if name in wished)]
        prefix = (configuration.get("Filter") or {}).get("Prefix", "")
        current = ((one, True) for one in self.store.list(bucket, prefix))
        rows = self._versions(bucket, prefix) if everything else current
        with tempfile.TemporaryFile(dir=self.lab.folder.root) as data:
            WRITERS[kind](data, fields, (_row(one, latest, fields) for one, latest in rows))
            size = data.seek(0, io.SEEK_END)
            data.seek(0)
            digest = hashlib.file_digest(data, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            data.seek(0)
            key = f"{place}/data/{uuid.uuid4()}.{ENDINGS[kind]}"
            self.store.put(to, key, cast(BinaryIO, data))
        manifest = {
            "sourceBucket": bucket,
            "destinationBucket": f"arn:aws:s3:::{to}",
            "version": "2016-11-30",
            "creationTimestamp": str(int(began * 1000)),
            "fileFormat": kind,
            "fileSchema": _schema_text(kind, fields),
            "files": [{"key": key, "size": size, "MD5checksum": digest}],
        }
        body = json.dumps(manifest, indent=2).encode()
        moment = datetime.fromtimestamp(began, UTC)
        folder, hive = f"{place}/{moment:%Y-%m-%dT%H-%MZ}", f"{place}/hive/dt={moment:%Y-%m-%d-%H-%M}"
        self.store.put(to, f"{hive}/symlink.txt", f"s3://{to}/{key}".encode())
        self.store.put(to, f"{folder}/manifest.json", body)
        checksum = hashlib.md5(body, usedforsecurity=False).hexdigest()
        self.store.put(to, f"{folder}/manifest.checksum", checksum.encode())

    def _versions(self, bucket: str, prefix: str) -> Iterator[tuple[StoredObject, bool]]:
        """Every version and delete marker, and whether it is its key's latest: the first of its key."""
        place, before = ("", ""), None
        while page := list(self.store.versions(bucket, prefix, *place, ROWS)):
            for one in page:
                yield one, one.key != before
                before = one.key
            place = page[-1].key, page[-1].version_id


def _schema_text(kind: str, fields: list[str]) -> str:
    """The columns as a manifest of that format says them."""
    if kind == "CSV":
        return ", ".join(fields)
    if kind == "ORC":
        return "struct<" + ",".join(f"{COLUMNS[name]}:{ORC_TYPES.get(name, 'string')}" for name in fields) + ">"
    return f"message s3.inventory {{ {' '.join(f'{PARQUET[name]};' for name in fields)} }}"


def _name(arn: str) -> str:
    return arn.rpartition(":")[2]


def _row(one: StoredObject, latest: bool, fields: list[str]) -> Row:
    """What an inventory says of a version; of a delete marker neither size nor ETag."""
    values = {
        "Bucket": one.bucket, "Key": one.key, "VersionId": one.version_id, "IsLatest": latest,
        "IsDeleteMarker": one.delete_marker, "Size": None if one.delete_marker else one.size,
        "LastModifiedDate": datetime.fromtimestamp(int(one.last_modified), UTC),
        "ETag": one.etag or None, "StorageClass": None if one.delete_marker else one.storage_class,
    }  # fmt: skip
    return tuple(values[name] for name in fields)


def _write_csv(data: IO[bytes], fields: list[str], rows: Iterator[Row]) -> None:
    """Every value in quotes, keys URL-encoded, no head line."""
    with gzip.open(data, "wt", encoding="utf-8", newline="") as text:
        writer = csv.writer(text, quoting=csv.QUOTE_ALL)
        for row in rows:
            writer.writerow(_as_text(name, value) for name, value in zip(fields, row, strict=True))


def _as_text(name: str, value: Any) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%dT%H:%M:%S}.000Z"
    if isinstance(value, bool):
        return str(value).lower()
    return quote_plus(value) if name == "Key" else "" if value is None else str(value)


def _write_parquet(data: IO[bytes], fields: list[str], rows: Iterator[Row]) -> None:
    import pyarrow.parquet as pq

    with pq.ParquetWriter(data, _schema(fields)) as writer:
        for batch in _batches(fields, rows):
            writer.write_batch(batch)


def _write_orc(data: IO[bytes], fields: list[str], rows: Iterator[Row]) -> None:
    import pyarrow as pa
    import pyarrow.orc as orc

    with orc.ORCWriter(data) as writer:
        writer.write(_schema(fields).empty_table())
        for batch in _batches(fields, rows):
            writer.write(pa.Table.from_batches([batch]))


def _schema(fields: list[str]) -> Any:
    import pyarrow as pa

    kinds = {
        "IsLatest": pa.bool_(), "IsDeleteMarker": pa.bool_(), "Size": pa.int64(),
        "LastModifiedDate": pa.timestamp("ms", "UTC"),
    }  # fmt: skip
    return pa.schema([(COLUMNS[name], kinds.get(name, pa.string())) for name in fields])


def _batches(fields: list[str], rows: Iterator[Row]) -> Iterator[Any]:
    import pyarrow as pa

    schema = _schema(fields)
    while some := list(islice(rows, ROWS)):
        yield pa.RecordBatch.from_arrays(
            [pa.array(values, kind) for values, kind in zip(zip(*some, strict=True), schema.types, strict=True)],
            schema=schema,
        )


WRITERS = {"CSV": _write_csv, "Parquet": _write_parquet, "ORC": _write_orc}
