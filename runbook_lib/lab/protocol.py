"""AWS JSON 1.1 as AWS speaks it: parse, validate against botocore's service models, dispatch, serialise.

A service is a class with one method per operation (`start_task_execution` for StartTaskExecution) that takes the
validated parameters and a `Call` and returns the modelled output. It refuses with `Refusal`. What the model says
about required members, types, enums, patterns and lengths is checked here: boto3 itself does not check patterns,
enums and maximum lengths.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

import botocore.session
from botocore import xform_name
from botocore.model import ListShape, MapShape, OperationModel, ServiceModel, Shape, StringShape, StructureShape

if TYPE_CHECKING:
    from .core import Lab


UNWRITABLE = re.compile("[\0\ud800-\udfff]")  # JSON can carry it, a path or an argument cannot


class Refusal(Exception):
    """An AWS-shaped error: `code` becomes `__type`, further members stand beside the message (`errorCode=…`)."""

    def __init__(self, code: str, message: str, *, status: int = 400, **members: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.members = members

    def body(self) -> bytes:
        """The JSON document AWS would send."""
        return json.dumps({"__type": self.code, "message": self.message, **self.members}).encode()


@dataclass(frozen=True)
class Call:
    """Who calls, and where: taken from the signature's credential scope."""

    operation: str
    region: str
    account: str
    access_key: str


@functools.cache
def service_model(service: str) -> ServiceModel:
    """botocore's model of a service."""
    session = botocore.session.get_session()
    return session.get_service_model(service)


@functools.cache
def _pattern(text: str) -> re.Pattern[str] | None:
    try:
        return re.compile(text)
    except re.error:  # a few models use \p{…}, which Python's re does not know: not checked
        return None


def problems(shape: Shape, value: Any, path: str = "") -> list[str]:
    """Everything about a value that its shape forbids, in sentences; empty when it is valid."""
    at = path or "the request"
    kind = shape.type_name
    if kind == "structure":
        return _structure_problems(shape, value, path) if isinstance(value, dict) else [f"{at} must be a structure"]
    if kind == "list":
        assert isinstance(shape, ListShape)
        if not isinstance(value, list):
            return [f"{at} must be a list"]
        found = _length_problems(shape, len(value), at, "members")
        for index, item in enumerate(value):
            found += problems(shape.member, item, f"{path}[{index}]")
        return found
    if kind == "map":
        assert isinstance(shape, MapShape)
        if not isinstance(value, dict):
            return [f"{at} must be a map"]
        found = _length_problems(shape, len(value), at, "entries")
        for key, item in value.items():
            found += problems(shape.key, key, f"{path}.{key}") + problems(shape.value, item, f"{path}.{key}")
        return found
    return _scalar_problems(shape, value, at)


def _structure_problems(shape: Shape, value: dict[str, Any], path: str) -> list[str]:
    assert isinstance(shape, StructureShape)
    prefix = f"{path}." if path else ""
    found = [f"{prefix}{name} is required" for name in shape.required_members if value.get(name) is None]
    for name, item in value.items():
        if name in shape.members and item is not None:  # AWS ignores members it does not know
            found += problems(shape.members[name], item, f"{prefix}{name}")
    return found


def _length_problems(shape: Shape, length: int, at: str, what: str) -> list[str]:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if low is not None and length < low:
        return [f"{at} must have at least {low} {what}, it has {length}"]
    if high is not None and length > high:
        return [f"{at} must have at most {high} {what}, it has {length}"]
    return []


def _scalar_problems(shape: Shape, value: Any, at: str) -> list[str]:
    kind = shape.type_name
    if kind in ("string", "character"):
        if not isinstance(value, str):
            return [f"{at} must be a string"]
        found = _length_problems(shape, len(value), at, "characters")
        if isinstance(shape, StringShape) and shape.enum and value not in shape.enum:
            found.append(f"{at} must be one of {', '.join(shape.enum)}, it is {value[:100]!r}")
        pattern = _pattern(shape.metadata["pattern"]) if "pattern" in shape.metadata else None
        if pattern is not None and not pattern.search(value):
            found.append(f"{at} must match {pattern.pattern[:200]}, it is {value[:100]!r}")
        return found
    if kind == "boolean":
        return [] if isinstance(value, bool) else [f"{at} must be true or false"]
    if kind in ("integer", "long"):
        if isinstance(value, bool) or not isinstance(value, int):
            return [f"{at} must be a whole number"]
        return _range_problems(shape, value, at)
    if kind in ("float", "double"):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return [f"{at} must be a number"]
        return _range_problems(shape, value, at)
    if kind == "timestamp":
        return [] if isinstance(value, (int, float, str)) else [f"{at} must be a time"]
    return []


def _range_problems(shape: Shape, value: float, at: str) -> list[str]:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if low is not None and value < low:
        return [f"{at} must be at least {low}, it is {value}"]
    if high is not None and value > high:
        return [f"{at} must be at most {high}, it is {value}"]
    return []


def serialise(shape: Shape | None, value: Any) -> Any:
    """A result as its output shape wants it: unknown members raise, None is left out, times are epoch seconds."""
    if shape is None:
        return {}
    if isinstance(shape, StructureShape):
        unknown = set(value) - set(shape.members)
        if unknown:
            raise TypeError(f"{shape.name} has no member {sorted(unknown)}")
        return {name: serialise(shape.members[name], item) for name, item in value.items() if item is not None}
    if isinstance(shape, ListShape):
        return [serialise(shape.member, item) for item in value]
    if isinstance(shape, MapShape):
        return {key: serialise(shape.value, item) for key, item in value.items()}
    if isinstance(value, datetime):
        return value.timestamp()
    return value


class Service:
    """A service of the lab; subclasses add one method per operation."""

    name: ClassVar[str]  # botocore's service name
    invalid: ClassVar[str] = "ValidationException"  # the code of a request that the model forbids

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def start(self) -> None:
        """Called once by the daemon after construction: recover what a killed daemon left, start background threads."""

    def stop(self) -> None:
        """End background threads and workers; called before a reset and at shutdown."""

    def refuse_invalid(self, message: str) -> Refusal:
        """The error this service answers an invalid request with; override to add members."""
        return Refusal(self.invalid, message)

    def answer(self, target: str, body: bytes, call: Call) -> bytes:
        """The JSON answer to one request; raises `Refusal`. `target` is the X-Amz-Target header."""
        model = service_model(self.name)
        operation = target.rpartition(".")[2]
        if operation not in model.operation_names:
            raise Refusal("UnknownOperationException", f"{self.name} has no operation {operation[:100]!r}")
        handler: Callable[[dict[str, Any], Call], dict[str, Any] | None] | None = getattr(
            self, xform_name(operation), None
        )
        if handler is None:
            raise Refusal("NotImplemented", f"The lab does not have {self.name} {operation}.", status=501)
        operation_model: OperationModel = model.operation_model(operation)
        parameters = decode(body)
        if operation_model.input_shape is not None:
            found = problems(operation_model.input_shape, parameters)
            if found:
                more = f" (and {len(found) - 5} more)" if len(found) > 5 else ""
                raise self.refuse_invalid("; ".join(found[:5]) + more)
        result = handler(parameters, call)
        return json.dumps(serialise(operation_model.output_shape, result or {})).encode()


def decode(body: bytes) -> dict[str, Any]:
    """The members of a JSON request; Refusal when it is not one JSON object."""
    try:
        parameters = json.loads(body.decode("utf-8") or "{}")
    except (ValueError, RecursionError) as error:
        raise Refusal("SerializationException", f"The request body is not JSON: {error}") from error
    if not isinstance(parameters, dict):
        raise Refusal("SerializationException", "The request body must be a JSON object")
    return parameters


def page(
    items: list[Any], parameters: dict[str, Any], *, size: str, token: str, default: int
) -> tuple[list[Any], str | None]:
    """One page of a list and the token of the next; tokens are plain offsets, as opaque as AWS's to a caller."""
    text = parameters.get(token) or "0"
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) > len(items):
        raise Refusal("InvalidRequestException", f"{token} {text[:50]!r} was not given by this service")
    start, count = int(text), int(parameters.get(size) or default)
    following = start + count
    return items[start:following], str(following) if following < len(items) else None
