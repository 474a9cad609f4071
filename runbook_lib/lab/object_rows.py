"""What is a bucket, an object, a staged blob, and how do the lab's tables hold them?"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import LabError
from .checksums import FULL_OBJECT
from .segments import Segment

TABLES = (
    """create table if not exists buckets (
        name text primary key, region text not null, created real not null, versioning text not null,
        configuration text not null  -- JSON: what Put… operations stored, by name
    ) without rowid""",
    """create table if not exists objects (
        sequence integer primary key,  -- order of writing
        bucket text not null, key text not null, version_id text not null,
        current integer not null, delete_marker integer not null,
        size integer not null, etag text not null, last_modified real not null,
        blob text not null,            -- its file; empty for a delete marker and for an object of several parts
        body text not null             -- JSON: what only a reader of the object wants
    )""",
    # SQLite compares UTF-8 text by its bytes, and that is S3's order.
    "create unique index if not exists object_versions on objects (bucket, key, version_id)",
    "create unique index if not exists current_objects on objects (bucket, key) where current = 1",
    """create table if not exists uploads (
        id text primary key, bucket text not null, key text not null, created real not null, body text not null
    ) without rowid""",
    """create table if not exists upload_parts (
        upload text not null, number integer not null, blob text not null, size integer not null,
        md5 text not null, modified real not null, checksum text not null, primary key (upload, number)
    ) without rowid""",
    "create table if not exists condemned (blob text primary key, since real not null) without rowid",
)
COLUMNS = "bucket, key, version_id, size, etag, last_modified, delete_marker, blob, body"
INSERT = f"""insert into objects ({COLUMNS}, current)
values (:bucket, :key, :version_id, :size, :etag, :last_modified, :delete_marker, :blob, :body, 1)"""
PROMOTE = """update objects set current = 1 where sequence =
(select max(sequence) from objects where bucket = ? and key = ?)"""
LIST = f"""select {COLUMNS} from objects
where bucket = ? and current = 1 and delete_marker = 0 and key >= ? and key > ? order by key limit ?"""
VERSIONS = f"""select {COLUMNS} from objects
where bucket = :bucket and key >= :prefix and key < :end and key >= :key and (key > :key or sequence <
(select sequence from objects where bucket = :bucket and key = :key and version_id = :version))
order by key, sequence desc limit :limit"""
LIST_BOUNDED = LIST.replace("order by", "and key < ? order by")


def successor(prefix: str) -> str | None:
    """The least text greater than all that start with a prefix, by code points; None when there is none."""
    for index in range(len(prefix) - 1, -1, -1):
        code = ord(prefix[index]) + 1
        if code == 0xD800:  # surrogates are not in UTF-8
            code = 0xE000
        if code <= 0x10FFFF:
            return prefix[:index] + chr(code)
    return None


class StoreRefusal(LabError):
    """The store cannot do that; `code` is S3's own error code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes that are staged and not yet visible. `md5` is hex (the ETag), `crc64nvme` and `checksums` base64."""

    path: Path
    size: int
    md5: str
    crc64nvme: str
    checksums: dict[str, str] = field(default_factory=dict)
    segments: tuple[Segment, ...] = ()  # of a completed multipart upload; `md5` is then `md5-of-md5s-N`


@dataclass(frozen=True, slots=True)
class NewObject:
    """What `commit` makes visible. No checksums means CRC64NVME of the whole object, as on S3."""

    bucket: str
    key: str
    blob: Blob
    metadata: dict[str, str] = field(default_factory=dict)
    content_type: str = "binary/octet-stream"
    storage_class: str = "STANDARD"
    tags: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)  # Cache-Control, Content-Disposition, …
    checksums: dict[str, str] = field(default_factory=dict)
    checksum_type: str = FULL_OBJECT
    last_modified: float | None = None  # now


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One version of an object. `etag` has no quotes, `last_modified` is epoch seconds, `size` bytes."""

    bucket: str
    key: str
    version_id: str  # "null" where the bucket had no versioning
    size: int
    etag: str
    last_modified: float
    metadata: dict[str, str]
    content_type: str
    storage_class: str
    checksums: dict[str, str]
    checksum_type: str
    delete_marker: bool
    tags: dict[str, str]
    headers: dict[str, str]
    file: str  # where its bytes are when they are in one file, else empty
    segments: tuple[Segment, ...] = ()  # its files when there are several

    @property
    def path(self) -> Path | None:
        """Its one file; None for a delete marker and for an object of several parts."""
        return Path(self.file) if self.file else None


Check = Callable[[StoredObject | None], None]  # sees the current object of a key that is to be replaced, and may raise


def bucket_of(row: sqlite3.Row) -> dict[str, Any]:
    return {**dict(row), "configuration": json.loads(row["configuration"])}


def current(blobs: Path, cursor: sqlite3.Cursor, bucket: str, key: str) -> StoredObject | None:
    query = f"select {COLUMNS} from objects where bucket = ? and key = ? and current = 1"
    row = cursor.execute(query, (bucket, key)).fetchone()
    return None if row is None else stored_object(blobs, row)


def lookup(blobs: Path, cursor: sqlite3.Cursor, bucket: str, key: str, version: str) -> StoredObject | None:
    query = f"select {COLUMNS} from objects where bucket = ? and key = ? and version_id = ?"
    row = cursor.execute(query, (bucket, key, version)).fetchone()
    return None if row is None else stored_object(blobs, row)


def stored_object(root: Path | str, row: sqlite3.Row | dict[str, Any]) -> StoredObject:
    values = tuple(row) if isinstance(row, sqlite3.Row) else tuple(row.values())
    bucket, key, version, size, etag, modified, marker, blob, text = values
    body = json.loads(text)
    get = body.get
    return StoredObject(
        bucket,
        key,
        version,
        size,
        etag,
        modified,
        get("metadata", {}),
        get("content_type", "binary/octet-stream"),
        get("storage_class", "STANDARD"),
        get("checksums", {}),
        get("checksum_type", FULL_OBJECT),
        bool(marker),
        get("tags", {}),
        get("headers", {}),
        f"{root}/{blob[:2]}/{blob}" if blob else "",
        tuple(Segment(Path(root, name[:2], name), length, sums) for name, length, sums in get("segments", ())),
    )
