# SPDX-License-Identifier: Apache-2.0
"""The server's life between its start and SIGTERM."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import grpc
import pytest

from csi_driver.domain.errors import UnavailableError
from csi_driver.rpc.health import Health
from csi_driver.rpc.identity import Identity
from csi_driver.rpc.identity import Plugin
from csi_driver.rpc.server import CsiServer
from csi_driver.rpc.server import Services
from csi_driver.rpc.server import serve_until_told
from csi_driver.rpc.stubs import csi_pb2
from csi_driver.rpc.stubs import csi_pb2_grpc


def server(path: Path) -> CsiServer:
    identity = Identity(Plugin("csi.example.org", "1"), Health())
    return CsiServer(path, Services(identity=identity))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_a_signal_and_leaves_nothing(
    tmp_path: Path, number: signal.Signals
) -> None:
    path = tmp_path / "csi.sock"
    before = signal.getsignal(number)
    names: list[str] = []

    def client() -> None:
        deadline = time.monotonic() + 10
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        with grpc.insecure_channel(f"unix:{path}") as channel:
            stub = csi_pb2_grpc.IdentityStub(channel)
            # The path is there a moment before anybody listens.
            request = csi_pb2.GetPluginInfoRequest()
            names.append(stub.GetPluginInfo(request, wait_for_ready=True).name)
        assert signal.getsignal(number) is not before
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=client)
    thread.start()
    assert serve_until_told(server(path), grace=2)
    thread.join()
    assert names == ["csi.example.org"]
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(number) is before


def test_a_signal_that_another_thread_gets_ends_it_too(tmp_path: Path) -> None:
    """Linux may choose any thread; here the one that sends it to itself."""
    path = tmp_path / "csi.sock"
    ended = threading.Event()

    def send() -> None:
        deadline = time.monotonic() + 10
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.2)  # until the main thread sleeps
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        if not ended.wait(10):
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=send)
    thread.start()
    begin = time.monotonic()
    assert serve_until_told(server(path), grace=2)
    ended.set()
    thread.join()
    assert time.monotonic() - begin < 8


def test_a_second_server_on_the_socket_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "csi.sock"
    first = server(path)
    first.start()
    try:
        with pytest.raises(UnavailableError, match="another process"):
            server(path).start()
        with grpc.insecure_channel(f"unix:{path}") as channel:
            stub = csi_pb2_grpc.IdentityStub(channel)
            stub.GetPluginInfo(csi_pb2.GetPluginInfoRequest())
    finally:
        first.stop(0)
