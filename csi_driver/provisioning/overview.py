# SPDX-License-Identifier: Apache-2.0
"""Every volume of every place for an administrator, those that are amiss as well.

Unlike `listing`, which answers CSI, it also shows volumes that are being made,
tombstones, and entries whose record cannot be read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from collections.abc import Iterator
from typing import Final

from csi_driver.domain.clusters import Clusters
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import RecordError
from csi_driver.domain.ids import Location
from csi_driver.domain.record import Record
from csi_driver.domain.record import VolumeState
from csi_driver.images.connections import SharedConnections
from csi_driver.images.directory import Directory
from csi_driver.images.directory import Entry
from csi_driver.images.port import Pool
from csi_driver.images.records import read_record

_PAGE: Final = 200


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """A pool and RADOS namespace by names."""

    cluster: str
    pool: str
    namespace: str = ""

    def __str__(self) -> str:
        where = f"{self.pool}/{self.namespace}" if self.namespace else self.pool
        return f"{self.cluster}:{where}"


@dataclasses.dataclass(frozen=True, slots=True)
class Filed:
    """One entry of a directory; `record` is None where `problem` says why."""

    place: Place
    location: Location
    entry: Entry
    deleted: bool
    record: Record | None = None
    problem: str = ""

    @property
    def begun(self) -> bool:
        """Tell whether it was begun and not finished."""
        if self.record is not None:
            return self.record.state is VolumeState.CREATING
        return not self.deleted and not self.entry.image_id


def places(clusters: Clusters) -> Iterator[Place]:
    """Go through all places that the driver owns."""
    for config in clusters.by_id.values():
        for pool in config.pools:
            for namespace in pool.namespaces:
                yield Place(config.cluster, pool.name, namespace)


def survey(
    connections: SharedConnections,
    clusters: Clusters,
    *,
    deleted: bool = False,
) -> Iterator[Filed]:
    """Go through all volumes, with `deleted` through all tombstones instead."""
    for place in places(clusters):
        with connections.pool(place.cluster, place.pool, place.namespace) as pool:
            for entry in entries(pool, deleted=deleted):
                yield _filed(pool, place, entry, deleted=deleted)


def in_order(found: Iterable[Filed]) -> list[Filed]:
    """Return them by place and name."""
    return sorted(found, key=lambda each: (str(each.place), each.entry.name))


def entries(pool: Pool, *, deleted: bool) -> Iterator[Entry]:
    """Go through the volumes or the tombstones of one place."""
    directory = Directory(pool)
    page_of = directory.deleted if deleted else directory.volumes
    after = ""
    while page := page_of(after, _PAGE):
        after = page[-1][0]
        for _, entry in page:
            yield entry


def _filed(pool: Pool, place: Place, entry: Entry, *, deleted: bool) -> Filed:
    found = Filed(place, pool.location, entry, deleted)
    if not entry.image_id:
        made = "never finished" if deleted else "its image is being made"
        return dataclasses.replace(found, problem=made)
    try:
        record = read_record(pool, entry.image_id)
    except (NotFoundError, RecordError) as error:
        return dataclasses.replace(found, problem=str(error))
    return dataclasses.replace(found, record=record)
