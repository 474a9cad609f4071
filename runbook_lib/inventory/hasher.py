"""What is the checksum of a file's content, as S3 would give it? Of the whole, or a composite of its parts.

Sent to the application server as it is: the standard library only, Python 3.6 or newer; awscrt is used where it is.
"""
# ruff: noqa: UP006, UP031, UP035, UP045

import base64
import hashlib
import os
import stat
import zlib
from itertools import chain, repeat
from typing import Any, Callable, Dict, Iterator, Optional, Sequence, Tuple

from .looking import CHANGED, GONE, Tree, unreadable

PIECE = 1024 * 1024  # bytes read at once: what stays in a processor's cache
Hashed = Tuple[Optional[int], Optional[int], Optional[str], Optional[str]]  # size, mtime_ns, checksum, problem


class Crc:
    """A CRC with the methods of hashlib's digests."""

    def __init__(self, function: Callable[[Any, int], int], size: int) -> None:
        self._function, self._size, self._value = function, size, 0

    def update(self, data: Any) -> None:
        """Go on with these bytes."""
        self._value = self._function(data, self._value)

    def digest(self) -> bytes:
        """The value as S3 writes it before base64: big-endian."""
        return self._value.to_bytes(self._size, "big")


def algorithms() -> Dict[str, Callable[[], Any]]:
    """What this machine can compute, by S3's names."""
    found: Dict[str, Callable[[], Any]] = {
        "SHA256": hashlib.sha256,
        "SHA1": hashlib.sha1,
        "CRC32": lambda: Crc(zlib.crc32, 4),
    }
    try:
        hashlib.md5(b"")
        found["MD5"] = hashlib.md5
    except ValueError:  # a machine in FIPS mode has none
        pass
    try:
        from awscrt import checksums
    except ImportError:
        return found
    found["CRC32"] = lambda: Crc(checksums.crc32, 4)
    found["CRC32C"] = lambda: Crc(checksums.crc32c, 4)
    if hasattr(checksums, "crc64nvme"):
        found["CRC64NVME"] = lambda: Crc(checksums.crc64nvme, 8)
    return found


def hashed(make: Callable[[], Any], pieces: Iterator[Any], parts: Sequence[int]) -> str:
    """Base64 of a content's checksum; with `parts` the composite, and `-N` after it.

    `parts` are the parts' sizes in bytes; the last one repeats until the content ends.
    """
    if not parts:
        whole = make()
        for piece in pieces:
            whole.update(piece)
        return base64.b64encode(whole.digest()).decode()
    sizes = chain(parts, repeat(parts[-1]))
    outer, part, room, count = make(), make(), next(sizes), 0
    for piece in pieces:
        view = memoryview(piece)
        while view:
            if room == 0:
                outer.update(part.digest())
                part, room, count = make(), next(sizes), count + 1
            part.update(view[:room])
            room, view = room - len(view[:room]), view[room:]
    outer.update(part.digest())
    return "%s-%d" % (base64.b64encode(outer.digest()).decode(), count + 1)


class Hasher:
    """Reads files of a tree with one buffer; `beat` hears of every piece read."""

    def __init__(self, tree: Tree, beat: Callable[[int], None]) -> None:
        self._tree, self._beat = tree, beat
        self._buffer = bytearray(PIECE)
        self._algorithms = algorithms()

    def hash(self, key: bytes, algorithm: str, parts: Sequence[int]) -> "Optional[Hashed]":
        """Size, mtime in nanoseconds, checksum and problem of a file, or of the text of a link; None: it is gone."""
        try:
            name = self._tree.parent_of(key).rpartition(b"/")[2]
            if stat.S_ISLNK(os.lstat(name).st_mode):
                return self._link(name, algorithm, parts)
            # without O_NONBLOCK a named pipe would be waited for
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            return None if error.errno in GONE else (None, None, None, unreadable(error))
        try:
            return self._file(file, algorithm, parts)
        except OSError as error:
            return None, None, None, unreadable(error)
        finally:
            os.close(file)

    def _link(self, name: bytes, algorithm: str, parts: Sequence[int]) -> "Hashed":
        seen, text = os.lstat(name), os.readlink(name)
        return len(text), seen.st_mtime_ns, hashed(self._algorithms[algorithm], iter([text]), parts), None

    def _file(self, file: int, algorithm: str, parts: Sequence[int]) -> "Hashed":
        before = os.fstat(file)
        if not stat.S_ISREG(before.st_mode):
            return before.st_size, before.st_mtime_ns, None, "neither a file nor a link: it has no content"
        if hasattr(os, "posix_fadvise"):  # not on macOS
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_SEQUENTIAL)  # twice as much is read ahead while we compute
        checksum = hashed(self._algorithms[algorithm], self._pieces(file), parts)
        now = os.fstat(file)
        same = (now.st_size, now.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
        return now.st_size, now.st_mtime_ns, checksum if same else None, None if same else CHANGED

    def _pieces(self, file: int) -> Iterator[Any]:
        """The content, in pieces of one buffer: a piece lasts until the next one."""
        view = memoryview(self._buffer)
        while True:
            count = os.readv(file, [self._buffer])
            if not count:
                return
            self._beat(count)
            yield view[:count]
