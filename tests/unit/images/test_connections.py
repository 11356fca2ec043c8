# SPDX-License-Identifier: Apache-2.0
"""The shared connections: when they are made, made anew, and kept."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from csi_driver.domain.clusters import CephUser
from csi_driver.domain.clusters import ClusterConfig
from csi_driver.domain.clusters import Clusters
from csi_driver.domain.errors import FencedError
from csi_driver.domain.errors import SecretError
from csi_driver.images import connections
from csi_driver.images.connections import SharedConnections


class Made:
    """A connection with a number; its pools are named after it."""

    def __init__(self, number: int) -> None:
        self.number = number

    def pool(self, name: str, namespace: str = "") -> Any:
        return self.number


class Connector:
    """Makes numbered connections; fails while it is told to."""

    def __init__(self) -> None:
        self.attempts = 0
        self.fails = False
        self.hold = threading.Event()
        self.hold.set()

    def connect(self, cluster: str, user: CephUser | None = None) -> Any:
        self.attempts += 1
        number = self.attempts
        self.hold.wait(10)
        if self.fails:
            message = "cluster 'lab' refused the key"
            raise SecretError(message)
        return Made(number)


class World:
    """Shared connections to one cluster, whose key file can be replaced."""

    def __init__(self, directory: Path) -> None:
        self._key = directory / "key"
        self._keys = 0
        self.rotate()
        config = ClusterConfig("lab", ("m",), "u", str(self._key), ())
        self.connector = Connector()
        self.shared = SharedConnections(self.connector, Clusters({"lab": config}))

    def rotate(self) -> None:
        self._keys += 1
        new = self._key.with_suffix(".new")
        new.write_text("x" * self._keys)
        new.replace(self._key)

    def lose(self) -> None:
        self._key.unlink()

    def used(self) -> Any:
        with self.shared.pool("lab", "rbd") as pool:
            return pool


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_one_connection_serves_all(world: World) -> None:
    assert [world.used() for _ in range(3)] == [1, 1, 1]


def test_a_rotated_key_is_taken_at_the_next_use(world: World) -> None:
    assert world.used() == 1
    world.rotate()
    assert [world.used() for _ in range(3)] == [2, 2, 2]


def test_a_key_that_is_missing_for_a_moment_changes_nothing(world: World) -> None:
    assert world.used() == 1
    world.lose()
    assert world.used() == 1
    world.rotate()
    assert world.used() == 2


def test_a_new_key_that_ceph_does_not_know_yet_leaves_the_old_connection(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert world.used() == 1
    world.rotate()
    world.connector.fails = True
    assert [world.used() for _ in range(3)] == [1, 1, 1]
    assert world.connector.attempts == 2, "it is not tried at every use"
    world.connector.fails = False
    assert world.used() == 1, "nor before its time"
    soon = time.monotonic() + 2 * connections.RENEW_SECONDS
    monkeypatch.setattr("time.monotonic", lambda: soon)
    assert [world.used(), world.used()] == [3, 3]


def test_without_a_connection_a_refused_key_is_an_error(world: World) -> None:
    world.connector.fails = True
    for _ in range(2):
        with pytest.raises(SecretError):
            world.used()
    assert world.connector.attempts == 2
    world.connector.fails = False
    assert world.used() == 3


def test_nobody_waits_while_a_connection_is_made_anew(world: World) -> None:
    assert world.used() == 1
    world.rotate()
    world.connector.hold.clear()
    renewing = threading.Thread(target=world.used)
    renewing.start()
    try:
        deadline = time.monotonic() + 5
        while world.connector.attempts < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert world.used() == 1
    finally:
        world.connector.hold.set()
        renewing.join()
    assert world.used() == 2


def test_a_fenced_connection_is_made_anew(world: World) -> None:
    with pytest.raises(FencedError), world.shared.pool("lab", "rbd"):
        raise FencedError("fenced")
    assert world.used() == 2
