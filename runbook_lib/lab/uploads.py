"""Which multipart uploads are open, and which parts do they have?

Parts are blobs that a row names. Completing turns them into the segments of an object in one transaction: no byte is
copied, whatever the size.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
import time
from dataclasses import dataclass
from typing import Any

from .checksums import COMPOSITE, combine, composite
from .object_rows import Blob, Check, NewObject, StoredObject
from .objects import ObjectStore
from .segments import Segment


@dataclass(frozen=True)
class Upload:
    """An open upload. `body` has what CreateMultipartUpload said about the object to be."""

    id: str
    bucket: str
    key: str
    created: float  # epoch seconds
    body: dict[str, Any]

    @property
    def algorithm(self) -> str:
        """The checksum that each part and the object get."""
        return str(self.body["algorithm"])

    @property
    def checksum_type(self) -> str:
        """FULL_OBJECT or COMPOSITE."""
        return str(self.body["checksum_type"])


@dataclass(frozen=True)
class Part:
    """An uploaded part; `checksum` is base64, of the upload's algorithm."""

    number: int
    blob: str
    size: int
    md5: str
    modified: float
    checksum: str


class Uploads:
    """The store's multipart uploads."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store

    def create(self, bucket: str, key: str, body: dict[str, Any]) -> Upload:
        """Open an upload; StoreRefusal NoSuchBucket."""
        upload = Upload(secrets.token_urlsafe(48), bucket, key, time.time(), body)
        with self.store.changing() as (cursor, _):
            self.store.require_bucket(cursor, bucket)
            row = (upload.id, bucket, key, upload.created, json.dumps(body))
            cursor.execute("insert into uploads values (?, ?, ?, ?, ?)", row)
        return upload

    def find(self, bucket: str, key: str, identity: str) -> Upload | None:
        """An open upload of a key."""
        query = "select * from uploads where id = ? and bucket = ? and key = ?"
        rows = self.store.database.read(query, (identity, bucket, key))
        return _upload(rows[0]) if rows else None

    def all(self, bucket: str) -> list[Upload]:
        """The bucket's open uploads by key and age."""
        rows = self.store.database.read("select * from uploads where bucket = ? order by key, created, id", (bucket,))
        return [_upload(row) for row in rows]

    def add(self, upload: Upload, number: int, blob: Blob) -> Part | None:
        """Keep a staged blob as a part, in place of an earlier one; None when the upload was closed meanwhile."""
        part = Part(number, blob.path.name, blob.size, blob.md5, time.time(), checksum_of(blob, upload.algorithm))
        with self.store.changing() as (cursor, replaced):
            if cursor.execute("select 1 from uploads where id = ?", (upload.id,)).fetchone() is None:
                return None
            blob.path.stat()  # as in ObjectStore.commit
            query = "select blob from upload_parts where upload = ? and number = ?"
            replaced += [row["blob"] for row in cursor.execute(query, (upload.id, number))]
            row = (upload.id, number, part.blob, part.size, part.md5, part.modified, part.checksum)
            cursor.execute("insert or replace into upload_parts values (?, ?, ?, ?, ?, ?, ?)", row)
        return part

    def parts(self, upload: Upload, after: int = 0, limit: int = -1) -> list[Part]:
        """Parts by number, those above `after`."""
        query = "select * from upload_parts where upload = ? and number > ? order by number limit ?"
        rows = self.store.database.read(query, (upload.id, after, limit))
        return [
            Part(row["number"], row["blob"], row["size"], row["md5"], row["modified"], row["checksum"]) for row in rows
        ]

    def abort(self, upload: Upload) -> None:
        """Close an upload and remove its parts."""
        with self.store.changing() as (cursor, replaced):
            query = "select blob from upload_parts where upload = ?"
            replaced += [row["blob"] for row in cursor.execute(query, (upload.id,))]
            _forget(cursor, upload)

    def complete(self, upload: Upload, parts: list[Part], check: Check | None = None) -> StoredObject | None:
        """Make the object of these parts and close the upload; None when another call closed it first."""
        new = assemble(self.store, upload, parts)
        with self.store.changing() as (cursor, replaced):
            query = "select number, blob from upload_parts where upload = ?"
            found = {row["number"]: row["blob"] for row in cursor.execute(query, (upload.id,))}
            if any(found.get(part.number) != part.blob for part in parts):
                return None
            used = {part.blob for part in parts}
            stored = self.store.commit([new], check)[0]
            replaced += [blob for blob in found.values() if blob not in used]
            _forget(cursor, upload)
        self.store.bury()
        return stored


def assemble(store: ObjectStore, upload: Upload, parts: list[Part]) -> NewObject:
    """The object that parts make; its ETag is S3's MD5 of MD5s, its date that of the upload's beginning."""
    algorithm = upload.algorithm
    md5 = hashlib.md5(b"".join(bytes.fromhex(part.md5) for part in parts), usedforsecurity=False).hexdigest()
    if upload.checksum_type == COMPOSITE:
        checksum = composite(algorithm, [part.checksum for part in parts])
        sums = [{algorithm: part.checksum} for part in parts]
    else:
        checksum = combine(algorithm, [(part.checksum, part.size) for part in parts])
        sums = [{} for _ in parts]
    paths = [store.blob_path(part.blob) for part in parts]
    segments = tuple(Segment(path, part.size, s) for path, part, s in zip(paths, parts, sums, strict=True))
    blob = Blob(paths[0], sum(part.size for part in parts), f"{md5}-{len(parts)}", "", segments=segments)
    described = upload.body["object"]
    return NewObject(
        upload.bucket, upload.key, blob, **described,
        checksums={algorithm: checksum}, checksum_type=upload.checksum_type, last_modified=upload.created,
    )  # fmt: skip


def checksum_of(blob: Blob, algorithm: str) -> str:
    """One of the checksums of a staged blob."""
    return blob.crc64nvme if algorithm == "CRC64NVME" else blob.checksums[algorithm]


def _forget(cursor: sqlite3.Cursor, upload: Upload) -> None:
    cursor.execute("delete from upload_parts where upload = ?", (upload.id,))
    cursor.execute("delete from uploads where id = ?", (upload.id,))


def _upload(row: sqlite3.Row) -> Upload:
    return Upload(row["id"], row["bucket"], row["key"], row["created"], json.loads(row["body"]))
