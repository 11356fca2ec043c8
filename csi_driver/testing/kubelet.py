# SPDX-License-Identifier: Apache-2.0
"""A kubelet, as far as plugins can tell: it watches, asks, and gives its verdict.

It does what pkg/kubelet/pluginmanager of Kubernetes 1.36 does, by real calls:
plugins are told apart by the path and the time of their sockets, each is dialled,
asked who it is, and called on the endpoint that it names; who answers there with
a node id is registered.  Another driver of a name that is taken is refused.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path

import grpc

from csi_driver.rpc.stubs import csi_pb2
from csi_driver.rpc.stubs import csi_pb2_grpc
from csi_driver.rpc.stubs import pluginregistration_pb2 as pb2
from csi_driver.rpc.stubs import pluginregistration_pb2_grpc as pb2_grpc

CALL_SECONDS = 1.0
LOOK_SECONDS = 0.02
BACKOFF_SECONDS = 0.2


@dataclasses.dataclass(frozen=True)
class Found:
    """A socket in plugins_registry, and which one it is."""

    path: Path
    identity: tuple[int, int]


class Kubelet:
    """One life of a kubelet; a new object is a restarted one, which knows nothing."""

    def __init__(self, registry: Path) -> None:
        self._registry = registry
        self._stopping = threading.Event()
        self._failed: dict[Found, float] = {}
        self.plugins: dict[Found, pb2.PluginInfo] = {}
        self.node_ids: dict[str, str] = {}
        self.asked: list[Path] = []

    @property
    def drivers(self) -> list[str]:
        """The names that are registered."""
        return sorted(info.name for info in self.plugins.values())

    @contextlib.contextmanager
    def running(self) -> Iterator[Kubelet]:
        """Watch, ask and register while inside."""
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield self
        finally:
            self._stopping.set()
            thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            present = set(self._sockets())
            for gone in set(self.plugins) - present:
                self.node_ids.pop(self.plugins.pop(gone).name, None)
            for found in present - set(self.plugins):
                if time.monotonic() >= self._failed.get(found, 0.0):
                    self._register(found)

    def _sockets(self) -> Iterator[Found]:
        for path in self._registry.glob("*"):
            with contextlib.suppress(FileNotFoundError):
                if path.is_socket() and not path.name.startswith("."):
                    yield Found(path, which(path))

    def _register(self, found: Found) -> None:
        self.asked.append(found.path)
        with grpc.insecure_channel(
            f"unix:{found.path}", options=(("grpc.use_local_subchannel_pool", 1),)
        ) as channel:
            plugin = pb2_grpc.RegistrationStub(channel)
            try:
                info = plugin.GetInfo(pb2.InfoRequest(), timeout=CALL_SECONDS)
                problem = self._problem(found, info)
                status = pb2.RegistrationStatus(
                    plugin_registered=not problem, error=problem
                )
                plugin.NotifyRegistrationStatus(status, timeout=CALL_SECONDS)
            except grpc.RpcError:
                problem = "it does not answer"
        if problem:
            self.plugins.pop(found, None)
            self._failed[found] = time.monotonic() + BACKOFF_SECONDS

    def _problem(self, found: Found, info: pb2.PluginInfo) -> str:
        if info.type != "CSIPlugin":
            return f"no handler registered for plugin type: {info.type}"
        if not any(each.startswith("1.") for each in info.supported_versions):
            return "None of the versions specified are supported"
        if info.name in self.drivers:
            return (
                f"Another driver with the same name is already registered with a"
                f" higher supported version: {info.supported_versions[0]}"
            )
        with grpc.insecure_channel(f"unix:{info.endpoint}") as channel:
            node = csi_pb2_grpc.NodeStub(channel)
            try:
                answer = node.NodeGetInfo(csi_pb2.NodeGetInfoRequest(), timeout=1)
            except grpc.RpcError as error:
                return f"plugin registration failed with err: {error.details()}"
        self.plugins[found] = info
        self.node_ids[info.name] = answer.node_id
        return ""


def which(path: Path) -> tuple[int, int]:
    """Return what tells a socket from those before it at its path."""
    found = path.lstat()
    return found.st_ino, found.st_mtime_ns


def eventually(what: str, holds: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.01)
