# SPDX-License-Identifier: Apache-2.0
"""A small API server on loopback that answers as it is told to.

It knows nothing of Kubernetes but that a path names an object; what counts is
which requests arrive, what an answer becomes, and how long it takes.
"""

from __future__ import annotations

import dataclasses
import http.server
import json
import socket
import threading
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from csi_driver.kube.api import ApiLimits
from csi_driver.kube.api import KubernetesApi

TOKEN = "canary-api-token"

type MakeApi = Callable[..., KubernetesApi]


@dataclasses.dataclass
class Answer:
    """One answer.  `hang` and `cut` happen after the status line was sent."""

    status: int = 200
    body: bytes = b"{}"
    silent: bool = False
    """Accept the request and say nothing."""
    hang: bool = False
    """Send half of the body and then nothing."""
    cut: bool = False
    """Send half of the body and close the connection."""


class ApiServer(http.server.ThreadingHTTPServer):
    """Serves `answers` in order and the last one for ever."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[Answer] = [Answer()]
        self.requests: list[tuple[str, str | None]] = []
        self.bodies: list[bytes] = []
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def will(self, *answers: dict[str, Any]) -> None:
        """Say what to answer, as the fields of `Answer`."""
        self.answers = [Answer(**fields) for fields in answers]

    def object(self, value: dict[str, Any]) -> None:
        self.answers = [Answer(body=json.dumps(value).encode())]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that give up are part of the tests."""

    def next_answer(self) -> Answer:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    server: ApiServer

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.server.bodies.append(self.rfile.read(length))
        self.do_GET()

    def do_GET(self) -> None:
        self.server.requests.append((self.path, self.headers["Authorization"]))
        answer = self.server.next_answer()
        if answer.silent:
            self._wait()
            return
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer.body)))
        if answer.status == http.HTTPStatus.TOO_MANY_REQUESTS:
            # As the real one does; our own waits decide, not this.
            self.send_header("Retry-After", "30")
        self.end_headers()
        if answer.hang or answer.cut:
            self.wfile.write(answer.body[: len(answer.body) // 2])
            self.wfile.flush()
            self.close_connection = True
            if answer.hang:
                self._wait()
            return
        self.wfile.write(answer.body)

    def _wait(self) -> None:
        self.close_connection = True
        self.server.released.wait(timeout=30)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep the server's own log out of the driver's."""


@pytest.fixture
def server() -> Iterator[ApiServer]:
    made = ApiServer()
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.released.set()
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def write_kubeconfig(tmp_path: Path) -> Callable[..., Path]:
    def write(url: str, authority: Path | None = None) -> Path:
        cluster = {"server": url}
        if authority is not None:
            cluster["certificate-authority"] = str(authority)
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {"token": TOKEN}}],
        }
        path = tmp_path / "kubeconfig"
        path.write_text(json.dumps(config))
        return path

    return write


@pytest.fixture
def make_api(
    write_kubeconfig: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[MakeApi]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    made: list[KubernetesApi] = []

    def make(url: str, authority: Path | None = None) -> KubernetesApi:
        limits = ApiLimits(
            connect=0.5, read=0.3, total=2.0, attempts=3, first_wait=0.01
        )
        api = KubernetesApi(write_kubeconfig(url, authority), limits)
        made.append(api)
        return api

    yield make
    for api in made:
        api.close()


@pytest.fixture
def api(server: ApiServer, make_api: MakeApi) -> KubernetesApi:
    return make_api(server.url)


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
