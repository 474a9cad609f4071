"""What differs between the source and the destination, found in one sorted pass over both?

Nothing is remembered between runs: each compares size and metadata of both ends (DataSync user guide, how transfers
work). The source is walked in S3's key order beside pages of the object index, so memory does not grow with the tree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .objects import StoredObject
from .transfer_job import Hands
from .transfer_metadata import differing, top_folder_metadata
from .transfer_source import METADATA_OBJECT, Excluded, Item, Problem

_OWN = ("", METADATA_OBJECT.decode())  # keys below the prefix that stand for no file or folder below the top


@dataclass(frozen=True, slots=True)
class Transfer:
    """An item to copy. `kind` is a report's TransferType; METADATA ones are copied whole as well, S3 cannot do less."""

    item: Item
    overwrite: bool
    kind: str


@dataclass(frozen=True, slots=True)
class Delete:
    """An object that is no longer at the source; its key is below the prefix."""

    key: str
    size: int

    @property
    def is_folder(self) -> bool:
        """Whether it stands for a folder."""
        return self.key.endswith("/")

    @property
    def path(self) -> bytes:
        """Its relative path."""
        return self.key.removesuffix("/").encode()


@dataclass(frozen=True, slots=True)
class Pair:
    """What both sides have under one key; one of them may be missing."""

    seen: Item | None
    stored: StoredObject | None


def plan(hands: Hands) -> Iterator[Transfer | Delete]:
    """What has to be done, in the order of keys; what needs nothing is counted, logged and reported here."""
    options, removing = hands.options, hands.options["PreserveDeletedFiles"] == "REMOVE"
    for pair in pairs(hands):
        if pair.seen is None:
            assert pair.stored is not None
            if removing:
                key = pair.stored.key[len(hands.job.prefix) :]
                delete = Delete(key, pair.stored.size)
                hands.counters.of(delete.is_folder).to_delete += 1
                yield delete
            continue
        item, stored = pair.seen, pair.stored
        count = hands.counters.of(item.is_folder)
        reason = _reason_to_copy(hands, item, stored)
        if reason is None or (stored is not None and options["OverwriteMode"] == "NEVER"):
            count.skipped += 1
            hands.reports.add("Skipped", item.path, item)
            continue
        count.prepared += 1
        hands.counters.bytes_estimated += item.size
        yield Transfer(item, stored is not None, reason)


def _reason_to_copy(hands: Hands, item: Item, stored: StoredObject | None) -> str | None:
    if stored is None or hands.options["TransferMode"] == "ALL":
        return "CONTENT_AND_METADATA"
    found = differing(item, *stored_metadata(hands, item, stored), hands.options)
    if not found:
        return None
    return "CONTENT_AND_METADATA" if {"size", "mtime"} & set(found) else "METADATA"


def stored_metadata(hands: Hands, item: Item, stored: StoredObject) -> tuple[dict[str, str], int]:
    """An object's user metadata and size; for the top folder what `.aws-datasync-metadata` says about it."""
    if item.path:
        return stored.metadata, stored.size
    with hands.store.open(stored) as body:
        return top_folder_metadata(body.read(65536)), 0


def pairs(hands: Hands, *, counting: bool = True) -> Iterator[Pair]:
    """Both sides merged by key, within the filters' scope. Problems at the source are counted once, here.

    What could not be looked at hides what is stored for it: it is never taken for deleted.
    """
    job, store = hands.job, hands.store
    destination = store.list(job.bucket, job.prefix)
    hidden: bytes | None = None  # keys beginning so belong to a folder that could not be listed
    key, stored = _next(hands, destination, counting)
    for seen in hands.tree.walk(hands.filters, len(job.prefix.encode())):
        hands.channel.progress()
        if isinstance(seen, Item) and not seen.path:
            hands.counters.folders.listed += counting
            yield Pair(seen, store.head(job.bucket, job.prefix + METADATA_OBJECT.decode()))
            continue
        wanted = seen.key
        while stored is not None and key < wanted:
            if hidden is None or not key.startswith(hidden):
                yield Pair(None, stored)
            key, stored = _next(hands, destination, counting)
        same = stored is not None and key == wanted
        if isinstance(seen, Item):
            hands.counters.of(seen.is_folder).listed += counting
            if not seen.is_special:
                yield Pair(seen, stored if same else None)
            elif counting:
                _leave_out(hands, seen)
        else:
            if isinstance(seen, Problem) and seen.is_folder:
                hidden = seen.key
            if counting:
                _count(hands, seen)
        if same:
            key, stored = _next(hands, destination, counting)
    while stored is not None:
        if hidden is None or not key.startswith(hidden):
            yield Pair(None, stored)
        key, stored = _next(hands, destination, counting)


def _next(hands: Hands, destination: Iterator[StoredObject], counting: bool) -> tuple[bytes, StoredObject | None]:
    """The next object in scope and its key below the prefix."""
    for stored in destination:
        key = stored.key[len(hands.job.prefix) :]
        if key in _OWN or (hands.filters.some and not hands.filters.in_scope(key.removesuffix("/"))):
            continue
        if hands.options["PreserveDeletedFiles"] == "REMOVE":
            hands.counters.of(key.endswith("/")).listed_at_destination += counting
        return key.encode(), stored
    return b"", None


def _leave_out(hands: Hands, item: Item) -> None:
    reason = "DataSync does not copy devices, pipes and sockets to S3"
    hands.counters.files.skipped += 1
    hands.log.skipped(item.path, reason)
    hands.reports.add("Skipped", item.path, item, failure=(0, "SpecialFile", reason))


def _count(hands: Hands, seen: Problem | Excluded) -> None:
    count = hands.counters.of(seen.is_folder)
    if isinstance(seen, Excluded):
        count.listed += 1
        count.skipped += 1
        return
    if seen.listing:
        count.failed_list += 1
    else:
        count.listed += 1
        count.failed_prepare += 1
    hands.log.failed("LIST" if seen.listing else "PREPARE", seen.path, "SourceError", seen.reason)
    hands.reports.add("Skipped", seen.path, None, failure=(seen.code, "SourceError", seen.reason))
