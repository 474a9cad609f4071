"""What is in the bucket: objects with the POSIX metadata that DataSync and the gateway keep with them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ..display import Shown, Table, size
from ..errors import AwsError, NotFound
from ..inventory import Entry, entry_of_object, posix
from .client import Session


@dataclass(frozen=True, repr=False)
class StoredObject(Shown):
    """An object as HeadObject shows it."""

    bucket: str
    key: str
    size: int
    etag: str
    modified: datetime
    metadata: dict[str, str]

    @property
    def ok(self) -> bool:
        """A finding: it is there."""
        return True

    @property
    def reason(self) -> str:
        """What was seen."""
        return f"s3://{self.bucket}/{self.key} is there"

    def headline(self) -> str:
        """What it is."""
        return f"s3://{self.bucket}/{self.key} is in the bucket, with the file's own metadata."

    def tables(self) -> list[Table]:
        """Size and POSIX metadata, decoded."""
        found = posix(self.metadata)
        rows = [
            ("Size", size(self.size)),
            ("Written to S3", self.modified.isoformat(timespec="seconds")),
            ("Owner and group", f"{found.uid} and {found.gid}"),
            ("Permissions", oct(found.mode)[2:] if found.mode is not None else ""),
            ("Modified at the source", found.mtime.isoformat(timespec="seconds") if found.mtime else "not recorded"),
            ("Written by", self.metadata.get("user-agent", "not recorded")),
        ]
        return [Table(("Metadata", "Value"), rows)]


class S3:
    """S3 in one region, held open."""

    def __init__(self, session: Session, region: str) -> None:
        self._client = session.client("s3", region)

    def head(self, bucket: str, key: str) -> StoredObject:
        """One object; `NotFound` when it is not there."""
        try:
            answer = self._client.look("head_object", Bucket=bucket, Key=key)
        except AwsError as error:
            if error.code in ("404", "NoSuchKey"):
                raise NotFound(
                    f"s3://{bucket}/{key} is not there. Has DataSync copied it? See 02_run_datasync_task."
                ) from error
            raise
        return StoredObject(
            bucket, key, answer["ContentLength"], answer["ETag"].strip('"'),
            answer["LastModified"].astimezone(UTC), answer.get("Metadata", {}),
        )  # fmt: skip

    def keys(self, bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
        """Every object under a prefix as LIST shows it, in UTF-8 byte order."""
        return self._client.pages("list_objects_v2", "Contents", Bucket=bucket, Prefix=prefix)

    def entries(self, bucket: str, prefix: str, wanted: set[str], workers: int = 8) -> list[Entry]:
        """The objects of wanted keys (below the prefix) with their POSIX metadata: one LIST, and a HEAD each."""
        listed = [item["Key"] for item in self.keys(bucket, prefix) if item["Key"][len(prefix) :] in wanted]
        with ThreadPoolExecutor(workers) as pool:
            heads = pool.map(lambda key: self.head(bucket, key), listed)
            return [entry_of_object(head.key[len(prefix) :], head.size, head.metadata) for head in heads]

    def read(self, bucket: str, key: str) -> bytes:
        """An object's bytes; for small ones such as reports."""
        content: bytes = self._client.look("get_object", Bucket=bucket, Key=key)["Body"].read()
        return content

    def delete(self, bucket: str, key: str) -> None:
        """Delete one object."""
        self._client.change("delete_object", Bucket=bucket, Key=key)
