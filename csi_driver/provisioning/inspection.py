# SPDX-License-Identifier: Apache-2.0
"""What Ceph shows of one volume, gathered without its Secret.

Headers are read in clear, parents followed, snapshots, clones, watchers and the
lock listed.  Nothing is changed and nothing judged: that is left to `findings`.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from csi_driver.domain.chain import DEEPEST_CHAIN
from csi_driver.domain.chain import HeaderKind
from csi_driver.domain.chain import header_kind
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import HeaderError
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.luks import VISIBLE_LENGTH
from csi_driver.domain.luks import header_uuid
from csi_driver.domain.luks import parse_header
from csi_driver.domain.luks_copies import intact_copy
from csi_driver.domain.luks_copies import second_copy
from csi_driver.domain.record import Record
from csi_driver.domain.record import VolumeState
from csi_driver.domain.sizes import RawSize
from csi_driver.domain.sizes import Striping
from csi_driver.images.port import Pool
from csi_driver.images.port import RawImage
from csi_driver.images.records import read_record
from csi_driver.images.values import ChildImage
from csi_driver.images.values import ImageSnapshot
from csi_driver.images.values import LockOwner
from csi_driver.images.values import ParentLink
from csi_driver.images.values import Watcher

_LUKS2: Final = {HeaderKind.LUKS2, HeaderKind.CLONE_LUKS2}


@dataclasses.dataclass(frozen=True, slots=True)
class Header:
    """What the first bytes of an image are; `data_offset` is 0 without a header.

    `damage` says what is wrong with a header that is there.  `second_copy` is
    where an intact second copy of LUKS2 metadata begins, also behind a first
    one that is gone.
    """

    kind: HeaderKind
    uuid: str | None = None
    data_offset: int = 0
    damage: str = ""
    second_copy: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class ImageLayer:
    """One image of a chain; `parent` is what it reads, if anything."""

    image_id: str
    name: str
    raw: RawSize
    header: Header
    parent: ParentLink | None


@dataclasses.dataclass(frozen=True, slots=True)
class Chain:
    """The images that a head or a snapshot consists of, own first.

    `broken` says why the images below the last one could not be read.
    """

    layers: tuple[ImageLayer, ...]
    broken: str = ""

    @property
    def own(self) -> ImageLayer:
        """The image itself."""
        return self.layers[0]

    @property
    def orphaned(self) -> bool:
        """True if a formatted clone has lost its parent and so cannot be loaded."""
        last = self.layers[-1]
        return last.header.kind.formatted_clone and last.parent is None

    @property
    def headers(self) -> tuple[str, ...]:
        """The UUIDs of its headers, own first; one that is inherited counts once."""
        found: list[str] = []
        for each in self.layers:
            if each.header.uuid is None:
                break
            if each.header.uuid not in found:
                found.append(each.header.uuid)
        return tuple(found)


@dataclasses.dataclass(frozen=True, slots=True)
class FoundSnapshot:
    """An RBD snapshot with its chain and its clones."""

    found: ImageSnapshot
    chain: Chain
    children: tuple[ChildImage, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Inspection:
    """One volume: its record, and what Ceph shows of its image."""

    volume_id: VolumeId
    pool_name: str
    record: Record
    image_name: str
    striping: Striping
    features: frozenset[str]
    settings: dict[str, str]
    chain: Chain
    snapshots: tuple[FoundSnapshot, ...]
    watchers: tuple[Watcher, ...]
    owner: LockOwner | None

    @property
    def watching(self) -> frozenset[str]:
        """The addresses of other clients that have the image open for writing."""
        return frozenset(each.address for each in self.watchers)


def inspect(pool: Pool, image_id: str) -> Inspection:
    """Gather everything about one volume.

    The image is opened for writing, without which librbd does not tell who
    owns its lock, and nothing is written.  NotFoundError without the volume;
    RecordError if its record cannot be read.
    """
    record = read_record(pool, image_id)
    judged = record.mode.encrypted
    # Nobody may watch an image that is being removed.
    dying = record.state is VolumeState.COLLECTING
    with pool.open_raw(image_id, read_only=dying) as image:
        return Inspection(
            volume_id=VolumeId(pool.location, image_id),
            pool_name=pool.pool_name,
            record=record,
            image_name=image.name,
            striping=image.striping(),
            features=image.features(),
            settings=image.settings(),
            chain=_chain(pool, image, judged=judged),
            snapshots=tuple(
                _snapshot(pool, image_id, each, judged=judged)
                for each in image.snapshots()
            ),
            watchers=tuple(image.foreign_watchers()),
            owner=None if dying else image.lock_owner(),
        )


def read_header(image: RawImage) -> Header:
    """Return what the first bytes of an image say, damaged or not."""
    visible = min(VISIBLE_LENGTH, image.raw_size().count)
    first = image.read_header(visible) if visible else b""
    kind = header_kind(first)
    second = second_copy(first)
    if kind is HeaderKind.NONE:
        return Header(kind, second_copy=second)
    damage = ""
    offset = 0
    try:
        offset = parse_header(first).data_offset
    except HeaderError as error:
        damage = str(error)
    if kind in _LUKS2 and not damage and not intact_copy(first, 0):
        damage = "the checksum of its first metadata copy is wrong"
    return Header(kind, header_uuid(first), offset, damage, second)


def _snapshot(
    pool: Pool, image_id: str, found: ImageSnapshot, *, judged: bool
) -> FoundSnapshot:
    with pool.open_raw(image_id, read_only=True, snapshot=found.number) as image:
        return FoundSnapshot(
            found=found,
            chain=_chain(pool, image, judged=judged),
            children=tuple(image.children()),
        )


def _chain(pool: Pool, image: RawImage, *, judged: bool) -> Chain:
    """Follow the parents; bytes of a plaintext volume are not judged."""
    layers = [_layer(image, judged=judged)]
    try:
        while layers[-1].parent is not None and len(layers) < DEEPEST_CHAIN:
            with pool.open_parent(layers[-1].parent) as parent:
                layers.append(_layer(parent, judged=judged))
    except UnavailableError:
        raise
    except DriverError as error:
        return Chain(tuple(layers), str(error))
    return Chain(tuple(layers))


def _layer(image: RawImage, *, judged: bool) -> ImageLayer:
    return ImageLayer(
        image_id=image.image_id,
        name=image.name,
        raw=image.raw_size(),
        header=read_header(image) if judged else Header(HeaderKind.NONE),
        parent=image.parent(),
    )
