# SPDX-License-Identifier: Apache-2.0
"""What an inspection means, in shapes that take no Ceph to see.

Each kind of damage is done to real images in tests/ceph/administration.
"""

from __future__ import annotations

import dataclasses

import pytest

from csi_driver.domain.chain import HeaderKind
from csi_driver.domain.ids import Location
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.limits import NO_LIMITS
from csi_driver.domain.record import EncryptionMode
from csi_driver.domain.record import Record
from csi_driver.domain.record import VolumeState
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.domain.sizes import Layout
from csi_driver.domain.sizes import RawSize
from csi_driver.domain.sizes import Striping
from csi_driver.images.values import ImageSnapshot
from csi_driver.images.values import ParentLink
from csi_driver.images.values import SnapshotPath
from csi_driver.provisioning.findings import findings
from csi_driver.provisioning.findings import requires_attention
from csi_driver.provisioning.inspection import Chain
from csi_driver.provisioning.inspection import FoundSnapshot
from csi_driver.provisioning.inspection import Header
from csi_driver.provisioning.inspection import ImageLayer
from csi_driver.provisioning.inspection import Inspection
from tests.unit.domain.strategies import a_record

OWN = "11111111-1111-1111-1111-111111111111"
PARENT = "22222222-2222-2222-2222-222222222222"
ROOM = 16 * MIB
SIZE = EffectiveSize(64 * MIB)
LINK = ParentLink(SnapshotPath("rbd", "", "parent", "snap"), "20ab", RawSize(80 * MIB))


def a_volume(mode: EncryptionMode = EncryptionMode.PASSPHRASE) -> Record:
    return dataclasses.replace(
        a_record(),
        state=VolumeState.READY,
        mode=mode,
        layout=Layout(ROOM),
        desired=SIZE,
        actual=SIZE,
        ring=None,
        layers=(),
        ancestors=0,
        exports=(),
        snapshots=(),
        children=(),
        flatten=None,
        origin=None,
        limits=NO_LIMITS,
    )


def layer(kind: HeaderKind, uuid: str, parent: ParentLink | None = None) -> ImageLayer:
    encrypted = kind.encrypted
    header = Header(kind, uuid if encrypted else None, ROOM if encrypted else 0)
    return ImageLayer("10ab", "image", RawSize(80 * MIB), header, parent)


FLAT = Chain((layer(HeaderKind.LUKS2, OWN),))
ON_PARENT = Chain(
    (layer(HeaderKind.CLONE_LUKS2, OWN, LINK), layer(HeaderKind.LUKS2, PARENT))
)


def seen(record: Record, chain: Chain = FLAT, *snapshots: FoundSnapshot) -> Inspection:
    return Inspection(
        volume_id=VolumeId(Location("lab", 1), "10ab"),
        pool_name="rbd",
        record=record,
        image_name="image",
        striping=Striping(),
        features=frozenset(),
        settings={},
        chain=chain,
        snapshots=snapshots,
        watchers=(),
        owner=None,
    )


def codes(found: Inspection) -> set[str]:
    return {each.code for each in findings(found)}


@pytest.mark.parametrize("chain", [FLAT, ON_PARENT])
def test_nothing_is_wrong_with_what_is_whole(chain: Chain) -> None:
    record = dataclasses.replace(a_volume(), ancestors=len(chain.layers) - 1)
    assert codes(seen(record, chain)) == set()


def test_an_inherited_header_counts_once() -> None:
    inherited = layer(HeaderKind.LUKS2, PARENT, LINK)
    chain = Chain((inherited, layer(HeaderKind.LUKS2, PARENT)))
    assert chain.headers == (PARENT,)
    assert not chain.orphaned
    assert ON_PARENT.headers == (OWN, PARENT)
    plain = Chain((ON_PARENT.own, layer(HeaderKind.NONE, "")))
    assert plain.headers == (OWN,)


def test_a_missing_ancestor_is_told_apart_from_a_raw_flatten() -> None:
    broken = Chain((ON_PARENT.own,), "the snapshot is gone")
    assert codes(seen(a_volume(), broken)) == {"ancestor-unreadable"}
    assert not broken.orphaned
    flattened = Chain((layer(HeaderKind.CLONE_LUKS2, OWN),))
    assert codes(seen(a_volume(), flattened)) == {"raw-flattened"}


def test_intact_snapshots_are_listed_newest_first() -> None:
    def snapshot(number: int, chain: Chain) -> FoundSnapshot:
        found = ImageSnapshot(number, f"snap-{number}", RawSize(80 * MIB), 0)
        return FoundSnapshot(found, chain, ())

    lost = Chain((layer(HeaderKind.CLONE_LUKS2, OWN),))
    volume = seen(
        a_volume(), lost, snapshot(1, FLAT), snapshot(2, lost), snapshot(3, ON_PARENT)
    )
    found = {each.code: each for each in findings(volume)}
    assert found.keys() == {"raw-flattened", "snapshot-orphaned"}
    assert "newest first: snap-3, snap-1" in found["raw-flattened"].remedy
    assert "'snap-2'" in found["snapshot-orphaned"].meaning


@pytest.mark.parametrize("state", [VolumeState.CREATING, VolumeState.COLLECTING])
def test_a_volume_in_the_making_needs_no_header_yet(state: VolumeState) -> None:
    record = dataclasses.replace(a_volume(), state=state)
    assert codes(seen(record, Chain((layer(HeaderKind.NONE, ""),)))) == set()


def test_the_bytes_of_a_plaintext_volume_are_not_judged() -> None:
    record = a_volume(EncryptionMode.NONE)
    assert codes(seen(record, Chain((layer(HeaderKind.NONE, ""),)))) == set()


def test_notes_alone_are_nothing_wrong_and_come_last() -> None:
    record = dataclasses.replace(a_volume(), desired=EffectiveSize(128 * MIB))
    found = findings(seen(record))
    assert [each.code for each in found] == ["growth-pending"]
    assert not requires_attention(found)
    lost = findings(seen(record, Chain((layer(HeaderKind.NONE, ""),))))
    assert [each.wrong for each in lost] == [True, False]
    assert requires_attention(lost)


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (80 * MIB + ROOM, "size-shifted"),
        (80 * MIB - ROOM, "size-shifted"),
        (128 * MIB + 2 * ROOM, "size-shifted"),
        (128 * MIB + ROOM, "growth-unrecorded"),
        (80 * MIB + 512, "size-larger"),
        (80 * MIB - 512, "size-smaller"),
    ],
)
def test_what_a_size_says(raw: int, code: str) -> None:
    record = dataclasses.replace(a_volume(), desired=EffectiveSize(128 * MIB))
    own = dataclasses.replace(FLAT.own, raw=RawSize(raw))
    assert codes(seen(record, Chain((own,)))) == {code}
