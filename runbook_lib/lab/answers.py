"""How does each AWS protocol spell an error: JSON, query XML, or S3's XML?"""

from __future__ import annotations

import json
import re
import uuid
from enum import Enum
from xml.sax.saxutils import escape

from .http import Headers, HttpResponse
from .protocol import Refusal
from .signature import Reason, Refused


class Spelling(Enum):
    """A family of error documents."""

    JSON = "json"
    QUERY = "query"
    S3 = "s3"


def spelling(service: str | None, headers: Headers) -> Spelling:
    """What the client will be able to read; `service` is None when the request does not say."""
    content_type = headers.get("content-type", "")
    if service == "s3":
        return Spelling.S3
    if "x-amz-target" in headers or "json" in content_type or "cbor" in content_type:
        return Spelling.JSON
    if service is not None or "x-www-form-urlencoded" in content_type:
        return Spelling.QUERY
    return Spelling.S3


# The code of each refusal in the three spellings, as AWS's common errors and S3's error list name them.
_CODES: dict[Reason, tuple[str, str, str]] = {
    Reason.MISSING: ("MissingAuthenticationTokenException", "MissingAuthenticationToken", "AccessDenied"),
    Reason.MALFORMED: ("IncompleteSignatureException", "IncompleteSignature", "AccessDenied"),
    Reason.UNKNOWN_KEY: ("UnrecognizedClientException", "InvalidClientTokenId", "InvalidAccessKeyId"),
    Reason.BAD_TOKEN: ("UnrecognizedClientException", "InvalidClientTokenId", "InvalidToken"),
    Reason.EXPIRED_TOKEN: ("ExpiredTokenException", "ExpiredToken", "ExpiredToken"),
    Reason.MISMATCH: ("InvalidSignatureException", "SignatureDoesNotMatch", "SignatureDoesNotMatch"),
    Reason.SKEWED: ("InvalidSignatureException", "SignatureDoesNotMatch", "RequestTimeTooSkewed"),
    Reason.EXPIRED: ("InvalidSignatureException", "SignatureDoesNotMatch", "AccessDenied"),
}
_S3_MESSAGES = {
    Reason.MISSING: "Access Denied",
    Reason.UNKNOWN_KEY: "The AWS Access Key Id you provided does not exist in our records.",
    Reason.SKEWED: "The difference between the request time and the current time is too large.",
}


def unauthentic(refused: Refused, how: Spelling) -> Refusal:
    """A failed authentication as a refusal of the service; always 403."""
    code = _CODES[refused.reason][list(Spelling).index(how)]
    message = _S3_MESSAGES.get(refused.reason, refused.message) if how is Spelling.S3 else refused.message
    return Refusal(code, message, status=403)


def error_response(refusal: Refusal, how: Spelling, resource: str = "") -> HttpResponse:
    """A refusal on the wire."""
    request_id = str(uuid.uuid4())
    if how is Spelling.JSON:
        body = refusal.body()
        content_type = "application/x-amz-json-1.1"
        headers = [("x-amzn-RequestId", request_id), ("x-amzn-ErrorType", refusal.code)]
    elif how is Spelling.QUERY:
        kind = "Sender" if refusal.status < 500 else "Receiver"
        body = (
            f"<ErrorResponse><Error><Type>{kind}</Type><Code>{escape(refusal.code)}</Code>"
            f"<Message>{_xml(refusal.message)}</Message></Error><RequestId>{request_id}</RequestId></ErrorResponse>"
        ).encode()
        content_type = "text/xml"
        headers = [("x-amzn-RequestId", request_id)]
    else:
        more = "".join(f"<{name}>{_xml(str(value))}</{name}>" for name, value in refusal.members.items())
        body = (
            f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{escape(refusal.code)}</Code>'
            f"<Message>{_xml(refusal.message)}</Message>{more}<Resource>{_xml(resource)}</Resource>"
            f"<RequestId>{request_id}</RequestId></Error>"
        ).encode()
        content_type = "application/xml"
        headers = [("x-amz-request-id", request_id)]
    return HttpResponse(refusal.status, [("Content-Type", content_type), *headers], body)


def json_response(body: bytes, version: str = "1.1") -> HttpResponse:
    """A successful answer of AWS JSON."""
    return HttpResponse(
        200, [("Content-Type", f"application/x-amz-json-{version}"), ("x-amzn-RequestId", str(uuid.uuid4()))], body
    )


def control_response(value: object, status: int = 200) -> HttpResponse:
    """An answer of the lab's own control interface."""
    return HttpResponse(status, [("Content-Type", "application/json")], json.dumps(value).encode())


_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _xml(text: str) -> str:
    """Escaped, without what XML 1.0 cannot hold."""
    return escape(_NOT_XML.sub("?", text))
