"""Which S3 operation does a request mean, and with which parameters? Answered from botocore's model of S3."""

from __future__ import annotations

import functools
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import unquote_plus, unquote_to_bytes

from botocore.model import ListShape, OperationModel, Shape, StructureShape

from .http import HttpRequest
from .protocol import Refusal, problems, service_model

LONGEST_KEY = 1024  # bytes of UTF-8 (S3 user guide, object keys)
ELSEWHERE = {"WriteGetObjectResponse", "ListDirectoryBuckets", "CreateSession"}  # other endpoints than a bucket's
SUPERSEDED = {"GetBucketLifecycle", "PutBucketLifecycle", "GetBucketNotification", "PutBucketNotification"}


@dataclass(frozen=True)
class Route:
    """One operation: literal query names, and parameters without which it is another operation."""

    operation: str
    literals: frozenset[str]
    required: frozenset[str]
    copies: bool  # asks for the x-amz-copy-source header


@functools.cache
def routes() -> dict[tuple[str, int], list[Route]]:
    """Operations by method and depth of path (0 service, 1 bucket, 2 object), the most specific first."""
    found: dict[tuple[str, int], list[Route]] = {}
    model = service_model("s3")
    for name in model.operation_names:
        if name in ELSEWHERE | SUPERSEDED:
            continue
        operation = model.operation_model(name)
        path, _, query = operation.http["requestUri"].partition("?")
        literals = {part for part in query.split("&") if part}
        shape = operation.input_shape
        needed = [shape.members[member].serialization for member in shape.required_members] if shape else []
        required = {s["name"] for s in needed if s.get("location") == "querystring"}
        copies = any(s.get("name") == "x-amz-copy-source" for s in needed)
        depth = 0 if path == "/" else 2 if "{Key+}" in path else 1
        method = operation.http["method"]
        found.setdefault((method, depth), []).append(Route(name, frozenset(literals), frozenset(required), copies))
    for candidates in found.values():
        candidates.sort(key=lambda route: (-len(route.literals) - len(route.required) - route.copies, route.operation))
    return found


@dataclass(frozen=True)
class Parsed:
    """A request as the model sees it; a streamed body stays in the HttpRequest."""

    operation: OperationModel
    parameters: dict[str, Any]


def parse(request: HttpRequest) -> Parsed:
    """The operation and its parameters without a body. Refusal when the request means nothing to S3."""
    bucket, key = split_path(request.path)
    query = parse_query(request.query)
    operation = find(request, 2 if key else 1 if bucket else 0, query)
    parameters: dict[str, Any] = {}
    shape = operation.input_shape
    if shape is not None:
        for name, member in shape.members.items():
            value = _located(member, request, query, bucket, key)
            if value is not None:
                parameters[name] = value
    return Parsed(operation, parameters)


def find(request: HttpRequest, depth: int, query: dict[str, str]) -> OperationModel:
    """The operation of a request; Refusal MethodNotAllowed."""
    present = set(query) | {f"{name}={value}" for name, value in query.items()}
    copies = "x-amz-copy-source" in request.headers
    for route in routes().get((request.method, depth), []):
        if route.literals <= present and route.required <= present and (copies or not route.copies):
            return service_model("s3").operation_model(route.operation)
    message = "The specified method is not allowed against this resource."
    raise Refusal("MethodNotAllowed", message, status=405, Method=request.method)


def text_of(raw: str) -> str:
    """Percent-encoded text; Refusal when it is not UTF-8 or has a NUL, which neither SQLite nor XML 1.0 can carry."""
    try:
        text = unquote_to_bytes(raw).decode("utf-8")
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise Refusal("InvalidURI", "Couldn't parse the specified URI: a name in it is not UTF-8.") from error
    if "\x00" in text:
        raise Refusal("InvalidURI", "Couldn't parse the specified URI: a name in it has a NUL character.")
    return text


def split_path(raw: str) -> tuple[str, str]:
    """Bucket and key of a path-style path; a key may begin with a slash."""
    bucket, _, key = raw.removeprefix("/").partition("/")
    return text_of(bucket), check_key(text_of(key))


def check_key(key: str) -> str:
    """The key itself; Refusal KeyTooLongError."""
    size = len(key.encode())
    if size > LONGEST_KEY:
        raise Refusal("KeyTooLongError", "Your key is too long", Size=size, MaxSizeAllowed=LONGEST_KEY)
    return key


def parse_query(raw: str) -> dict[str, str]:
    """Names and values of a query; the first wins. `+` is a space, as in forms."""
    found: dict[str, str] = {}
    for part in raw.split("&"):
        name, _, value = part.partition("=")
        if name:
            found.setdefault(text_of(name.replace("+", " ")), text_of(value.replace("+", " ")))
    return found


def parse_tags(text: str) -> dict[str, str]:
    """The x-amz-tagging header; Refusal InvalidTag."""
    pairs = [part.partition("=") for part in text.split("&") if part]
    return check_tags([{"Key": unquote_plus(name), "Value": unquote_plus(value)} for name, _, value in pairs])


def check_tags(tag_set: list[dict[str, str]], most: int = 10) -> dict[str, str]:
    """A tag set as a dict; Refusal InvalidTag, BadRequest (S3 user guide, object tagging)."""
    tags = {tag["Key"]: tag["Value"] for tag in tag_set}
    if len(tags) != len(tag_set):
        raise Refusal("InvalidTag", "Cannot provide multiple Tags with the same key")
    if len(tags) > most:
        raise Refusal("BadRequest", f"Object tags cannot be greater than {most}")
    for key, value in tags.items():
        if not 1 <= len(key) <= 128 or key.startswith("aws:"):
            raise Refusal("InvalidTag", "The TagKey you have provided is invalid", TagKey=key[:200])
        if len(value) > 256:
            raise Refusal("InvalidTag", "The TagValue you have provided is invalid", TagValue=value[:300])
    return tags


def _located(member: Shape, request: HttpRequest, query: dict[str, str], bucket: str, key: str) -> Any:
    name = member.serialization.get("name", "")
    match member.serialization.get("location"):
        case "uri":
            return bucket if name == "Bucket" else key
        case "querystring":
            return _scalar(member, query[name], name) if name in query else None
        case "header":
            return _scalar(member, request.headers[name], name) if name in request.headers else None
        case "headers":
            prefix = name.lower()
            return {found[len(prefix) :]: value for found, value in request.headers.items() if found.startswith(prefix)}
    return None


def _scalar(shape: Shape, text: str, name: str) -> Any:
    """A value of a header or query by its shape; Refusal InvalidArgument."""
    kind = shape.type_name
    try:
        if kind in ("integer", "long"):
            if not re.fullmatch(r"[+-]?[0-9]{1,18}", text.strip()):
                raise ValueError(text)
            return int(text)
        if kind == "boolean":
            return {"true": True, "false": False}[text.strip().lower()]
        if kind == "timestamp":
            return _time(text)
    except (ValueError, KeyError) as error:
        raise Refusal(
            "InvalidArgument", f"Provided {name} is not a valid {kind}", ArgumentName=name, ArgumentValue=text[:200]
        ) from error
    if isinstance(shape, ListShape):
        return [item.strip() for item in text.split(",") if item.strip()]
    return text


def _time(text: str) -> float:
    if re.match(r"[0-9]{4}-", text):
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    found = parsedate_to_datetime(text)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def parse_body(operation: OperationModel, body: bytes) -> dict[str, Any]:
    """The members that an XML body carries; Refusal MalformedXML. An empty body carries none."""
    shape = operation.input_shape
    name = shape.serialization.get("payload") if shape else None
    if shape is None or name is None or not isinstance(shape.members[name], StructureShape) or not body.strip():
        return {}
    payload = shape.members[name]
    value = _structure(payload, _root(body))
    found = problems(payload, value)
    if found:
        raise malformed("; ".join(found[:3]))
    return {name: value}


def malformed(why: str) -> Refusal:
    """The refusal of an XML body."""
    return Refusal("MalformedXML", f"The XML you provided was not well-formed or did not validate: {why}")


def _root(body: bytes) -> ElementTree.Element:
    try:
        text = body.decode("utf-8-sig")
        if "<!DOCTYPE" in text:  # no entities, internal or external
            raise malformed("a document type is not allowed")
        return ElementTree.fromstring(text)
    except (UnicodeDecodeError, ElementTree.ParseError, ValueError) as error:
        raise malformed(str(error)) from error


def _local(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _structure(shape: StructureShape, element: ElementTree.Element) -> dict[str, Any]:
    children: dict[str, list[ElementTree.Element]] = {}
    for child in element:
        children.setdefault(_local(child), []).append(child)
    value: dict[str, Any] = {}
    for name, member in shape.members.items():
        if isinstance(member, ListShape):
            wrapped = not member.serialization.get("flattened")
            flat = member.member.serialization.get("name") or member.serialization.get("name") or name
            found = children.get(member.serialization.get("name", name) if wrapped else flat)
            if found is not None:
                items = list(found[0]) if wrapped else found
                value[name] = [_value(member.member, item) for item in items]
        elif found := children.get(member.serialization.get("name", name)):
            value[name] = _value(member, found[0])
    return value


def _value(shape: Shape, element: ElementTree.Element) -> Any:
    if isinstance(shape, StructureShape):
        return _structure(shape, element)
    text = element.text or ""
    try:
        return _scalar(shape, text, _local(element))
    except Refusal as error:
        raise malformed(error.message) from error
