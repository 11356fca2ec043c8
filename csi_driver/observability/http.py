# SPDX-License-Identifier: Apache-2.0
"""A small HTTP server for probes and scrapes, which nobody can hold up.

A client has a bounded time to send its request and to take the answer, and a
request has a bounded length.  At most so many clients are served at once; when
there are more, the one that has been sending its request for longest goes.  What
the pages say is left to `pages`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import io
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from typing import Final

import structlog

from csi_driver.domain.errors import UnavailableError

REQUEST_SECONDS: Final = 5.0
"""How long a client may take to send its request, and to take the answer."""

LONGEST_REQUEST: Final = 16 << 10
"""Bytes of a request, of which nothing but the path and Accept is looked at."""

MOST_CLIENTS: Final = 32

_POLL_SECONDS: Final = 0.2
"""How late the server may notice that it is to end."""

_PLAIN: Final = "text/plain; charset=utf-8"
_ENDS: Final = (b"\r\n\r\n", b"\n\n")
_log = structlog.get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What a page says."""

    status: HTTPStatus
    body: bytes
    content_type: str = _PLAIN


type Page = Callable[[str], Answer]
"""Given the request's Accept header, returns the answer; from any thread."""


@contextlib.contextmanager
def serving(host: str, port: int, pages: Mapping[str, Page]) -> Iterator[int]:
    """Serve the pages by their paths inside; yields the port.

    `host` may be a name or an address of either kind; "" is every address of the
    machine.  UnavailableError if it cannot be listened at.
    """
    try:
        server = _Server(host, port, pages)
    except OSError as error:
        reason = error.strerror or error
        message = f"HTTP cannot be served at {host or '*'}:{port}: {reason}"
        raise UnavailableError(message) from error
    thread = threading.Thread(
        target=server.serve_forever, args=(_POLL_SECONDS,), name="http", daemon=True
    )
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, host: str, port: int, pages: Mapping[str, Page]) -> None:
        self.pages = pages
        self._clients = threading.Lock()
        self._open: set[Any] = set()
        self._sending: dict[Any, None] = {}
        family, address = _resolved(host, port)
        self.address_family = family
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind; the inherited one asks DNS for a name that nobody needs."""
        if self.address_family == socket.AF_INET6:
            every = self.server_address[0] == "::"
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not every)
        socketserver.TCPServer.server_bind(self)
        self.server_name = str(self.server_address[0])
        self.server_port = int(self.server_address[1])

    def get_request(self) -> tuple[Any, Any]:
        """Accept a client."""
        try:
            return super().get_request()
        except OSError as error:
            _log.warning("accept failed", error=str(error))
            time.sleep(0.1)  # out of descriptors: let some be closed
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a client in a thread of its own."""
        if self._admitted(request):
            super().process_request(request, client_address)
        else:
            _log.warning("too many HTTP clients", client=str(client_address))
            self.shutdown_request(request)

    def _admitted(self, request: Any) -> bool:
        """Make room for a client at the cost of one that has yet to ask."""
        with self._clients:
            if len(self._open) >= MOST_CLIENTS:
                oldest = next(iter(self._sending), None)
                # Those that were hung up on are gone in a moment.
                if oldest is None or len(self._open) >= 2 * MOST_CLIENTS:
                    return False
                del self._sending[oldest]
                _hang_up(oldest)
            self._open.add(request)
            self._sending[request] = None
        return True

    def sent(self, request: Any) -> None:
        """Note that a client has sent its request: it will get its answer."""
        with self._clients:
            self._sending.pop(request, None)

    def shutdown_request(self, request: Any) -> None:
        """Let go of a client."""
        with self._clients:
            self._sending.pop(request, None)
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what the inherited one prints."""
        del request
        error = sys.exception()
        level = _log.debug if isinstance(error, OSError) else _log.error
        level("an HTTP request failed", client=str(client_address), exc_info=error)


class _Handler(http.server.BaseHTTPRequestHandler):
    """One request and its answer; the connection ends with it (HTTP/1.0)."""

    server: _Server
    timeout = REQUEST_SECONDS  # for the answer

    def setup(self) -> None:
        """Read the request, all of it or none."""
        super().setup()
        self.rfile.close()
        self.rfile = io.BytesIO(_received(self.connection))
        self.server.sent(self.request)
        self.connection.settimeout(REQUEST_SECONDS)

    def do_GET(self) -> None:
        """Send a page."""
        self._answer(self._page())

    def do_HEAD(self) -> None:
        """Send a page's head."""
        self._answer(self._page(), body=False)

    def do_POST(self) -> None:
        """Refuse: nothing here can be changed."""
        status = HTTPStatus.METHOD_NOT_ALLOWED
        self._answer(Answer(status, b"GET and HEAD only\n"))

    do_DELETE = do_OPTIONS = do_PATCH = do_PUT = do_TRACE = do_POST  # noqa: N815  # theirs

    def _page(self) -> Answer:
        path = self.path.partition("?")[0]
        page = self.server.pages.get(path)
        if page is None:
            known = "".join(f"{each}\n" for each in self.server.pages)
            return Answer(HTTPStatus.NOT_FOUND, f"there is:\n{known}".encode())
        try:
            return page(self.headers.get("Accept", ""))
        except Exception as error:  # noqa: BLE001  # told, and logged
            _log.error("a page failed unforeseen", path=path, exc_info=error)
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            return Answer(status, b"an unforeseen failure: see the log\n")

    def _answer(self, answer: Answer, *, body: bool = True) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        if answer.status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if body:
            self.wfile.write(answer.body)

    def version_string(self) -> str:
        """Name nothing that a stranger could look up."""
        return "rbdcrypt-csi"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # theirs
        """Log what the inherited one prints."""
        _log.debug("http", client=self.client_address[0], message=format % args)


def _received(connection: socket.socket) -> bytes:
    """Return a request up to its empty line, or all that came before the end.

    TimeoutError when it is late, ConnectionAbortedError when it is too long.
    """
    until = time.monotonic() + REQUEST_SECONDS
    received = b""
    while not any(end in received for end in _ENDS):
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the request took too long")
        connection.settimeout(left)
        part = connection.recv(LONGEST_REQUEST)
        received += part
        if len(received) > LONGEST_REQUEST:
            raise ConnectionAbortedError("the request is too long")
        if not part:
            break
    return received


def _hang_up(request: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it has gone by itself
        request.shutdown(socket.SHUT_RDWR)


def _resolved(host: str, port: int) -> tuple[socket.AddressFamily, Any]:
    """Return where to listen; "" is all addresses, of both kinds where there are."""
    if not host:
        dual = socket.has_dualstack_ipv6()
        host = "::" if dual else "0.0.0.0"  # noqa: S104  # asked for
    kind = socket.SOCK_STREAM
    found = socket.getaddrinfo(host, port, type=kind, flags=socket.AI_PASSIVE)
    return found[0][0], found[0][4]
