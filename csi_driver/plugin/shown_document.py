# SPDX-License-Identifier: Apache-2.0
"""`kubectl rbdcrypt show`, for programs: one volume as a document.  Pure."""

from __future__ import annotations

from collections.abc import Iterable

from csi_driver.plugin.answers.parts import Finding
from csi_driver.plugin.answers.shown import Chain
from csi_driver.plugin.answers.shown import Clone
from csi_driver.plugin.answers.shown import Snapshot
from csi_driver.plugin.family import Family
from csi_driver.plugin.objects import ObjectName
from csi_driver.plugin.printing import Document
from csi_driver.plugin.printing import document


def as_document(family: Family) -> Document:
    """Return everything about one volume; sizes are bytes."""
    claim, persistent, volume = family.claim, family.persistent, family.volume
    work = volume.flatten
    return document(
        "Volume",
        namespace=claim.name.namespace,
        claim=claim.name.name,
        storageClass=claim.storage_class or None,
        persistentVolume=persistent.name,
        volumeID=volume.names.volume_id,
        image=volume.names.path,
        state=volume.state,
        encrypted=volume.mode != "none",
        mode=volume.mode,
        fingerprint=volume.fingerprint or None,
        block=volume.block,
        filesystem=volume.filesystem,
        recovered=volume.recovered,
        sizes={
            "requested": claim.requested,
            "capacity": persistent.capacity,
            "promised": volume.desired,
            "effective": volume.actual,
            "raw": volume.raw,
            "reserve": volume.reserve,
        },
        limits={"iops": volume.iops, "bandwidth": volume.bandwidth},
        source=volume.source or None,
        depth=len(volume.chain.layers) - 1,
        layers=_layers(family, volume.chain),
        layersBroken=volume.chain.broken or None,
        snapshots=[_snapshot(family, each) for each in volume.snapshots],
        flatten={"done": work.done, "total": work.total} if work else None,
        lockOwner=volume.lock_owner or None,
        exports=_exports(family),
        attachments=_attachments(family),
        pods=_pods(family),
        healthy=not any(each.wrong for each in family.findings),
        findings=findings_document(family.findings),
    )


def findings_document(found: Iterable[Finding]) -> list[Document]:
    """Return findings for programs."""
    return [
        {
            "code": each.code,
            "wrong": each.wrong,
            "meaning": each.meaning,
            "remedy": each.remedy,
        }
        for each in found
    ]


def _layers(family: Family, chain: Chain) -> list[Document]:
    return [
        {
            "image": each.image,
            "imageID": each.image_id,
            "claim": _name(family.claim_of_image(each.image_id)),
            "header": each.header,
            "headerUUID": each.header_uuid or None,
            "effective": each.effective,
            "raw": each.raw,
            "damage": each.damage or None,
        }
        for each in chain.layers
    ]


def _snapshot(family: Family, snapshot: Snapshot) -> Document:
    return {
        "snapshotID": snapshot.snapshot_id or None,
        "volumeSnapshot": _name(family.snapshot_named(snapshot.snapshot_id)),
        "name": snapshot.name or None,
        "rbdName": snapshot.rbd_name,
        "state": snapshot.state or None,
        "present": snapshot.present,
        "lingering": snapshot.lingering,
        "created": snapshot.created,
        "raw": snapshot.raw,
        "layers": _layers(family, snapshot.chain),
        "clones": [_clone(family, each) for each in snapshot.clones],
    }


def _clone(family: Family, clone: Clone) -> Document:
    return {
        "claim": _name(family.claim_of_image(clone.image_id)),
        "pool": clone.pool,
        "namespace": clone.namespace,
        "image": clone.image,
        "imageID": clone.image_id,
        "trashed": clone.trashed,
    }


def _exports(family: Family) -> list[Document]:
    return [
        {
            "node": each.node,
            "client": each.client,
            "readOnly": each.read_only,
            "alive": each.alive,
        }
        for each in family.volume.exports
    ]


def _attachments(family: Family) -> list[Document] | None:
    if family.attachments is None:
        return None
    return [
        {
            "node": each.node,
            "attached": each.attached,
            "problem": each.problem or None,
        }
        for each in family.attachments
    ]


def _pods(family: Family) -> list[Document] | None:
    if family.users is None:
        return None
    return [
        {
            "namespace": each.name.namespace,
            "name": each.name.name,
            "node": each.node or None,
            "phase": each.phase,
        }
        for each in family.users
    ]


def _name(found: ObjectName | None) -> dict[str, str] | None:
    return found.to_json_object() if found else None
