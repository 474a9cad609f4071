"""Which options does a task have in the end, and which combinations does DataSync refuse?

Defaults and refusals are from the DataSync API reference, Options.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..filters import FilterError, Filters
from .protocol import Refusal

DEFAULTS: dict[str, Any] = {
    "VerifyMode": "POINT_IN_TIME_CONSISTENT",
    "OverwriteMode": "ALWAYS",
    "Atime": "BEST_EFFORT",
    "Mtime": "PRESERVE",
    "Uid": "INT_VALUE",
    "Gid": "INT_VALUE",
    "PreserveDeletedFiles": "PRESERVE",
    "PreserveDevices": "NONE",
    "PosixPermissions": "PRESERVE",
    "BytesPerSecond": -1,
    "TaskQueueing": "ENABLED",
    "LogLevel": "OFF",
    "TransferMode": "CHANGED",
    "SecurityDescriptorCopyFlags": "NONE",
    "ObjectTags": "PRESERVE",
    "ObjectMetadata": "PRESERVE",
}


def complete(mode: str, *given: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of a task mode under what was given, later ones first; Refusal for combinations that cannot be."""
    options = dict(DEFAULTS)
    if mode == "ENHANCED":
        options["VerifyMode"] = "ONLY_FILES_TRANSFERRED"
    for layer in given:
        options |= {name: value for name, value in layer.items() if value is not None}
    problem = _conflict(options, mode)
    if problem:
        raise invalid(problem)
    return options


def _conflict(options: Mapping[str, Any], mode: str) -> str | None:
    if options["PreserveDeletedFiles"] == "REMOVE" and options["TransferMode"] == "ALL":
        return "PreserveDeletedFiles cannot be REMOVE when TransferMode is ALL"
    if mode == "ENHANCED":
        if options["VerifyMode"] == "POINT_IN_TIME_CONSISTENT":
            return "VerifyMode POINT_IN_TIME_CONSISTENT is not supported for tasks in Enhanced mode"
        if options["Mtime"] == "NONE":
            return "Mtime NONE is not supported for tasks in Enhanced mode"
    elif (options["Atime"] == "NONE") != (options["Mtime"] == "NONE"):
        return "Atime BEST_EFFORT goes with Mtime PRESERVE, and Atime NONE with Mtime NONE"
    if options["PreserveDevices"] == "PRESERVE":
        return "PreserveDevices PRESERVE is not supported when the destination is Amazon S3"
    for name in ("Uid", "Gid"):
        if options[name] not in ("INT_VALUE", "NONE"):
            return f"{name} {options[name]} is not supported between NFS and Amazon S3"
    if options["SecurityDescriptorCopyFlags"] != "NONE":
        return "SecurityDescriptorCopyFlags is for SMB and FSx for Windows File Server"
    if options["BytesPerSecond"] == 0:
        return "BytesPerSecond must be -1 (no limit) or greater than 0"
    return None


def filter_text(rules: list[dict[str, str]] | None) -> str | None:
    """The one string of a filter list; None when there is no filter."""
    return rules[0].get("Value") if rules else None


def check_filters(includes: list[dict[str, str]] | None, excludes: list[dict[str, str]] | None) -> None:
    """Refusal when a filter cannot be understood."""
    for rule in (includes or []) + (excludes or []):
        if not rule.get("Value") or not rule.get("FilterType"):
            raise invalid("A filter needs FilterType and Value")
    try:
        Filters(filter_text(includes), filter_text(excludes))
    except FilterError as error:
        raise invalid(str(error)) from error


def invalid(message: str, code: str = "InvalidParameter") -> Refusal:
    """DataSync's one error for whatever a caller did wrong; AWS documents no values of errorCode."""
    return Refusal("InvalidRequestException", message, errorCode=code, datasyncErrorCode=code)
