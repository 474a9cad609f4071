"""What does an inventory say of one entry? The columns of every side's Parquet files, sorted by `key` in byte order.

The same columns for all sides, so that any engine (Athena, DuckDB, Spark) can join two inventories by `key`. What a
side cannot know is null: a LIST knows no owner, a file system no ETag.
"""

from __future__ import annotations

from typing import Literal

import pyarrow as pa

VERSION = 1
Side = Literal["source", "bucket", "share", "report"]
FILE, FOLDER, LINK, OTHER = "file", "folder", "link", "other"
KINDS = pa.array([FILE, FOLDER, LINK, OTHER], pa.string())  # the dictionary of `kind`
LONGEST_KEY = 1024  # bytes of UTF-8 (S3 user guide, object keys), the destination's prefix included

SCHEMA = pa.schema(
    [
        # Relative to the side's root, '/' between, a folder's ends in '/'; the root itself has no row. Bytes that are
        # not UTF-8 are written as \xNN; then `raw` has the name's bytes and `problem` says so.
        pa.field("key", pa.string(), nullable=False),
        pa.field("kind", pa.dictionary(pa.int8(), pa.string()), nullable=False),  # file, folder, link, other
        pa.field("size", pa.int64()),  # bytes; 0 of a folder; of a link the length of its target
        pa.field("mtime_ns", pa.int64()),  # nanoseconds since 1970, UTC
        pa.field("mtime_step_ns", pa.int32()),  # how exactly that is known; null: to the nanosecond
        pa.field("mode", pa.int32()),  # permission bits only
        pa.field("uid", pa.int64()),
        pa.field("gid", pa.int64()),
        pa.field("target", pa.string()),  # where a link points
        pa.field("links", pa.int32()),  # hard links of a file, where there is more than one
        pa.field("inode", pa.int64()),  # … and which file that is
        pa.field("allocated", pa.int64()),  # bytes on disk, where that is less than `size`: a sparse file
        pa.field("etag", pa.string()),  # without quotes
        pa.field("last_modified_us", pa.int64()),  # when the object was written: microseconds since 1970, UTC
        pa.field("storage_class", pa.string()),  # null: STANDARD
        pa.field("checksum_algorithm", pa.string()),  # CRC64NVME, CRC32C, CRC32, SHA256, SHA1, MD5, as S3 names them
        pa.field("checksum_type", pa.string()),  # FULL_OBJECT or COMPOSITE
        pa.field("checksum", pa.string()),  # base64, as S3 writes it; -N after it: composite of N parts
        pa.field("problem", pa.string()),  # why this row cannot be trusted or matched: unreadable, not UTF-8, …
        pa.field("raw", pa.binary()),  # the key's own bytes, where they are not UTF-8
    ],
    metadata={b"runbook.inventory": str(VERSION).encode()},
)
