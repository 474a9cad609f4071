"""What does a client do when S3 is fast, slow, throttles, tears a page or says nothing? An endpoint from memory.

`with stub(objects, latency=0.05, faults=[Fault("slow down", every=3)]) as endpoint:` serves any bucket name at
`endpoint.url`; `with spawned(files) as endpoint:` serves the bucket of tests/trees.py from a process of its own. LIST
(both versions), HEAD, GET and the parts of GetObjectAttributes; signatures are not checked. Entries are rendered once:
a page is a head, a slice, a foot.

Faults are the names in REFUSALS, and `silent` (no answer until the client goes away), `torn` (half the body, then
closed), `torn open` (the same, no length given), `torn chunked`, `lost key` (one entry less than KeyCount says),
`same page` (the first page, whatever is asked), `object` (the object, as what knows no attributes answers).
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runbook_lib.lab.s3_xml import DECLARATION, NAMESPACE, http_time
from tests import trees
from tests.s3_stub_pages import Bucket, Object, asked_of, body
from tests.s3_stub_wire import REFUSALS, Asked, parsed, refuse, send

REGION = "eu-central-1"
REPOSITORY = Path(__file__).parents[1]
CONTROL = "-"  # /-/requests, /-/latency/0.05: no bucket can be called so
BODIES = {"torn", "torn open", "torn chunked", "lost key", "same page", "object"}
PARTS = {"part-number-marker": "0", "max-parts": "1000"}
PIECE = bytes(1 << 20)  # of a body of zeros


@dataclass(frozen=True)
class Fault:
    """Every `every`th request of an operation fails so, `times` times at most (None: always)."""

    what: str
    every: int = 1
    times: int | None = None
    operation: str = "LIST"

    def __post_init__(self) -> None:
        if self.what not in {*REFUSALS, *BODIES, "silent"}:
            raise ValueError(f"There is no fault {self.what!r}.")


class Endpoint:
    """What answers, and what it was asked so far."""

    def __init__(self, bucket: Bucket, latency: float, faults: Iterable[Fault], chunked: bool) -> None:
        self.latency = latency  # seconds before each LIST is answered
        self.requests: Counter[str] = Counter()  # by operation
        self.failed: Counter[str] = Counter()  # by fault
        self._bucket, self._faults, self._chunked = bucket, list(faults), chunked
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def stop(self) -> None:
        """Close every connection and wait for the threads."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with suppress(OSError):  # the client closed it
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # stopped
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            with self._lock:
                self._open.add(connection)
                self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):  # the client went away, or we stop
            received = b""
            while True:
                while b"\r\n\r\n" not in received:
                    more = connection.recv(65536)
                    if not more:
                        break
                    received += more
                head, separator, received = received.partition(b"\r\n\r\n")
                if not separator or not self._answer(connection, parsed(head.decode("latin-1"))):
                    break
        with self._lock:
            self._open.discard(connection)

    def _answer(self, connection: socket.socket, asked: Asked) -> bool:
        """Answer one request; False: the connection ends."""
        if asked.bucket == CONTROL:
            return self._control(connection, asked)
        operation = asked.operation
        fault = self._fault(operation)
        if operation == "LIST" and self.latency:
            time.sleep(self.latency)
        if fault == "silent":
            connection.recv(1)
            return False
        if fault in REFUSALS:
            return refuse(connection, asked, fault)
        if operation == "LIST":
            return self._list(connection, asked, fault)
        if operation == "ATTRIBUTES" and fault != "object":
            return self._attributes(connection, asked, fault)
        if operation in ("HEAD", "GET", "ATTRIBUTES"):
            return self._object(connection, asked, fault)
        if operation == "HEAD BUCKET":
            return send(connection, 200, {"x-amz-bucket-region": REGION}, [])
        if operation == "LOCATION":
            text = f'{DECLARATION}<LocationConstraint xmlns="{NAMESPACE}">{REGION}</LocationConstraint>'
            return send(connection, 200, {"Content-Type": "application/xml"}, [text.encode()])
        return refuse(connection, asked, "not here")

    def _fault(self, operation: str) -> str:
        """What goes wrong with this request; '' for nothing."""
        with self._lock:
            self.requests[operation] += 1
            for fault in self._faults:
                wanted = fault.operation == operation and self.requests[operation] % fault.every == 0
                if wanted and (fault.times is None or self.failed[fault.what] < fault.times):
                    self.failed[fault.what] += 1
                    return fault.what
        return ""

    def _list(self, connection: socket.socket, asked: Asked, fault: str) -> bool:
        try:
            query = asked_of(asked.parameters)
        except ValueError:
            return refuse(connection, asked, "bad token")
        if fault == "same page":
            query = replace(query, after=b"")
        page = self._bucket.page(query)
        pieces = body(self._bucket, asked.bucket, asked.parameters, query, page)
        if fault == "lost key":
            pieces[1] = bytes(pieces[1])[: bytes(pieces[1]).rindex(b"<Contents>")]
        return send(connection, 200, {"Content-Type": "application/xml"}, pieces, fault, chunked=self._chunked)

    def _object(self, connection: socket.socket, asked: Asked, fault: str) -> bool:
        found = self._bucket.get(asked.key)
        if found is None:
            return refuse(connection, asked, "no key")
        start, stop, status = 0, found.length, 200
        headers = described(found, asked)
        if "partNumber" in asked.parameters and found.parts:
            number = int(asked.parameters["partNumber"])
            start, status = sum(found.parts[: number - 1]), 206
            stop = start + found.parts[number - 1]
        if "range" in asked.headers:
            first, _, last = asked.headers["range"].removeprefix("bytes=").partition("-")
            start, stop, status = int(first), min(stop, int(last or stop) + 1), 206
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{found.length}"
        if asked.method == "HEAD":
            return send(connection, status, headers | {"Content-Length": str(stop - start)}, [])
        whole = [] if found.body is None else [found.body[start:stop]]
        zeros = 0 if whole else stop - start
        return send(connection, status, headers, [*whole, *[PIECE] * (zeros >> 20), PIECE[: zeros % len(PIECE)]], fault)

    def _attributes(self, connection: socket.socket, asked: Asked, fault: str) -> bool:
        """Its parts, where they have checksums; S3 counts those of others, and lists none."""
        found = self._bucket.get(asked.key)
        if found is None:
            return refuse(connection, asked, "no key")
        after, most = (int(asked.headers.get(f"x-amz-{name}", default)) for name, default in PARTS.items())
        sizes = found.parts[after : after + min(most, 1000)] if found.checksum_type == "COMPOSITE" else ()
        last = after + len(sizes)
        shown = "".join(
            f"<Part><PartNumber>{number}</PartNumber><Size>{size}</Size></Part>"
            for number, size in enumerate(sizes, after + 1)
        )
        if sizes:
            shown += f"<PartNumberMarker>{after}</PartNumberMarker><NextPartNumberMarker>{last}</NextPartNumberMarker>"
            shown += f"<IsTruncated>{str(last < len(found.parts)).lower()}</IsTruncated>"
        parts = f"<ObjectParts><PartsCount>{len(found.parts)}</PartsCount>{shown}</ObjectParts>"
        inner = f"<ETag>{found.entity_tag}</ETag>{parts if found.parts else ''}"
        text = f'{DECLARATION}<GetObjectAttributesResponse xmlns="{NAMESPACE}">{inner}</GetObjectAttributesResponse>'
        return send(connection, 200, {"Content-Type": "application/xml"}, [text.encode()], fault)

    def _control(self, connection: socket.socket, asked: Asked) -> bool:
        verb, _, value = asked.key.partition("/")
        with self._lock:
            if verb == "latency":
                self.latency = float(value)
            state = {"requests": dict(self.requests), "failed": dict(self.failed), "latency": self.latency}
        return send(connection, 200, {"Content-Type": "application/json"}, [json.dumps(state).encode()])


def described(found: Object, asked: Asked) -> dict[str, str]:
    """The headers of an object."""
    headers = {"ETag": f'"{found.entity_tag}"', "Last-Modified": http_time(found.modified), "Accept-Ranges": "bytes"}
    headers |= {f"x-amz-meta-{name}": value for name, value in found.metadata.items()}
    whole = "range" not in asked.headers and "partNumber" not in asked.parameters  # a piece has not the object's
    if whole and asked.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED" and found.checksums:
        headers |= {f"x-amz-checksum-{name.lower()}": value for name, value in found.checksums.items()}
        headers["x-amz-checksum-type"] = found.checksum_type
    if "partNumber" in asked.parameters and found.parts:
        headers["x-amz-mp-parts-count"] = str(len(found.parts))
    if found.storage_class != "STANDARD":
        headers["x-amz-storage-class"] = found.storage_class
    if found.encryption:
        headers["x-amz-server-side-encryption"] = found.encryption
    return headers


@contextmanager
def stub(
    objects: Iterable[Object | tuple[str, int] | tuple[str, int, float]],
    *,
    latency: float = 0,
    faults: Iterable[Fault] = (),
    chunked: bool = False,
) -> Iterator[Endpoint]:
    """An endpoint in this process. `latency`: seconds per LIST; `chunked`: without Content-Length, as S3 lists."""
    endpoint = Endpoint(Bucket(objects), latency, faults, chunked)
    try:
        yield endpoint
    finally:
        endpoint.stop()


@dataclass(frozen=True)
class Spawned:
    """An endpoint in a process of its own."""

    url: str
    pid: int

    def ask(self, verb: str) -> Any:
        """`requests`, or `latency/0.05`: what it says of itself."""
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            f"{self.url}/{CONTROL}/{verb}"
        ) as answer:
            return json.load(answer)


@contextmanager
def spawned(files: int) -> Iterator[Spawned]:
    """The bucket of `trees.objects(files)`, served by a process of its own."""
    command = [sys.executable, "-m", "tests.s3_stub", "--files", str(files)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=REPOSITORY, text=True) as process:
        try:
            assert process.stdout is not None
            yield Spawned(process.stdout.readline().strip(), process.pid)
        finally:
            process.kill()


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1_000_000)
    bucket = Bucket(trees.objects(parser.parse_args().files))
    bucket.rendered(True), bucket.rendered(False)
    endpoint = Endpoint(bucket, 0, (), chunked=False)
    print(endpoint.url, flush=True)
    sys.stdin.read()
    endpoint.stop()


if __name__ == "__main__":
    main()
