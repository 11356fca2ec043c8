# SPDX-License-Identifier: Apache-2.0
"""Which Ceph clusters, pools and RADOS namespaces the driver owns.

The form is ceph-csi's `config.json`, an array of clusters with `clusterID`
and `monitors`, plus one key of our own, `rbdcrypt`: the driver's Ceph user
and the pools with their namespaces.  An entry without `monitors` takes them from
ceph-csi's or Rook's own config, which stays theirs.  Reading files is left to
`images`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from typing import Final

from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.secrets import SecretBytes

type Monitors = Mapping[str, tuple[str, ...]]
"""Addresses by clusterID; an empty tuple where none is known yet."""

_LONGEST_CLUSTER_ID: Final = 36
_FAULTS: Final = (AttributeError, KeyError, TypeError, ValueError)


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

    `user_id` is without `client.`; a path is that of the file that holds it.
    `key_file` holds that user's cephx key, base64 as `ceph auth print-key` prints
    it.  Both files may change: `images.users.own_user` reads them.
    """

    cluster: str
    monitors: tuple[str, ...]
    user_id: str | Path
    key_file: str
    pools: tuple[OwnedPool, ...]
    data_pools: tuple[str, ...] = ()
    """Pools for data alone, such as erasure-coded ones, beside `pools`."""
    borrowed: bool = False
    """Whether the monitors are those of ceph-csi's config, wherever they go."""

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


def parse_clusters(text: str, borrowed: Monitors | None = None) -> Clusters:
    """Read `config.json`; InvalidRequestError says where it is wrong.

    `borrowed` are the monitors of ceph-csi's config, None where there is none.
    """
    clusters: dict[str, ClusterConfig] = {}
    for index, entry in enumerate(_entries(text, "the cluster config")):
        try:
            cluster = _cluster(entry, borrowed)
        except _FAULTS as error:
            title = f"cluster {_title(index, entry)} of the cluster config"
            raise InvalidRequestError(f"{title}: {_said(error)}") from error
        if cluster.cluster in clusters:
            message = f"the cluster config has clusterID {cluster.cluster!r} twice"
            raise InvalidRequestError(message)
        clusters[cluster.cluster] = cluster
    if not clusters:
        message = "the cluster config must be a non-empty array of clusters"
        raise InvalidRequestError(message)
    return Clusters(clusters)


def parse_monitors(text: str) -> Monitors:
    """Read the monitors in ceph-csi's or Rook's `config.json`.

    Of two entries with one clusterID the first counts, as it does for ceph-csi;
    nothing else in it is looked at.  InvalidRequestError says where it is wrong.
    """
    found: dict[str, tuple[str, ...]] = {}
    for index, entry in enumerate(_entries(text, "ceph-csi's config")):
        try:
            cluster = _text(entry, "clusterID")
            # Rook writes an entry before its first monitor runs.
            found.setdefault(cluster, _monitors(entry) if entry.get("monitors") else ())
        except _FAULTS as error:
            title = f"cluster {_title(index, entry)} of ceph-csi's config"
            raise InvalidRequestError(f"{title}: {_said(error)}") from error
    return found


def _entries(text: str, title: str) -> list[Any]:
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{title} is not JSON: {error}") from error
    if not isinstance(entries, list):
        raise InvalidRequestError(f"{title} must be a non-empty array of clusters")
    return entries


def _title(index: int, entry: object) -> str:
    """Name an entry by what it has: its place, and its id if that is a text."""
    name = entry.get("clusterID") if isinstance(entry, dict) else None
    return f"{index} ({name!r})" if isinstance(name, str) else str(index)


def _said(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it has no {error}"
    if isinstance(error, AttributeError | TypeError):
        return "it, or something in it, is no JSON object"
    return str(error)


def _cluster(entry: Mapping[str, Any], borrowed: Monitors | None) -> ClusterConfig:
    cluster = _text(entry, "clusterID")
    if len(cluster) > _LONGEST_CLUSTER_ID:
        message = f"clusterID has more than {_LONGEST_CLUSTER_ID} characters"
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
    given = "monitors" in entry
    return ClusterConfig(
        cluster=cluster,
        monitors=_monitors(entry) if given else _borrowed(cluster, borrowed),
        user_id=_user_id(own),
        key_file=_text(own, "keyFile"),
        pools=pools,
        data_pools=_texts(own["dataPools"], "dataPools") if "dataPools" in own else (),
        borrowed=not given,
    )


def _monitors(entry: Mapping[str, Any]) -> tuple[str, ...]:
    monitors = _texts(entry["monitors"], "monitors")
    if not all(monitors):
        message = "monitors holds an empty string"
        raise ValueError(message)
    return monitors


def _borrowed(cluster: str, borrowed: Monitors | None) -> tuple[str, ...]:
    if borrowed is None:
        message = "it has no 'monitors', and no config of ceph-csi is named that has"
        raise ValueError(message)
    if not borrowed.get(cluster):
        known = ", ".join(map(repr, sorted(borrowed)))
        others = f"only knows {known}" if known else "is empty"
        found = "has none for it either" if cluster in borrowed else others
        message = f"it has no 'monitors', and ceph-csi's config {found}"
        raise ValueError(message)
    return borrowed[cluster]


def _user_id(own: Mapping[str, Any]) -> str | Path:
    given = [name for name in ("userID", "userIDFile") if name in own]
    if len(given) != 1:
        found = "both" if given else "neither"
        message = f"rbdcrypt needs one of userID and userIDFile, and has {found}"
        raise ValueError(message)
    if given == ["userID"]:
        return _text(own, "userID")
    return Path(_text(own, "userIDFile"))


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
