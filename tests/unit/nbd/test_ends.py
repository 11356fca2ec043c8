# SPDX-License-Identifier: Apache-2.0
"""How connections and servers end, and what that costs the others."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from csi_driver.domain.errors import PreconditionError
from csi_driver.nbd.protocol import constants as c
from csi_driver.nbd.server import Server
from csi_driver.nbd.server import export_of
from csi_driver.testing.backends import Fault
from csi_driver.testing.nbd_client import Dialer
from csi_driver.testing.nbd_client import RawClient
from csi_driver.testing.nbd_client import running
from csi_driver.testing.nbd_client import serving
from tests.unit.nbd.memory import MIB
from tests.unit.nbd.memory import SIZE
from tests.unit.nbd.memory import faulty
from tests.unit.nbd.memory import memory
from tests.unit.nbd.memory import wait_until


def test_disconnect_finishes_what_is_outstanding(path: Path, dial: Dialer) -> None:
    backend = faulty(Fault("write", delay=0.2))
    with serving(backend, path) as server:
        client = dial.ready()
        cookie = client.send_request(c.CMD_WRITE, 0, 4096, b"x" * 4096)
        client.disconnect()
        assert client.reply() == (cookie, 0)
        assert client.at_end()
        wait_until(lambda: server.stats().connections == 0)


def test_a_client_that_vanishes_leaves_nothing_behind(path: Path, dial: Dialer) -> None:
    backend = faulty(Fault(every=2, delay=0.3), Fault(delay=0.1))
    with serving(backend, path) as server:
        client = dial.ready()
        for index in range(100):
            client.send_request(c.CMD_READ, index * 4096, 4096)
        client.send_request(c.CMD_WRITE, 0, MIB, bytes(5000))  # and no more of it
        wait_until(lambda: server.stats().in_flight == 100)
        client.close()
        wait_until(lambda: server.stats().connections == 0)
        wait_until(lambda: server.stats().buffers_used == 0)
        assert server.stats().in_flight == 0
        dial.ready().close()


def test_noise_ends_only_its_own_connection(
    server: Server, path: Path, dial: Dialer
) -> None:
    good = dial.ready()
    bad = dial.ready()
    bad.sock.sendall(bytes(64))
    assert bad.at_end()
    rude = dial.connect()
    rude.greet(flags=99)
    assert rude.at_end()
    good.write(0, bytes(4096))


def test_stopping_answers_what_was_received(path: Path, dial: Dialer) -> None:
    backend = faulty(Fault(delay=0.2))
    with serving(backend, path) as server:
        client = dial.ready()
        cookies = [client.send_request(c.CMD_READ, 0, 4096) for _ in range(10)]
        wait_until(lambda: server.stats().in_flight == 10)
        server.stop(timeout=10)
        for cookie in cookies:
            assert client.reply() == (cookie, 0)
            client.receive(4096)
        assert client.at_end()
        assert not path.exists()
        with pytest.raises(PreconditionError, match="ended"):
            server.set_size(SIZE)


def test_stopping_gives_up_after_its_timeout(path: Path, dial: Dialer) -> None:
    backend = faulty(Fault(delay=60))
    with serving(backend, path) as server:
        client = dial.ready()
        client.send_request(c.CMD_READ, 0, 4096)
        wait_until(lambda: server.stats().in_flight == 1)
        before = time.monotonic()
        server.stop(timeout=0.2)
        assert time.monotonic() - before < 5
        assert client.at_end()


def test_ends_are_reported_with_their_reason(path: Path, dial: Dialer) -> None:
    backend, ends = memory(), list[tuple[int, str]]()
    server = Server(
        backend, export_of(backend), on_closed=lambda *end: ends.append(end)
    )
    with running(server):
        for action in ("hang up", "disconnect", "noise"):
            ours, theirs = socket.socketpair()
            server.add_connection(theirs)
            client = dial.adopt(RawClient(ours))
            if action == "disconnect":
                client.disconnect()
            elif action == "noise":
                client.sock.sendall(bytes(28))
            else:
                client.close()
            wait_until(lambda: server.stats().connections == 0)
    backend.close()
    assert [number for number, _ in ends] == [1, 2, 3]
    assert [reason[:12] for _, reason in ends] == [
        "the client h",
        "the client d",
        "not NBD: req",
    ]


def test_a_half_closed_client_gets_its_replies(path: Path, dial: Dialer) -> None:
    with serving(faulty(Fault(delay=0.1)), path):
        client = dial.ready()
        cookie = client.send_request(c.CMD_READ, 0, 4096)
        client.sock.shutdown(socket.SHUT_WR)
        assert client.reply() == (cookie, 0)
        assert client.receive(4096) == bytes(4096)
        assert client.at_end()


def test_a_hang_up_in_the_middle_costs_no_time(path: Path, dial: Dialer) -> None:
    with serving(faulty(Fault(delay=0.4)), path) as server:
        client = dial.ready()
        client.send_request(c.CMD_READ, 0, 4096)
        wait_until(lambda: server.stats().in_flight == 1)
        client.close()
        before = time.process_time()
        time.sleep(0.3)
        assert time.process_time() - before < 0.1
