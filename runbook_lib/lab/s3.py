"""What is the answer to one S3 request? REST-XML, path-style, over the lab's object store."""

from __future__ import annotations

import functools

from botocore import xform_name
from botocore.model import OperationModel, StructureShape

from .core import Lab
from .http import HttpRequest, HttpResponse
from .object_rows import StoreRefusal
from .protocol import Refusal, problems
from .s3_base import Operation
from .s3_buckets import ABSENT, BucketOperations
from .s3_inventory import InventoryOperations
from .s3_lists import ListOperations
from .s3_multipart import MultipartOperations
from .s3_objects import ObjectOperations
from .s3_routes import Parsed, parse, parse_body
from .s3_upload import check_header, document_of
from .s3_xml import refusal_response, respond

STATUSES = {"NoSuchBucket": 404, "BucketAlreadyOwnedByYou": 409, "BucketNotEmpty": 409}


class S3:
    """The lab's S3; requests are authenticated before they come here."""

    def __init__(self, lab: Lab) -> None:
        self.buckets = BucketOperations(lab)
        self.groups = (
            self.buckets,
            InventoryOperations(lab),
            ObjectOperations(lab),
            ListOperations(lab),
            MultipartOperations(lab),
        )

    def handle(self, request: HttpRequest) -> HttpResponse:
        """The response to one request, errors as S3's XML. ConnectionError when the client leaves in mid-body."""
        try:
            return self._answer(request)
        except Refusal as refusal:
            return refusal_response(refusal, request.path, request.method)
        except StoreRefusal as refusal:
            translated = Refusal(refusal.code, str(refusal), status=STATUSES[refusal.code])
            return refusal_response(translated, request.path, request.method)

    def _answer(self, request: HttpRequest) -> HttpResponse:
        for name, value in request.headers.items():
            check_header(name, value)
        parsed = parse(request)
        operation = parsed.operation
        handler = self._handler(operation)
        if not operation.has_streaming_input:
            # CompleteMultipartUpload's x-amz-checksum-… is of the object, not of its XML
            document = document_of(request, with_checksum="requestAlgorithmMember" in operation.http_checksum)
            parsed.parameters.update(parse_body(operation, document))
        _validate(parsed)
        answer = handler(parsed.parameters, request)
        return answer if isinstance(answer, HttpResponse) else respond(operation, answer or {})

    def _handler(self, operation: OperationModel) -> Operation:
        name = xform_name(operation.name)
        for group in self.groups:
            handler: Operation | None = getattr(group, name, None)
            if handler is not None:
                return handler
        if operation.name in ABSENT:
            return functools.partial(self.buckets.absent, operation=operation.name)
        raise Refusal("NotImplemented", f"The lab does not have S3 {operation.name}.", status=501)


def _validate(parsed: Parsed) -> None:
    """Refuse what the model forbids about the parts of a request that are not its body."""
    shape = parsed.operation.input_shape
    if not isinstance(shape, StructureShape):
        return
    payload = shape.serialization.get("payload")
    outside = {name: value for name, value in parsed.parameters.items() if name != payload}
    found = [text for text in problems(shape, outside) if not payload or not text.startswith(f"{payload} is required")]
    if found:
        raise Refusal("InvalidArgument", "; ".join(found[:3]))
    if payload in shape.required_members and payload not in parsed.parameters:
        raise Refusal("MalformedXML", "The XML you provided was not well-formed: the request has no body.")
