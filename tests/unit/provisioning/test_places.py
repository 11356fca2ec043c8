# SPDX-License-Identifier: Apache-2.0
"""Where volumes may lie, and that one cluster does not hold up another."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from csi_driver.domain.clusters import CephUser
from csi_driver.domain.clusters import ClusterConfig
from csi_driver.domain.clusters import Clusters
from csi_driver.domain.clusters import OwnedPool
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import PreconditionError
from csi_driver.images.connections import SharedConnections
from csi_driver.images.port import Ceph
from csi_driver.provisioning.collector import Collector
from csi_driver.provisioning.places import Places
from csi_driver.provisioning.source_secrets import SourceSecrets
from csi_driver.provisioning.volumes import Volumes
from csi_driver.testing.ceph_fake import FakeConnector
from csi_driver.testing.ceph_fake_store import FakeStore
from tests.unit.provisioning.worlds import FakeWorld


@pytest.fixture
def world() -> Iterator[FakeWorld]:
    world = FakeWorld()
    yield world
    world.close()


def test_a_data_pool_has_to_be_configured(world: FakeWorld) -> None:
    request = world.request("v", dataPool="elsewhere")
    with pytest.raises(InvalidRequestError, match=r"'elsewhere'.* configured .*: "):
        world.volumes.create(request)
    with pytest.raises(InvalidRequestError, match="'elsewhere'"):
        world.volumes.capacity(request.parameters, ())
    assert world.content() == {}


def test_nothing_is_deleted_where_nothing_is_collected(world: FakeWorld) -> None:
    volume = world.create("v")
    (config,) = world.clusters.by_id.values()
    fewer = ClusterConfig(
        config.cluster,
        config.monitors,
        config.user_id,
        config.key_file,
        (OwnedPool("another"),),
    )
    clusters = Clusters({config.cluster: fewer})
    places = Places(world.connector, world.shared, clusters)
    elsewhere = Volumes(
        places=places,
        collector=world.collector,
        secrets=SourceSecrets("driver", None, None),
    )
    with pytest.raises(PreconditionError, match="not among those"):
        elsewhere.delete(volume.volume_id)
    world.volumes.delete(volume.volume_id)


class StuckConnector:
    """Never connects to the cluster "stuck"."""

    def __init__(self, inner: FakeConnector) -> None:
        self.inner = inner
        self.free = threading.Event()
        self.asked: list[str] = []

    def connect(self, cluster: str, user: CephUser | None = None) -> Ceph:
        self.asked.append(cluster)
        if cluster == "stuck":
            self.free.wait()
        return self.inner.connect(cluster, user)


def test_a_cluster_that_hangs_does_not_hold_up_the_others() -> None:
    names = ("stuck", "well")
    configs = {
        name: ClusterConfig(name, ("m",), "u", "", (OwnedPool("rbd"),))
        for name in names
    }
    clusters = Clusters(configs)
    connector = StuckConnector(FakeConnector(FakeStore(names)))
    connections = SharedConnections(connector, clusters)
    collector = Collector(connector, connections, clusters)
    looked = threading.Event()
    look = collector.look

    def noted(
        cluster: str, pool: str, namespace: str, *, due_only: bool = False
    ) -> object:
        found = look(cluster, pool, namespace, due_only=due_only)
        if cluster == "well":
            looked.set()
        return found

    collector.look = noted  # type: ignore[method-assign,assignment]  # to see it
    collector.start()
    try:
        assert looked.wait(10)
        assert "stuck" in connector.asked
        begin = time.monotonic()
        collector.stop(0.2)
        assert time.monotonic() - begin < 5
    finally:
        connector.free.set()
        collector.stop()
