"""What does a reader of an object get: which bytes, on which conditions, under which headers?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from .checksums import CHUNK
from .object_rows import StoredObject
from .protocol import Refusal
from .s3_base import Parameters, failed_condition, matches, version_of
from .s3_upload import CHECKSUM_HEADER, check_header
from .s3_xml import S3Refusal, http_time, identifiers

OVERRIDES = {  # GetObject's response-… parameters
    "ResponseCacheControl": "Cache-Control",
    "ResponseContentDisposition": "Content-Disposition",
    "ResponseContentEncoding": "Content-Encoding",
    "ResponseContentLanguage": "Content-Language",
    "ResponseContentType": "Content-Type",
    "ResponseExpires": "Expires",
}
RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


def stream(source: BinaryIO) -> Iterator[bytes]:
    """A reader's bytes in pieces; closes it whatever happens."""
    with source:
        while data := source.read(CHUNK):
            yield data


def read_conditions(parameters: Parameters, stored: StoredObject) -> None:
    """The If-… headers of GET and HEAD (RFC 9110 §13.2.2); raises 412 or 304."""
    modified = int(stored.last_modified)
    match, none_match = parameters.get("IfMatch"), parameters.get("IfNoneMatch")
    if match is not None:
        if not matches(match, stored):
            raise failed_condition("If-Match")
    elif "IfUnmodifiedSince" in parameters and modified > parameters["IfUnmodifiedSince"]:
        raise failed_condition("If-Unmodified-Since")
    unchanged = [("ETag", f'"{stored.etag}"'), ("Last-Modified", http_time(stored.last_modified))]
    if none_match is not None:
        if matches(none_match, stored):
            raise S3Refusal("NotModified", "Not Modified", status=304, headers=unchanged)
    elif "IfModifiedSince" in parameters and modified <= parameters["IfModifiedSince"]:
        raise S3Refusal("NotModified", "Not Modified", status=304, headers=unchanged)


def span(parameters: Parameters, stored: StoredObject) -> tuple[int, int, bool]:
    """(start, end, whether it is a part of the object) from Range or partNumber; raises 416."""
    number = parameters.get("PartNumber")
    if number is not None:
        if "Range" in parameters:
            raise Refusal("InvalidRequest", "Cannot specify both Range header and partNumber query parameter")
        sizes = [segment.size for segment in stored.segments] or [stored.size]
        if not 1 <= number <= len(sizes):
            raise Refusal("InvalidPartNumber", "The requested partnumber is not satisfiable", status=416)
        start = sum(sizes[: number - 1])
        return start, start + sizes[number - 1], True
    found = RANGE.fullmatch(parameters.get("Range", "").strip())
    if found is None or not any(found.groups()):  # S3 ignores what is not one range of bytes
        return 0, stored.size, False
    first, last = found.groups()
    if first:
        start, end = int(first), min(int(last) + 1, stored.size) if last else stored.size
        if last and int(last) < int(first):
            return 0, stored.size, False
    else:
        start, end = max(stored.size - int(last), 0), stored.size
    if start >= end:
        message = "The requested range is not satisfiable"
        headers = [("Content-Range", f"bytes */{stored.size}")]
        asked = {"RangeRequested": parameters["Range"][:100], "ActualObjectSize": stored.size}
        raise S3Refusal("InvalidRange", message, status=416, headers=headers, **asked)
    return start, end, True


def object_headers(
    parameters: Parameters, stored: StoredObject, bucket: dict[str, Any], within: tuple[int, int, bool]
) -> list[tuple[str, str]]:
    """What GET and HEAD say about an object."""
    start, end, partial = within
    kept = {"Content-Type": stored.content_type, **stored.headers}
    given = {name: str(value) for name, value in parameters.items() if name in OVERRIDES}
    kept.update({OVERRIDES[name]: check_header(name, value) for name, value in given.items()})
    if "ResponseExpires" in parameters:
        kept["Expires"] = http_time(parameters["ResponseExpires"])
    headers = [
        *zip(("x-amz-request-id", "x-amz-id-2"), identifiers(), strict=True),
        ("Last-Modified", http_time(stored.last_modified)),
        ("ETag", f'"{stored.etag}"'),
        ("Accept-Ranges", "bytes"),
        ("x-amz-server-side-encryption", "AES256"),
        ("Content-Length", str(end - start)),
        *kept.items(),
        *((f"x-amz-meta-{name}", value) for name, value in stored.metadata.items()),
    ]
    if (version := version_of(bucket, stored)) is not None:
        headers.append(("x-amz-version-id", version))
    if stored.storage_class != "STANDARD":
        headers.append(("x-amz-storage-class", stored.storage_class))
    if stored.tags:
        headers.append(("x-amz-tagging-count", str(len(stored.tags))))
    if partial:
        headers.append(("Content-Range", f"bytes {start}-{end - 1}/{stored.size}"))
    if parameters.get("PartNumber") and stored.segments:
        headers.append(("x-amz-mp-parts-count", str(len(stored.segments))))
    if parameters.get("ChecksumMode") == "ENABLED":
        headers += _checksum_headers(parameters, stored, partial)
    return headers


def _checksum_headers(parameters: Parameters, stored: StoredObject, partial: bool) -> Iterator[tuple[str, str]]:
    """Of the bytes that are sent: the object's, or its part's; none for a range."""
    sums = stored.checksums
    if partial and stored.segments and "PartNumber" in parameters:
        sums = stored.segments[parameters["PartNumber"] - 1].checksums
    elif partial and "PartNumber" not in parameters:
        return
    for name, value in sums.items():
        yield f"{CHECKSUM_HEADER}{name.lower()}", value
    if sums:
        yield f"{CHECKSUM_HEADER}type", stored.checksum_type
