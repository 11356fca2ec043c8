# SPDX-License-Identifier: Apache-2.0
"""What an inspection means: what is wrong with a volume, and what can be saved.

Pure.  Nothing here repairs anything; a finding says what a person can do.
Findings about headers and keys are in `header_findings`, about sizes in
`size_findings`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from csi_driver.domain.record import Record
from csi_driver.domain.record import VolumeState
from csi_driver.domain.snapshots import SNAPSHOT_PREFIX
from csi_driver.domain.snapshots import SnapshotState
from csi_driver.provisioning import header_findings
from csi_driver.provisioning import size_findings
from csi_driver.provisioning.finding import Finding
from csi_driver.provisioning.inspection import Inspection

_SPARED: Final = {VolumeState.CREATING, VolumeState.COLLECTING}
"""States in which a header may be absent and a size not yet right."""


def findings(seen: Inspection) -> tuple[Finding, ...]:
    """Return everything that is worth a word, the worst first."""
    found: list[Finding] = []
    if seen.record.state not in _SPARED:
        found += header_findings.about(seen)
        found += size_findings.about(seen)
    found += _snapshots(seen)
    found += _clients(seen)
    found += _features(seen)
    found += _settings(seen)
    return tuple(sorted(found, key=lambda each: not each.wrong))


def _snapshots(seen: Inspection) -> Iterator[Finding]:
    numbers = {each.found.number for each in seen.snapshots}
    names = {each.found.name for each in seen.snapshots}
    for known in seen.record.snapshots:
        title = known.name or known.rbd_name
        if known.state is not SnapshotState.READY:
            yield Finding(
                "snapshot-unfinished",
                f"snapshot {title!r} is {known.state.value}",
                "the controller finishes it when it is asked again",
                wrong=False,
            )
        elif known.number not in numbers:
            yield Finding(
                "snapshot-gone",
                f"snapshot {title!r} stands in the record, but the image has none"
                f" of the number {known.number}: it was removed by other means",
                "its data are lost; delete it through Kubernetes, which takes it"
                " out of the record",
            )
    recorded = {each.rbd_name for each in seen.record.snapshots}
    for name in sorted(names - recorded):
        if name.startswith(SNAPSHOT_PREFIX):
            yield Finding(
                "snapshot-unnamed",
                f"RBD snapshot {name!r} is named like the driver's own, and the"
                " record does not know it: taking it was interrupted, or the"
                " record was restored",
                f"nothing needs it; `rbd snap rm` of {seen.image_name}@{name}"
                " removes it",
            )


def _clients(seen: Inspection) -> Iterator[Finding]:
    record, watching = seen.record, seen.watching
    for each in record.exports:
        if not each.alive(watching):
            yield Finding(
                "export-stale",
                f"the record names an export on node {each.node_id!r} by"
                f" {each.client_address}, which has the image open no more",
                "the next stage clears it; no data is concerned",
            )
    owner = seen.owner
    if owner is not None and owner.address not in watching:
        yield Finding(
            "lock-stale",
            f"the lock belongs to {owner.address}, which has the image open no more",
            "whoever takes the lock next is given it",
        )
    work = record.flatten
    if work is not None and work.client_address not in watching:
        yield Finding(
            "flatten-interrupted",
            f"a flatten by {work.client_address} was interrupted at {work.done} of"
            f" {work.total} objects",
            "nothing is lost: the volume loads as before; run `rbdcrypt-csi volume"
            " flatten` again, or stage it",
        )
    elif owner is not None and not _accounted(record, owner.address):
        yield Finding(
            "lock-unrecorded",
            f"the lock belongs to {owner.address}, which the record names neither"
            " as an export nor as a flatten",
            "a call of the controller that is under way, or a client that is not"
            " the driver's",
            wrong=False,
        )


def _accounted(record: Record, address: str) -> bool:
    work = record.flatten
    return any(each.client_address == address for each in record.exports) or (
        work is not None and work.client_address == address
    )


def _features(seen: Inspection) -> Iterator[Finding]:
    if "deep-flatten" not in seen.features or seen.chain.own.parent is None:
        return
    count = len(seen.snapshots)
    if seen.record.mode.encrypted:
        yield Finding(
            "deep-flatten",
            "the image is a clone with the feature deep-flatten"
            + (f" and has {count} snapshots" if count else "")
            + ": a flatten would leave snapshots without their parent, and those"
            " never load again",
            "nothing is lost yet, and the driver refuses to flatten it then;"
            f" `rbd feature disable {seen.image_name} deep-flatten` ends the danger"
            " and cannot be undone",
            wrong=bool(count),
        )


def _settings(seen: Inspection) -> Iterator[Finding]:
    wanted = seen.record.limits.settings()
    for name, value in wanted.items():
        if value is not None and seen.settings.get(name) != value:
            yield Finding(
                "limits-differ",
                f"the record asks for {name} {value}, the image has"
                f" {seen.settings.get(name, 'none')}",
                "a ControllerModifyVolume with the same parameters sets it again",
            )
    clone = seen.record.origin is not None or seen.chain.own.parent is not None
    for name, value in sorted(seen.settings.items()):
        if wanted.get(name) is None:
            yield Finding(
                "setting-inherited" if clone else "setting-foreign",
                f"the image carries librbd's setting {name} {value!r}, which the"
                " driver did not make"
                + ("; a clone inherits its parent's" if clone else ""),
                f"`rbd image-meta remove {seen.image_name} conf_{name}` removes it,"
                " also while the volume is in use",
                wrong=clone or name in wanted,
            )


def damaged_record(error: str) -> Finding:
    """Return the finding for a record that cannot be read."""
    return Finding(
        "record-damaged",
        error,
        "data and header are untouched; the record is the image's metadata"
        " `.rbdcrypt`, and its key ring is the only way to the data: restore it",
    )


def requires_attention(found: tuple[Finding, ...]) -> bool:
    """Tell whether anything is wrong."""
    return any(each.wrong for each in found)


def image_gone(error: str) -> Finding:
    """Return the finding for a directory entry without its image."""
    return Finding(
        "image-gone",
        f"the directory names an image that is no volume: {error}",
        "it was removed, or lost its record, by other means; nothing of it is left"
        " to check",
    )


def volume_gone(error: str) -> Finding:
    """Return the finding for a volume that was asked for and is not there."""
    return Finding(
        "volume-gone",
        f"the volume is not there: {error}",
        "nothing of it is left to check; whatever still names it can be deleted",
    )
