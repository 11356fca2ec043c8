# SPDX-License-Identifier: Apache-2.0
"""Whom a spare worker connects as before it is given a volume.

Chosen by the supervisor, which does not load librados; `prepared` connects.
"""

from __future__ import annotations

import structlog

from csi_driver.datapath.messages import Prepare
from csi_driver.domain.clusters import Clusters
from csi_driver.domain.errors import UnavailableError
from csi_driver.images.users import own_user

_log = structlog.get_logger(__name__)


def preparation(clusters: Clusters | None) -> Prepare | None:
    """Return what a spare worker connects to; None if nothing is configured.

    The first cluster as the driver's own user: volumes of another cluster, or
    with a Ceph user of their own, connect when they are opened.
    """
    config = next(iter(clusters.by_id.values()), None) if clusters else None
    if config is None:
        return None
    try:
        user = own_user(config)
    except UnavailableError as error:
        _log.warning("spare workers do not connect ahead", error=str(error))
        return None
    return Prepare(config.cluster, config.monitors, user.user_id, user.key)
