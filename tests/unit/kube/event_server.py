# SPDX-License-Identifier: Apache-2.0
"""A small API server that keeps Events, and knows PersistentVolumes and Secrets.

It is real HTTP on loopback, and refuses what the real one refuses: an Event
whose namespace is not that of its object, a second one of a name, a change of
one that is not there.  What is not there at all answers 404.
"""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import re
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from typing import Final

TOKEN: Final = "canary-api-token"
LONGEST_MESSAGE: Final = 1024

_EVENTS: Final = re.compile(r"/api/v1/namespaces/([^/]+)/events(?:/([^/]+))?")
_SECRET: Final = re.compile(r"/api/v1/namespaces/([^/]+)/secrets/([^/]+)")
_VOLUME: Final = re.compile(r"/api/v1/persistentvolumes/([^/]+)")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")

type Answer = tuple[int, dict[str, Any]]


class EventServer(http.server.ThreadingHTTPServer):
    """`refusing` answers everything so; `delay` makes every answer late.

    `losing` does what the next request asks, and answers only so much later.  Both
    are seconds.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.volumes: dict[str, dict[str, Any]] = {}
        self.secrets: dict[tuple[str, str], Mapping[str, str] | int] = {}
        self.events: list[dict[str, Any]] = []
        self.asked: list[tuple[str, str]] = []
        self.bodies: list[bytes] = []
        self.refusing = 0
        self.delay = 0.0
        self.losing = 0.0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def kubeconfig(self, directory: Path) -> Path:
        """Write a kubeconfig for this server."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": self.url}}],
            "users": [{"name": "u", "user": {"token": TOKEN}}],
        }
        path = directory / "kubeconfig"
        path.write_text(json.dumps(config))
        return path

    def bind(
        self,
        volume: str,
        handle: str,
        claim: tuple[str, str, str] | None,
        *,
        driver: str = "csi.rbdcrypt.io",
        secret: tuple[str, str] | None = None,
    ) -> None:
        """Have a PersistentVolume of that name, bound to (namespace, name, uid)."""
        csi: dict[str, Any] = {"driver": driver, "volumeHandle": handle}
        if secret is not None:
            namespace, name = secret
            csi["nodeStageSecretRef"] = {"namespace": namespace, "name": name}
        spec: dict[str, Any] = {"csi": csi}
        if claim is not None:
            namespace, name, uid = claim
            spec["claimRef"] = {"namespace": namespace, "name": name, "uid": uid}
        self.volumes[volume] = {"kind": "PersistentVolume", "spec": spec}

    def about(self, name: str, kind: str = "PersistentVolumeClaim") -> list[Any]:
        """Return the Events on an object, oldest first."""
        with self.lock:
            return [
                dict(event)
                for event in self.events
                if event["involvedObject"]["name"] == name
                and event["involvedObject"]["kind"] == kind
            ]

    def reasons(self, name: str, kind: str = "PersistentVolumeClaim") -> list[str]:
        """Return the reasons of the Events on an object, oldest first."""
        return [event["reason"] for event in self.about(name, kind)]

    # --------------------------------------------------------------- answering

    def get(self, path: str) -> Answer:
        if found := _VOLUME.fullmatch(path):
            volume = self.volumes.get(found[1])
            return (404, {}) if volume is None else (200, volume)
        if found := _SECRET.fullmatch(path):
            data = self.secrets.get((found[1], found[2]), 404)
            if isinstance(data, int):
                return data, {}
            encoded = {
                key: base64.b64encode(text.encode()).decode()
                for key, text in data.items()
            }
            return 200, {"kind": "Secret", "data": encoded}
        return 404, {}

    def post(self, path: str, body: dict[str, Any]) -> Answer:
        found = _EVENTS.fullmatch(path)
        if found is None or found[2] is not None:
            return 404, {}
        if fault := _fault(body, found[1]):
            return 422, {"message": fault}
        with self.lock:
            name = body["metadata"]["name"]
            if self._named(found[1], name) is not None:
                return 409, {}
            self.events.append(body)
        return 201, body

    def patch(self, path: str, body: dict[str, Any]) -> Answer:
        found = _EVENTS.fullmatch(path)
        if found is None or found[2] is None:
            return 404, {}
        with self.lock:
            event = self._named(found[1], found[2])
            if event is None:
                return 404, {}
            event.update(body)
            return 200, event

    def _named(self, namespace: str, name: str) -> dict[str, Any] | None:
        for event in self.events:
            metadata = event["metadata"]
            if (metadata["namespace"], metadata["name"]) == (namespace, name):
                return event
        return None


def _fault(event: dict[str, Any], namespace: str) -> str:
    """Return what the real API server would find wrong with an Event."""
    about = event["involvedObject"]
    checks = {
        "kind": event["kind"] == "Event" and event["apiVersion"] == "v1",
        "namespace": {about["namespace"], event["metadata"]["namespace"]}
        == {namespace},
        "message": 0 < len(event["message"]) <= LONGEST_MESSAGE,
        "type": event["type"] in {"Normal", "Warning"},
        "reason": re.fullmatch("[A-Z][A-Za-z]+", event["reason"]),
        "times": all(
            _TIME.fullmatch(event[each]) for each in ("firstTimestamp", "lastTimestamp")
        ),
        "name": re.fullmatch(
            r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", event["metadata"]["name"]
        ),
        "component": event["source"]["component"] and event["reportingComponent"],
        "instance": len(event["reportingInstance"]) <= 128,
    }
    return ", ".join(name for name, holds in checks.items() if not holds)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    server: EventServer

    def do_GET(self) -> None:
        self._answer(lambda body: self.server.get(self.path))

    def do_POST(self) -> None:
        self._answer(lambda body: self.server.post(self.path, body))

    def do_PATCH(self) -> None:
        kind = self.headers["Content-Type"]
        if kind not in {
            "application/merge-patch+json",
            "application/strategic-merge-patch+json",
        }:
            self._answer(lambda body: (415, {}))
            return
        self._answer(lambda body: self.server.patch(self.path, body))

    def _answer(self, find: Callable[[dict[str, Any]], Answer]) -> None:
        server = self.server
        sent = self.rfile.read(int(self.headers["Content-Length"] or 0))
        server.asked.append((self.command, self.path))
        server.bodies.append(sent)
        time.sleep(server.delay)
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            answer: Answer = (401, {})
        elif server.refusing:
            answer = (server.refusing, {})
        else:
            answer = find(json.loads(sent) if sent else {})
        lost, server.losing = server.losing, 0.0
        time.sleep(lost)
        status, found = answer
        text = json.dumps(found).encode()
        with contextlib.suppress(OSError):  # who asked may have given up
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep the server's own log out of the driver's."""


@contextlib.contextmanager
def event_server() -> Iterator[EventServer]:
    """Give a server that answers, until the end."""
    made = EventServer()
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield made
    finally:
        made.shutdown()
        thread.join()
        made.server_close()
