# SPDX-License-Identifier: Apache-2.0
"""A pool that runs full under a volume is told, and so is its end."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import uuid
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.ceph.end_to_end.client import MIB
from tests.ceph.end_to_end.client import block
from tests.ceph.end_to_end.world import World
from tests.ceph.end_to_end.world import eventually
from tests.ceph.end_to_end.world import machine
from tests.ceph.events.claims import SOON
from tests.ceph.events.claims import Claims
from tests.ceph.provisioning.real import administrator
from tests.ceph.provisioning.test_full_pool import order
from tests.ceph.provisioning.test_full_pool import set_quota
from tests.unit.kube.event_server import EventServer

NOTICED = 40.0
"""Seconds: two looks of the node service, and some."""


@pytest.fixture(scope="module")
def pool() -> Iterator[str]:
    """Give a pool whose quota is nobody else's."""
    name = f"full-{uuid.uuid4().hex[:8]}"
    sure = {"yes_i_really_mean_it": True}
    with administrator() as cluster:
        order(cluster, prefix="osd pool create", pool=name, pg_num=1, size=1, **sure)
        enable = "osd pool application enable"
        order(cluster, prefix=enable, pool=name, app="rbd", **sure)
        allow = {"who": "mon", "name": "mon_allow_pool_delete", "value": "true"}
        order(cluster, prefix="config set", **allow)
    yield name
    with administrator() as cluster:
        order(
            cluster,
            prefix="osd pool delete",
            pool=name,
            pool2=name,
            yes_i_really_really_mean_it=True,
        )


@pytest.fixture(scope="module")
def world(
    pool: str, settings: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """Give a controller and a node that own this pool and no other."""
    found = json.loads(Path(os.environ["RBDCRYPT_CLUSTERS_FILE"]).read_text())
    found[0]["rbdcrypt"]["pools"] = [{"name": pool, "namespaces": [""]}]
    file = tmp_path_factory.mktemp("clusters") / "config.json"
    file.write_text(json.dumps(found))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RBDCRYPT_CLUSTERS_FILE", str(file))
        patch.setenv("CEPH_POOL", pool)
        with (
            machine("node-a", settings) as first,
            contextlib.closing(World(first)) as made,
        ):
            yield made


def write(device: Path) -> threading.Thread:
    """Write, in a thread that ends when Ceph has taken it."""

    def run() -> None:
        with device.open("r+b", buffering=0) as file:
            file.write(os.urandom(4 * MIB))
            os.fsync(file.fileno())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def test_writes_that_wait_for_a_full_pool_are_told_of(
    world: World, server: EventServer, claims: Claims, pool: str
) -> None:
    secret = claims.secret()
    bound, idle = (claims.new(secret, capability=block()) for _ in range(2))
    pod = bound.used_by("1-2-3")
    device = world.first.stage(bound.volume, secret, block())
    world.first.stage(idle.volume, secret, block())
    write(device).join(SOON)
    with contextlib.ExitStack() as undo:
        undo.callback(set_quota, pool, 0)
        set_quota(pool, 1)
        writing = write(device)
        event = bound.await_reason("PoolFull", NOTICED)
        assert writing.is_alive(), "it was not refused"
    assert event["type"] == "Warning"
    assert event["message"].startswith(f"pool {pool!r} of cluster 'lab' is full")
    assert "none is lost" in event["message"]
    after = bound.await_reason("PoolHasRoom", NOTICED)
    assert after["type"] == "Normal"
    assert (
        after["message"] == f"pool {pool!r} has room again: writes to the volume go on"
    )
    writing.join(SOON)
    assert not writing.is_alive()
    assert bound.reasons == ["PoolFull", "PoolHasRoom"]
    eventually(
        "the pod's",
        lambda: server.reasons(pod, "Pod") == ["PoolFull", "PoolHasRoom"],
        SOON,
    )
    assert idle.reasons == [], "nothing of it waits"
    for each in (bound, idle):
        world.first.unstage(each.volume)
