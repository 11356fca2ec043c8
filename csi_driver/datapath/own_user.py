# SPDX-License-Identifier: Apache-2.0
"""The driver's own Ceph user as the supervisor gives it to workers.

`images` reads the same key; it brings librados, which is for workers alone.
"""

from __future__ import annotations

from pathlib import Path

import structlog

from csi_driver.datapath.messages import Prepare
from csi_driver.domain.clusters import ClusterConfig
from csi_driver.domain.clusters import Clusters
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.secrets import SecretBytes

_log = structlog.get_logger(__name__)


def read_key(config: ClusterConfig) -> SecretBytes:
    """Read the driver's own cephx key; UnavailableError if it cannot be read."""
    try:
        return SecretBytes(Path(config.key_file).read_bytes().strip())
    except OSError as error:
        message = (
            f"the cephx key of client.{config.user_id} cannot be read from"
            f" {config.key_file}: {error.strerror}"
        )
        raise UnavailableError(message) from error


def preparation(clusters: Clusters | None) -> Prepare | None:
    """Return what a spare worker connects to; None if nothing is configured.

    The first cluster as the driver's own user: volumes of another cluster, or
    with a Ceph user of their own, connect when they are opened.
    """
    config = next(iter(clusters.by_id.values()), None) if clusters else None
    if config is None:
        return None
    try:
        key = read_key(config)
    except UnavailableError as error:
        _log.warning("spare workers do not connect ahead", error=str(error))
        return None
    return Prepare(config.cluster, config.monitors, config.user_id, key)
