"""What do an object's headers say of the file it was? Size, POSIX metadata and checksum, as the values of one row."""

from __future__ import annotations

import re
import stat
from base64 import b64encode
from collections.abc import Collection, Iterable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from ..inventory.encoding import Column, encode, numbers, some_numbers, some_strings, strings
from ..inventory.entries import posix
from .pages import EPOCH, MICROSECOND
from .wire import with_kms

ALGORITHMS = ("CRC64NVME", "CRC32C", "CRC32", "SHA256", "SHA1")  # the one that is taken when there are several
ARCHIVED = {
    "GLACIER",
    "DEEP_ARCHIVE",
}  # … and INTELLIGENT_TIERING's archive tiers, which say so in x-amz-archive-status
META = "x-amz-meta-"
MD5_ETAG = re.compile(r"[0-9a-f]{32}")
DECIMAL = re.compile(r"(\d+)(?:\.(\d{1,9})\d*)?")  # seconds, as rclone and s3fs write `mtime`
KINDS = {"file": 0, "folder": 1, "link": 2, "other": 3}
CODES = {
    "size": "q",
    "mtime_ns": "q",
    "mtime_step_ns": "i",
    "mode": "i",
    "uid": "q",
    "gid": "q",
    "last_modified_us": "q",
}
TEXTS = ("target", "etag", "storage_class", "checksum_algorithm", "checksum_type", "checksum", "problem")

Row = dict[str, Any]  # by the names of schema.SCHEMA; what is left out is null


def row_of(key: str, headers: Mapping[str, str], computable: Collection[str] | None = None) -> Row:
    """The row of an object; `headers` are looked up without regard to case.

    Of its checksums the row has the first that is `computable` beside the file (None: whichever), else the first.
    """
    row: Row = {"key": key, "kind": "file", "size": int(headers["content-length"])}
    row["etag"] = headers.get("etag", "").strip('"')
    row["last_modified_us"] = (parsedate_to_datetime(headers["last-modified"]) - EPOCH) // MICROSECOND
    storage = headers.get("x-amz-storage-class", "STANDARD")
    row["storage_class"] = None if storage == "STANDARD" else storage
    kept = _checksums(row["etag"], headers)
    usable = [one for one in kept if computable is None or one["checksum_algorithm"] in computable]
    row.update(next(iter([*usable, *kept]), {}))
    metadata = {name[len(META) :].lower(): value for name, value in headers.items() if name.lower().startswith(META)}
    row.update(posix_row(metadata))
    if key.endswith("/"):
        row.update(kind="folder", size=0)
    return row


def posix_row(metadata: dict[str, str]) -> Row:
    """Time, mode, owner, and whether it is a link or a folder, from user metadata (names in lower case)."""
    try:
        found = posix(metadata)
    except ValueError as error:
        return {"problem": f"unreadable: its POSIX metadata is not what DataSync writes ({error})"}
    mtime, step = found.mtime_ns, found.mtime_step if found.mtime_ns is not None else 1
    if mtime is None and (other := DECIMAL.fullmatch(metadata.get("mtime", ""))):
        fraction = other[2] or ""
        mtime = int(other[1]) * 1_000_000_000 + int(fraction.ljust(9, "0"))
        step = 10 ** (9 - len(fraction))
    mode = None if found.mode is None else stat.S_IMODE(found.mode)
    row: Row = {"mtime_ns": mtime, "mode": mode, "uid": found.uid, "gid": found.gid}
    if step > 1:
        row["mtime_step_ns"] = step
    if found.mode is not None and stat.S_IFMT(found.mode) == stat.S_IFLNK:
        row["kind"] = "link"
    return row


def _checksums(etag: str, headers: Mapping[str, str]) -> list[Row]:
    """What S3 keeps of the content, best first; last the ETag, where it truly is an MD5.

    That is so for an object in one part that is not encrypted with a KMS key or the caller's own (S3 API, Object).
    """
    found: list[Row] = []
    for algorithm in ALGORITHMS:
        value = headers.get(f"x-amz-checksum-{algorithm.lower()}")
        if value:
            kind = headers.get("x-amz-checksum-type") or ("COMPOSITE" if "-" in value else "FULL_OBJECT")
            found.append({"checksum_algorithm": algorithm, "checksum_type": kind, "checksum": value})
    own = "x-amz-server-side-encryption-customer-algorithm" in headers
    if MD5_ETAG.fullmatch(etag) and not with_kms(headers) and not own:
        value = b64encode(bytes.fromhex(etag)).decode()
        found.append({"checksum_algorithm": "MD5", "checksum_type": "FULL_OBJECT", "checksum": value})
    return found


def archived(headers: Mapping[str, str]) -> str | None:
    """Why the object's bytes cannot be read now; None: they can."""
    storage = headers.get("x-amz-archive-status") or headers.get("x-amz-storage-class", "STANDARD")
    restored = 'ongoing-request="false"' in headers.get("x-amz-restore", "")
    if (storage in ARCHIVED or "ARCHIVE_ACCESS" in storage) and not restored:
        return f"unreadable: archived in {storage}; restore the object first"
    return None


def encoded(shard: str, rows: Iterable[Row]) -> bytes:
    """Rows as one block."""
    rows = list(rows)
    columns: dict[str, Column | None] = {
        "key": strings([row["key"].encode() for row in rows]),
        "kind": [b"", bytes([KINDS[row["kind"]] for row in rows])],
    }
    for name, code in CODES.items():
        found = {at: row[name] for at, row in enumerate(rows) if row.get(name) is not None}
        whole = len(found) == len(rows)
        columns[name] = numbers(code, found.values()) if whole else some_numbers(code, len(rows), found)
    for name in TEXTS:
        texts = {at: row[name].encode() for at, row in enumerate(rows) if row.get(name) is not None}
        columns[name] = some_strings(len(rows), texts)
    return encode(shard, len(rows), columns)
