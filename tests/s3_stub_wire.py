"""How do bytes on the stub's sockets become requests, and its answers bytes again, whole or torn?"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote

from runbook_lib.lab.s3_xml import DECLARATION, escape

REFUSALS = {
    "slow down": (503, "SlowDown", "Please reduce your request rate."),
    "too many": (429, "TooManyRequests", "Please reduce your request rate."),
    "internal": (500, "InternalError", "We encountered an internal error. Please try again."),
    "error in 200": (200, "InternalError", "We encountered an internal error. Please try again."),
    "expired": (400, "ExpiredToken", "The provided token has expired."),
    "denied": (403, "AccessDenied", "Access Denied"),
    "elsewhere": (301, "PermanentRedirect", "The bucket you are attempting to access must be addressed using …"),
    "no bucket": (404, "NoSuchBucket", "The specified bucket does not exist"),
    "no key": (404, "NoSuchKey", "The specified key does not exist."),
    "bad token": (400, "InvalidArgument", "The continuation token provided is incorrect"),
    "not here": (501, "NotImplemented", "This endpoint lists and reads only."),
}
Pieces = Sequence[bytes | memoryview]


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    bucket: str
    key: str
    parameters: dict[str, str]
    headers: dict[str, str]  # names in lower case

    @property
    def operation(self) -> str:
        """LIST, HEAD, GET (of an object), ATTRIBUTES, HEAD BUCKET, LOCATION or other."""
        if self.key:
            return "ATTRIBUTES" if "attributes" in self.parameters and self.method == "GET" else self.method
        if self.method == "HEAD":
            return "HEAD BUCKET"
        subresource = {"location", "versioning", "versions", "uploads"} & self.parameters.keys()
        return "LOCATION" if "location" in subresource else "other" if subresource or self.method != "GET" else "LIST"


def parsed(head: str) -> Asked:
    """The request of its head."""
    first, *lines = head.split("\r\n")
    method, target, _ = first.split(" ")
    path, _, query = target.partition("?")
    bucket, _, key = path[1:].partition("/")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Asked(method, bucket, unquote(key), dict(parse_qsl(query, keep_blank_values=True)), headers)


def refuse(connection: socket.socket, asked: Asked, what: str) -> bool:
    """An error as S3 writes it."""
    status, code, message = REFUSALS[what]
    text = (
        f"{DECLARATION}<Error><Code>{code}</Code><Message>{escape(message)}</Message><RequestId>0</RequestId></Error>"
    )
    pieces = [] if asked.method == "HEAD" else [text.encode()]
    headers = {"Content-Type": "application/xml"}
    return send(connection, status, headers | ({"x-amz-bucket-region": "us-west-2"} if status == 301 else {}), pieces)


def send(
    connection: socket.socket,
    status: int,
    headers: dict[str, str],
    pieces: Pieces,
    fault: str = "",
    *,
    chunked: bool = False,
) -> bool:
    """Write an answer, whole or torn; True: the connection stays."""
    lines = {"x-amz-request-id": "0"} | headers
    length = sum(map(len, pieces))
    chunked = (chunked or fault == "torn chunked") and fault not in ("torn", "torn open")
    if chunked:
        lines["Transfer-Encoding"] = "chunked"
    elif fault == "torn open":
        lines["Connection"] = "close"
    else:
        lines.setdefault("Content-Length", str(length))
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    connection.sendall(f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{head}\r\n".encode())
    left = length // 2 if fault.startswith("torn") else length
    for piece in pieces:
        sent = piece[:left]
        if chunked and sent:
            connection.sendall(f"{len(sent):x}\r\n".encode())
        connection.sendall(sent)
        if chunked and sent:
            connection.sendall(b"\r\n")
        left -= len(sent)
    if fault.startswith("torn"):
        return False
    if chunked:
        connection.sendall(b"0\r\n\r\n")
    return True
