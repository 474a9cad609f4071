"""What is done on the machine that has the files? One job: plan and scan, look again, hash; on several processes.

Sent to the application server as it is: the standard library only, Python 3.6 or newer. Everything it has to say goes
to standard output as a stream of blocks; it writes nothing else, except two unnamed temporary files.
"""
# ruff: noqa: B905, SIM115, UP006, UP031, UP035

import fcntl
import gc
import os
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import deque
from itertools import islice
from typing import Any, Callable, Deque, Dict, List, Set, Tuple

from .encoding import begin, encode, end_of_stream, failure, numbers, say, some_strings, strings
from .hasher import Hasher, algorithms
from .looking import GONE, Block, Pace, Tree, is_link, keyed, look, target
from .scanner import BEAT, ROWS, Scan

SMALL = 20000  # entries up to which one process and one shard are enough
PLANNED = 100000  # names read for a plan
SHARDS = 64  # at least, of a larger tree
SELDOM = 100000  # objects between two looks for cycles: there are hardly any, and every stat counts
HASHED_AT_ONCE = 64  # files of one block, at most

Request = Dict[str, Any]


class Refused(Exception):
    """What is asked cannot be done here; the message says it all."""


class Output:
    """Standard output, for several processes at once."""

    def __init__(self) -> None:
        self._lock = tempfile.TemporaryFile()
        self._parent = os.getpid()

    def write(self, data: bytes) -> None:
        """Write a frame as a whole; ends this process when the one that started it is gone."""
        if os.getpid() != self._parent and os.getppid() != self._parent:
            os._exit(1)
        fcntl.lockf(self._lock, fcntl.LOCK_EX)
        try:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        finally:
            fcntl.lockf(self._lock, fcntl.LOCK_UN)


class Queue:
    """The numbers from 0 to `count` - 1, each for one of several processes."""

    def __init__(self, count: int) -> None:
        self._count, self._file = count, tempfile.TemporaryFile()
        os.pwrite(self._file.fileno(), struct.pack("=q", 0), 0)

    def take(self) -> int:
        """The next number, -1 when there is none."""
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            (number,) = struct.unpack("=q", os.pread(self._file.fileno(), 8, 0))
            os.pwrite(self._file.fileno(), struct.pack("=q", number + 1), 0)
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)
        return number if number < self._count else -1


def divided(processes: int, count: int, output: Output, worker: Callable[[], Callable[[int], None]]) -> None:
    """Do `count` pieces of work on some processes; each makes its own `worker()`."""
    queue = Queue(count)
    if min(processes, count) <= 1:
        _work(queue, worker)
        return
    sys.stdout.buffer.flush()
    children = [_fork(queue, output, worker) for _ in range(min(processes, count))]
    while children:
        child, status = os.wait()
        children.remove(child)
        if status:
            for other in children:
                os.kill(other, signal.SIGKILL)
            raise Refused(
                "A process of the scan ended with status %d (signal %d). Is memory short there (`dmesg`)? "
                "Run it again: finished shards are kept." % (status >> 8, status & 0x7F)
            )


def _work(queue: Queue, worker: Callable[[], Callable[[int], None]]) -> None:
    work = worker()
    number = queue.take()
    while number >= 0:
        work(number)
        number = queue.take()


def _fork(queue: Queue, output: Output, worker: Callable[[], Callable[[int], None]]) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        _work(queue, worker)
        status = 0
    except BaseException as error:
        output.write(failure(said(error)))
    finally:
        os._exit(status)  # never back into the parent's code


def said(error: BaseException) -> str:
    """An error's last word, for the other side."""
    if isinstance(error, Refused):
        return str(error)
    if isinstance(error, OSError):
        return "The scan stopped: %s. Look at the file system (`mount`, `dmesg`), then run it again." % error
    return "The scanner failed, which is a fault in it:\n%s" % "".join(traceback.format_exc(limit=-4))


def plan(tree: Tree, scan: Scan, processes: int) -> List[str]:
    """Keys that cut the tree into shards, found by reading its upper folders; none for a small tree."""
    cuts: Set[bytes] = set()
    waiting: Deque[Tuple[bytes, bytes]] = deque([(b"", b"")])
    wanted, read = max(SHARDS, 16 * processes), 0
    while waiting and read < PLANNED and len(cuts) < 8 * wanted:
        key, path = waiting.popleft()
        try:
            tree.enter(path)
            if tree.elsewhere():
                continue
            with os.scandir(b".") as entries:
                found = [(e.name, e.is_dir(follow_symlinks=False)) for e in islice(entries, scan.limit)]
        except OSError:
            continue  # the scan comes here again, and says so in the folder's row
        read += len(found)
        scan.pace.spent(len(found))
        parts, names = keyed([name for name, _ in found], [folder for _, folder in found])
        if len(parts) == scan.limit:  # a huge folder: as many pieces as there are processes
            cuts.update(key + parts[len(parts) * i // processes] for i in range(1, processes))
        folders = [(key + part, path + name + b"/") for part, name in zip(parts, names) if part[-1:] == b"/"]
        folders = [one for one in folders if one[0] not in scan.filter.skipped and scan.filter.looks_into(one[0])]
        cuts.update(folder for folder, _ in folders)
        waiting.extend(folders)
    if not waiting and read <= SMALL:
        return []
    ordered = sorted(cuts)
    chosen = {ordered[len(ordered) * i // wanted] for i in range(wanted)} if ordered else set()
    return [key.decode() for key in sorted(chosen)]


def about(tree: Tree) -> Dict[str, int]:
    """What the root is: its inode and device tell it from what lies below an NFS mount that has gone."""
    root = tree.stat
    known = {"mtime_ns": root.st_mtime_ns, "mode": root.st_mode & 0o7777, "uid": root.st_uid, "gid": root.st_gid}
    return {**known, "inode": root.st_ino, "device": root.st_dev}


def used(tree: Tree) -> int:
    """How many inodes of its file system are in use: about the most entries that there can be; 0: it does not say."""
    try:
        found = os.fstatvfs(tree.root)
    except OSError:
        return 0
    return max(0, found.f_files - found.f_ffree)


def scan(request: Request, output: Output) -> None:
    """Plan, unless the request has the plan of an earlier time, and write the shards that it does not call finished."""
    tree = Tree(request["root"])
    cuts = request["cuts"]
    if cuts is None:
        cuts = plan(tree, Scan(tree, request, output.write), request["processes"])
    output.write(say(cuts=cuts, root=about(tree), used=used(tree)))
    bounds = [b""] + [cut.encode() for cut in cuts] + [None]
    todo = [i for i in range(len(bounds) - 1) if i not in set(request["finished"])]

    def worker() -> Callable[[int], None]:
        mine = Scan(Tree(request["root"]), request, output.write)

        def work(number: int) -> None:
            at = todo[number]
            mine.run(str(at), bounds[at] or b"", bounds[at + 1])

        return work

    divided(request["processes"], len(todo), output, worker)


def look_again(request: Request, output: Output) -> None:
    """lstat of the request's keys now; those that are gone have no row."""
    tree, block, pace = Tree(request["root"]), Block(), Pace(request["entries_per_second"])
    output.write(say(root=about(tree)))
    for written in request["keys"]:
        key = written.encode()
        pace.spent(1)
        try:
            path = tree.parent_of(key)
            seen = look(path.rpartition(b"/")[2])
        except OSError as error:
            path, seen = key.rstrip(b"/"), error
        if isinstance(seen, OSError):
            if seen.errno not in GONE:
                block.add(key, path, seen)
        elif (seen.st_mode >> 12 == 4) == key.endswith(b"/"):
            block.add(key, path, seen, to=target(path.rpartition(b"/")[2]) if is_link(seen) else None)
        if len(block.keys) >= ROWS:
            output.write(block.encoded("", request["compress"]))
            block = Block()
    if block.keys:
        output.write(block.encoded("", request["compress"]))


class Digests:
    """One process's share of the hashing."""

    def __init__(self, request: Request, output: Output) -> None:
        self._wanted, self._output, self._compress = request["wanted"], output, request["compress"]
        self._at_once = hashed_at_once(request)
        rate = request["bytes_per_second"]
        self._pace = Pace(rate / request["processes"] if rate else None)
        self._hasher = Hasher(Tree(request["root"]), self._beat)
        self._bytes, self._beaten = 0, time.monotonic()

    def _beat(self, count: int) -> None:
        self._pace.spent(count)
        self._bytes += count
        now = time.monotonic()
        if now - self._beaten > BEAT:
            self._output.write(say(bytes=self._bytes))
            self._bytes, self._beaten = 0, now

    def work(self, number: int) -> None:
        """Hash one block of files and write their rows."""
        rows = []
        for key, algorithm, parts in self._wanted[number * self._at_once : (number + 1) * self._at_once]:
            found = self._hasher.hash(key.encode(), algorithm, parts)
            if found is not None:
                kind = b"COMPOSITE" if parts else b"FULL_OBJECT"
                rows.append((key.encode(), algorithm.encode(), kind, found))
        if rows:
            self._output.write(_encoded(rows, self._compress))


def hashed_at_once(request: Request) -> int:
    """Files of one block: few when there are few, so that every process has some."""
    return max(1, min(HASHED_AT_ONCE, int(len(request["wanted"]) / (4 * request["processes"]))))


def _encoded(rows: List[Any], compress: int) -> bytes:
    keys, names, kinds, found = zip(*rows)
    unknown = [i for i, (size, _, _, _) in enumerate(found) if size is None]
    texts = [{i: row[at].encode() for i, row in enumerate(found) if row[at] is not None} for at in (2, 3)]
    columns = {
        "key": strings(keys),
        "kind": [b"", b"\0" * len(rows)],
        "size": numbers("q", [row[0] or 0 for row in found], unknown, len(rows)),
        "mtime_ns": numbers("q", [row[1] or 0 for row in found], unknown, len(rows)),
        "checksum_algorithm": strings(names),
        "checksum_type": strings(kinds),
        "checksum": some_strings(len(rows), texts[0]),
        "problem": some_strings(len(rows), texts[1]),
    }
    return encode("", len(rows), columns, compress)


def hash_files(request: Request, output: Output) -> None:
    """Checksums of the request's files; those that are gone have no row."""
    missing = {algorithm for _, algorithm, _ in request["wanted"]} - set(algorithms())
    if missing:
        raise Refused(
            "This machine cannot compute %s; it can: %s. Install awscrt for its python3, or choose another."
            % (", ".join(sorted(missing)), ", ".join(sorted(algorithms())))
        )
    blocks = -(-len(request["wanted"]) // hashed_at_once(request))
    divided(request["processes"], blocks, output, lambda: Digests(request, output).work)


def can(request: Request, output: Output) -> None:
    """Which algorithms there are here."""
    output.write(say(algorithms=sorted(algorithms()), python=sys.version.split()[0]))


def main(request: Request) -> None:
    """Do what the request says; nothing is printed after the end of the stream."""
    request["root"] = os.path.abspath(request["root"])  # each process goes there from where it is
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.nice(request["nice"])
    gc.set_threshold(SELDOM)
    output = Output()
    output.write(begin())
    mode = {"scan": scan, "look": look_again, "hash": hash_files, "can": can}[request["mode"]]
    try:
        mode(request, output)
    except Exception as error:
        output.write(failure(said(error)))
        sys.exit(1)
    output.write(end_of_stream())
