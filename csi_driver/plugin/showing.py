# SPDX-License-Identifier: Apache-2.0
"""`kubectl rbdcrypt show`, for people: one volume as a few tables.  Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from collections.abc import Iterator

from csi_driver.commands import output
from csi_driver.domain.quantities import show_size
from csi_driver.plugin.answers.parts import Finding
from csi_driver.plugin.answers.shown import Clone
from csi_driver.plugin.answers.shown import ShownVolume
from csi_driver.plugin.answers.shown import Snapshot
from csi_driver.plugin.family import Family
from csi_driver.plugin.listing import flatten_text
from csi_driver.plugin.printing import Part
from csi_driver.plugin.printing import facts

_UNSEEN = "not shown: no right to see them"


def as_tables(family: Family) -> Iterator[Part]:
    """Return everything about one volume."""
    yield facts(_facts(family))
    yield ""
    yield _layers(family)
    if broken := family.volume.chain.broken:
        yield f"what lies below cannot be read: {broken}"
    if family.volume.snapshots:
        yield ""
        yield _snapshots(family)
    if family.nodes:
        yield ""
        yield _nodes(family)
    if family.findings:
        yield ""
        yield from finding_lines(family.findings)


def finding_lines(found: Iterable[Finding]) -> Iterator[Part]:
    """Return findings, each with what can be done about it."""
    for each in found:
        kind = "WRONG" if each.wrong else "note"
        yield output.indented(f"{kind} {each.code}", 2)
        yield output.indented(f"{each.meaning}.", 4)
        yield output.indented(f"What can be done: {each.remedy}.", 4)


def _facts(family: Family) -> Iterator[tuple[str, str]]:
    claim, volume = family.claim, family.volume
    yield "claim", str(claim.name)
    yield "volume", family.persistent.name
    yield "id", volume.names.volume_id
    yield "image", volume.names.path
    yield "class", claim.storage_class
    yield "state", volume.state
    yield "encryption", volume.mode
    yield "fingerprint", volume.fingerprint
    yield "content", _content(volume)
    yield "requested", claim.requested
    yield "effective", _exact(volume.actual)
    if volume.desired != volume.actual:
        yield "promised", f"{_exact(volume.desired)}, from the next stage on"
    yield "raw", f"{_exact(volume.raw)}, {show_size(volume.reserve)} of it reserved"
    yield "limits", _limits(volume)
    yield "source", family.source
    yield "flatten", flatten_text(volume.flatten)
    yield "pods", _UNSEEN if family.users is None else _waiting(family)
    yield "attachments", _UNSEEN if family.attachments is None else ""
    yield "health", _health(family)


def _content(volume: ShownVolume) -> str:
    kind = "raw block device" if volume.block else volume.filesystem
    return kind if volume.recovered else f"{kind}, journal not replayed yet"


def _exact(count: int) -> str:
    return f"{show_size(count)} ({count} bytes)"


def _limits(volume: ShownVolume) -> str:
    parts = []
    if volume.iops:
        parts.append(f"{volume.iops} operations/s")
    if volume.bandwidth:
        parts.append(f"{show_size(volume.bandwidth)}/s")
    return ", ".join(parts)


def _waiting(family: Family) -> str:
    names = [str(each.name) for each in family.users_on("")]
    return f"{', '.join(names)}: on no node yet" if names else ""


def _health(family: Family) -> str:
    count = sum(each.wrong for each in family.findings)
    if not count:
        return "in order"
    return f"{count} {'thing is' if count == 1 else 'things are'} wrong, see below"


def _layers(family: Family) -> Part:
    made = output.table(
        *("LAYER", "IMAGE", "PVC", "HEADER", "EFFECTIVE", "RAW"),
        right=("LAYER", "EFFECTIVE", "RAW"),
    )
    for number, each in enumerate(family.volume.chain.layers):
        claim = family.claim_of_image(each.image_id)
        header = f"{each.header} {each.header_uuid}".rstrip()
        output.add_row(
            made,
            str(number),
            each.image,
            str(claim) if claim else "",
            f"{header}, DAMAGED" if each.damage else header,
            show_size(each.effective),
            show_size(each.raw),
        )
    return made


def _snapshots(family: Family) -> Part:
    made = output.table(
        *("SNAPSHOT", "STATE", "TAKEN", "LAYERS", "CLONES"), right=("LAYERS",)
    )
    for each in family.volume.snapshots:
        output.add_row(
            made,
            _title(family, each),
            _state(each),
            _time(each.created),
            str(len(each.chain.layers)) if each.present else "",
            ", ".join(_clone(family, clone) for clone in each.clones),
        )
    return made


def _title(family: Family, snapshot: Snapshot) -> str:
    known = family.snapshot_named(snapshot.snapshot_id)
    return str(known) if known else snapshot.name or snapshot.rbd_name


def _state(snapshot: Snapshot) -> str:
    if not snapshot.present:
        return f"{snapshot.state}, not there"
    if snapshot.lingering:
        return "removed, read by clones"
    return snapshot.state or "not the driver's"


def _clone(family: Family, clone: Clone) -> str:
    claim = family.claim_of_image(clone.image_id)
    name = f"PVC {claim}" if claim else clone.path
    return f"{name} (trash)" if clone.trashed else name


def _time(nanoseconds: int) -> str:
    if not nanoseconds:
        return ""
    moment = dt.datetime.fromtimestamp(nanoseconds // 10**9, tz=dt.UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def _nodes(family: Family) -> Part:
    made = output.table("NODE", "SERVED", "ATTACHED", "PODS")
    for node in family.nodes:
        output.add_row(
            made,
            node,
            _served(family, node),
            _attached(family, node),
            ", ".join(f"{e.name} ({e.phase})" for e in family.users_on(node)),
        )
    return made


def _served(family: Family, node: str) -> str:
    export = family.export_on(node)
    if export is None:
        return "NO" if node in family.unserved else ""
    access = "read-only" if export.read_only else "writable"
    return access if export.alive else f"{access}, but nobody there has it open"


def _attached(family: Family, node: str) -> str:
    found = family.attachment_to(node)
    if found is None:
        return ""
    return f"no: {found.problem}" if found.problem else _yes(found.attached)


def _yes(value: bool) -> str:
    return "yes" if value else "not yet"
