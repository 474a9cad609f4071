"""How does S3 write its answers: headers and XML from botocore's model, errors, and LIST fast?"""

from __future__ import annotations

import functools
import re
import secrets
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Any
from urllib.parse import quote

from botocore.model import ListShape, OperationModel, Shape, StructureShape

from .http import HttpResponse
from .protocol import Refusal

DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'
NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
XSI = "http://www.w3.org/2001/XMLSchema-instance"
ROOTS = {  # the model does not name the root elements of these
    "ListBuckets": "ListAllMyBucketsResult",
    "CreateMultipartUpload": "InitiateMultipartUploadResult",
    "CompleteMultipartUpload": "CompleteMultipartUploadResult",
    "ListParts": "ListPartsResult",
    "ListMultipartUploads": "ListMultipartUploadsResult",
    "DeleteObjects": "DeleteResult",
    "GetBucketVersioning": "VersioningConfiguration",
    "GetBucketTagging": "Tagging",
    "GetObjectTagging": "Tagging",
    "GetBucketAcl": "AccessControlPolicy",
    "GetObjectAcl": "AccessControlPolicy",
    "GetBucketNotificationConfiguration": "NotificationConfiguration",
    "GetObjectAttributes": "GetObjectAttributesResponse",
    "GetBucketRequestPayment": "RequestPaymentConfiguration",
    "GetBucketAccelerateConfiguration": "AccelerateConfiguration",
    "GetBucketLogging": "BucketLoggingStatus",
}
_SPECIAL = re.compile('[&<>"\x00-\x08\x0b-\x1f\x7f\ufffe\uffff]')
_ILLEGAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_NAMED = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}


def escape(text: str) -> str:
    """Text for an XML element. Control characters become references as S3 writes them; see encoding-type=url."""
    if _SPECIAL.search(text) is None:
        return text
    return _SPECIAL.sub(lambda found: _NAMED.get(found[0]) or f"&#x{ord(found[0]):x};", text)


def url_encode(text: str) -> str:
    """What encoding-type=url makes of a key."""
    return quote(text, safe="/*")


@functools.lru_cache(maxsize=4096)
def _iso(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def iso_time(seconds: float) -> str:
    """A time in XML; S3 knows whole seconds."""
    return _iso(int(seconds))


def http_time(seconds: float) -> str:
    """A time in a header."""
    return formatdate(int(seconds), usegmt=True)


class S3Refusal(Refusal):
    """A Refusal with headers of its own."""

    def __init__(
        self, code: str, message: str, *, status: int = 400, headers: Iterable[tuple[str, str]] = (), **members: Any
    ) -> None:
        super().__init__(code, message, status=status, **members)
        self.headers = list(headers)


def refusal_response(refusal: Refusal, resource: str, method: str) -> HttpResponse:
    """An error as S3 sends it; HEAD and 304 have no body."""
    request_id, host_id = identifiers()
    headers = [*getattr(refusal, "headers", ()), ("x-amz-request-id", request_id), ("x-amz-id-2", host_id)]
    if method == "HEAD" or refusal.status == 304:
        return HttpResponse(refusal.status, [*headers, ("Content-Type", "application/xml")])
    values = {
        "Code": refusal.code, "Message": refusal.message, **refusal.members,
        "Resource": resource, "RequestId": request_id, "HostId": host_id,
    }  # fmt: skip
    texts = {name: escape(_ILLEGAL.sub("\ufffd", str(value))) for name, value in values.items()}
    inner = "".join(f"<{name}>{text}</{name}>" for name, text in texts.items())
    body = f"{DECLARATION}<Error>{inner}</Error>".encode()
    headers += [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
    return HttpResponse(refusal.status, headers, body)


def identifiers() -> tuple[str, str]:
    """x-amz-request-id and x-amz-id-2."""
    return secrets.token_hex(8).upper(), secrets.token_urlsafe(57)


def xml_response(body: bytes, headers: Iterable[tuple[str, str]] = ()) -> HttpResponse:
    """200 with an XML document."""
    request_id, host_id = identifiers()
    more = [("x-amz-request-id", request_id), ("x-amz-id-2", host_id), ("Content-Type", "application/xml")]
    return HttpResponse(200, [*headers, *more, ("Content-Length", str(len(body)))], body)


def respond(operation: OperationModel, result: dict[str, Any]) -> HttpResponse:
    """An operation's result by its output shape; a member the shape does not have is our bug and raises."""
    shape = operation.output_shape
    members = shape.members if shape is not None else {}
    unknown = set(result) - set(members)
    if unknown:
        raise TypeError(f"{operation.name} has no output member {sorted(unknown)}")
    result = {name: value for name, value in result.items() if value is not None}
    headers = list(_headers(members, result))
    located = {name for name, member in members.items() if member.serialization.get("location")}
    payload = shape.serialization.get("payload") if shape is not None else None
    root, body_shape = ROOTS.get(operation.name), shape
    value: Any = {name: item for name, item in result.items() if name not in located}
    if payload is not None:
        body_shape, value = members[payload], result.get(payload)
        if isinstance(value, str):
            text = value.encode()
            return _finish(200, [*headers, ("Content-Type", "application/json")], text)
        root = body_shape.serialization.get("name", body_shape.name)
    has_body = payload is not None or any(name not in located for name in members)
    if not has_body or body_shape is None or value is None:
        return _finish(operation.http.get("responseCode", 200), headers, b"")
    inner = "".join(_members(body_shape, value))
    xml = f'{DECLARATION}<{root or operation.name} xmlns="{NAMESPACE}">{inner}</{root or operation.name}>'.encode()
    return _finish(200, [*headers, ("Content-Type", "application/xml")], xml)


def _finish(status: int, headers: list[tuple[str, str]], body: bytes) -> HttpResponse:
    request_id, host_id = identifiers()
    length = [] if status == 204 else [("Content-Length", str(len(body)))]
    return HttpResponse(status, [*headers, ("x-amz-request-id", request_id), ("x-amz-id-2", host_id), *length], body)


def _headers(members: dict[str, Shape], result: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, member in members.items():
        if name in result and member.serialization.get("location") == "header":
            yield member.serialization["name"], _text(member, result[name], http_time)


def _text(shape: Shape, value: Any, time: Any = iso_time) -> str:
    if shape.type_name == "timestamp":
        return str(time(value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _members(shape: Shape, value: dict[str, Any]) -> Iterator[str]:
    assert isinstance(shape, StructureShape)
    unknown = set(value) - set(shape.members)
    if unknown:
        raise TypeError(f"{shape.name} has no member {sorted(unknown)}")
    for name, item in value.items():
        member = shape.members[name]
        if item is None or member.serialization.get("xmlAttribute"):
            continue
        tag = member.serialization.get("name", name)
        if isinstance(member, ListShape):
            inner = member.member.serialization.get("name")
            if member.serialization.get("flattened"):
                yield from (_element(inner or tag, member.member, entry) for entry in item)
            else:
                yield f"<{tag}>{''.join(_element(inner or 'member', member.member, entry) for entry in item)}</{tag}>"
        else:
            yield _element(tag, member, item)


def _element(tag: str, shape: Shape, value: Any) -> str:
    if not isinstance(shape, StructureShape):
        return f"<{tag}>{escape(_text(shape, value))}</{tag}>"
    attributes = "".join(
        f' xmlns:xsi="{XSI}" {member.serialization["name"]}="{escape(value[name])}"'
        for name, member in shape.members.items()
        if member.serialization.get("xmlAttribute") and name in value
    )
    return f"<{tag}{attributes}>{''.join(_members(shape, value))}</{tag}>"
