"""Is what stands in the bucket what stands at the source, now that the transfer is over?

ONLY_FILES_TRANSFERRED reads each transferred item again at both ends. POINT_IN_TIME_CONSISTENT does so with everything
in scope, transferred or not. The DataSync user guide leaves open what the second makes of objects that it was told to
keep: here, objects only at the destination are mismatches just with PreserveDeletedFiles REMOVE, and objects older than
the run are not compared with OverwriteMode NEVER.
"""

from __future__ import annotations

import hashlib
import os
from typing import BinaryIO

from .objects import StoredObject
from .transfer_copy import destination_key
from .transfer_job import Hands
from .transfer_metadata import differing
from .transfer_plan import pairs, stored_metadata
from .transfer_source import Item

CHECKSUM, METADATA = "Checksum failure", "Metadata failure"
REMOVED, ADDED = "Files were removed", "Files were added"
_CODES = {
    CHECKSUM: "ContentMismatch",
    METADATA: "MetadataMismatch",
    REMOVED: "FileNotAtDestination",
    ADDED: "FileNotAtSource",
}


def verify_path(hands: Hands, path: bytes) -> None:
    """Compare one transferred item, looked at afresh."""
    try:
        item = hands.tree.look(path)
    except OSError:
        _failed(hands, path, ADDED, None, None, is_folder=False)  # gone from the source since it was copied
        return
    _verify(hands, item, hands.store.head(hands.job.bucket, destination_key(hands, item)))


def verify_everything(hands: Hands, began: float) -> None:
    """Compare both sides whole; `began` is the epoch second of the run's start."""
    removing = hands.options["PreserveDeletedFiles"] == "REMOVE"
    keeping = hands.options["OverwriteMode"] == "NEVER"
    for pair in pairs(hands, counting=False):
        if pair.seen is None:
            assert pair.stored is not None
            if removing:
                key = pair.stored.key[len(hands.job.prefix) :]
                stored = (pair.stored.metadata, pair.stored.size, _hash_stored(hands, pair.stored))
                _failed(hands, key.removesuffix("/").encode(), ADDED, None, stored, is_folder=key.endswith("/"))
        elif not (keeping and pair.stored is not None and pair.stored.last_modified < began):
            _verify(hands, pair.seen, pair.stored)


def _verify(hands: Hands, item: Item, stored: StoredObject | None) -> None:
    try:
        source_hash = _hash_source(hands, item)
    except OSError as error:
        hands.counters.of(item.is_folder).failed_verify += 1
        hands.log.failed("VERIFY", item.path, "SourceError", str(error.strerror))
        failure = (error.errno or 0, "SourceError", str(error.strerror))
        hands.reports.add("Verified", item.path, item, failure=failure)
        return
    if stored is None:
        _failed(hands, item.path, REMOVED, (item, source_hash), None, is_folder=item.is_folder)
        return
    metadata, size = stored_metadata(hands, item, stored)
    stored_hash = "" if item.is_folder else _hash_stored(hands, stored)
    if source_hash != stored_hash:
        kind = CHECKSUM
    elif differing(item, metadata, size, hands.options):
        kind = METADATA
    else:
        hands.counters.of(item.is_folder).verified += 1
        hands.log.done("VERIFY", item.path)
        hands.reports.add("Verified", item.path, item, metadata=metadata, SrcHash=source_hash, DstHash=stored_hash)
        hands.channel.progress()
        return
    _failed(hands, item.path, kind, (item, source_hash), (metadata, size, stored_hash), is_folder=item.is_folder)


def _failed(
    hands: Hands,
    path: bytes,
    kind: str,
    source: tuple[Item, str] | None,
    stored: tuple[dict[str, str], int, str] | None,
    *,
    is_folder: bool,
) -> None:
    sign = {REMOVED: "<", ADDED: ">"}.get(kind, "<>")
    hands.counters.of(is_folder).failed_verify += 1
    hands.log.mismatch(path, sign, _CODES[kind], kind, source, stored)
    item, source_hash = source or (None, "")
    stored_hash = stored[2] if stored else ""
    failure = (0, _CODES[kind], kind)
    hands.reports.add("Verified", path, item, failure=failure, SrcHash=source_hash, DstHash=stored_hash)
    hands.channel.progress()


def _hash_source(hands: Hands, item: Item) -> str:
    """Hex SHA-256 of a file's bytes or a link's target; empty for a folder."""
    if item.is_folder:
        return ""
    if item.is_link:
        return hashlib.sha256(hands.tree.link_target(item.path)).hexdigest()
    descriptor, _ = hands.tree.open(item.path)
    with os.fdopen(descriptor, "rb", buffering=0) as source:
        return _hash(hands, source, item.size)


def _hash_stored(hands: Hands, stored: StoredObject) -> str:
    try:
        with hands.store.open(stored) as body:
            return _hash(hands, body, stored.size)
    except FileNotFoundError:  # deleted while we verified: its hash is nobody's
        return ""


def _hash(hands: Hands, source: BinaryIO, size: int) -> str:
    digest = hashlib.sha256()
    while data := source.read(min(1 << 20, size + 1)):
        digest.update(data)
        hands.channel.progress()
    return digest.hexdigest()
