"""Is what a client uploads what it said it would be? Bodies, digests and the headers that describe an object."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from .checksums import ALGORITHMS, encode, new
from .chunked import ChunkedBody
from .http import HttpRequest
from .object_rows import Blob
from .objects import ObjectStore
from .protocol import Refusal
from .s3_routes import parse_tags
from .uploads import checksum_of

LARGEST_PUT = 5 << 30  # bytes in one PUT or part (S3 user guide, uploading objects)
LARGEST_DOCUMENT = 8 << 20  # bytes of XML: 1,000 keys to delete, or 10,000 parts to complete
METADATA_LIMIT = 2048  # bytes of names and values (S3 user guide, object metadata)
CHECKSUM_HEADER = "x-amz-checksum-"
NOT_CHECKSUMS = {"algorithm", "mode", "type"}  # x-amz-checksum-… headers that carry no value
KEPT_HEADERS = (
    "Cache-Control", "Content-Disposition", "Content-Encoding", "Content-Language", "Expires",
    "x-amz-website-redirect-location",
)  # fmt: skip
UNSUPPORTED = (
    "x-amz-server-side-encryption-customer-algorithm", "x-amz-object-lock-mode", "x-amz-object-lock-legal-hold",
)  # fmt: skip
NOT_IN_HEADERS = re.compile("[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")  # surrogates: bytes that were not UTF-8
CANNED = ("private", "bucket-owner-full-control")  # what a bucket without ACLs accepts


@dataclass(frozen=True)
class Declared:
    """What the client says about the bytes: algorithm and base64 value, the value "" when a trailer brings it."""

    algorithm: str | None
    value: str
    md5: str | None  # base64


def check_header(name: str, value: str) -> str:
    """A value that can go into a header again; Refusal InvalidArgument for control characters and what is not UTF-8."""
    if NOT_IN_HEADERS.search(value):
        message = f"The value of {name[:100]} has characters that a header cannot carry."
        raise Refusal("InvalidArgument", message, ArgumentName=name[:100])
    return value


def body_of(request: HttpRequest) -> BinaryIO:
    """The payload without aws-chunked framing; Refusal MissingContentLength, EntityTooLarge."""
    declared = request.payload.declared
    if declared.startswith("STREAMING-"):
        length = request.headers.get("x-amz-decoded-content-length", "")
        if not (length.isascii() and length.isdigit()):
            raise Refusal("MissingContentLength", "You must provide x-amz-decoded-content-length.", status=411)
        _check_size(int(length))
        return cast(BinaryIO, ChunkedBody(request.body, request.payload, int(length)))
    if request.content_length is None:
        raise Refusal("MissingContentLength", "You must provide the Content-Length HTTP header.", status=411)
    _check_size(request.content_length)
    return request.body


def _check_size(size: int) -> None:
    if size > LARGEST_PUT:
        raise Refusal(
            "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size",
            ProposedSize=size, MaxSizeAllowed=LARGEST_PUT,
        )  # fmt: skip


def document_of(request: HttpRequest, *, with_checksum: bool) -> bytes:
    """A whole XML body, verified; Refusal MaxMessageLengthExceeded, BadDigest."""
    if request.content_length in (None, 0) and "x-amz-decoded-content-length" not in request.headers:
        if request.content_length == 0:
            request.body.read()
        return b""
    stream = body_of(request)
    pieces, size = [], 0
    while data := stream.read(1 << 16):
        pieces.append(data)
        size += len(data)
        if size > LARGEST_DOCUMENT:
            message = f"Your request was too big: more than {LARGEST_DOCUMENT} bytes."
            raise Refusal("MaxMessageLengthExceeded", message)
    body = b"".join(pieces)
    if not with_checksum:
        return body
    declared = declared_of(request)
    if declared.md5 is not None:
        _same_md5(declared.md5, _digest("MD5", body))
    if declared.algorithm is not None:
        _same(declared, encode(_digest(declared.algorithm, body)), stream)
    return body


def _digest(algorithm: str, data: bytes) -> bytes:
    digest = new(algorithm)
    digest.update(data)
    return digest.digest()


def declared_of(request: HttpRequest) -> Declared:
    """The digests in the headers; Refusal InvalidDigest, InvalidRequest."""
    headers = request.headers
    md5 = headers.get("content-md5")
    if md5 is not None and len(_decode(md5) or b"") != 16:
        raise Refusal("InvalidDigest", "The Content-MD5 you specified was invalid.")
    names = [name.removeprefix(CHECKSUM_HEADER) for name in headers if name.startswith(CHECKSUM_HEADER)]
    names = [name for name in names if name not in NOT_CHECKSUMS]
    trailer = headers.get("x-amz-trailer", "").strip().lower()
    if trailer.startswith(CHECKSUM_HEADER):
        names.append(trailer.removeprefix(CHECKSUM_HEADER))
    if not names:
        return Declared(None, "", md5)
    if len(names) > 1:
        message = "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."
        raise Refusal("InvalidRequest", message)
    algorithm = supported(names[0].upper())
    value = headers.get(CHECKSUM_HEADER + names[0], "")
    if value:
        check_form(algorithm, value)
    return Declared(algorithm, value, md5)


def supported(algorithm: str) -> str:
    """An algorithm's name; Refusal NotImplemented."""
    if algorithm not in ALGORITHMS:
        message = f"The lab has the checksums {', '.join(ALGORITHMS)}, not {algorithm[:30]}."
        raise Refusal("NotImplemented", message, status=501)
    return algorithm


def check_form(algorithm: str, value: str) -> None:
    """Refusal InvalidRequest when a checksum has not its algorithm's length."""
    if len(_decode(value) or b"") != len(new(algorithm).digest()):
        raise Refusal("InvalidRequest", f"Value for {CHECKSUM_HEADER}{algorithm.lower()} header is invalid.")


def _decode(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def receive(store: ObjectStore, request: HttpRequest, algorithms: Iterable[str] = ()) -> tuple[Blob, Declared]:
    """Stage a body and hold it against what was declared; nothing stays staged when it is refused."""
    declared = declared_of(request)
    stream = body_of(request)
    blob = store.stage(stream, {*algorithms, *([declared.algorithm] if declared.algorithm else [])})
    try:
        if declared.md5 is not None:
            _same_md5(declared.md5, bytes.fromhex(blob.md5))
        if declared.algorithm is not None:
            _same(declared, checksum_of(blob, declared.algorithm), stream)
    except BaseException:
        store.discard(blob)
        raise
    return blob, declared


def _same_md5(declared: str, found: bytes) -> None:
    if _decode(declared) != found:
        message = "The Content-MD5 you specified did not match what we received."
        raise Refusal("BadDigest", message, ExpectedDigest=declared, CalculatedDigest=encode(found))


def _same(declared: Declared, found: str, stream: Any) -> None:
    algorithm, value = declared.algorithm or "", declared.value
    if not value:
        trailers = stream.trailers if isinstance(stream, ChunkedBody) else {}
        value = trailers.get(CHECKSUM_HEADER + algorithm.lower(), "")
        if not value:
            raise Refusal("MalformedTrailerError", "The request contained trailing data that was not well-formed.")
        check_form(algorithm, value)
    if value != found:
        raise Refusal("BadDigest", f"The {algorithm} you specified did not match the calculated checksum.")


def described(parameters: dict[str, Any], request: HttpRequest) -> dict[str, Any]:
    """NewObject's members that headers give; Refusal for what the lab's bucket would silently not do."""
    headers = request.headers
    for name in UNSUPPORTED:
        if name in headers:
            raise Refusal("NotImplemented", f"The lab does not do {name}.", status=501)
    if headers.get("x-amz-server-side-encryption", "AES256") != "AES256":
        raise Refusal("NotImplemented", "The lab has no KMS keys: AES256 only.", status=501)
    if headers.get("x-amz-acl", "private") not in CANNED or any(name.startswith("x-amz-grant-") for name in headers):
        raise Refusal("AccessControlListNotSupported", "The bucket does not allow ACLs")
    metadata = parameters.get("Metadata") or {}
    if sum(len(name) + len(value.encode()) for name, value in metadata.items()) > METADATA_LIMIT:
        message = "Your metadata headers exceed the maximum allowed metadata size"
        raise Refusal("MetadataTooLarge", message, MaxSizeAllowed=METADATA_LIMIT)
    kept = {name: headers[name] for name in KEPT_HEADERS if name in headers}
    if "Content-Encoding" in kept:
        encodings = [item.strip() for item in kept["Content-Encoding"].split(",")]
        kept["Content-Encoding"] = ",".join(item for item in encodings if item.lower() != "aws-chunked")
    return {
        "metadata": metadata,
        "content_type": headers.get("content-type") or "binary/octet-stream",
        "storage_class": parameters.get("StorageClass") or "STANDARD",
        "tags": parse_tags(parameters["Tagging"]) if parameters.get("Tagging") else {},
        "headers": {name: value for name, value in kept.items() if value},
    }
