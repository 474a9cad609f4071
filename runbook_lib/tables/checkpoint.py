"""Which ranges has an interrupted comparison finished? One line of JSON for each, in a file of its own.

What is continued is read later than what was finished, so the whole is not of one moment: meant for databases that
stand still. Rows that differed in a finished range are looked at again like all others.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..databases import Database
from ..errors import DatabaseError
from .finding import Findings, Found
from .model import Pair, Span

FORMAT = 2  # of records; since 2 the native method knows rows by its own hash
HEAD = re.compile(rb'\{"comparison": "[^"]*("\})?')  # the first line, or what a killed write left of it


class Checkpoint:
    """The file; without a path it remembers nothing. Held open by a comparison."""

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
        if path is not None:
            self._read(path)
        self._write({"comparison": self._about})

    def _read(self, path: Path) -> None:
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise DatabaseError(f"The checkpoint {path} cannot be read: {error.strerror}.") from error
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
        os.truncate(path, len(whole) + 1 if whole else 0)

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

    def close(self) -> None:
        """The comparison came to its end: the next one begins anew."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _write(self, record: dict[str, Any]) -> None:
        if self._path is None:
            return
        try:
            with self._lock:
                handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)  # keys may be private
                with os.fdopen(handle, "a") as file:
                    file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise DatabaseError(f"The checkpoint {self._path} cannot be written: {error.strerror}.") from error


def _key(values: list[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(values)
