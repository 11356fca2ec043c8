# SPDX-License-Identifier: Apache-2.0
"""Notices when a volume's I/O stands still because its pool is full.

A tenant's writes wait then, without an error that anybody would see.  The
monitors are asked only about pools of volumes whose I/O stands still, so that a
healthy cluster is asked nothing, however many nodes there are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import structlog

from csi_driver.datapath.messages import Counters
from csi_driver.datapath.messages import ExportStatus
from csi_driver.domain.errors import DriverError
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.notices import Happening
from csi_driver.domain.notices import Notice
from csi_driver.domain.notices import Notices
from csi_driver.images.connections import SharedConnections
from csi_driver.images.records import read_record
from csi_driver.staging.state import Published

_log = structlog.get_logger(__name__)

type _Place = tuple[str, str]
"""A cluster and the name of one of its pools."""


@dataclasses.dataclass(slots=True)
class _Seen:
    """A writable volume: where its bytes go, and what was last seen of it.

    `full` is the pool that its users were told of, "" for none.
    """

    places: tuple[_Place, ...]
    writes: int = 0
    flushes: int = 0
    waiting: bool = False
    full: str = ""

    def stands_still(self, now: Counters) -> bool:
        """Tell whether I/O was under way at two looks and none of it ended."""
        before = self.waiting, self.writes, self.flushes
        self.waiting = now.in_flight > 0
        self.writes, self.flushes = now.writes, now.flushes
        return self.waiting and before == (True, now.writes, now.flushes)


class PoolWatch:
    """An observer of `watching`, over the driver's own connections."""

    def __init__(
        self,
        connections: SharedConnections,
        notices: Notices,
        published: Published,
    ) -> None:
        self._connections = connections
        self._notices = notices
        self._published = published
        self._seen: dict[VolumeId, _Seen] = {}

    def look(self, exports: Sequence[ExportStatus]) -> bool:
        """Tell of pools that are full, and of those that were; never in a hurry."""
        writable = {each.volume_id: each for each in exports if not each.read_only}
        self._seen = {key: seen for key, seen in self._seen.items() if key in writable}
        asked: dict[_Place, bool] = {}
        for volume_id, export in writable.items():
            if export.counters is not None:
                try:
                    self._look_at(volume_id, export.counters, asked)
                except DriverError as error:  # others may be elsewhere
                    _log.debug("not seen", volume=str(volume_id), error=str(error))
        return False

    def _look_at(
        self, volume_id: VolumeId, now: Counters, asked: dict[_Place, bool]
    ) -> None:
        seen = self._seen.get(volume_id) or self._first_sight(volume_id)
        if seen.stands_still(now) or seen.full:
            self._judge(volume_id, seen, asked)

    def _first_sight(self, volume_id: VolumeId) -> _Seen:
        """Learn where a volume's bytes go, while its cluster still answers."""
        location = volume_id.location
        with self._connections.pool_at(location) as pool:
            record = read_record(pool, volume_id.image_id)
            names = {pool.pool_name, record.parameters.data_pool} - {""}
        places = tuple((location.cluster, name) for name in sorted(names))
        self._seen[volume_id] = _Seen(places)
        return self._seen[volume_id]

    def _judge(
        self, volume_id: VolumeId, seen: _Seen, asked: dict[_Place, bool]
    ) -> None:
        full = next((each for each in seen.places if self._is_full(each, asked)), None)
        if full is not None and not seen.full:
            cluster, seen.full = full
            message = (
                f"pool {seen.full!r} of cluster {cluster!r} is full: writes to the"
                " volume wait, none is lost, and they go on once there is room:"
                " delete data, add storage, or raise the pool's quota"
            )
            self._tell(Happening.POOL_FULL, volume_id, message)
        elif full is None and seen.full:
            message = f"pool {seen.full!r} has room again: writes to the volume go on"
            seen.full = ""
            self._tell(Happening.POOL_HAS_ROOM, volume_id, message)

    def _is_full(self, place: _Place, asked: dict[_Place, bool]) -> bool:
        """Ask the monitors, once in a look."""
        if place not in asked:
            with self._connections.pool(*place) as pool:
                asked[place] = pool.is_full()
        return asked[place]

    def _tell(self, what: Happening, volume_id: VolumeId, message: str) -> None:
        self._notices.tell(Notice(what, volume_id, message))
        for pod in self._published().get(volume_id, ()):
            self._notices.tell(Notice(what, pod, message))
