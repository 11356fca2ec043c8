# SPDX-License-Identifier: Apache-2.0
"""`rbdcrypt-csi volume show`: one volume with its chain drawn."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from csi_driver.commands import composition
from csi_driver.commands import output
from csi_driver.commands import service
from csi_driver.commands.choosing import Named
from csi_driver.commands.description import describe
from csi_driver.commands.output import Output
from csi_driver.domain.quantities import show_size
from csi_driver.domain.record import Record
from csi_driver.images.values import ChildImage
from csi_driver.provisioning.findings import findings
from csi_driver.provisioning.header_findings import title
from csi_driver.provisioning.inspection import FoundSnapshot
from csi_driver.provisioning.inspection import Header
from csi_driver.provisioning.inspection import ImageLayer
from csi_driver.provisioning.inspection import Inspection
from csi_driver.provisioning.inspection import inspect
from csi_driver.settings import ClusterSettings


def show_volume(settings: ClusterSettings, form: Output, named: Named) -> None:
    """Print everything about one volume but its keys."""
    service.start_logging(settings)
    storage = composition.ceph(settings)
    volume_id = named.find(storage)
    with storage.connections.pool_at(volume_id.location) as pool:
        seen = inspect(pool, volume_id.image_id)
    if form is Output.JSON:
        output.show_json(describe(seen))
    else:
        output.show(_facts(seen), "", chain_tree(seen), *_details(seen))


def chain_tree(seen: Inspection) -> Tree:
    """Draw the images that the volume consists of, its own on top."""
    own, *below = seen.chain.layers
    root = branch = Tree(_layer(seen, own))
    for each in below:
        branch = branch.add(_layer(seen, each))
    if seen.chain.broken:
        branch.add(output.clean(f"unreadable: {seen.chain.broken}"))
    return root


def _layer(seen: Inspection, layer: ImageLayer) -> Text:
    sizes = [f"raw {show_size(layer.raw.count)}"]
    if layer.header.kind.encrypted:
        effective = max(0, layer.raw.count - layer.header.data_offset)
        sizes.append(f"effective {show_size(effective)}")
    lines = [", ".join(sizes), _header(seen, layer.header)]
    if layer.parent is not None:
        overlap = show_size(layer.parent.overlap.count)
        snapshot = layer.parent.path.snapshot_name
        lines.append(f"reads snapshot {snapshot}, up to raw {overlap}, of")
    made = Text(output.clean(layer.name), style="bold")
    for each in lines:
        made.append(f"\n{output.clean(each)}", style="not bold")
    return made


def _header(seen: Inspection, header: Header) -> str:
    if not header.kind.encrypted:
        return "no header" if seen.record.mode.encrypted else "plaintext"
    ring = seen.record.ring
    key = "no key in the ring"
    if ring is None:
        key = "passphrase in the Secret"
    elif header.uuid is not None and ring.entry_for(header.uuid):
        key = "key in the ring"
    damage = ", DAMAGED" if header.damage else ""
    return f"{header.kind.value} header {header.uuid}, {key}{damage}"


def _facts(seen: Inspection) -> Table:
    record = seen.record
    made = output.table("", "")
    made.show_header = False
    rows = {
        "name": record.name,
        "id": str(seen.volume_id),
        "image": f"{_place(seen)}/{seen.image_name}",
        "state": record.state.value,
        "mode": record.mode.value,
        "key ring": f"fingerprint {record.ring.fingerprint}" if record.ring else "",
        "content": _content(record),
        "size": _exact(record.actual.count),
        "raw size": _exact(seen.chain.own.raw.count),
        "promised": _exact(record.desired.count),
        "reserve": _exact(record.layout.reserve),
        "limits": _limits(record),
        "source": record.origin.source if record.origin else "",
        "lock": seen.owner.address if seen.owner else "",
        "watchers": ", ".join(sorted(seen.watching)),
        "flatten": _flatten(record),
        "health": _health(seen),
    }
    for name, value in rows.items():
        if value:
            output.add_row(made, name, value)
    return made


def _place(seen: Inspection) -> str:
    return f"{seen.pool_name}/{seen.volume_id.location.namespace}".rstrip("/")


def _content(record: Record) -> str:
    kind = "raw block device" if record.block else record.filesystem.value
    return kind if record.recovered else f"{kind}, journal not replayed yet"


def _exact(count: int) -> str:
    return f"{show_size(count)} ({count} bytes)"


def _limits(record: Record) -> str:
    limits = record.limits
    parts = []
    if limits.iops:
        parts.append(f"{limits.iops} operations/s")
    if limits.bandwidth:
        parts.append(f"{show_size(limits.bandwidth)}/s")
    return ", ".join(parts)


def _flatten(record: Record) -> str:
    work = record.flatten
    if work is None:
        return ""
    cancelled = ", asked to let go" if work.cancel else ""
    return f"{work.done} of {work.total} objects by {work.client_address}{cancelled}"


def _health(seen: Inspection) -> str:
    wrong = [each.code for each in findings(seen) if each.wrong]
    return f"{', '.join(wrong)}: see `volume check`" if wrong else "in order"


def _details(seen: Inspection) -> Iterator[Table | str]:
    record = seen.record
    if seen.snapshots or record.snapshots:
        yield ""
        yield _snapshots(seen)
    if record.children:
        yield ""
        made = output.table("CLONE BEING MADE", "OF SNAPSHOT", "IMAGE")
        for child in record.children:
            output.add_row(made, child.volume, child.snapshot, child.image_name)
        yield made
    if record.exports:
        yield ""
        made = output.table("EXPORTED ON", "CLIENT", "ACCESS", "ALIVE")
        for export in record.exports:
            output.add_row(
                made,
                export.node_id,
                export.client_address,
                "read-only" if export.read_only else "writable",
                "yes" if export.alive(seen.watching) else "no",
            )
        yield made


def _snapshots(seen: Inspection) -> Table:
    made = output.table(
        *("SNAPSHOT", "RBD NAME", "SIZE", "STATE", "TAKEN", "LAYERS", "CLONES"),
        right=("SIZE", "LAYERS"),
    )
    numbers = {each.found.number for each in seen.snapshots}
    for each in seen.snapshots:
        known = seen.record.snapshot_numbered(each.found.number)
        output.add_row(
            made,
            title(seen, each),
            each.found.name,
            show_size(known.size.count if known else each.found.size.count),
            _state(each, known.state.value if known else ""),
            _time(each.found.created),
            str(len(each.chain.layers)),
            ", ".join(map(_child, each.children)),
        )
    for one in seen.record.snapshots:
        if one.number not in numbers:
            output.add_row(
                made, one.name, one.rbd_name, "", f"{one.state.value}, not there"
            )
    return made


def _state(snapshot: FoundSnapshot, recorded: str) -> str:
    if snapshot.found.lingering:
        return "removed, read by clones"
    return recorded or "not the driver's"


def _child(child: ChildImage) -> str:
    where = f"{child.pool_name}/{child.namespace}".rstrip("/")
    return f"{where}/{child.image_name}{' (trash)' if child.trashed else ''}"


def _time(nanoseconds: int) -> str:
    moment = dt.datetime.fromtimestamp(nanoseconds / 1e9, tz=dt.UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S")
