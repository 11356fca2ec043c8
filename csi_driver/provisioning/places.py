# SPDX-License-Identifier: Apache-2.0
"""Where the controller works: configured clusters, shared and own connections."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from collections.abc import Mapping

from csi_driver.domain.clusters import Clusters
from csi_driver.domain.errors import ExhaustedError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.ids import Location
from csi_driver.domain.sizes import HEADER_ROOM
from csi_driver.images.connections import SharedConnections
from csi_driver.images.port import Ceph
from csi_driver.images.port import Connector
from csi_driver.images.port import Pool
from csi_driver.keys.material import parse_ceph_user


@dataclasses.dataclass(frozen=True, slots=True)
class Places:
    """The clusters, and the two ways to reach them."""

    connector: Connector
    connections: SharedConnections
    clusters: Clusters

    @contextlib.contextmanager
    def own_instance(
        self,
        cluster: str,
        secrets: Mapping[str, str] | None = None,
    ) -> Iterator[Ceph]:
        """Connect for work under a lock: what fences it fences nothing else.

        A Secret may name the Ceph user to work as.
        """
        ceph = self.connector.connect(cluster, parse_ceph_user(secrets or {}))
        try:
            yield ceph
        finally:
            ceph.close()

    def require_configured(self, location: Location) -> None:
        """Refuse a cluster that the config does not name (PreconditionError)."""
        if location.cluster not in self.clusters.by_id:
            message = (
                f"the volume lies on cluster {location.cluster!r}, which is not"
                " configured here: add it to the cluster config"
            )
            raise PreconditionError(message)

    def require_collected(self, pool: Pool) -> None:
        """Refuse to leave work where the collector does not look.

        PreconditionError names the place.
        """
        where = pool.location
        try:
            config = self.clusters.get(where.cluster)
            config.require(pool.pool_name, where.namespace)
        except InvalidRequestError as error:
            message = f"nothing is done there where nothing is collected: {error}"
            raise PreconditionError(message) from error


def require_room(pool: Pool) -> None:
    """Refuse a pool without room for a header, before anything is written.

    Ceph refuses the first write that takes room, too, but by then there is
    something to clean up.  ExhaustedError says how much room there is.
    """
    try:
        free = pool.free_bytes()
    except NotFoundError:
        return  # a pool so new that the monitors have no figures of it
    if free < HEADER_ROOM:
        message = (
            f"pool {pool.pool_name!r} is full: it takes {free} more bytes, a volume"
            f" needs {HEADER_ROOM} at least; raise its quota or add storage"
        )
        raise ExhaustedError(message)
