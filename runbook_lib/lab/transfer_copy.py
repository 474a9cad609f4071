"""How do a file's bytes and metadata get into the bucket?

Bytes are streamed into staged blobs; many become visible in one transaction, so a killed worker leaves whole objects
or none.
"""

from __future__ import annotations

import errno
import io
import os
import time
from dataclasses import dataclass
from typing import BinaryIO, cast

from .objects import Blob, NewObject, StoredObject
from .transfer_job import Hands
from .transfer_metadata import top_folder_body, user_metadata
from .transfer_plan import Delete, Transfer
from .transfer_source import Item

BATCH_FILES = 200
BATCH_BYTES = 64 << 20
BATCH_SECONDS = 0.5  # a throttled transfer shows what it has


class SourceError(Exception):
    """Reading the source failed; what fails at the destination stays an OSError and ends the execution."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.number = error.errno or errno.EIO
        self.reason = error.strerror or str(error)


class Reader(io.RawIOBase):
    """A source file's bytes at the transfer's rate."""

    def __init__(self, descriptor: int, hands: Hands, size: int) -> None:
        self._descriptor, self._channel, self._left = descriptor, hands.channel, size

    def readable(self) -> bool:
        """It is."""
        return True

    def read(self, size: int = -1) -> bytes:
        """The next bytes, empty at the end of the file as it is now."""
        want = min(self._channel.piece, self._left + 1 if self._left >= 0 else 65536)
        try:
            data = os.read(self._descriptor, want if size < 0 else min(size, want))
        except OSError as error:
            raise SourceError(error) from error
        self._left -= len(data)
        self._channel.spend(len(data))
        return data


@dataclass(frozen=True, slots=True)
class Copied:
    """An item whose object is visible."""

    transfer: Transfer
    item: Item  # as it was when it was opened
    stored: StoredObject


class Copier:
    """Collects staged items and commits them in batches."""

    def __init__(self, hands: Hands) -> None:
        self._hands = hands
        self._batch: list[tuple[Transfer, Item, NewObject]] = []
        self._bytes = 0
        self._since = 0.0
        self._change_first = hands.job.changing == ""

    @property
    def full(self) -> bool:
        """Whether the batch should be committed."""
        late = bool(self._batch) and time.monotonic() - self._since > BATCH_SECONDS
        return late or len(self._batch) >= BATCH_FILES or self._bytes >= BATCH_BYTES

    def copy(self, transfer: Transfer) -> None:
        """Stage one item; a source that cannot be read is counted, logged and reported."""
        hands = self._hands
        try:
            item, blob = self._stage(transfer.item)
        except SourceError as error:
            hands.counters.of(transfer.item.is_folder).failed_transfer += 1
            hands.log.failed("TRANSFER", transfer.item.path, os.strerror(error.number), error.reason)
            failure = (error.number, errno.errorcode.get(error.number, "SourceError"), error.reason)
            hands.reports.add("Transferred", transfer.item.path, transfer.item, failure=failure)
            return
        if not self._batch:
            self._since = time.monotonic()
        self._batch.append((transfer, item, self._object(item, blob)))
        self._bytes += blob.size

    def _stage(self, planned: Item) -> tuple[Item, Blob]:
        hands = self._hands
        try:
            if planned.is_link:
                target = hands.tree.link_target(planned.path)
                hands.channel.spend(len(target))
                return hands.tree.look(planned.path), hands.store.stage(target)
            if planned.is_folder:
                item = hands.tree.look(planned.path)
                return item, hands.store.stage(b"" if planned.path else top_folder_body(item, hands.options))
            descriptor, item = hands.tree.open(planned.path)
        except OSError as error:
            raise SourceError(error) from error
        try:
            blob = hands.store.stage(cast(BinaryIO, Reader(descriptor, hands, item.size)))
        finally:
            os.close(descriptor)
        if self._change_first or planned.path == (hands.job.changing or "").strip("/").encode():
            self._change_first = False
            change(hands, planned.path)
        return item, blob

    def _object(self, item: Item, blob: Blob) -> NewObject:
        job = self._hands.job
        metadata = user_metadata(item, self._hands.options)
        if not item.path:  # the object is a plain file in the share; what it is about stands in its body
            metadata |= {"file-permissions": "100644"}
        return NewObject(job.bucket, job.prefix + item.key.decode(), blob, metadata, storage_class=job.storage_class)

    def commit(self) -> list[Copied]:
        """Make the batch visible."""
        hands, batch = self._hands, self._batch
        stored = hands.store.commit([new for _, _, new in batch])
        self._batch, self._bytes = [], 0
        copied = [Copied(t, item, s) for (t, item, _), s in zip(batch, stored, strict=True)]
        for done in copied:
            hands.counters.of(done.item.is_folder).transferred += 1
            hands.counters.bytes_written += done.stored.size if done.item.path else 0
            hands.log.done("TRANSFER", done.item.path)
            hands.reports.add(
                "Transferred",
                done.item.path,
                done.item,
                metadata=done.stored.metadata,
                version=done.stored.version_id,
                Overwrite=str(done.transfer.overwrite),
                TransferType=done.transfer.kind,
            )
        if copied:
            hands.channel.progress(now=True)
        return copied

    def discard(self) -> None:
        """Forget what is staged."""
        for _, _, new in self._batch:
            self._hands.store.discard(new.blob)
        self._batch = []


def change(hands: Hands, path: bytes) -> None:
    """The planted fault: somebody appends a byte to a source file while it is copied."""
    descriptor, _ = hands.tree.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(descriptor, b"!")
    finally:
        os.close(descriptor)


def remove(hands: Hands, delete: Delete) -> None:
    """Delete an object that is no longer at the source."""
    hands.store.delete(hands.job.bucket, hands.job.prefix + delete.key)
    hands.counters.of(delete.is_folder).deleted += 1
    hands.log.done("DELETE", delete.path)
    hands.reports.add("Deleted", delete.path, None, DstMetadata={"Type": "Object", "ContentSize": delete.size})
    hands.channel.progress()


def destination_key(hands: Hands, item: Item) -> str:
    """Where an item's object is."""
    return hands.job.prefix + item.key.decode()
