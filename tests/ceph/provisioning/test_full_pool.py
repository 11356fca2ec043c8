# SPDX-License-Identifier: Apache-2.0
"""A pool over its quota: creating is refused at once, deleting makes room."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import pytest

from csi_driver.domain.errors import ExhaustedError
from csi_driver.provisioning import volumes
from tests.ceph.provisioning.real import CephWorld
from tests.ceph.provisioning.real import administrator

QUICKLY = 20.0


def order(cluster: Any, **command: Any) -> Any:
    """Send a monitor command."""
    status, answer, text = cluster.mon_command(
        json.dumps({"format": "json", **command}), b""
    )
    assert status == 0, text
    return json.loads(answer or b"null")


def set_quota(pool: str, size: int) -> None:
    """Limit a pool to so many bytes (0: none), and wait until Ceph acts on it."""
    with administrator() as cluster:
        order(
            cluster,
            prefix="osd pool set-quota",
            pool=pool,
            field="max_bytes",
            val=str(size),
        )
        deadline = time.monotonic() + 60
        while ("full_quota" in flags(cluster, pool)) != bool(size):
            assert time.monotonic() < deadline, flags(cluster, pool)
            time.sleep(0.2)


def flags(cluster: Any, pool: str) -> list[str]:
    """Return the flags of a pool."""
    pools = order(cluster, prefix="osd dump")["pools"]
    (found,) = [each for each in pools if each["pool_name"] == pool]
    return str(found["flags_names"]).split(",")


@pytest.fixture
def own_pool() -> Iterator[CephWorld]:
    """Make a pool for this test alone."""
    name = f"quota-{uuid.uuid4().hex[:8]}"
    sure = {"yes_i_really_mean_it": True}
    with administrator() as cluster:
        order(cluster, prefix="osd pool create", pool=name, pg_num=1, size=1, **sure)
        order(
            cluster,
            prefix="osd pool application enable",
            pool=name,
            app="rbd",
            **sure,
        )
        order(
            cluster,
            prefix="config set",
            who="mon",
            name="mon_allow_pool_delete",
            value="true",
        )
    world = CephWorld(name)
    world.begin()
    yield world
    world.close()
    with administrator() as cluster:
        order(
            cluster,
            prefix="osd pool delete",
            pool=name,
            pool2=name,
            yes_i_really_really_mean_it=True,
        )


def told_full(world: CephWorld) -> bool:
    """Ask as the driver's own user, whose rights are those of `profile rbd`."""
    with world.shared.pool(world.cluster, world.pool_name) as pool:
        return pool.is_full()


def quickly(call: Callable[[], object]) -> None:
    """Do it, and fail if it waits for room; reraises what the call raises."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except ExhaustedError as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(QUICKLY)
    assert not thread.is_alive(), "it waits until the pool has room"
    for error in raised:
        raise error


def test_a_full_pool_refuses_new_volumes_and_lets_old_ones_go(
    own_pool: CephWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = own_pool
    encrypted = world.volumes.create(world.request("encrypted"))
    plain = world.create("plain")
    set_quota(world.pool_name, 1)
    assert told_full(world)
    before = world.content()
    with pytest.raises(ExhaustedError, match="is full"):
        quickly(lambda: world.volumes.create(world.request("new")))
    assert world.content() == before
    # The figures may be behind: then Ceph itself refuses the first byte.
    monkeypatch.setattr(volumes, "require_room", lambda _pool: None)
    with pytest.raises(ExhaustedError):
        quickly(lambda: world.volumes.create(world.request("new")))
    quickly(world.collect_all)
    assert world.content() == before
    for each in (encrypted, plain):
        quickly(lambda: world.volumes.delete(each.volume_id))  # noqa: B023
    quickly(world.collect_all)
    assert world.content() == {}
    set_quota(world.pool_name, 0)
    assert not told_full(world)
    world.volumes.create(world.request("new"))
    assert world.names() == ["new"]
