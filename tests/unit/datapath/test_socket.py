# SPDX-License-Identifier: Apache-2.0
"""The supervisor's socket and its client: who is heard, and what is answered."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from csi_driver.datapath import supervisor as supervisor_module
from csi_driver.datapath import wire
from csi_driver.datapath.client import Datapath
from csi_driver.datapath.messages import Done
from csi_driver.datapath.messages import Failed
from csi_driver.datapath.messages import Ping
from csi_driver.datapath.supervisor import Supervisor
from csi_driver.domain.errors import ForbiddenError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.errors import UnavailableError
from csi_driver.nbd.listener import listen

if TYPE_CHECKING:
    from tests.unit.datapath.conftest import MakeVolume
    from tests.unit.datapath.conftest import Node


@contextlib.contextmanager
def running(node: Node, path: Path, uid: int) -> Iterator[Datapath]:
    stop = os.eventfd(0)
    with listen(path) as listener:
        supervisor = Supervisor(node.exports, allowed_uid=uid)
        thread = threading.Thread(target=supervisor.run, args=(listener, stop))
        thread.start()
        try:
            yield Datapath(path)
        finally:
            os.eventfd_write(stop, 1)
            thread.join()
            os.close(stop)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "datapath.sock"


@pytest.fixture
def client(node: Node, path: Path) -> Iterator[Datapath]:
    with running(node, path, os.getuid()) as datapath:
        yield datapath


def test_every_request_over_the_socket(
    client: Datapath, open_volume: MakeVolume
) -> None:
    volume = open_volume()
    client.ping()
    opened = client.open(volume)
    assert len(volume.key), "the client's secrets are the client's to wipe"
    assert client.open(open_volume()) == opened
    status = client.status(volume.volume_id)
    assert status is not None
    assert client.list() == (status,)
    assert client.grow(volume.volume_id).count == 2 * opened.size.count
    client.close(volume.volume_id)
    assert client.status(volume.volume_id) is None
    with pytest.raises(SecretError, match="opens nothing"):
        client.open(open_volume("wrong-key"))


def test_the_socket_is_its_owners_alone(client: Datapath, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_another_user_is_refused_in_words(node: Node, path: Path) -> None:
    with (
        running(node, path, os.getuid() + 1) as datapath,
        pytest.raises(ForbiddenError, match=f"not {os.getuid()}"),
    ):
        datapath.ping()


def test_noise_is_answered_and_ends_the_connection(
    client: Datapath, path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as noisy:
        noisy.settimeout(5)
        noisy.connect(str(path))
        noisy.sendall((4).to_bytes(4) + bytes(4) + b"noise"[:4])
        answer = wire.receive(noisy)
        assert isinstance(answer, Failed)
        assert answer.error == "InvalidRequestError"
        with pytest.raises(wire.ClosedError):
            wire.receive(noisy)
    client.ping()


def test_a_silent_client_is_hung_up_on(
    client: Datapath, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In silence: an exception in the thread that served it fails this test."""
    monkeypatch.setattr(supervisor_module, "REQUEST_SECONDS", 0.1)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.settimeout(5)
        silent.connect(str(path))
        assert silent.recv(1) == b""
    client.ping()


def test_a_reply_is_no_request(client: Datapath, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as confused:
        confused.settimeout(5)
        confused.connect(str(path))
        wire.send(confused, Done())
        assert isinstance(wire.receive(confused), Failed)
        wire.send(confused, Ping())
        assert wire.receive(confused) == Done()


def test_a_datapath_that_is_not_there_is_unavailable(path: Path) -> None:
    with pytest.raises(UnavailableError, match="does not answer"):
        Datapath(path).ping()
