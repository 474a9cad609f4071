"""What happened, in order: one JSON line per event, appended whole, never rewritten."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..redaction import masked


class Events:
    """An append-only `events.jsonl`; several processes may append at once (one write with O_APPEND a line)."""

    def __init__(self, path: Path, **common: Any) -> None:
        self.path = path
        self._common = common

    def bind(self, **common: Any) -> Events:
        """The same file, with more fields on every line."""
        return Events(self.path, **self._common, **common)

    def __call__(self, kind: str, **fields: Any) -> None:
        """Append one event; on disk when this returns, but for calls that only look. Secrets are masked first."""
        stamp = datetime.now(UTC).isoformat(timespec="microseconds")
        line = json.dumps(
            masked({"at": stamp, "kind": kind, **self._common, **fields}), default=str, ensure_ascii=False
        )
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, line.encode("utf-8", "surrogateescape") + b"\n")
            if fields.get("changes") is not False:
                os.fsync(handle)
        finally:
            os.close(handle)

    def read(self) -> Iterator[dict[str, Any]]:
        """Every complete event, oldest first; a line torn by a kill or a full disk is left out."""
        if not self.path.exists():
            return
        with self.path.open(encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                if (event := _parsed(line)) is not None:
                    yield event

    # what must be known again by the next kernel: acceptances, intents

    def remember(self, key: str, value: Any) -> None:
        """Keep a value under a key; durable when this returns."""
        self("note", key=key, value=value)

    def recall(self, key: str) -> Any:
        """The last value remembered under a key in this run, or None."""
        found = None
        for event in self.read():
            if event["kind"] == "note" and event.get("key") == key:
                found = event["value"]
        return found


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        event: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError:
        return None
    return event
