"""What does an execution write to its log group, in the words of its task mode?

BASIC writes free text (the verification lines as in the DataSync user guide, troubleshooting task verification),
ENHANCED one JSON document a line (user guide, configuring logging). LogLevel BASIC has errors only, TRANSFER every
item, OFF nothing.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .transfer_channel import Channel
from .transfer_source import Item, shown

if TYPE_CHECKING:
    from .transfer_job import Job

_TYPES = {stat.S_IFREG: "R", stat.S_IFDIR: "D", stat.S_IFLNK: "L"}


def _time(nanoseconds: int) -> str:
    return f"{nanoseconds // 1_000_000_000}/{nanoseconds % 1_000_000_000}"


def _source_text(item: Item) -> str:
    return (
        f"type={_TYPES.get(stat.S_IFMT(item.mode), 'S')} mode={stat.S_IMODE(item.mode):04o}"
        f" uid={item.uid} gid={item.gid} size={item.size}"
        f" atime={_time(item.atime)} mtime={_time(item.mtime)} extAttrsHash=0"
    )


def _stored_time(text: str) -> str:
    digits = text.removesuffix("ns")
    return _time(int(digits)) if text.endswith("ns") and digits.isdecimal() else text or "0/0"


def _stored_text(metadata: Mapping[str, str], size: int, kind: str) -> str:
    mode = metadata.get("file-permissions", "")
    shown_mode = f"{int(mode, 8) & 0o7777:04o}" if mode.isdecimal() and not set(mode) & {"8", "9"} else mode
    return (
        f"type={kind} mode={shown_mode} uid={metadata.get('file-owner', '')} gid={metadata.get('file-group', '')}"
        f" size={size} atime={_stored_time(metadata.get('file-atime', ''))}"
        f" mtime={_stored_time(metadata.get('file-mtime', ''))} extAttrsHash=0"
    )


class Log:
    """The lines of one execution."""

    def __init__(self, job: Job, channel: Channel) -> None:
        self._job, self._channel = job, channel
        level = job.options["LogLevel"]
        self._errors, self._items = level != "OFF", level == "TRANSFER"

    def _document(self, action: str, path: str, **more: Any) -> str:
        relative = path.lstrip("/")
        return json.dumps(
            {
                "Action": action,
                "Source": {"LocationId": self._job.source_location, "RelativePath": relative},
                "Destination": {
                    "LocationId": self._job.destination_location,
                    "RelativePath": self._job.prefix + relative,
                },
                **more,
            }
        )

    def done(self, action: str, path: bytes) -> None:
        """An item was transferred, verified or deleted (`action` as ENHANCED spells it: TRANSFER, VERIFY, DELETE)."""
        if not self._items:
            return
        if self._job.enhanced:
            self._channel.log(self._document(action, shown(path)))
        else:
            words = {"TRANSFER": "Transferred file", "VERIFY": "Verified file", "DELETE": "Deleted file"}
            self._channel.log(f"[INFO] {words[action]} /{shown(path)}")

    def failed(self, action: str, path: bytes, code: str, reason: str) -> None:
        """An item could not be listed, prepared, transferred or deleted."""
        if not self._errors:
            return
        if self._job.enhanced:
            self._channel.log(self._document(action, shown(path), ErrorCode=code, ErrorDetail=reason))
        else:
            self._channel.log(f"[ERROR] Failed to {action.lower()} /{shown(path)}: {reason}")

    def skipped(self, path: bytes, reason: str) -> None:
        """An item was left out on purpose."""
        if not self._errors:
            return
        if self._job.enhanced:
            self._channel.log(self._document("SKIP", shown(path), ErrorCode="Skipped", ErrorDetail=reason))
        else:
            self._channel.log(f"[WARN] Skipped /{shown(path)}: {reason}")

    def mismatch(
        self,
        path: bytes,
        sign: str,
        code: str,
        reason: str,
        source: tuple[Item, str] | None,
        stored: tuple[Mapping[str, str], int, str] | None,
    ) -> None:
        """Both sides differ: `sign` is <>, < (only at the source) or > (only at the destination).

        `source` is (item, hash), `stored` is (user metadata, size, hash); hashes are hex SHA-256.
        """
        if not self._errors:
            return
        name = shown(path)
        if self._job.enhanced:
            self._channel.log(self._document("VERIFY", name, ErrorCode=code, ErrorDetail=reason))
            return
        lines = [f"[NOTICE] Verification failed {sign} /{name}"]
        if source is not None:
            lines += [f"[NOTICE] /{name} srcMeta: {_source_text(source[0])}", f"[NOTICE] srcHash: {source[1]}"]
        if stored is not None:
            kind = "R" if source is None else _TYPES.get(stat.S_IFMT(source[0].mode), "S")
            meta = _stored_text(stored[0], stored[1], kind)
            lines += [f"[NOTICE] /{name} dstMeta: {meta}", f"[NOTICE] dstHash: {stored[2]}"]
        self._channel.log(*lines)
