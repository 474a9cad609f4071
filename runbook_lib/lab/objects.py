"""Which objects are in the lab's buckets, and where are their bytes?

Rows are in the lab's SQLite file, bytes are plain files `blobs/<2 hex>/<id>` that never change once written. A blob
without a row is invisible: an object appears, and replaces another, in the transaction that writes its row, and a
process that is killed before leaves a blob that `recover` removes. Several processes may use one store at once.
"""

from __future__ import annotations

import io
import json
import os
import secrets
import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from .buckets import Buckets
from .checksums import CHUNK, FULL_OBJECT, encode, new
from .object_rows import (
    INSERT,
    LIST,
    LIST_BOUNDED,
    PROMOTE,
    VERSIONS,
    Blob,
    Check,
    NewObject,
    StoredObject,
    StoreRefusal,
    current,
    lookup,
    stored_object,
    successor,
)
from .segments import Segment, open_segments

__all__ = ["Blob", "NewObject", "ObjectStore", "StoreRefusal", "StoredObject"]

PAGE = 1000  # rows fetched at a time
GRACE = 3600.0  # seconds for which the files of a replaced object of several parts stay for those who read it


class ObjectStore(Buckets):
    """Buckets and objects, held open by the daemon, by its workers and by the world's builder."""

    # Writing.

    def stage(self, source: BinaryIO | bytes, algorithms: Iterable[str] = ()) -> Blob:
        """Write bytes to a blob that no one sees yet, with MD5, CRC64NVME and more checksums in the same pass."""
        path = self._new_path()
        md5, crc = new("MD5"), new("CRC64NVME")
        more = {name: new(name) for name in algorithms if name != "CRC64NVME"}
        digests = (md5, crc, *more.values())
        size = 0
        stream = io.BytesIO(source) if isinstance(source, bytes) else source
        try:
            with _create(path) as sink:
                while data := stream.read(CHUNK):
                    for digest in digests:
                        digest.update(data)
                    sink.write(data)
                    size += len(data)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        checksums = {name: encode(digest.digest()) for name, digest in more.items()}
        return Blob(path, size, md5.digest().hex(), encode(crc.digest()), checksums)

    def discard(self, blob: Blob) -> None:
        """Remove a staged blob that will not be committed."""
        self.unlink([blob.path.name])

    def link(self, path: Path) -> Path:
        """A second, staged name for the bytes of a file; FileNotFoundError when it is gone."""
        target = self._new_path()
        target.parent.mkdir(exist_ok=True)
        os.link(path, target)
        return target

    def commit(self, objects: list[NewObject], check: Check | None = None) -> list[StoredObject]:
        """Make objects visible, all in one transaction.

        `check` sees each key's current object (or None) inside the transaction and may raise. StoreRefusal
        NoSuchBucket. The blobs stay staged when nothing was committed.
        """
        stored: list[StoredObject] = []
        with self.changing() as (cursor, replaced):
            versioning: dict[str, str] = {}
            for item in objects:
                if item.bucket not in versioning:
                    versioning[item.bucket] = self.require_bucket(cursor, item.bucket)["versioning"]
                if check is not None:
                    check(current(self.blobs, cursor, item.bucket, item.key))
                version, gone = self._make_room(cursor, item.bucket, item.key, versioning[item.bucket])
                replaced += gone
                stored.append(self._insert(cursor, item, version))
        return stored

    def put(
        self, bucket: str, key: str, source: BinaryIO | bytes, metadata: dict[str, str] | None = None, **more: Any
    ) -> StoredObject:
        """Stage and commit one object; further members as NewObject has them."""
        blob = self.stage(source)
        try:
            return self.commit([NewObject(bucket, key, blob, metadata or {}, **more)])[0]
        except BaseException:
            self.discard(blob)
            raise

    def _make_room(self, cursor: sqlite3.Cursor, bucket: str, key: str, versioning: str) -> tuple[str, list[str]]:
        """The version id for a new version of a key, which nothing holds any more, and files to unlink."""
        if versioning == "Enabled":
            version, gone = secrets.token_urlsafe(24), []
        else:
            version, gone = "null", self._remove(cursor, bucket, key, "null")
        if versioning:
            cursor.execute("update objects set current = 0 where bucket = ? and key = ? and current = 1", (bucket, key))
        return version, gone

    def _remove(self, cursor: sqlite3.Cursor, bucket: str, key: str, version: str) -> list[str]:
        """Delete one row; the names of its files that can be unlinked once the transaction is over."""
        stored = lookup(self.blobs, cursor, bucket, key, version)
        if stored is None:
            return []
        cursor.execute("delete from objects where bucket = ? and key = ? and version_id = ?", (bucket, key, version))
        if stored.file:
            return [Path(stored.file).name]
        self.condemn(cursor, [segment.path.name for segment in stored.segments])
        return []

    def _insert(self, cursor: sqlite3.Cursor, item: NewObject, version: str) -> StoredObject:
        blob = item.blob
        for path in [segment.path for segment in blob.segments] or [blob.path]:
            path.stat()  # recover() may have removed what an orphaned worker staged before the daemon came back
        body: dict[str, Any] = {
            "content_type": item.content_type,
            "checksums": item.checksums or {"CRC64NVME": blob.crc64nvme},
        }
        for name in ("metadata", "tags", "headers"):
            if getattr(item, name):
                body[name] = getattr(item, name)
        if item.storage_class != "STANDARD":
            body["storage_class"] = item.storage_class
        if item.checksum_type != FULL_OBJECT:
            body["checksum_type"] = item.checksum_type
        if blob.segments:
            body["segments"] = [[segment.path.name, segment.size, segment.checksums] for segment in blob.segments]
        row = {
            "bucket": item.bucket, "key": item.key, "version_id": version, "size": blob.size, "etag": blob.md5,
            "last_modified": item.last_modified or time.time(), "delete_marker": 0,
            "blob": "" if blob.segments else blob.path.name, "body": json.dumps(body),
        }  # fmt: skip
        cursor.execute(INSERT, row)
        return stored_object(self.blobs, row)

    def delete(self, bucket: str, key: str, version_id: str | None = None) -> StoredObject | None:
        """Delete as S3 does: a version for good, or the current one, under a delete marker where there are versions.

        Answers the version removed or the marker made, None when there was nothing. StoreRefusal NoSuchBucket.
        """
        with self.changing() as (cursor, replaced):
            versioning = self.require_bucket(cursor, bucket)["versioning"]
            if version_id is not None or not versioning:
                found = lookup(self.blobs, cursor, bucket, key, version_id or "null")
                replaced += self._remove(cursor, bucket, key, version_id or "null")
                cursor.execute(PROMOTE, (bucket, key))
                return found
            version, gone = self._make_room(cursor, bucket, key, versioning)
            replaced += gone
            row = {
                "bucket": bucket, "key": key, "version_id": version, "size": 0, "etag": "",
                "last_modified": time.time(), "delete_marker": 1, "blob": "", "body": "{}",
            }  # fmt: skip
            cursor.execute(INSERT, row)
            return stored_object(self.blobs, row)

    def set_tags(self, stored: StoredObject, tags: dict[str, str]) -> None:
        """Replace the tags of one version."""
        with self.database.writing() as cursor:
            cursor.execute(
                "update objects set body = json_set(body, '$.tags', json(?))"
                " where bucket = ? and key = ? and version_id = ?",
                (json.dumps(tags), stored.bucket, stored.key, stored.version_id),
            )

    # Reading.

    def head(self, bucket: str, key: str, version_id: str | None = None) -> StoredObject | None:
        """A version, or the current object; None when it is not there or a delete marker hides it."""
        found = self.look(bucket, key, version_id)
        return None if found is None or found.delete_marker else found

    def look(self, bucket: str, key: str, version_id: str | None = None) -> StoredObject | None:
        """As `head`, but shows delete markers."""
        cursor = self.database.connection.cursor()
        if version_id is None:
            return current(self.blobs, cursor, bucket, key)
        return lookup(self.blobs, cursor, bucket, key, version_id)

    def open(self, stored: StoredObject) -> BinaryIO:
        """The bytes of an object; of its newest version when it was replaced meanwhile (see `read`).

        FileNotFoundError when it was deleted. A replace or delete later on does not disturb the open reader.
        """
        found: StoredObject | None = stored
        while found is not None:
            try:
                return self.open_exactly(found)
            except FileNotFoundError:
                version = None if found.version_id == "null" else found.version_id
                found = self.head(found.bucket, found.key, version)
        raise FileNotFoundError(f"s3://{stored.bucket}/{stored.key} was deleted")

    def read(self, bucket: str, key: str, version_id: str | None = None) -> tuple[StoredObject, BinaryIO] | None:
        """An object and the bytes that belong to it, whatever replaces it meanwhile; None when it is not there."""
        while (found := self.head(bucket, key, version_id)) is not None:
            try:
                return found, self.open_exactly(found)
            except FileNotFoundError:
                continue  # replaced between the look and the open
        return None

    def open_exactly(self, stored: StoredObject, start: int = 0, end: int | None = None) -> BinaryIO:
        """The bytes [start, end) of exactly this version; FileNotFoundError when it was replaced or deleted."""
        pieces = stored.segments or (Segment(Path(stored.file), stored.size),)
        return open_segments(pieces, start, stored.size if end is None else end)

    def list(
        self, bucket: str, prefix: str = "", after: str = "", limit: int | None = None, *, start: str = ""
    ) -> Iterator[StoredObject]:
        """Current objects in the order of their keys' UTF-8 bytes: those > `after` and >= `start`.

        Fetched in pages, so that a slow reader holds no transaction open; keys written meanwhile may be seen or not.
        """
        start, end = max(start, prefix, key=str.encode), successor(prefix)
        left, root = limit, str(self.blobs)
        while left is None or left > 0:
            page = PAGE if left is None else min(PAGE, left)
            bounds = (bucket, start, after) if end is None else (bucket, start, after, end)
            rows = self.database.read(LIST if end is None else LIST_BOUNDED, (*bounds, page))
            for row in rows:
                yield stored_object(root, row)
            if len(rows) < page:
                return
            after = rows[-1]["key"]
            left = None if left is None else left - page

    def versions(
        self, bucket: str, prefix: str, key_marker: str, version_marker: str, limit: int
    ) -> Iterator[StoredObject]:
        """Versions and delete markers by key, the newest first, behind a marker (a whole key, if it has no version)."""
        end = successor(prefix) or "\U0010ffff" * 257
        position = {"bucket": bucket, "prefix": prefix, "end": end, "key": key_marker, "version": version_marker}
        rows = self.database.read(VERSIONS, {**position, "limit": limit})
        return (stored_object(self.blobs, row) for row in rows)

    def is_current(self, stored: StoredObject) -> bool:
        """Whether a version is its key's latest."""
        found = self.look(stored.bucket, stored.key)
        return found is not None and found.version_id == stored.version_id

    # Keeping the files in order.

    def _new_path(self) -> Path:
        return self.blob_path(secrets.token_hex(16))

    def clear(self) -> None:
        """Forget every bucket, object and upload."""
        with self.database.writing() as cursor:
            for table in ("objects", "upload_parts", "uploads", "buckets", "condemned"):
                cursor.execute(f"delete from {table}")
        self.recover()

    def recover(self) -> None:
        """At the daemon's start: remove blobs that no row names."""
        with self.database.writing() as cursor:  # nobody commits meanwhile
            cursor.execute("delete from condemned")
            rows = cursor.execute("select blob from objects union all select blob from upload_parts")
            named = {row["blob"] for row in rows}
            for row in cursor.execute("select body from objects where blob = '' and delete_marker = 0"):
                named.update(name for name, _, _ in json.loads(row["body"])["segments"])
            for path in self.blobs.glob("*/*"):
                if path.name not in named:
                    path.unlink()

    def bury(self) -> None:
        """Remove the files of replaced objects of several parts that nobody can be reading any more."""
        with self.database.writing() as cursor:
            long_ago = (time.time() - GRACE,)
            rows = cursor.execute("select blob from condemned where since < ?", long_ago).fetchall()
            cursor.execute("delete from condemned where since < ?", long_ago)
        self.unlink(row["blob"] for row in rows)


def _create(path: Path) -> BinaryIO:
    try:
        return path.open("xb")
    except FileNotFoundError:  # one of 256 folders, made at its first blob
        path.parent.mkdir(exist_ok=True)
        return path.open("xb")
