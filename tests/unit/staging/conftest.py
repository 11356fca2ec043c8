# SPDX-License-Identifier: Apache-2.0
"""Volumes on a Ceph in memory, made by the real provisioner."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from pathlib import Path

import pytest

from csi_driver.domain.access import AccessMode
from csi_driver.domain.access import Capability
from csi_driver.domain.clusters import ClusterConfig
from csi_driver.domain.clusters import Clusters
from csi_driver.domain.clusters import OwnedPool
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.sizes import CapacityRange
from csi_driver.images.connections import SharedConnections
from csi_driver.provisioning.collector import Collector
from csi_driver.provisioning.places import Places
from csi_driver.provisioning.requests import CreateRequest
from csi_driver.provisioning.requests import VolumeInfo
from csi_driver.provisioning.source_secrets import SourceSecrets
from csi_driver.provisioning.volumes import Volumes
from csi_driver.staging.opening import Opener
from csi_driver.testing.ceph_fake import FakeConnector
from csi_driver.testing.ceph_fake_store import FakeStore

MIB = 1 << 20

type CreateVolume = Callable[..., VolumeInfo]


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def clusters(tmp_path: Path) -> Clusters:
    key_file = tmp_path / "key"
    key_file.write_text("AQAA8VNlAAAAABAAAAECAwQFBgcICQoLDA0ODw==\n")
    config = ClusterConfig(
        cluster="fake",
        monitors=("127.0.0.1:3300",),
        user_id="driver",
        key_file=str(key_file),
        pools=(OwnedPool("rbd", ("", "tenant")),),
        data_pools=("rbd2",),
    )
    return Clusters({"fake": config})


@pytest.fixture
def connections(store: FakeStore, clusters: Clusters) -> SharedConnections:
    return SharedConnections(FakeConnector(store), clusters)


@pytest.fixture
def create(
    store: FakeStore, clusters: Clusters, connections: SharedConnections
) -> CreateVolume:
    """Create volumes of 8 MiB through the provisioner."""
    connector = FakeConnector(store)
    collector = Collector(connector, connections, clusters)
    provisioner = Volumes(
        places=Places(connector, connections, clusters),
        collector=collector,
        secrets=SourceSecrets("rbdcrypt.csi.ceph.io", None, None),
    )

    def call(
        name: str = "volume",
        *,
        secrets: Mapping[str, str],
        parameters: Mapping[str, str] | None = None,
        source: VolumeId | None = None,
    ) -> VolumeInfo:
        return provisioner.create(
            CreateRequest(
                name=name,
                capacity=CapacityRange(required=8 * MIB),
                capabilities=(Capability(AccessMode.SINGLE_NODE_WRITER),),
                parameters={"clusterID": "fake", "pool": "rbd", **(parameters or {})},
                secrets=secrets,
                source=source,
            )
        )

    return call


@pytest.fixture
def opener(clusters: Clusters, connections: SharedConnections) -> Opener:
    return Opener(
        connections=connections,
        clusters=clusters,
        secrets=None,
        node_id="node-1",
        boot_id="boot-1",
        method="auto",
    )
