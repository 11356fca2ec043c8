# SPDX-License-Identifier: Apache-2.0
"""Paging through volumes and snapshots in every place that the driver owns."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Final

import structlog

from csi_driver.domain.clusters import Clusters
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.errors import RecordError
from csi_driver.domain.ids import Location
from csi_driver.domain.ids import SnapshotId
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.record import Record
from csi_driver.domain.record import VolumeState
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.images.connections import SharedConnections
from csi_driver.images.directory import Directory
from csi_driver.images.directory import SnapshotEntry
from csi_driver.images.port import Pool
from csi_driver.images.records import find_record
from csi_driver.provisioning.requests import SnapshotInfo
from csi_driver.provisioning.requests import SnapshotPage

_log = structlog.get_logger(__name__)

_PAGE: Final = 200
_NUMBER: Final = re.compile(r"[0-9]{1,19}")
_TOKEN: Final = re.compile(r"([0-9]{1,6})\.([0-9a-f-]{0,36})")


@dataclasses.dataclass(frozen=True, slots=True)
class _Mark:
    """Where a listing stands: the number of the place, and a key in it."""

    place: int
    key: str

    def __str__(self) -> str:
        return f"{self.place}.{self.key}"


def list_records(
    connections: SharedConnections,
    clusters: Clusters,
    token: str,
    limit: int,
) -> tuple[list[tuple[Location, Record]], str]:
    """Return up to `limit` ready volumes (0: all) and the next token.

    PendingError, which CSI wants as ABORTED, for a token that is not ours.
    """
    return _list(connections, clusters, token, limit, _records)


def list_snapshots(
    connections: SharedConnections,
    clusters: Clusters,
    token: str,
    limit: int,
) -> SnapshotPage:
    """Return up to `limit` usable snapshots (0: all) from the directories alone."""
    found, next_token = _list(connections, clusters, token, limit, _snapshots)
    shown = tuple(
        SnapshotInfo(
            SnapshotId(VolumeId(location, entry.image_id), entry.number),
            EffectiveSize(entry.size),
            entry.created,
        )
        for location, entry in found
    )
    return SnapshotPage(shown, next_token)


def page_of(found: Sequence[SnapshotInfo], token: str, limit: int) -> SnapshotPage:
    """Cut a page out of one volume's snapshots; a token is the last one's number."""
    if token and not _NUMBER.fullmatch(token):
        raise _foreign(token)
    rest = [each for each in found if each.snapshot_id.number > int(token or "0")]
    shown = rest[:limit] if limit else rest
    more = len(rest) > len(shown)
    return SnapshotPage(tuple(shown), str(shown[-1].snapshot_id.number) if more else "")


def _list[T](
    connections: SharedConnections,
    clusters: Clusters,
    token: str,
    limit: int,
    rows: Callable[[Pool, str], Iterator[tuple[str, T]]],
) -> tuple[list[tuple[Location, T]], str]:
    """Go through all places, each in the order of its directory's keys."""
    places = [
        (config.cluster, pool.name, namespace)
        for config in clusters.by_id.values()
        for pool in config.pools
        for namespace in pool.namespaces
    ]
    mark = _parse(token, len(places))
    found: list[tuple[Location, T]] = []
    for number in range(mark.place, len(places)):
        after = mark.key if number == mark.place else ""
        with connections.pool(*places[number]) as pool:
            for key, row in rows(pool, after):
                if limit and len(found) == limit:
                    return found, str(_Mark(number, after))
                after = key
                found.append((pool.location, row))
    return found, ""


def _snapshots(pool: Pool, after: str) -> Iterator[tuple[str, SnapshotEntry]]:
    directory = Directory(pool)
    while page := directory.snapshots(after, _PAGE):
        for key, entry in page:
            after = key
            if entry.number:  # it is usable
                yield key, entry


def _records(pool: Pool, after: str) -> Iterator[tuple[str, Record]]:
    directory = Directory(pool)
    while page := directory.volumes(after, _PAGE):
        for key, entry in page:
            after = key
            if not entry.image_id:
                continue  # its image is being made
            try:
                record = find_record(pool, entry.image_id)
            except NotFoundError:
                continue  # deleted meanwhile
            except RecordError as error:
                # One damaged record must not hide all other volumes.
                _log.warning("volume left out", volume=entry.name, error=str(error))
                continue
            if record is not None and record.state is VolumeState.READY:
                yield key, record


def _parse(token: str, places: int) -> _Mark:
    if not token:
        return _Mark(0, "")
    match = _TOKEN.fullmatch(token)
    if match is None or int(match.group(1)) >= places:
        raise _foreign(token)
    return _Mark(int(match.group(1)), match.group(2))


def _foreign(token: str) -> PendingError:
    return PendingError(f"starting_token {token!r} was not given out by this driver")
