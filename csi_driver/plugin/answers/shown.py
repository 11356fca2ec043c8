# SPDX-License-Identifier: Apache-2.0
"""What `volume show` answers."""

from __future__ import annotations

import dataclasses
from typing import Any

from csi_driver.domain import json_fields as read
from csi_driver.plugin.answers.parts import Finding
from csi_driver.plugin.answers.parts import FlattenProgress
from csi_driver.plugin.answers.parts import Json
from csi_driver.plugin.answers.parts import VolumeNames
from csi_driver.plugin.answers.parts import findings
from csi_driver.plugin.answers.parts import image_path
from csi_driver.plugin.answers.parts import text_or_null


@dataclasses.dataclass(frozen=True, slots=True)
class Layer:
    """One image of a volume's chain; sizes are bytes."""

    image: str
    image_id: str
    header: str
    header_uuid: str
    raw: int
    effective: int
    damage: str

    @classmethod
    def of(cls, fields: Json) -> Layer:
        """Read one."""
        return cls(
            image=read.string(fields, "image"),
            image_id=read.string(fields, "imageID"),
            header=read.string(fields, "header"),
            header_uuid=text_or_null(fields, "headerUUID"),
            raw=read.natural(fields, "raw"),
            effective=read.natural(fields, "effective"),
            damage=text_or_null(fields, "damage"),
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Chain:
    """The images of a volume or a snapshot, own first; `broken` says why not all."""

    layers: tuple[Layer, ...]
    broken: str

    @classmethod
    def of(cls, fields: Json) -> Chain:
        """Read one."""
        return cls(
            tuple(Layer.of(each) for each in read.objects(fields, "layers")),
            text_or_null(fields, "broken"),
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Clone:
    """An image that reads a snapshot."""

    pool: str
    namespace: str
    image: str
    image_id: str
    trashed: bool

    @property
    def path(self) -> str:
        """Pool, RADOS namespace and image, as rbd(8) writes them."""
        return image_path(self.pool, self.namespace, self.image)

    @classmethod
    def of(cls, fields: Json) -> Clone:
        """Read one."""
        return cls(
            pool=read.string(fields, "pool"),
            namespace=read.string(fields, "namespace"),
            image=read.string(fields, "image"),
            image_id=read.string(fields, "imageID"),
            trashed=read.truth(fields, "trashed"),
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot of the image.

    One that the record knows and the image does not have is not `present`; one
    that the record does not know has no `state`.
    """

    snapshot_id: str
    name: str
    rbd_name: str
    state: str
    present: bool
    created: int
    raw: int
    lingering: bool
    chain: Chain
    clones: tuple[Clone, ...]

    @classmethod
    def of(cls, fields: Json) -> Snapshot:
        """Read one."""
        present = read.truth(fields, "present")
        return cls(
            snapshot_id=text_or_null(fields, "id"),
            name=text_or_null(fields, "name"),
            rbd_name=read.string(fields, "rbdName"),
            state=read.string(fields, "state") if "state" in fields else "",
            present=present,
            created=read.natural(fields, "created"),
            raw=read.natural(fields, "raw") if present else 0,
            lingering=present and read.truth(fields, "lingering"),
            chain=Chain.of(fields["chain"]) if present else Chain((), ""),
            clones=(
                tuple(Clone.of(each) for each in read.objects(fields, "clones"))
                if present
                else ()
            ),
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Export:
    """Where the volume is served, as its record says; `alive` is what Ceph says."""

    node: str
    client: str
    read_only: bool
    alive: bool

    @classmethod
    def of(cls, fields: Json) -> Export:
        """Read one."""
        return cls(
            node=read.string(fields, "node"),
            client=read.string(fields, "client"),
            read_only=read.truth(fields, "readOnly"),
            alive=read.truth(fields, "alive"),
        )


@dataclasses.dataclass(frozen=True, slots=True)
class ShownVolume:
    """One volume; sizes are bytes, limits 0 for none."""

    names: VolumeNames
    state: str
    mode: str
    fingerprint: str
    block: bool
    filesystem: str
    recovered: bool
    desired: int
    actual: int
    reserve: int
    raw: int
    iops: int
    bandwidth: int
    source: str
    lock_owner: str
    flatten: FlattenProgress | None
    chain: Chain
    snapshots: tuple[Snapshot, ...]
    exports: tuple[Export, ...]
    ok: bool
    findings: tuple[Finding, ...]


def shown(fields: Any) -> ShownVolume:
    """Read `volume show`."""
    limits = fields["limits"]
    return ShownVolume(
        names=VolumeNames.of(fields),
        state=read.string(fields, "state"),
        mode=read.string(fields, "mode"),
        fingerprint=text_or_null(fields, "fingerprint"),
        block=read.truth(fields, "block"),
        filesystem=read.string(fields, "filesystem"),
        recovered=read.truth(fields, "recovered"),
        desired=read.natural(fields, "desired"),
        actual=read.natural(fields, "actual"),
        reserve=read.natural(fields, "reserve"),
        raw=read.natural(fields, "raw"),
        iops=read.natural(limits, "iops"),
        bandwidth=read.natural(limits, "bandwidth"),
        source=text_or_null(fields, "source"),
        lock_owner=text_or_null(fields, "lockOwner"),
        flatten=FlattenProgress.of(read.optional(fields, "flatten")),
        chain=Chain.of(fields["chain"]),
        snapshots=tuple(Snapshot.of(e) for e in read.objects(fields, "snapshots")),
        exports=tuple(Export.of(each) for each in read.objects(fields, "exports")),
        ok=read.truth(fields, "ok"),
        findings=findings(fields),
    )
