# SPDX-License-Identifier: Apache-2.0
"""Where the parts that several commands share are put together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from csi_driver.datapath.client import Datapath
from csi_driver.datapath.state import current_boot_id
from csi_driver.domain.clusters import Clusters
from csi_driver.domain.notices import Notices
from csi_driver.images.ceph import CephConnector
from csi_driver.images.connections import SharedConnections
from csi_driver.kube.api import KubernetesApi
from csi_driver.provisioning.collector import Collector
from csi_driver.provisioning.places import Places
from csi_driver.provisioning.source_secrets import SourceSecrets
from csi_driver.provisioning.volumes import Volumes
from csi_driver.settings import ClusterSettings
from csi_driver.settings import NodeSettings
from csi_driver.staging.stager import NodeStager


@dataclasses.dataclass(frozen=True, slots=True)
class Ceph:
    """The configured clusters and how to reach them; nothing is connected yet."""

    clusters: Clusters
    connector: CephConnector
    connections: SharedConnections


@dataclasses.dataclass(frozen=True, slots=True)
class Provisioning:
    """The controller's work and the collector beside it, which is not started."""

    volumes: Volumes
    collector: Collector


def ceph(settings: ClusterSettings) -> Ceph:
    """Read the cluster config; InvalidRequestError says what is wrong with it."""
    clusters = settings.clusters()
    connector = CephConnector(clusters)
    return Ceph(clusters, connector, SharedConnections(connector, clusters))


def kubernetes_api(settings: ClusterSettings) -> KubernetesApi | None:
    """Return a reader of the Kubernetes API where there is one to ask."""
    if not settings.has_kubernetes:
        return None
    return KubernetesApi(settings.kubeconfig)


def collector(storage: Ceph) -> Collector:
    """Return a collector, which is not started."""
    return Collector(storage.connector, storage.connections, storage.clusters)


def provisioning(
    settings: ClusterSettings, storage: Ceph, notices: Notices
) -> Provisioning:
    """Put the controller's work together."""
    collecting = collector(storage)
    kubernetes = kubernetes_api(settings)
    volumes = Volumes(
        places=Places(storage.connector, storage.connections, storage.clusters),
        collector=collecting,
        secrets=SourceSecrets(settings.driver_name, kubernetes, kubernetes),
        notices=notices,
    )
    return Provisioning(volumes, collecting)


def stager(
    settings: NodeSettings,
    storage: Ceph,
    notices: Notices,
    staged: Callable[[], None],
) -> NodeStager:
    """Put the node's work together; the datapath is not asked yet."""
    return NodeStager(
        connections=storage.connections,
        clusters=storage.clusters,
        datapath=Datapath(settings.datapath_path),
        secrets=kubernetes_api(settings),
        state_dir=settings.state_dir / "node",
        node_id=settings.node_id,
        boot_id=current_boot_id(),
        device_method=settings.device_method,
        notices=notices,
        staged=staged,
    )
