"""What is in the exported tree, in the order S3 lists keys, and how is it opened without being led astray?

Every path is opened component by component from the export's own descriptor, never following a symbolic link, so
nothing that happens to the tree meanwhile leads out of it. Paths are bytes: a name need not be UTF-8.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from ..filters import Filters

METADATA_OBJECT = b".aws-datasync-metadata"
MAX_KEY_BYTES = 1024  # Amazon S3 user guide, object keys
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_DIRECTORIES = 16  # descriptors kept; macOS gives a process 256


@dataclass(frozen=True, slots=True)
class Item:
    """A file, folder or symbolic link as it was seen; times in nanoseconds since the epoch."""

    path: bytes
    mode: int
    size: int
    uid: int
    gid: int
    mtime: int
    atime: int

    @classmethod
    def from_stat(cls, path: bytes, seen: os.stat_result) -> Item:
        """What lstat said."""
        size = 0 if stat.S_ISDIR(seen.st_mode) else seen.st_size
        return cls(path, seen.st_mode, size, seen.st_uid, seen.st_gid, seen.st_mtime_ns, seen.st_atime_ns)

    @property
    def is_folder(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self.mode)

    @property
    def is_special(self) -> bool:
        """Whether it is a device, a pipe or a socket, which DataSync does not copy to S3."""
        return not (stat.S_ISREG(self.mode) or self.is_folder or self.is_link)

    @property
    def key(self) -> bytes:
        """Its key below the destination's prefix; the top folder has none of its own in S3."""
        if not self.path:
            return METADATA_OBJECT
        return self.path + b"/" if self.is_folder else self.path


@dataclass(frozen=True, slots=True)
class Problem:
    """A path that could not be looked at; `code` is an errno."""

    path: bytes
    is_folder: bool
    code: int
    reason: str
    listing: bool = False  # the folder itself is known, its content is not

    @property
    def key(self) -> bytes:
        """Where it stands in the order of keys; the top folder comes first."""
        return self.path + b"/" if self.is_folder and self.path else self.path


@dataclass(frozen=True, slots=True)
class Excluded:
    """A path that the exclude filter stopped; a folder's content is not listed."""

    path: bytes
    is_folder: bool

    @property
    def key(self) -> bytes:
        """Where it stands in the order of keys."""
        return self.path + b"/" if self.is_folder else self.path


Seen = Item | Problem | Excluded


def shown(path: bytes) -> str:
    """A path for logs and reports: one line of text whatever bytes it has."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Tree:
    """A directory held open; everything below it is reached through it."""

    def __init__(self, export: str, subdirectory: str, *, unreadable: frozenset[bytes] = frozenset()) -> None:
        """`unreadable` are paths to be refused like files of another user, also for root."""
        export_descriptor = os.open(export, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._top = _descend(export_descriptor, os.fsencode(subdirectory))
        finally:
            os.close(export_descriptor)
        self._unreadable = unreadable
        self._directories: OrderedDict[bytes, int] = OrderedDict()

    def close(self) -> None:
        """Close all descriptors."""
        for descriptor in (*self._directories.values(), self._top):
            os.close(descriptor)
        self._directories.clear()

    def _directory(self, path: bytes) -> int:
        if not path:
            return self._top
        descriptor = self._directories.get(path)
        if descriptor is None:
            descriptor = _descend(self._top, path)
            self._directories[path] = descriptor
            if len(self._directories) > _OPEN_DIRECTORIES:
                os.close(self._directories.popitem(last=False)[1])
        else:
            self._directories.move_to_end(path)
        return descriptor

    def look(self, path: bytes) -> Item:
        """The metadata of a path; OSError when it is not there or not reachable."""
        if not path:
            return Item.from_stat(path, os.fstat(self._top))
        parent, _, name = path.rpartition(b"/")
        return Item.from_stat(path, os.stat(name, dir_fd=self._directory(parent), follow_symlinks=False))

    def open(self, path: bytes, flags: int = os.O_RDONLY) -> tuple[int, Item]:
        """A descriptor of a regular file and what it is now; OSError when it is anything else."""
        if path in self._unreadable:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        parent, _, name = path.rpartition(b"/")
        # O_NONBLOCK: a pipe put in the file's place must not hold us; it means nothing for a regular file.
        flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=self._directory(parent))
        item = Item.from_stat(path, os.fstat(descriptor))
        if not stat.S_ISREG(item.mode):
            os.close(descriptor)
            raise OSError(errno.ESTALE, "it is no longer a regular file")
        return descriptor, item

    def link_target(self, path: bytes) -> bytes:
        """Where a symbolic link points, unread and unfollowed."""
        parent, _, name = path.rpartition(b"/")
        return os.readlink(name, dir_fd=self._directory(parent))

    def _entries(self, folder: bytes) -> list[bytes]:
        """Names in S3's order: a folder's name sorts with the slash that its key ends with."""
        with os.scandir(self._directory(folder)) as entries:
            return sorted(os.fsencode(e.name) + (b"/" if e.is_dir(follow_symlinks=False) else b"") for e in entries)

    def walk(self, filters: Filters, prefix_bytes: int = 0) -> Iterator[Seen]:
        """Everything in scope, ordered by key, one folder's names in memory at a time (the top folder comes first)."""
        if filters.included(""):
            yield self.look(b"")
        stack: list[tuple[bytes, Iterator[bytes]]] = []
        entered, problem = self._enter(b"")
        if problem is not None:
            yield problem
        stack.append((b"", entered))
        while stack:
            folder, names = stack[-1]
            name = next(names, None)
            if name is None:
                stack.pop()
                continue
            is_folder = name.endswith(b"/")
            path = (folder + b"/" if folder else b"") + name.removesuffix(b"/")
            if path == METADATA_OBJECT:
                continue  # reserved at the destination for the top folder
            seen = self._see(path, is_folder, filters, prefix_bytes)
            if seen is not None:
                yield seen
            if not is_folder or isinstance(seen, (Problem, Excluded)):
                continue
            if seen is not None or filters.leads_to_included(os.fsdecode(path)):
                entered, problem = self._enter(path)
                if problem is not None:
                    yield problem
                stack.append((path, entered))

    def _enter(self, folder: bytes) -> tuple[Iterator[bytes], Problem | None]:
        try:
            return iter(self._entries(folder)), None
        except OSError as error:
            return iter(()), Problem(folder, True, error.errno or errno.EIO, str(error.strerror), listing=True)

    def _see(self, path: bytes, is_folder: bool, filters: Filters, prefix_bytes: int) -> Seen | None:
        if filters.some:
            text = os.fsdecode(path)
            if not filters.included(text):
                return None
            if filters.excluded(text):
                return Excluded(path, is_folder)
        try:
            path.decode("utf-8")
        except UnicodeDecodeError:
            return Problem(path, is_folder, errno.EILSEQ, "The name is not UTF-8, as an S3 key must be")
        if prefix_bytes + len(path) + is_folder > MAX_KEY_BYTES:
            reason = f"The S3 key would be longer than {MAX_KEY_BYTES} bytes"
            return Problem(path, is_folder, errno.ENAMETOOLONG, reason)
        try:
            item = self.look(path)
        except FileNotFoundError:
            return None  # gone since its folder was listed
        except OSError as error:
            return Problem(path, is_folder, error.errno or errno.EIO, str(error.strerror))
        if item.is_folder != is_folder:
            return Problem(path, is_folder, errno.ESTALE, "It was replaced while it was looked at")
        return item


def _descend(start: int, path: bytes) -> int:
    """A descriptor of a directory below another; a symbolic link on the way is an error (ELOOP or ENOTDIR)."""
    descriptor = os.dup(start)
    for name in path.split(b"/"):
        if not name:
            continue
        if name == b"..":
            os.close(descriptor)
            raise PermissionError(errno.EPERM, "a path with .. leads out of the export")
        try:
            below = os.open(name, _DIRECTORY, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = below
    return descriptor
