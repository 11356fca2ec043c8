# SPDX-License-Identifier: Apache-2.0
"""Which Ceph clusters, pools and RADOS namespaces the driver owns.

The form is ceph-csi's `config.json`, an array of clusters with `clusterID`
and `monitors`, plus one key of our own, `rbdcrypt`: the driver's Ceph user
and the pools with their namespaces.  Reading files is left to `settings`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any
from typing import Final

from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.secrets import SecretBytes

_LONGEST_CLUSTER_ID: Final = 36


@dataclasses.dataclass(frozen=True, slots=True)
class CephUser:
    """A cephx user without the `client.` prefix, and its key in base64."""

    user_id: str
    key: SecretBytes


@dataclasses.dataclass(frozen=True, slots=True)
class OwnedPool:
    """A pool and those of its RADOS namespaces that hold the driver's volumes."""

    name: str
    namespaces: tuple[str, ...] = ("",)


@dataclasses.dataclass(frozen=True, slots=True)
class ClusterConfig:
    """One cluster as an administrator configured it.

    `key_file` holds the cephx key of `user_id`, base64 as `ceph auth
    print-key` prints it.
    """

    cluster: str
    monitors: tuple[str, ...]
    user_id: str
    key_file: str
    pools: tuple[OwnedPool, ...]
    data_pools: tuple[str, ...] = ()
    """Pools for data alone, such as erasure-coded ones, beside `pools`."""

    def require_data_pool(self, pool: str) -> None:
        """Refuse a data pool that is not the driver's, with the list of those."""
        known = {*self.data_pools, *(owned.name for owned in self.pools)}
        if pool not in known:
            message = (
                f"dataPool {pool!r} of cluster {self.cluster!r} is not among those"
                f" configured for this driver: {', '.join(sorted(known))}"
            )
            raise InvalidRequestError(message)

    def require(self, pool: str, namespace: str) -> None:
        """Refuse a place the driver does not own, with the list of those it does."""
        for owned in self.pools:
            if owned.name == pool and namespace in owned.namespaces:
                return
        places = ", ".join(
            f"{owned.name}/{each}" if each else owned.name
            for owned in self.pools
            for each in owned.namespaces
        )
        asked = f"{pool}/{namespace}" if namespace else pool
        message = (
            f"pool {asked!r} of cluster {self.cluster!r} is not among those"
            f" configured for this driver: {places}"
        )
        raise InvalidRequestError(message)


@dataclasses.dataclass(frozen=True, slots=True)
class Clusters:
    """All configured clusters by their clusterID."""

    by_id: Mapping[str, ClusterConfig]

    def get(self, cluster: str) -> ClusterConfig:
        """Return one cluster; InvalidRequestError lists the known ones."""
        try:
            return self.by_id[cluster]
        except KeyError:
            known = ", ".join(sorted(self.by_id)) or "none"
            message = f"clusterID {cluster!r} is not configured; known are {known}"
            raise InvalidRequestError(message) from None


def parse_clusters(text: str) -> Clusters:
    """Read `config.json`; InvalidRequestError says where it is wrong."""
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        message = f"the cluster config is not JSON: {error}"
        raise InvalidRequestError(message) from error
    if not isinstance(entries, list) or not entries:
        message = "the cluster config must be a non-empty array of clusters"
        raise InvalidRequestError(message)
    clusters: dict[str, ClusterConfig] = {}
    for index, entry in enumerate(entries):
        try:
            cluster = _cluster(entry)
        except (KeyError, TypeError, ValueError) as error:
            message = f"cluster {index} of the cluster config: {error!r}"
            raise InvalidRequestError(message) from error
        if cluster.cluster in clusters:
            message = f"the cluster config has clusterID {cluster.cluster!r} twice"
            raise InvalidRequestError(message)
        clusters[cluster.cluster] = cluster
    return Clusters(clusters)


def _cluster(entry: Mapping[str, Any]) -> ClusterConfig:
    cluster = _text(entry, "clusterID")
    if len(cluster) > _LONGEST_CLUSTER_ID:
        message = f"clusterID has more than {_LONGEST_CLUSTER_ID} characters"
        raise ValueError(message)
    monitors = _texts(entry["monitors"], "monitors")
    if not all(monitors):
        message = "monitors holds an empty string"
        raise ValueError(message)
    own = entry["rbdcrypt"]
    pools = tuple(
        OwnedPool(
            _text(pool, "name"),
            _texts(pool.get("namespaces", [""]), "namespaces"),
        )
        for pool in own["pools"]
    )
    if not pools:
        message = "rbdcrypt.pools is empty"
        raise ValueError(message)
    return ClusterConfig(
        cluster=cluster,
        monitors=monitors,
        user_id=_text(own, "userID"),
        key_file=_text(own, "keyFile"),
        pools=pools,
        data_pools=_texts(own["dataPools"], "dataPools") if "dataPools" in own else (),
    )


def _texts(value: object, name: str) -> tuple[str, ...]:
    """Return a list of strings; a single string is not taken for its letters."""
    if not isinstance(value, list) or not value:
        message = f"{name} must be a non-empty list"
        raise ValueError(message)
    if not all(isinstance(each, str) for each in value):
        message = f"{name} must hold strings"
        raise ValueError(message)
    return tuple(value)


def _text(entry: Mapping[str, Any], name: str) -> str:
    value = entry[name]
    if not isinstance(value, str) or not value:
        message = f"{name} must be a non-empty string"
        raise ValueError(message)
    return value
