"""Which buckets are there, and when may a file of the object store be removed? What `ObjectStore` stands on."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .database import Database
from .object_rows import TABLES, StoreRefusal, bucket_of


class Buckets:
    """The rows of buckets, and transactions after which files go."""

    def __init__(self, database: Database, blobs_path: Path) -> None:
        self.database = database
        self.blobs = blobs_path
        self._local = threading.local()
        blobs_path.mkdir(parents=True, exist_ok=True)
        with database.writing() as cursor:
            for statement in TABLES:
                cursor.execute(statement)

    # Transactions and files.

    @contextmanager
    def changing(self) -> Iterator[tuple[sqlite3.Cursor, list[str]]]:
        """A transaction, and the list of files to unlink once it is over; nested use joins the outer one.

        Inside a transaction that the caller began on the database itself, they are left to `bury`.
        """
        outer: list[str] | None = getattr(self._local, "replaced", None)
        if outer is not None:
            yield self.database.connection.cursor(), outer
            return
        foreign = self.database.connection.in_transaction
        replaced: list[str] = []
        self._local.replaced = replaced
        try:
            with self.database.writing() as cursor:
                yield cursor, replaced
                if foreign:
                    self.condemn(cursor, replaced)
        finally:
            self._local.replaced = None
        if not foreign:
            self.unlink(replaced)

    def condemn(self, cursor: sqlite3.Cursor, names: Iterable[str]) -> None:
        """Let `bury` unlink files later."""
        now = time.time()
        cursor.executemany("insert into condemned values (?, ?)", [(name, now) for name in names])

    def unlink(self, names: Iterable[str]) -> None:
        """Remove files of blobs by name, those that are gone already too."""
        for name in names:
            self.blob_path(name).unlink(missing_ok=True)

    def blob_path(self, name: str) -> Path:
        """Where a blob's bytes are."""
        return self.blobs / name[:2] / name

    # Buckets.

    def create_bucket(self, name: str, region: str) -> None:
        """Make a bucket; StoreRefusal BucketAlreadyOwnedByYou."""
        try:
            with self.database.writing() as cursor:
                cursor.execute("insert into buckets values (?, ?, ?, '', '{}')", (name, region, time.time()))
        except sqlite3.IntegrityError as error:
            raise StoreRefusal("BucketAlreadyOwnedByYou", f"The bucket {name} is there already.") from error

    def delete_bucket(self, name: str) -> None:
        """Remove an empty bucket and its unfinished uploads; StoreRefusal NoSuchBucket, BucketNotEmpty."""
        with self.changing() as (cursor, replaced):
            self.require_bucket(cursor, name)
            if cursor.execute("select 1 from objects where bucket = ? limit 1", (name,)).fetchone():
                raise StoreRefusal("BucketNotEmpty", "The bucket you tried to delete is not empty")
            of_bucket = "upload in (select id from uploads where bucket = ?)"
            rows = cursor.execute(f"select blob from upload_parts where {of_bucket}", (name,)).fetchall()
            cursor.execute(f"delete from upload_parts where {of_bucket}", (name,))
            cursor.execute("delete from uploads where bucket = ?", (name,))
            cursor.execute("delete from buckets where name = ?", (name,))
            replaced += [row["blob"] for row in rows]

    def bucket(self, name: str) -> dict[str, Any] | None:
        """name, region, created (epoch seconds), versioning ('', Enabled, Suspended), configuration; or None."""
        rows = self.database.read("select * from buckets where name = ?", (name,))
        return bucket_of(rows[0]) if rows else None

    def buckets(self) -> list[dict[str, Any]]:
        """All buckets by name."""
        return [bucket_of(row) for row in self.database.read("select * from buckets order by name")]

    def set_versioning(self, name: str, status: str) -> None:
        """Enabled or Suspended; StoreRefusal NoSuchBucket."""
        with self.database.writing() as cursor:
            self.require_bucket(cursor, name)
            cursor.execute("update buckets set versioning = ? where name = ?", (status, name))

    def configure(self, name: str, setting: str, value: Any) -> None:
        """Store a bucket's setting, or remove it with None; StoreRefusal NoSuchBucket."""
        with self.database.writing() as cursor:
            configuration = bucket_of(self.require_bucket(cursor, name))["configuration"]
            configuration[setting] = value
            kept = {key: item for key, item in configuration.items() if item is not None}
            cursor.execute("update buckets set configuration = ? where name = ?", (json.dumps(kept), name))

    def require_bucket(self, cursor: sqlite3.Cursor, name: str) -> sqlite3.Row:
        """A bucket's row; StoreRefusal NoSuchBucket."""
        row: sqlite3.Row | None = cursor.execute("select * from buckets where name = ?", (name,)).fetchone()
        if row is None:
            raise StoreRefusal("NoSuchBucket", "The specified bucket does not exist")
        return row
