# SPDX-License-Identifier: Apache-2.0
"""Ceph that is out of reach, refuses the key, or lacks the pool."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.errors import UnavailableError
from csi_driver.images.ceph import CONNECT_SECONDS
from tests.ceph.provisioning.real import CephWorld
from tests.unit.provisioning.worlds import SECRET

WRONG_KEY = "AQBAAAAAAAAAABAAMDEyMzQ1Njc4OTAxMjM0NQ=="
BOUND = CONNECT_SECONDS + 3


@pytest.fixture
def silent_monitor() -> Iterator[str]:
    """Give an address at which connections are refused."""
    with socket.socket() as closed:  # bound, so that nobody else listens there
        closed.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{closed.getsockname()[1]}"


def test_an_unreachable_cluster_is_unavailable_in_bounded_time(
    world: CephWorld, silent_monitor: str
) -> None:
    lost = CephWorld(monitors=(silent_monitor,))
    lost.namespace = world.namespace
    seconds: list[float] = []
    errors: list[DriverError] = []

    def call(number: int) -> None:
        began = time.monotonic()
        try:
            if number % 2:
                lost.volumes.list("", 0)
            else:
                lost.volumes.create(world.request("one", radosNamespace=space))
        except DriverError as error:
            errors.append(error)
        seconds.append(time.monotonic() - began)

    space = lost.config.pools[0].namespaces[0]
    threads = [threading.Thread(target=call, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Nobody waits for the others' attempts.
    assert len(errors) == 4
    assert max(seconds) < BOUND
    assert {type(each) for each in errors} == {UnavailableError}
    assert all(silent_monitor in str(each) for each in errors)
    assert world.content() == {}


def test_a_wrong_key_of_the_driver_or_of_a_secret_is_refused(
    world: CephWorld, tmp_path: Path
) -> None:
    key_file = tmp_path / "key"
    key_file.write_text(WRONG_KEY)
    refused = CephWorld(key_file=str(key_file))
    with pytest.raises(SecretError, match="refused the key"):
        refused.volumes.list("", 0)
    # The right key is taken as soon as it is there.
    key_file.write_text(Path(world.config.key_file).read_text())
    assert refused.volumes.list("", 0).volumes == ()
    refused.close()
    for key, said in ((WRONG_KEY, "refused the key"), ("bm9uZQ==", "not a cephx key")):
        secrets = {**SECRET, "userID": "rbdcrypt", "userKey": key}
        with pytest.raises(SecretError, match=said) as caught:
            world.volumes.create(world.request("one", secrets=secrets))
        assert key not in str(caught.value)
    assert world.content() == {}


def test_a_user_of_the_secret_is_the_one_that_works(world: CephWorld) -> None:
    key = Path(world.config.key_file).read_text().strip()
    secrets = {**SECRET, "userID": "rbdcrypt", "userKey": key}
    made = world.volumes.create(world.request("one", secrets=secrets))
    assert world.names() == ["one"]
    world.volumes.delete(made.volume_id)


def test_an_owned_pool_that_does_not_exist() -> None:
    lost = CephWorld(pool="no-such-pool")
    with pytest.raises(NotFoundError, match="no-such-pool"):
        lost.create("one")
    with pytest.raises(NotFoundError, match="no-such-pool"):
        lost.volumes.capacity(
            {
                "clusterID": "lab",
                "pool": "no-such-pool",
                "radosNamespace": lost.namespace,
            },
            (),
        )
    lost.close()


def test_an_owned_namespace_that_does_not_exist(world: CephWorld) -> None:
    lost = CephWorld()
    with pytest.raises(NotFoundError):
        lost.create("one")
    lost.collect_all()
    assert lost.content() == {}
    lost.begin()
    lost.create("one")
    assert lost.names() == ["one"]
    lost.end()
