"""How does a file's POSIX metadata stand in S3, and does what stands there still describe the file?

Keys and values as the file gateway and FSx for Lustre read them: decimal ids, octal type and mode, nanoseconds with
the suffix `ns` (FSx for Lustre user guide, POSIX metadata; DataSync user guide, metadata copied).
"""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Mapping

from .transfer_source import Item

Options = Mapping[str, str]
OWNERLESS = "65534"  # what DataSync takes for an object without an owner
_TIME = re.compile(r"(?P<nanoseconds>\d+)ns|(?P<milliseconds>\d+)|(?P<seconds>\d+)/(?P<rest>\d{1,9})")


def user_metadata(item: Item, options: Options) -> dict[str, str]:
    """An object's user metadata for an item, as far as the options preserve it."""
    metadata = {"user-agent": "aws-datasync"}
    if options["Uid"] != "NONE":
        metadata["file-owner"] = str(item.uid)
    if options["Gid"] != "NONE":
        metadata["file-group"] = str(item.gid)
    if options["PosixPermissions"] == "PRESERVE":
        metadata["file-permissions"] = f"{item.mode:o}"
    if options["Mtime"] == "PRESERVE":
        metadata["file-mtime"] = f"{item.mtime}ns"
    if options["Atime"] == "BEST_EFFORT":
        metadata["file-atime"] = f"{item.atime}ns"
    return metadata


def same_time(text: str, nanoseconds: int) -> bool:
    """Whether a stored time is this one, at the precision of its own spelling (three are in use)."""
    if text == f"{nanoseconds}ns":
        return True
    match = _TIME.fullmatch(text)
    if match is None:
        return False
    if match["milliseconds"] is not None:
        return int(match["milliseconds"]) == nanoseconds // 1_000_000
    if match["nanoseconds"] is not None:
        return int(match["nanoseconds"]) == nanoseconds
    return int(match["seconds"]) * 1_000_000_000 + int(match["rest"]) == nanoseconds


def same_mode(text: str | None, item: Item) -> bool:
    """Whether a stored mode is the item's; the type counts where it is given."""
    if text == f"{item.mode:o}":
        return True
    if text is None:
        return not item.is_link and stat.S_IMODE(item.mode) == (0o755 if item.is_folder else 0o644)
    if not re.fullmatch(r"[0-7]{1,8}", text):
        return False
    stored = int(text, 8)
    if stat.S_IMODE(stored) != stat.S_IMODE(item.mode):
        return False
    return stat.S_IFMT(stored) in (0, stat.S_IFMT(item.mode))


def differing(item: Item, stored: Mapping[str, str], size: int, options: Options) -> list[str]:
    """What DataSync compares and finds different: of size, mtime, mode, uid, gid those that the options preserve."""
    found = []
    if size != item.size:
        found.append("size")
    if options["Mtime"] == "PRESERVE" and not same_time(stored.get("file-mtime", ""), item.mtime):
        found.append("mtime")
    if options["PosixPermissions"] == "PRESERVE" and not same_mode(stored.get("file-permissions"), item):
        found.append("mode")
    if options["Uid"] != "NONE" and stored.get("file-owner", OWNERLESS) != str(item.uid):
        found.append("uid")
    if options["Gid"] != "NONE" and stored.get("file-group", OWNERLESS) != str(item.gid):
        found.append("gid")
    return found


def top_folder_body(item: Item, options: Options) -> bytes:
    """The content of `.aws-datasync-metadata`: the top folder's metadata, which has no key of its own in a bucket.

    What AWS writes there is not documented; this spelling is the lab's own.
    """
    return json.dumps({"version": 1, "top-folder": user_metadata(item, options)}, sort_keys=True).encode()


def top_folder_metadata(body: bytes) -> dict[str, str]:
    """The top folder's metadata out of that content; empty when it is not ours, which makes the folder differ."""
    try:
        found = json.loads(body)["top-folder"]
        return {str(key): str(value) for key, value in found.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
