"""What happened, in order: one JSON line per event, appended whole, never rewritten.

Kinds, by who writes them. Runner: `run-start`, `notebook-start` (`source`: hash of the code that is run), `cell`
(`cell`: its id; `status`: running, then completed, failed, timed out, interrupted, kernel died or not run; `seconds`),
`maskings` (`rules`: how often each masked something in the executed notebook), `notebook-end`, `resume` (what is
skipped and why), `run-end`. Kernels: `open`, `identity`, `check`, `aws-call`, `aws-calls`, `aws-call-lost`, `command`,
`guard` (what the rails decided about a change), `note`, `summary`; and, where no engine does, `cell`, with `execution`
(the order), `edited` and `source`. A line in which something was masked says so in `masked`, by rule.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import stat
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import EvidenceError
from ..redaction import masked, remembered
from .files import in_utf8


class Events:
    """An append-only `events.jsonl`; several processes may append at once, each line under the file's lock."""

    def __init__(self, path: Path, *, share: bool | None = None, **common: Any) -> None:
        """`share`: mask account ids and ARNs too; None: as RUNBOOK_MASK says."""
        self.path = path
        self._share = share
        self._common = common

    def bind(self, **common: Any) -> Events:
        """The same file, with more fields on every line."""
        return Events(self.path, share=self._share, **self._common, **common)

    def __call__(self, kind: str, **fields: Any) -> None:
        """Append one event; on disk when this returns, but for calls that only look. Secrets are masked first.

        Raises `EvidenceError` when the line cannot be written: what cannot be recorded must not go on.
        """
        counted: Counter[str] = Counter()
        event = masked(self._event(kind, fields), counted, share=self._share)
        if kind == "maskings":
            event["rules"] = fields["rules"]  # counts, below rules that are named like secrets
        elif counted:
            event["masked"] = dict(counted)
        self._write(event, durable=fields.get("changes") is not False)

    def _event(self, kind: str, fields: dict[str, Any]) -> dict[str, Any]:
        stamp = datetime.now(UTC).isoformat(timespec="microseconds")
        return {"at": stamp, "kind": kind, **self._common, **fields}

    def _write(self, event: dict[str, Any], *, durable: bool) -> None:
        line = in_utf8(json.dumps(event, default=str, ensure_ascii=False)) + b"\n"
        try:
            _append(self.path, line, durable=durable)
        except OSError as error:
            advice = "Free some space in the run's folder, or set RUNBOOK_OUTPUTS to another place, and run again."
            if error.errno == errno.EACCES:
                advice = "Was the run sealed? What comes after that belongs into another one."
            raise EvidenceError(f"The record {self.path.name} cannot be written: {error.strerror}. {advice}") from error

    def read(self) -> Iterator[dict[str, Any]]:
        """Every complete event, oldest first; a line torn by a kill is left out."""
        if not self.path.exists():
            return
        with self.path.open(encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                if (event := _parsed(line)) is not None:
                    yield event

    # what must be known again by the next kernel: acceptances, intents

    def remember(self, key: str, value: Any) -> None:
        """Keep a value under a key, as it is found again whatever is masked; durable when this returns."""
        event = masked(self._event("note", {"key": key}), share=self._share)
        self._write(event | {"key_sha256": _sha256(key), "value": remembered(value)}, durable=True)

    def recall(self, key: str) -> Any:
        """The last value remembered under a key in this run, or None."""
        found = None
        for event in self.read():
            if event["kind"] == "note" and event.get("key_sha256") == _sha256(key):
                found = event["value"]
        return found


def _sha256(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def _append(path: Path, line: bytes, *, durable: bool) -> None:
    """Append a whole line or nothing; one that a kill tore before is ended first, so that it spoils no other."""
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        size, mode = os.fstat(handle).st_size, os.fstat(handle).st_mode
        if not mode & stat.S_IWUSR:  # sealed; root may write nevertheless
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if size and os.pread(handle, 1, size - 1) != b"\n":
            line = b"\n" + line
        try:
            if os.write(handle, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # a short write: the disk is full
        except OSError:
            os.ftruncate(handle, size)
            raise
        if durable:
            os.fsync(handle)
    finally:
        os.close(handle)


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except json.JSONDecodeError:
        return None
    return event if isinstance(event, dict) and "kind" in event else None
