"""What is in this tree? Walks it in the byte order of S3 keys and writes blocks of columns to standard output.

A folder sorts as `name/`, so a depth-first walk is in order, and a shard is simply the keys from one to another: it
stays what it is when the tree changes. Sent to the application server as it is: the standard library only, Python 3.6
or newer.
"""
# ruff: noqa: B905, UP006, UP031, UP035, UP045

import os
import stat
import time
from itertools import islice
from typing import Any, Callable, Dict, FrozenSet, Iterator, List, Optional, Tuple

from .encoding import encode as encode
from .encoding import end_of_shard, say
from .looking import (
    CHANGED,
    GONE,
    Block,
    Names,
    Pace,
    Seen,
    Target,
    Tree,
    after,
    all_files,
    is_link,
    keyed,
    looks,
    target,
    unreadable,
)

ROWS = 32768  # of a block, at most
CHUNK = 1000  # entries looked at before the next pause
BEAT = 2.0  # seconds between two words on the way

Child = Tuple[bytes, bytes, Any]  # a folder's key, its path on disk, its open listing


class Filter:
    """DataSync's filters, as far as they say which folders need not be looked into; see runbook_lib/filters.py.

    A pattern is its literal texts between the stars; the first is empty where anything may stand before.
    """

    def __init__(self, includes: List[List[str]], excludes: List[List[str]], skipped: List[str]) -> None:
        self.includes = [[text.encode() for text in texts] for texts in includes]
        self.excludes = [[text.encode() for text in texts] for texts in excludes]
        self.skipped = frozenset(name.encode() + b"/" for name in skipped)  # at the top

    def looks_into(self, folder: bytes) -> bool:
        """Whether something below may take part; `folder` is a key. All above it was asked before."""
        path = b"/" + folder
        if self.includes and not any(path.startswith(t[0]) or t[0].startswith(path) for t in self.includes):
            return False
        return not any(matches(path[:-1], texts) for texts in self.excludes)


def matches(path: bytes, texts: List[bytes]) -> bool:
    """Whether a whole path is these texts with anything between them."""
    if len(texts) == 1:
        return path == texts[0]
    at = len(texts[0])
    if not path.startswith(texts[0]):
        return False
    for text in texts[1:-1]:
        found = path.find(text, at)
        if found < 0:
            return False
        at = found + len(text)
    return path.endswith(texts[-1]) and len(path) - len(texts[-1]) >= at


class Scan:
    """Walks shards of a tree and hands the stream's bytes to `write`."""

    def __init__(self, tree: Tree, options: Dict[str, Any], write: Callable[[bytes], None]) -> None:
        self.tree, self.write = tree, write
        self.limit: int = options["limit"]  # names of one folder that are held and sorted at once
        self.compress: int = options["compress"]
        self.filter = Filter(options["includes"], options["excludes"], options["skipped"])
        rate = options["entries_per_second"]
        self.pace = Pace(rate / options["processes"] if rate else None)
        self.chunk = max(1, min(CHUNK, int(self.pace.rate / 5))) if self.pace.rate else CHUNK
        self.block, self.shard = Block(), ""
        self.low, self.high = b"", None  # type: bytes, Optional[bytes]
        self.facts: Dict[str, int] = {}
        self.beaten, self.count = time.monotonic(), 0

    def run(self, shard: str, low: bytes, high: Optional[bytes]) -> None:
        """Write the rows of the keys from `low` up to, and without, `high` (None: to the end)."""
        self.shard, self.low, self.high = shard, low, high
        self.facts = {"entries": 0, "vanished": 0, "skipped": 0, "not looked into": 0}
        self.tree.enter(b"")
        walks = [self.folder(b"", b"", os.scandir(b"."))]
        while walks:
            child = next(walks[-1], None)
            if child is None:
                walks.pop()
            else:
                walks.append(self.folder(*child))
        self.flush()
        self.write(end_of_shard(shard, **self.facts))

    def flush(self) -> None:
        """Write the rows so far."""
        if self.block.keys:
            self.write(self.block.encoded(self.shard, self.compress))
            self.block = Block()

    def beat(self, count: int) -> None:
        """Keep the pace, and say now and then how far this is."""
        self.pace.spent(count)
        self.facts["entries"] += count
        self.count += count
        now = time.monotonic()
        if now - self.beaten > BEAT:
            self.write(say(self.shard, entries=self.count))
            self.beaten, self.count = now, 0

    def whole(self, key: bytes) -> bool:
        """Whether all that a folder can have below it is in the shard."""
        return self.low <= key and (self.high is None or (key != b"" and after(key) <= self.high))

    def holds(self, key: bytes) -> bool:
        """Whether the shard has this key, or one below it."""
        if self.high is not None and key >= self.high:
            return False
        return key >= self.low or (key[-1:] == b"/" and after(key) > self.low)

    def runs(self, key: bytes, path: bytes, entries: Any) -> Iterator[Names]:
        """A folder's names that are in the shard, in order; of a huge folder in several ordered runs."""
        first = True
        while True:
            some = list(islice(entries, self.limit))
            names, folders = [e.name for e in some], [e.is_dir(follow_symlinks=False) for e in some]
            full = len(names) == self.limit
            if not full:
                entries.close()  # no open folder on every level of a deep tree
            if first or self.back(path):
                yield self.mine(key, *keyed(names, folders))
            if not full:
                return
            first = False

    def mine(self, key: bytes, parts: List[bytes], names: List[bytes]) -> Names:
        """Those of a folder's names that belong to the shard and are not skipped."""
        skipped: FrozenSet[bytes] = frozenset()
        if not key:
            skipped = self.filter.skipped.intersection(parts)
            self.facts["skipped"] += sum(self.low <= one and (self.high is None or one < self.high) for one in skipped)
        whole = self.whole(key)
        if whole and not skipped:
            return parts, names
        own = [i for i, part in enumerate(parts) if part not in skipped and (whole or self.holds(key + part))]
        return [parts[i] for i in own], [names[i] for i in own]

    def folder(self, key: bytes, path: bytes, entries: Any) -> Iterator[Child]:
        """Rows of all in a folder; yields its folders, each to be walked before this goes on."""
        away = False
        for parts, names in self.runs(key, path, entries):
            if names and self.block.keys and key + parts[0] < self.block.keys[-1]:
                self.flush()  # the next sorted run of a huge folder
            for at in range(0, len(names), self.chunk):
                if away and not self.back(path):
                    self.facts["vanished"] += len(names) - at
                    break
                away = False
                for child in self.entries(key, path, parts[at : at + self.chunk], names[at : at + self.chunk]):
                    yield child
                    away = True

    def back(self, path: bytes) -> bool:
        """Go to a folder again; False when it is gone."""
        try:
            self.tree.enter(path)
        except OSError as error:
            if error.errno in GONE:
                return False
            raise
        return True

    def entries(self, key: bytes, path: bytes, parts: List[bytes], names: List[bytes]) -> Iterator[Child]:
        """Rows of some names of the working folder; yields its folders where they stand between the others."""
        self.beat(len(names))
        seen = looks(names)
        if key == path and parts == names and all_files(seen):
            self.plain(key, parts, seen)
            return
        targets = {i: target(names[i]) for i, found in enumerate(seen) if is_link(found)}  # while we are here
        done, odd_folder = 0, key != path
        for i, (part, name) in enumerate(zip(parts, names)):
            found = seen[i]
            if isinstance(found, OSError) or found.st_mode >> 12 != 8 or part != name or odd_folder:
                self.plain(key, parts[done:i], seen[done:i])
                done = i + 1
                child = self.odd(key + part, path + name, found, targets.get(i))
                if child:
                    yield child
        self.plain(key, parts[done:], seen[done:])

    def plain(self, key: bytes, parts: List[bytes], seen: List[Any]) -> None:
        """Rows of files with nothing odd about them."""
        if parts:
            self.block.extend([key + part for part in parts], seen)
            if len(self.block.keys) >= ROWS:
                self.flush()

    def odd(self, key: bytes, path: bytes, seen: Seen, to: Optional[Target]) -> Optional[Child]:
        """The row of anything else; for a folder that is to be looked into, where that is."""
        if isinstance(seen, OSError) and seen.errno in GONE:
            self.facts["vanished"] += 1
            return None
        child, problem = None, None
        if key[-1:] == b"/" and not isinstance(seen, OSError):
            child, problem = self.opened(key, path + b"/", seen)
        if key >= self.low:
            self.block.add(key, path, seen, problem, to)
        elif problem and problem != CHANGED:
            raise OSError("%r: %s; it could be read before. Scan again." % (path, problem))
        if len(self.block.keys) >= ROWS:
            self.flush()
        return child

    def opened(self, key: bytes, path: bytes, seen: os.stat_result) -> Tuple[Optional[Child], Optional[str]]:
        """A folder opened, or why it cannot be; neither where the filters say that nothing in it takes part."""
        if not stat.S_ISDIR(seen.st_mode):
            return None, CHANGED
        if not self.filter.looks_into(key):
            self.facts["not looked into"] += key >= self.low
            return None, None
        problem = self.tree.enter_as_seen(path, seen)
        if problem:
            return None, problem
        try:
            return (key, path, os.scandir(b".")), None
        except OSError as error:
            return None, unreadable(error)
