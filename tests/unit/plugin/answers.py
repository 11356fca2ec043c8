# SPDX-License-Identifier: Apache-2.0
"""What the driver's commands answer, in the words of the commands themselves."""

from __future__ import annotations

import dataclasses
from typing import Any
from typing import Final

from csi_driver.commands.description import describe
from csi_driver.commands.volumes import as_json
from csi_driver.domain.chain import HeaderKind
from csi_driver.domain.exports import ExportEntry
from csi_driver.domain.flattening import FlattenWork
from csi_driver.domain.ids import Location
from csi_driver.domain.ids import SnapshotId
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.keyring import KeyRing
from csi_driver.domain.limits import NO_LIMITS
from csi_driver.domain.lineage import Origin
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.domain.sizes import Layout
from csi_driver.domain.sizes import RawSize
from csi_driver.domain.sizes import Striping
from csi_driver.domain.snapshots import Snapshot
from csi_driver.domain.snapshots import SnapshotState
from csi_driver.images.directory import Entry
from csi_driver.images.values import ChildImage
from csi_driver.images.values import ImageSnapshot
from csi_driver.images.values import LockOwner
from csi_driver.images.values import ParentLink
from csi_driver.images.values import SnapshotPath
from csi_driver.images.values import Watcher
from csi_driver.provisioning.inspection import Chain
from csi_driver.provisioning.inspection import FoundSnapshot
from csi_driver.provisioning.inspection import Header
from csi_driver.provisioning.inspection import ImageLayer
from csi_driver.provisioning.inspection import Inspection
from csi_driver.provisioning.overview import Filed
from csi_driver.provisioning.overview import Place
from tests.unit.domain.strategies import a_record

LOCATION: Final = Location("lab", 1)
FIRST: Final = str(VolumeId(LOCATION, "10ab"))
SECOND: Final = str(VolumeId(LOCATION, "20cd"))
THIRD: Final = str(VolumeId(LOCATION, "30ef"))


def listed(volume_id: str, name: str, **fields: Any) -> dict[str, object]:
    """Return one volume as `volume list` writes it."""
    image_id = VolumeId.parse(volume_id).image_id
    record = dataclasses.replace(a_record(), name=name, image_id=image_id, **fields)
    return as_json(_filed(name, image_id, record=record))


def damaged(volume_id: str, name: str, problem: str) -> dict[str, object]:
    """Return one volume whose record cannot be read."""
    image_id = VolumeId.parse(volume_id).image_id
    return as_json(_filed(name, image_id, problem=problem))


def half_made(name: str) -> dict[str, object]:
    """Return one volume whose image is being made."""
    return as_json(_filed(name, "", problem="its image is being made"))


def _filed(name: str, image_id: str, **fields: Any) -> Filed:
    entry = Entry(name, f"csi-vol-{name}", image_id)
    return Filed(Place("lab", "rbd"), LOCATION, entry, deleted=False, **fields)


def export(node: str, *, read_only: bool = False) -> ExportEntry:
    return ExportEntry(node, "boot", f"127.0.0.1:0/{node}", read_only)


FLATTENING: Final = FlattenWork("127.0.0.1:0/1", 3, 10)
FROM_FIRST: Final = Origin(FIRST)


def shown(**fields: Any) -> dict[str, Any]:
    """Return `volume show` of a clone of FIRST, of which THIRD is a clone.

    `fields` change its record.
    """
    record = dataclasses.replace(
        a_record(),
        name="pvc-clone",
        image_id="20cd",
        layout=Layout(ROOM),
        desired=SIZE,
        actual=SIZE,
        layers=(OWN, PARENT),
        ring=_ring(),
        ancestors=1,
        origin=Origin(FIRST),
        recovered=True,
        exports=(export("worker-1"),),
        snapshots=(TAKEN, GONE),
        children=(),
        flatten=None,
        limits=NO_LIMITS,
    )
    found = _snapshot()
    return describe(
        Inspection(
            volume_id=VolumeId.parse(SECOND),
            pool_name="rbd",
            record=dataclasses.replace(record, **fields),
            image_name="csi-vol-clone",
            striping=Striping(),
            features=frozenset(),
            settings={},
            chain=_CHAIN,
            snapshots=(found,),
            watchers=(Watcher(export("worker-1").client_address, 1, 1),),
            owner=LockOwner("1", export("worker-1").client_address),
        )
    )


ROOM: Final = 16 * MIB
SIZE: Final = EffectiveSize(1 << 30)
RAW: Final = RawSize((1 << 30) + ROOM)
OWN: Final = "11111111-1111-1111-1111-111111111111"
PARENT: Final = "22222222-2222-2222-2222-222222222222"
TAKEN: Final = Snapshot(
    "snapshot-1", "rbdcrypt-snap-1", SnapshotState.READY, number=4, size=SIZE,
    created=1_700_000_000_000_000_000, layers=(OWN, PARENT), ancestors=1,
)  # fmt: skip
GONE: Final = dataclasses.replace(
    TAKEN, name="snapshot-2", rbd_name="rbdcrypt-snap-2", number=5
)
TAKEN_ID: Final = str(SnapshotId(VolumeId.parse(SECOND), TAKEN.number))
_LINK: Final = ParentLink(SnapshotPath("rbd", "", "csi-vol-first", "s"), "10ab", RAW)
_CHAIN: Final = Chain(
    (
        ImageLayer(
            "20cd",
            "csi-vol-clone",
            RAW,
            Header(HeaderKind.CLONE_LUKS2, OWN, ROOM),
            _LINK,
        ),
        ImageLayer(
            "10ab", "csi-vol-first", RAW, Header(HeaderKind.LUKS2, PARENT, ROOM), None
        ),
    )
)


def _ring() -> KeyRing:
    ring = a_record().ring
    assert ring is not None
    entries = [
        dataclasses.replace(entry, header_uuid=header)
        for entry, header in zip(ring.entries, (OWN, PARENT), strict=True)
    ]
    return dataclasses.replace(ring, entries=tuple(entries))


def _snapshot() -> FoundSnapshot:
    taken = ImageSnapshot(TAKEN.number, TAKEN.rbd_name, RAW, TAKEN.created)
    clone = ChildImage("rbd", "", "csi-vol-third", "30ef", trashed=False)
    stranger = ChildImage("rbd2", "ns", "by-hand", "40ff", trashed=True)
    return FoundSnapshot(taken, _CHAIN, (clone, stranger))
