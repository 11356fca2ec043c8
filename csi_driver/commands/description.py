# SPDX-License-Identifier: Apache-2.0
"""One volume as JSON for programs: what `volume show` shows, and never a key."""

from __future__ import annotations

from collections.abc import Iterable

from csi_driver.domain.ids import SnapshotId
from csi_driver.images.values import ChildImage
from csi_driver.provisioning.finding import Finding
from csi_driver.provisioning.findings import findings
from csi_driver.provisioning.findings import requires_attention
from csi_driver.provisioning.inspection import Chain
from csi_driver.provisioning.inspection import FoundSnapshot
from csi_driver.provisioning.inspection import ImageLayer
from csi_driver.provisioning.inspection import Inspection

type _Json = dict[str, object]


def describe(seen: Inspection) -> _Json:
    """Return everything that was seen, and what is wrong; all sizes are bytes."""
    record, location = seen.record, seen.volume_id.location
    found = findings(seen)
    return {
        "id": str(seen.volume_id),
        "name": record.name,
        "cluster": location.cluster,
        "pool": seen.pool_name,
        "namespace": location.namespace,
        "image": seen.image_name,
        "state": record.state.value,
        "mode": record.mode.value,
        "fingerprint": record.ring.fingerprint if record.ring else None,
        "block": record.block,
        "filesystem": record.filesystem.value,
        "recovered": record.recovered,
        "desired": record.desired.count,
        "actual": record.actual.count,
        "reserve": record.layout.reserve,
        "raw": seen.chain.own.raw.count,
        "limits": record.limits.to_json_object(),
        "source": record.origin.source if record.origin else None,
        "lockOwner": seen.owner.address if seen.owner else None,
        "watchers": sorted(seen.watching),
        "flatten": record.flatten.to_json_object() if record.flatten else None,
        "features": sorted(seen.features),
        "settings": seen.settings,
        "chain": _chain(seen.chain),
        "snapshots": _snapshots(seen),
        "children": [each.to_json_object() for each in record.children],
        "exports": [
            each.to_json_object() | {"alive": each.alive(seen.watching)}
            for each in record.exports
        ],
        "ok": not requires_attention(found),
        "findings": describe_findings(found),
    }


def describe_findings(found: Iterable[Finding]) -> list[_Json]:
    """Return what `volume check` finds."""
    return [
        {
            "code": each.code,
            "wrong": each.wrong,
            "meaning": each.meaning,
            "remedy": each.remedy,
        }
        for each in found
    ]


def _chain(chain: Chain) -> _Json:
    return {
        "layers": [_layer(each) for each in chain.layers],
        "broken": chain.broken or None,
    }


def _layer(layer: ImageLayer) -> _Json:
    header, parent = layer.header, layer.parent
    return {
        "image": layer.name,
        "imageID": layer.image_id,
        "raw": layer.raw.count,
        "effective": max(0, layer.raw.count - header.data_offset),
        "header": header.kind.value,
        "headerUUID": header.uuid,
        "damage": header.damage or None,
        "parent": str(parent.path) if parent else None,
        "overlap": parent.overlap.count if parent else None,
    }


def _snapshots(seen: Inspection) -> list[_Json]:
    numbers = {each.found.number for each in seen.snapshots}
    return [
        *(_snapshot(seen, each) for each in seen.snapshots),
        *(
            each.to_json_object() | {"id": None, "present": False}
            for each in seen.record.snapshots
            if each.number not in numbers
        ),
    ]


def _snapshot(seen: Inspection, snapshot: FoundSnapshot) -> _Json:
    found = snapshot.found
    known = seen.record.snapshot_numbered(found.number)
    recorded: _Json = dict(known.to_json_object()) if known else {"name": None}
    return recorded | {
        "id": str(SnapshotId(seen.volume_id, found.number)),
        "present": True,
        "rbdName": found.name,
        "number": found.number,
        "raw": found.size.count,
        "created": found.created,
        "lingering": found.lingering,
        "chain": _chain(snapshot.chain),
        "clones": [_child(each) for each in snapshot.children],
    }


def _child(child: ChildImage) -> _Json:
    return {
        "pool": child.pool_name,
        "namespace": child.namespace,
        "image": child.image_name,
        "imageID": child.image_id,
        "trashed": child.trashed,
    }
