# SPDX-License-Identifier: Apache-2.0
"""`rbdcrypt-csi volume list`."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table

from csi_driver.commands import composition
from csi_driver.commands import output
from csi_driver.commands import service
from csi_driver.commands.output import Output
from csi_driver.domain.context import volume_context
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.quantities import show_size
from csi_driver.domain.record import VolumeState
from csi_driver.provisioning.collection_preview import BEGUN
from csi_driver.provisioning.overview import Filed
from csi_driver.provisioning.overview import in_order
from csi_driver.provisioning.overview import survey
from csi_driver.settings import ClusterSettings


def list_volumes(
    settings: ClusterSettings, form: Output, *, deleted: bool = False
) -> None:
    """Print all volumes of all configured pools, or all tombstones."""
    service.start_logging(settings)
    storage = composition.ceph(settings)
    found = in_order(survey(storage.connections, storage.clusters, deleted=deleted))
    if form is Output.JSON:
        output.show_json([as_json(each) for each in found])
    else:
        output.show(as_table(found))
        names = [each.entry.name for each in found if each.begun]
        if names:
            output.tell(f"{', '.join(names)}: {BEGUN}")


def as_json(filed: Filed) -> dict[str, object]:
    """Return what is listed of one volume, for programs."""
    record = filed.record
    common: dict[str, object] = {
        "id": _id(filed),
        "name": filed.entry.name,
        "cluster": filed.place.cluster,
        "pool": filed.place.pool,
        "namespace": filed.place.namespace,
        "image": filed.entry.image_name,
        "deleted": filed.deleted,
        "outlook": BEGUN if filed.begun else None,
    }
    if record is None:
        state = {"state": VolumeState.CREATING.value} if filed.begun else {}
        return common | state | {"problem": filed.problem}
    return common | {
        "bytes": record.desired.count,
        "actual": record.actual.count,
        "state": record.state.value,
        "mode": record.mode.value,
        "block": record.block,
        "filesystem": record.filesystem.value,
        "fingerprint": record.ring.fingerprint if record.ring else None,
        "ancestors": record.ancestors,
        "source": record.origin.source if record.origin else None,
        "context": volume_context(record),
        "nodes": sorted(each.node_id for each in record.exports),
        "flatten": record.flatten.to_json_object() if record.flatten else None,
    }


def as_table(found: Iterable[Filed]) -> Table:
    """Return the list for people."""
    made = output.table(
        *("NAME", "ID", "SIZE", "STATE", "MODE", "FILESYSTEM", "ANCESTORS", "NODES"),
        right=("SIZE", "ANCESTORS"),
    )
    for each in found:
        record = each.record
        if record is None:
            output.add_row(made, each.entry.name, _id(each), "", each.problem)
            continue
        output.add_row(
            made,
            each.entry.name,
            _id(each),
            show_size(record.desired.count),
            record.state.value,
            record.mode.value,
            record.filesystem.value,
            str(record.ancestors),
            ",".join(sorted(export.node_id for export in record.exports)),
        )
    return made


def _id(filed: Filed) -> str:
    if not filed.entry.image_id:
        return ""
    return str(VolumeId(filed.location, filed.entry.image_id))
