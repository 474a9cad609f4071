"""How do bytes on a loopback socket become requests for the front, and its answers bytes again?

cheroot does HTTP/1.1, keep-alive and the thread pool. Its WSGI layer is not used: it hides how the path was encoded
and whether a header name had `_` or `-`, and S3 and signatures need both.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from http import HTTPStatus
from typing import Any

import cheroot.server

from .body import Body
from .front import Arrival, Front
from .http import Headers, HttpResponse

THREADS = 32
HOST = "127.0.0.1"
HEADER_LIMIT = 64 << 10  # bytes of request line and headers

log = logging.getLogger(__name__)


class _Agreeing(dict[bytes, bytes]):
    """Headers of which no two give different lengths (cheroot takes the last)."""

    def __setitem__(self, name: bytes, value: bytes) -> None:
        if name == b"Content-Length" and self.get(name, value) != value:
            raise ValueError("Two Content-Length headers.")
        super().__setitem__(name, value)


class _HeaderReader(cheroot.server.HeaderReader):
    """Refuses headers that leave the body's length in doubt, and leaves `100 Continue` to the body."""

    def __call__(self, rfile: Any, hdict: dict[bytes, bytes] | None = None) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = super().__call__(rfile, _Agreeing(hdict or {}))
        if b"Content-Length" in found and b"Transfer-Encoding" in found:
            raise ValueError("Content-Length and Transfer-Encoding together.")
        if not found.get(b"Content-Length", b"0").isdigit():
            raise ValueError("Malformed Content-Length Header.")
        if found.pop(b"Expect", b"").lower() == b"100-continue":
            found[_EXPECT] = b"100-continue"
        if hdict is not None:
            hdict.update(found)
        return found


_EXPECT = b"Expected"  # a name cheroot does not act on


class _Request(cheroot.server.HTTPRequest):
    header_reader = _HeaderReader()


class _Connection(cheroot.server.HTTPConnection):
    RequestHandlerClass = _Request
    rbufsize = 64 << 10  # bytes


class _Gateway(cheroot.server.Gateway):
    """One request and its answer."""

    def respond(self) -> None:
        """Called by cheroot when the headers are read."""
        request = self.req
        arrival = _arrival(request)
        request.rfile = arrival.body
        try:
            response = request.server.front.handle(arrival)
            self._reply(arrival, response)
        except (ConnectionError, TimeoutError) as error:
            log.info("%s %.200s: the client left (%s)", arrival.method, arrival.path, error)
            request.close_connection, request.ready = True, False

    def _reply(self, arrival: Arrival, response: HttpResponse) -> None:
        try:
            if not arrival.body.drain():
                self.req.close_connection = True
            self._send(response)
        finally:
            close = getattr(response.body, "close", None)
            if close is not None:
                close()

    def _send(self, response: HttpResponse) -> None:
        request, body = self.req, response.body
        request.status = f"{response.status} {HTTPStatus(response.status).phrase}".encode()
        headers = [(name.encode("latin-1"), value.encode("utf-8")) for name, value in response.headers]
        if isinstance(body, bytes) and not any(name.lower() == b"content-length" for name, _ in headers):
            headers.append((b"Content-Length", str(len(body)).encode()))
        request.outheaders = headers
        request.ensure_headers_sent()
        if request.method == b"HEAD":
            return
        for piece in [body] if isinstance(body, bytes) else body:
            if piece:
                request.write(piece)


def _arrival(request: Any) -> Arrival:
    pairs = [
        (name.decode("latin-1"), value.decode("utf-8", "surrogateescape")) for name, value in request.inheaders.items()
    ]
    path, _, query = request.uri.decode("utf-8", "surrogateescape").partition("?")
    length = request.inheaders.get(b"Content-Length")
    expects = _EXPECT in request.inheaders

    def ask() -> None:
        request.conn.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    body = Body(
        request.conn.rfile,
        None if length is None else int(length),
        chunked=request.chunked_read,
        ask=ask if expects else None,
    )
    return Arrival(
        request.method.decode("latin-1"), path, query, Headers(pairs), body, None if length is None else int(length)
    )


class Server(cheroot.server.HTTPServer):
    """The lab's front on a loopback port."""

    ConnectionClass = _Connection
    max_request_header_size = HEADER_LIMIT
    request_queue_size = 128
    keep_alive_conn_limit = 512
    timeout = 60  # seconds without a byte
    expiration_interval = 0.1  # seconds; also how soon stop() is noticed
    shutdown_timeout = 3  # seconds

    def __init__(self, front: Front, port: int) -> None:
        super().__init__((HOST, port), _Gateway, minthreads=THREADS, maxthreads=THREADS, server_name="lab")
        self.front = front

    def listen(self) -> str:
        """Take the port, or another one when somebody has it; returns the URL."""
        os.environ.pop("LISTEN_PID", None)  # cheroot would take over a socket of systemd's
        try:
            self.prepare()
        except OSError:
            if self.bind_addr[1] == 0:
                raise
            log.warning("Port %d is taken, the lab moves to another one", self.bind_addr[1])
            self.bind_addr = (HOST, 0)
            self.prepare()
        port = self.bind_addr[1]
        self.front.hosts = frozenset({f"{HOST}:{port}", f"localhost:{port}"})
        return f"http://{HOST}:{port}"

    @staticmethod
    def bind_socket(socket_: socket.socket, bind_addr: tuple[str, int]) -> socket.socket:
        """As cheroot does, and let the next daemon take this port while old connections still linger on it.

        cheroot does not ask for that on a port the system chose, because before the bind it could take others' ports.
        """
        socket_.bind(bind_addr)
        socket_.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return socket_

    def run(self) -> None:
        """Serve in a background thread until `stop()`."""
        threading.Thread(target=self.serve, name="accept", daemon=True).start()

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        """cheroot's complaints go where ours go."""
        log.log(level, "%s", msg, exc_info=traceback)
