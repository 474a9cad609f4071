"""Which ranges has an interrupted comparison finished? One line of JSON for each, in a file of its own.

What is continued is read later than what was finished, so the whole is not of one moment: meant for databases that
stand still. Rows that differed in a finished range are looked at again like all others.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import threading
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from ..databases import Database
from ..errors import DatabaseError
from .finding import Findings, Found
from .model import Pair, Span

FORMAT = 2  # of records; since 2 the native method knows rows by its own hash
HEAD = re.compile(rb'\{"comparison": "[^"]*("\})?')  # the first line, or what a killed write left of it


class Checkpoint:
    """The file; without a path it remembers nothing. Held open, and against all others, by a comparison; `with` it."""

    def __init__(
        self, path: Path | None, source: Database, target: Database, pairs: Sequence[Pair], how: object
    ) -> None:
        """`how` is all that decides what a row's hash is: records know rows without a key by it."""
        self._path = path
        self._lock = threading.Lock()
        self.spans: dict[str, list[Span]] = {}
        self.finished: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self.findings: dict[str, Findings] = defaultdict(Findings)
        self.moments = 1
        about = repr((str(source), str(target), pairs, how, FORMAT))
        self._about = hashlib.sha256(about.encode()).hexdigest()
        self._file: BinaryIO | None = None
        try:
            if path is not None:
                self._file = _held(path)
                self._read(path, self._file)
            self._write({"comparison": self._about})
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def _read(self, path: Path, file: BinaryIO) -> None:
        content = file.read()
        if content and not HEAD.fullmatch(content.partition(b"\n")[0]):
            raise DatabaseError(f"{path} is not a checkpoint of a comparison; it was left as it is. Give another file.")
        whole = content.rpartition(b"\n")[0]  # a killed write leaves half a line
        try:
            records = [json.loads(line) for line in whole.splitlines()]
            if records and records[0]["comparison"] != self._about:
                raise DatabaseError(
                    f"{path} belongs to another comparison (other databases, tables, columns, method, "
                    "or version of a server or of this library): delete it or give another file."
                )
            for record in records[1:]:
                self._take(record)
            self.moments += bool(self.finished)
        except (ValueError, KeyError, TypeError) as error:
            raise DatabaseError(f"{path} is not a checkpoint of a comparison: {error}") from error
        os.ftruncate(file.fileno(), len(whole) + 1 if whole else 0)

    def _take(self, record: dict[str, Any]) -> None:
        if "comparison" in record:
            self.moments += 1
        elif "spans" in record:
            self.spans[record["table"]] = [
                Span(_key(lower), _key(upper), rows, width) for lower, upper, rows, width in record["spans"]
            ]
        else:
            self.finished[record["table"]].append((record["first"], record["last"]))
            found = [Found(tuple(key), kind, times) for key, kind, times in record["found"]]
            part = Findings(record["source"], record["target"], found, Counter(record["more"]))
            self.findings[record["table"]].add(part)

    def begin(self, table: str, spans: Sequence[Span]) -> None:
        """How a table is split: the same way when it is continued."""
        self.spans[table] = list(spans)
        self._write({"table": table, "spans": [[span.lower, span.upper, span.rows, span.width] for span in spans]})

    def finish(self, table: str, first: int, last: int, part: Findings) -> None:
        """A range is done."""
        found = [[one.key, one.kind, one.times] for one in part.kept]
        record = {"table": table, "first": first, "last": last, "source": part.source, "target": part.target}
        self._write({**record, "found": found, "more": part.more})

    def end(self) -> None:
        """The comparison came to its end: the next one begins anew."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _write(self, record: dict[str, Any]) -> None:
        if self._file is None:
            return
        try:
            with self._lock:
                self._file.write(json.dumps(record).encode() + b"\n")
        except OSError as error:
            raise DatabaseError(f"The checkpoint {self._path} cannot be written: {error.strerror}.") from error


def _held(path: Path) -> BinaryIO:
    """The file, made where there is none, that no other comparison may use now; every write goes to its end."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)  # keys may be private
    except OSError as error:
        raise DatabaseError(f"The checkpoint {path} cannot be used: {error.strerror}.") from error
    file = os.fdopen(handle, "r+b", buffering=0)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise DatabaseError(
            f"Another comparison uses the checkpoint {path}. Let it end, or give each a file of its own."
        ) from error
    return cast(BinaryIO, file)


def _key(values: list[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(values)
