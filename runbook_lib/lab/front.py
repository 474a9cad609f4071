"""Who is asking, is it allowed in, and which service answers? The one way into the lab, without the sockets."""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Condition
from typing import Any, Protocol

from .answers import Spelling, control_response, error_response, json_response, spelling, unauthentic
from .body import Body
from .core import ACCOUNT
from .http import Headers, HttpRequest, HttpResponse
from .iam_simulation import is_simulation, simulate
from .moto_bridge import SECRETS, SERVICES, Moto, refuse_malformed, serves
from .protocol import Call, Refusal, Service, decode
from .signature import UNSIGNED, Claim, Refused, Secret, read_claim, verify

CONTROL = "lab"  # the signing name of the lab's own control interface
DOCUMENT_LIMIT = 10 << 20  # bytes of a JSON or form body
PATIENCE = 5.0  # seconds that a reset waits for requests in flight

log = logging.getLogger(__name__)


class Handler(Protocol):
    """What S3 is to the front."""

    def handle(self, request: HttpRequest) -> HttpResponse:
        """Answer one authenticated request."""


class Gate:
    """Requests pass; a reset closes it, waits for those inside, and opens it again."""

    def __init__(self) -> None:
        self._condition = Condition()
        self._inside = 0
        self._closed = False

    @contextmanager
    def passing(self, *, counted: bool = True) -> Iterator[None]:
        """Enter when it is open. Uncounted requests (long polls) are not waited for."""
        with self._condition:
            self._condition.wait_for(lambda: not self._closed)
            self._inside += counted
        try:
            yield
        finally:
            with self._condition:
                self._inside -= counted
                self._condition.notify_all()

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Nobody is inside and nobody enters; after `PATIENCE` seconds those still inside are left to their fate."""
        with self._condition:
            self._condition.wait_for(lambda: not self._closed)
            self._closed = True
            if not self._condition.wait_for(lambda: self._inside == 0, PATIENCE):
                log.warning("%d requests were still running when the lab was changed under them", self._inside)
        try:
            yield
        finally:
            with self._condition:
                self._closed = False
                self._condition.notify_all()


@dataclass(frozen=True)
class Arrival:
    """A request as it came off the wire."""

    method: str
    path: str  # percent-encoded
    query: str
    headers: Headers
    body: Body
    content_length: int | None


@dataclass
class Front:
    """Authentication and routing. `hosts` is filled in once the port is known."""

    access_key: str
    secret_key: str = field(repr=False)
    services: Mapping[str, Service]
    s3: Handler
    moto: Moto
    control: Callable[[str, dict[str, Any]], Any]
    denied: Callable[[str], bool] = lambda service: False  # a fault: which of moto's services refuse
    gate: Gate = field(default_factory=Gate)
    hosts: frozenset[str] = frozenset()

    def handle(self, arrival: Arrival) -> HttpResponse:
        """The answer, always; a fault of our own is a 500 in the caller's spelling and a traceback in the log."""
        how, service = spelling(None, arrival.headers), "?"
        try:
            if arrival.headers.get("host") not in self.hosts:
                raise Refusal("AccessDenied", f"This lab answers to {' and '.join(sorted(self.hosts))}.", status=403)
            if arrival.method == "OPTIONS":
                raise Refusal("AccessDenied", "The lab has no CORS: a web page has no business here.", status=403)
            claim = read_claim(arrival.query, arrival.headers)
            service = claim.service
            how = (
                Spelling.JSON if service == CONTROL or service in self.services else spelling(service, arrival.headers)
            )
            return self._authenticated(arrival, claim)
        except Refused as refused:
            return self._refuse(arrival, service, unauthentic(refused, how), how)
        except Refusal as refusal:
            return self._refuse(arrival, service, refusal, how)
        except (ConnectionError, TimeoutError):
            raise
        except Exception:
            log.exception("%s %s %s failed", service, arrival.method, arrival.path[:200])
            code = "InternalError" if how is Spelling.S3 else "InternalFailure"
            return error_response(Refusal(code, "The lab failed; `runbook lab logs` has the reason.", status=500), how)

    def _refuse(self, arrival: Arrival, service: str, refusal: Refusal, how: Spelling) -> HttpResponse:
        target = arrival.headers.get("x-amz-target", arrival.path)
        log.info("%s %s %.200s: %d %s %.300s", service, arrival.method, target, refusal.status, refusal.code, refusal)
        return error_response(refusal, how, arrival.path)

    def _authenticated(self, arrival: Arrival, claim: Claim) -> HttpResponse:
        if claim.service == "s3":
            with self.gate.passing():
                return self._s3(arrival, claim)
        body = _document(arrival)
        self._verify(arrival, claim, hashlib.sha256(body).hexdigest())
        _refuse_cbor(arrival)
        if claim.service in self.services:
            with self.gate.passing():
                return self._own(self.services[claim.service], arrival, claim, body)
        if claim.service in SERVICES and self.denied(claim.service):
            raise Refusal("AccessDeniedException", f"User is not authorized to perform this action on {claim.service}")
        if claim.service in SERVICES and serves(arrival.path):
            refuse_malformed(claim.service, arrival.query, arrival.headers, body)
            with self.gate.passing(counted=False):
                if claim.service == "iam" and is_simulation(body):
                    return simulate(self.moto, body)
                if claim.service == SECRETS:
                    self.moto.renew_secrets()
                return self.moto.answer(arrival.method, arrival.path, arrival.query, arrival.headers, body)
        if claim.service == CONTROL and claim.access_key == self.access_key:
            return self._control(arrival, body)
        raise Refusal(
            "UnknownOperationException",
            f"The lab has no service {claim.service!r} at {arrival.path[:100]}. It has s3, "
            + ", ".join(sorted([*self.services, *SERVICES]))
            + ".",
        )

    def _verify(self, arrival: Arrival, claim: Claim, payload: str) -> Any:
        return verify(
            claim,
            method=arrival.method,
            path=arrival.path,
            query=arrival.query,
            headers=arrival.headers,
            payload=payload,
            keyring=self._secret,
            now=time.time(),
        )

    def _secret(self, access_key: str) -> Secret | None:
        return Secret(self.secret_key) if access_key == self.access_key else self.moto.temporary(access_key)

    def _own(self, service: Service, arrival: Arrival, claim: Claim, body: bytes) -> HttpResponse:
        if arrival.method != "POST" or arrival.path != "/":
            raise Refusal("UnknownOperationException", f"{service.name} takes POST / only.")
        target = arrival.headers.get("x-amz-target", "")
        call = Call(target.rpartition(".")[2], claim.region, ACCOUNT, claim.access_key)
        answer = service.answer(target, body, call)
        if not call.operation.startswith(("Describe", "List", "Get")):  # who polls does not fill the log
            log.info("%s %s", service.name, call.operation)
        return json_response(answer)

    def _s3(self, arrival: Arrival, claim: Claim) -> HttpResponse:
        declared = arrival.headers.get("x-amz-content-sha256", UNSIGNED if claim.expires is not None else "")
        if not declared:
            raise Refusal("InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
        payload = self._verify(arrival, claim, declared)
        if re.fullmatch(r"[0-9a-f]{64}", declared):
            arrival.body.expect(declared)
        elif declared != UNSIGNED and not declared.startswith("STREAMING-"):
            raise Refusal(
                "InvalidArgument",
                f"x-amz-content-sha256 must be {UNSIGNED}, STREAMING-…, or a valid sha256 value.",
                ArgumentName="x-amz-content-sha256",
                ArgumentValue=declared[:200],
            )
        return self.s3.handle(
            HttpRequest(
                arrival.method,
                arrival.path,
                arrival.query,
                arrival.headers,
                arrival.body,  # type: ignore[arg-type]  # a RawIOBase reads as a BinaryIO does
                arrival.content_length,
                claim.region,
                claim.access_key,
                payload,
            )
        )

    def _control(self, arrival: Arrival, body: bytes) -> HttpResponse:
        if arrival.method != "POST" or not arrival.path.startswith("/_lab/"):
            raise Refusal("UnknownOperationException", "The lab's control interface is POST /_lab/<verb>.")
        return control_response(self.control(arrival.path.removeprefix("/_lab/"), decode(body)))


def _document(arrival: Arrival) -> bytes:
    """A whole body that must be small."""
    too_long = Refusal("RequestEntityTooLargeException", f"The body may have {DOCUMENT_LIMIT} bytes.", status=413)
    if arrival.content_length is not None and arrival.content_length > DOCUMENT_LIMIT:
        raise too_long
    pieces, total = [], 0
    while piece := arrival.body.read(1 << 16):
        pieces.append(piece)
        total += len(piece)
        if total > DOCUMENT_LIMIT:
            raise too_long
    return b"".join(pieces)


def _refuse_cbor(arrival: Arrival) -> None:
    """Newer SDKs could choose CBOR, which neither we nor moto speak."""
    by_path = re.fullmatch(r"/service/[^/]+/operation/[^/]+", arrival.path) is not None
    protocol = arrival.headers.get("smithy-protocol", "")
    if by_path or "cbor" in protocol or "cbor" in arrival.headers.get("content-type", ""):
        raise Refusal(
            "UnsupportedProtocolException",
            "The lab speaks AWS JSON, not smithy-rpc-v2-cbor: send application/x-amz-json-1.1 with X-Amz-Target, as "
            "the pinned boto3 does.",
        )
