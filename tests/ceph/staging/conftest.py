# SPDX-License-Identifier: Apache-2.0
"""One node on a real Ceph: a datapath of its own, and the node's calls.

Volumes are made by the real provisioner.  Every fixture takes away what it
made, whatever the test did.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path

import pytest

from csi_driver.domain.access import Capability
from csi_driver.domain.clusters import Clusters
from csi_driver.domain.clusters import parse_clusters
from csi_driver.domain.errors import DriverError
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.sizes import CapacityRange
from csi_driver.images.ceph import CephConnector
from csi_driver.images.connections import SharedConnections
from csi_driver.images.port import Pool
from csi_driver.provisioning.collector import Collector
from csi_driver.provisioning.places import Places
from csi_driver.provisioning.requests import CreateRequest
from csi_driver.provisioning.requests import VolumeInfo
from csi_driver.provisioning.source_secrets import SourceSecrets
from csi_driver.provisioning.volumes import Volumes
from tests.ceph.staging.clones import Clones
from tests.ceph.staging.harness import SECRETS
from tests.ceph.staging.harness import SIZE
from tests.ceph.staging.harness import WRITER
from tests.ceph.staging.harness import CreateVolume
from tests.ceph.staging.harness import Node
from tests.ceph.staging.harness import Promise
from tests.ceph.staging.harness import clusters_file
from tests.ceph.staging.harness import unmount_below


@pytest.fixture(scope="session")
def clusters() -> Clusters:
    return parse_clusters(clusters_file().read_text())


@pytest.fixture(scope="session")
def connections(clusters: Clusters) -> Iterator[SharedConnections]:
    shared = SharedConnections(CephConnector(clusters), clusters)
    with contextlib.closing(shared):
        yield shared


@pytest.fixture
def volumes(
    clusters: Clusters, connections: SharedConnections
) -> Iterator[tuple[Volumes, list[VolumeId]]]:
    """Give the provisioner, and a list of what is deleted in the end."""
    connector = CephConnector(clusters)
    collector = Collector(connector, connections, clusters)
    made: list[VolumeId] = []
    provisioner = Volumes(
        places=Places(connector, connections, clusters),
        collector=collector,
        secrets=SourceSecrets("rbdcrypt.csi.ceph.io", None, None),
    )
    yield provisioner, made
    for volume_id in made:
        provisioner.delete(volume_id)
    collector.look("lab", "rbd", "")


@pytest.fixture
def create(volumes: tuple[Volumes, list[VolumeId]]) -> CreateVolume:
    """Create volumes; they are deleted in the end."""
    provisioner, made = volumes
    prefix = f"staging-{os.getpid()}-{time.monotonic_ns()}"

    def call(
        size: int = SIZE,
        capability: Capability = WRITER,
        parameters: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] = SECRETS,
    ) -> VolumeInfo:
        request = CreateRequest(
            name=f"{prefix}-{len(made)}",
            capacity=CapacityRange(required=size),
            capabilities=(capability,),
            parameters={"clusterID": "lab", "pool": "rbd", **(parameters or {})},
            secrets=secrets,
        )
        info = provisioner.create(request)
        made.append(info.volume_id)
        return info

    return call


@contextlib.contextmanager
def running_node(
    clusters: Clusters, connections: SharedConnections, name: str
) -> Iterator[Node]:
    """Run a node's datapath; what is staged is closed in the end."""
    directory = Path(tempfile.mkdtemp(prefix="staging-"))
    given = Node(directory, clusters, connections, name)
    try:
        given.start_datapath()
        yield given
    finally:
        unmount_below(directory)
        for status in given.datapath.list():
            with contextlib.suppress(DriverError):
                given.datapath.close(status.volume_id)
        given.stop_datapath()
        shutil.rmtree(directory)


@pytest.fixture
def clones(
    connections: SharedConnections,
    volumes: tuple[Volumes, list[VolumeId]],
) -> Iterator[Clones]:
    """Make clones; they are removed before the volumes, and after the nodes."""
    made = Clones(connections)
    yield made
    made.remove()


@pytest.fixture
def node(
    clusters: Clusters, connections: SharedConnections, clones: Clones
) -> Iterator[Node]:
    with running_node(clusters, connections, "node-1") as given:
        yield given


@pytest.fixture
def other_node(
    clusters: Clusters, connections: SharedConnections, clones: Clones
) -> Iterator[Node]:
    with running_node(clusters, connections, "node-2") as given:
        yield given


@pytest.fixture
def pool(connections: SharedConnections) -> Iterator[Pool]:
    with connections.pool("lab", "rbd") as opened:
        yield opened


@pytest.fixture
def source(node: Node, create: CreateVolume) -> VolumeInfo:
    """Give an ext4 volume with a file, and unmounted."""
    volume = create()
    node.stage(volume)
    (node.staging / "file").write_bytes(b"from the source")
    node.unstage(volume)
    return volume


@pytest.fixture
def promise(volumes: tuple[Volumes, list[VolumeId]]) -> Promise:
    """Expand through the controller."""
    provisioner, _ = volumes

    def call(volume: VolumeInfo, size: int) -> None:
        answer = provisioner.expand(volume.volume_id, CapacityRange(size))
        assert answer.size.count == size

    return call
