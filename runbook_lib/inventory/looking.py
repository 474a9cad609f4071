"""What does the file system say of an entry? lstat, and names and numbers as rows of a block; no path is too deep.

Sent to the application server as it is: the standard library only, Python 3.6 or newer.
"""
# ruff: noqa: B905, UP006, UP007, UP031, UP035, UP045

import errno
import os
import re
import stat
import time
from array import array
from operator import itemgetter, lt
from typing import Any, Dict, List, Match, Optional, Sequence, Tuple, Union

from .encoding import encode, numbers, some_numbers, some_strings, strings

PIECE = 900  # bytes of a path given to the kernel at once; PATH_MAX is 4096, on macOS 1024
FILE, FOLDER, LINK, OTHER = range(4)  # as schema.KINDS
KIND_OF_TYPE = bytes({8: FILE, 4: FOLDER, 10: LINK}.get(number, OTHER) for number in range(256))  # of st_mode >> 12
FAR = 1 << 63  # nanoseconds
MODE = itemgetter(0)  # of a stat_result: faster than its name
CHANGED = "changed while looking"
NOT_UTF8 = "not UTF-8"
GONE = (errno.ENOENT, errno.ENOTDIR)

Names = Tuple[List[bytes], List[bytes]]  # parts of keys, a folder's with '/', and names on disk; one list where alike
Seen = Union[os.stat_result, OSError]
Target = Tuple[Optional[bytes], Optional[str]]


class Block:
    """Rows on their way to one block."""

    def __init__(self) -> None:
        self.keys: List[bytes] = []
        self.kinds = bytearray()
        self.numbers = {"size": array("q"), "mtime_ns": array("q"), "mode": array("i"), "uid": array("q")}
        self.numbers["gid"] = array("q")
        self.some: Dict[str, Dict[int, int]] = {"links": {}, "inode": {}, "allocated": {}}
        self.texts: Dict[str, Dict[int, bytes]] = {"target": {}, "problem": {}, "raw": {}}
        self.unknown: List[int] = []  # rows of which only the name is known
        self.undated: List[int] = []  # rows whose modification time no column holds

    def extend(self, keys: List[bytes], stats: Sequence[os.stat_result]) -> None:
        """Rows of entries that could be looked at."""
        at = len(self.keys)
        modes, inodes, _, links, uids, gids, sizes = list(zip(*stats))[:7]  # one pass in C over what a stat begins with
        kind_of = {mode: KIND_OF_TYPE[mode >> 12] for mode in set(modes)}  # few are different
        permissions = {mode: mode & 0o7777 for mode in kind_of}
        if len(kind_of) == 1:
            kinds = bytes([kind_of[modes[0]]]) * len(keys)
            permitted = array("i", [permissions[modes[0]]]) * len(keys)
        else:
            kinds = bytes(map(kind_of.__getitem__, modes))
            permitted = array("i", [permissions[mode] for mode in modes])
        self.keys += keys
        self.kinds += kinds
        columns = self.numbers
        columns["mode"].extend(permitted)
        for name, values in (("size", sizes), ("uid", uids), ("gid", gids)):
            columns[name].extend(array("q", values))  # which is faster than to extend it with each of them
        try:
            columns["mtime_ns"].extend(array("q", [s.st_mtime_ns for s in stats]))
        except OverflowError:
            self.dated(at, stats)
        if max(links) > 1:
            for i, count in enumerate(links):
                if kinds[i] == FILE and count > 1:
                    # an inode of a file server may have all of 64 bits, and the column a sign
                    self.some["links"][at + i], self.some["inode"][at + i] = count, inodes[i] - (inodes[i] >> 63 << 64)
        held = [s.st_blocks * 512 for s in stats]
        if True in map(lt, held, sizes):
            for i, count in enumerate(held):
                if kinds[i] == FILE and count < sizes[i]:
                    self.some["allocated"][at + i] = count
        if FOLDER in kinds or OTHER in kinds:
            for i, kind in enumerate(kinds):
                if kind in (FOLDER, OTHER):
                    columns["size"][at + i] = 0

    def dated(self, at: int, stats: Sequence[os.stat_result]) -> None:
        """The modification times of rows from `at` on; those beyond 64 bits of nanoseconds become a problem."""
        for row, s in enumerate(stats, at):
            fits = -FAR <= s.st_mtime_ns < FAR
            self.numbers["mtime_ns"].append(s.st_mtime_ns if fits else 0)
            if not fits:
                self.undated.append(row)
                self.texts["problem"][row] = b"modification time before 1678 or after 2262: cannot be compared"

    def add(
        self, key: bytes, path: bytes, seen: Seen, problem: Optional[str] = None, to: Optional[Target] = None
    ) -> None:
        """The row of an entry that may be odd; `path` is its path on disk, without '/' at its end."""
        row, problems = len(self.keys), [problem] if problem else []
        if isinstance(seen, OSError):
            self.unknown.append(row)
            problems.append(unreadable(seen))
            self.keys.append(key)
            self.kinds.append(FOLDER if key[-1:] == b"/" else FILE)
            for column in self.numbers.values():
                column.append(0)
        else:
            self.extend([key], [seen])
            if to and to[0] is not None:
                self.texts["target"][row] = to[0]
            problems += [to[1]] if to and to[1] else []
            if stat.S_ISDIR(seen.st_mode) != (key[-1:] == b"/"):
                problems = [CHANGED]
        own = path + b"/" if key[-1:] == b"/" else path
        if key != own:
            self.texts["raw"][row] = own
            problems.append(NOT_UTF8)
        if row in self.texts["problem"]:
            problems.append(self.texts["problem"][row].decode())
        if problems:
            self.texts["problem"][row] = "; ".join(problems).encode()

    def encoded(self, shard: str, compress: int) -> bytes:
        """These rows as one block of the stream."""
        rows = len(self.keys)
        columns = {"key": strings(self.keys), "kind": [b"", bytes(self.kinds)]}
        for name, values in self.numbers.items():
            nulls = self.unknown + self.undated if name == "mtime_ns" else self.unknown
            columns[name] = numbers(values.typecode, values, nulls, rows)
        some = {name: some_numbers("i" if name == "links" else "q", rows, found) for name, found in self.some.items()}
        texts = {name: some_strings(rows, found) for name, found in self.texts.items()}
        return encode(shard, rows, dict(columns, **some, **texts), compress)


class Tree:
    """A folder and all below it, held open; the process's working folder moves in it."""

    def __init__(self, root: str) -> None:
        os.chdir(root.encode("utf-8", "surrogateescape"))  # whatever the locale there
        self.root = os.open(".", os.O_RDONLY)
        self.stat = os.fstat(self.root)
        self.device = self.stat.st_dev

    def enter(self, folder: bytes) -> None:
        """Go to a folder by its path on disk, relative to the root and with '/' at its end; b"" is the root."""
        os.fchdir(self.root)
        while len(folder) > PIECE:
            cut = folder.rfind(b"/", 0, PIECE)
            os.chdir(folder[:cut])
            folder = folder[cut + 1 :]
        if folder:
            os.chdir(folder)

    def elsewhere(self) -> bool:
        """Whether the working folder is of another file system than the root."""
        return os.stat(".").st_dev != self.device

    def parent_of(self, key: bytes) -> bytes:
        """Go to the folder that has a key's entry, through no link; the entry's path on disk, no '/' at its end."""
        folder, _, last = key.rstrip(b"/").rpartition(b"/")
        os.fchdir(self.root)
        path = b""
        for part in folder.split(b"/") if folder else []:
            name = on_disk(part)
            if not stat.S_ISDIR(os.lstat(name).st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            os.chdir(name)
            path += name + b"/"
        return path + on_disk(last)

    def enter_as_seen(self, folder: bytes, seen: os.stat_result) -> Optional[str]:
        """Go to a folder that was looked at before; why not, if it is another one now or of another file system."""
        try:
            self.enter(folder)
            now = os.stat(".")
        except OSError as error:
            return CHANGED if error.errno in GONE else unreadable(error)
        if now.st_dev != self.device:
            return "another file system: not looked into"
        return None if now.st_ino == seen.st_ino else CHANGED


def unreadable(error: OSError) -> str:
    """How a row says that it could not be read."""
    number = error.errno or 0
    return "unreadable: %s (%s)" % (errno.errorcode.get(number, number), os.strerror(number))


def after(folder: bytes) -> bytes:
    """The first key after all that begin with a folder's key."""
    return folder[:-1] + b"0"  # '0' comes after '/'


def looks(names: List[bytes]) -> List[Any]:
    """lstat of names of the working folder, each a stat_result or the error."""
    try:
        return list(map(os.lstat, names))
    except OSError:
        return [look(name) for name in names]


def look(name: bytes) -> Seen:
    """lstat, or the error."""
    try:
        return os.lstat(name)
    except OSError as error:
        return error


def all_files(seen: List[Any]) -> bool:
    """Whether all could be looked at, and are regular files."""
    try:
        modes = set(map(MODE, seen))
    except TypeError:  # one is an error
        return False
    return all(mode >> 12 == 8 for mode in modes)


def is_link(seen: Seen) -> bool:
    """Whether what was looked at is a link."""
    return not isinstance(seen, OSError) and stat.S_ISLNK(seen.st_mode)


def target(name: bytes) -> Target:
    """Where a link of the working folder points, and what is wrong with that."""
    try:
        to = os.readlink(name)
    except OSError as error:
        return None, CHANGED if error.errno in (*GONE, errno.EINVAL) else unreadable(error)
    return printable(to), None if to == printable(to) else "target " + NOT_UTF8


def printable(name: bytes) -> bytes:
    """A name with those of its bytes that are not UTF-8 written as \\xNN."""
    try:
        name.decode("utf-8")
        return name
    except UnicodeDecodeError:
        return name.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace").encode()


def key_of(name: bytes) -> bytes:
    """A name of the working folder as a key writes it, which is never that of another name beside it."""
    key = printable(name)
    while key != name and os.path.lexists(key):
        key = b"\\" + key
    return key


def on_disk(part: bytes) -> bytes:
    """The name in the working folder that a part of a key stands for: what `key_of` did, undone."""
    if b"\\" in part and not os.path.lexists(part):
        for written in (part, part[1:]):
            name = re.sub(rb"\\(\\|x[0-9a-f]{2})", _byte, written)
            if os.path.lexists(name):
                return name
    return part


def _byte(written: "Match[bytes]") -> bytes:
    return b"\\" if written.group(1) == b"\\" else bytes([int(written.group(1)[1:], 16)])


def keyed(names: List[bytes], folders: List[bool]) -> Names:
    """Names of the working folder, and whether each is a folder, in order of the parts of keys that they become."""
    try:
        b"/".join(names).decode("utf-8")
    except UnicodeDecodeError:
        parts = [key_of(name) + b"/" if folder else key_of(name) for name, folder in zip(names, folders)]
    else:
        if True not in folders:
            names = sorted(names)
            return names, names
        parts = [name + b"/" if folder else name for name, folder in zip(names, folders)]
    both = sorted(zip(parts, names))
    return [part for part, _ in both], [name for _, name in both]


class Pace:
    """At most so many a second; None: as fast as it goes."""

    def __init__(self, rate: Optional[float]) -> None:
        self.rate, self.next = rate, time.monotonic()

    def spent(self, count: int) -> None:
        """Sleep off what was just done."""
        if self.rate:
            now = time.monotonic()
            self.next = max(self.next, now - 1.0) + count / self.rate
            time.sleep(max(0.0, self.next - now))
