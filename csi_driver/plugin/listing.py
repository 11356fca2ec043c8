# SPDX-License-Identifier: Apache-2.0
"""`kubectl rbdcrypt list`: claims, and what the driver says of their volumes.

Claims and PersistentVolumes come from the API server, volumes from the driver;
they meet in the volume id.  Joining them is pure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Final

from csi_driver.commands import output
from csi_driver.domain.quantities import show_size
from csi_driver.plugin.answers.listed import ListedVolume
from csi_driver.plugin.answers.parts import FlattenProgress
from csi_driver.plugin.objects import BOUND
from csi_driver.plugin.objects import Claim
from csi_driver.plugin.objects import PersistentVolume
from csi_driver.plugin.objects import Volumes
from csi_driver.plugin.printing import Document
from csi_driver.plugin.printing import Part
from csi_driver.plugin.printing import document

_PLAINTEXT: Final = "none"
_PERCENT: Final = 100

PENDING: Final = "pending"
"""A claim that has no volume yet."""
LOST: Final = "lost"
"""A claim whose PersistentVolume is gone."""
MISSING: Final = "missing"
"""A PersistentVolume whose volume the driver does not have."""
DAMAGED: Final = "damaged"
"""A volume whose record the driver cannot read."""


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """A claim with its PersistentVolume and volume, each as far as it is there."""

    claim: Claim | None
    persistent: PersistentVolume | None
    volume: ListedVolume | None

    @property
    def state(self) -> str:
        """One word for people and programs alike."""
        if self.volume is not None:
            return self.volume.state or DAMAGED
        if self.persistent is not None:
            return MISSING
        lost = self.claim is not None and self.claim.volume
        return LOST if lost else PENDING

    @property
    def problem(self) -> str:
        """What is wrong, in a sentence; "" if nothing is."""
        if self.volume is not None:
            return self.volume.problem
        if self.state == MISSING and self.persistent is not None:
            return (
                f"the driver has no volume {self.persistent.handle}, which"
                f" PersistentVolume {self.persistent.name} names"
            )
        if self.state == LOST and self.claim is not None:
            return f"its PersistentVolume {self.claim.volume} does not exist"
        return ""

    @property
    def outlook(self) -> str:
        """What becomes of a volume that was begun and not finished, else ""."""
        return self.volume.outlook if self.volume is not None else ""


def join(
    claims: Iterable[Claim],
    volumes: Volumes,
    listed: Iterable[ListedVolume],
    driver: str,
) -> list[Row]:
    """Return the driver's claims, each with what is known of it."""
    by_id = {each.names.volume_id: each for each in listed if each.names.volume_id}
    rows = []
    for claim in sorted(claims, key=lambda each: each.name):
        persistent = volumes.named(claim.volume) if claim.volume else None
        ours = claim.provisioner if persistent is None else persistent.driver
        if ours == driver:
            volume = by_id.get(persistent.handle) if persistent else None
            rows.append(Row(claim, persistent, volume))
    return rows


def unclaimed(
    rows: Iterable[Row], volumes: Volumes, listed: Iterable[ListedVolume]
) -> list[Row]:
    """Return the volumes that no claim has, with `rows` being all claims."""
    claimed = {each.persistent.handle for each in rows if each.persistent}
    return [
        Row(None, volumes.of_handle(each.names.volume_id), each)
        for each in listed
        if each.names.volume_id not in claimed
    ]


def as_document(rows: Iterable[Row]) -> Document:
    """Return the list for programs."""
    return document("VolumeList", items=[_item(each) for each in rows])


def as_tables(
    rows: Sequence[Row], rest: Sequence[Row], *, everywhere: bool
) -> Iterator[Part]:
    """Return the list for people; `everywhere` shows namespaces and the rest."""
    if not rows:
        yield "no claim of this driver is here" + ("" if everywhere else "; try -A")
    else:
        yield _claims(rows, everywhere=everywhere)
    if rest:
        yield ""
        yield "volumes without a claim:"
        yield _others(rest)
    told = [each for each in (*rows, *rest) if each.problem or each.outlook]
    if told:
        yield ""
    for each in told:
        sentence = "; ".join(filter(None, (each.problem, each.outlook)))
        yield f"{title(each)}: {sentence}"


def title(row: Row) -> str:
    """Return what people call a volume."""
    if row.claim is not None:
        return str(row.claim.name)
    return row.volume.names.name if row.volume else ""


def _claims(rows: Iterable[Row], *, everywhere: bool) -> Part:
    columns = ["PVC", "SIZE", "CLASS", "ENCRYPTION", "DEPTH", "FINGERPRINT"]
    first = ["NAMESPACE"] if everywhere else []
    made = output.table(*first, *columns, "NODE", "STATE", right=("SIZE", "DEPTH"))
    for each in rows:
        claim, volume = each.claim, each.volume
        if claim is None:
            continue
        known = volume is not None and not volume.problem
        output.add_row(
            made,
            *([claim.name.namespace] if everywhere else []),
            claim.name.name,
            show_size(volume.size) if volume and known else claim.requested,
            claim.storage_class,
            volume.mode if volume else "",
            str(volume.depth) if volume and known else "",
            volume.fingerprint if volume else "",
            ",".join(volume.nodes) if volume else "",
            _state(each),
        )
    return made


def _others(rows: Iterable[Row]) -> Part:
    made = output.table("NAME", "PV", "ID", "SIZE", "STATE", right=("SIZE",))
    for each in rows:
        if each.volume is not None:
            output.add_row(
                made,
                each.volume.names.name,
                each.persistent.name if each.persistent else "",
                each.volume.names.volume_id,
                "" if each.volume.problem else show_size(each.volume.size),
                _state(each),
            )
    return made


def _state(row: Row) -> str:
    work = row.volume.flatten if row.volume else None
    return f"{row.state}, {flatten_text(work)}" if work else row.state


def flatten_text(work: FlattenProgress | None) -> str:
    """Return how far a flatten is, "" without one."""
    if work is None:
        return ""
    percent = _PERCENT * work.done // work.total if work.total else 0
    return f"flattening {percent} %"


def _item(row: Row) -> Document:
    claim, persistent, volume = row.claim, row.persistent, row.volume
    known = volume if volume is not None and not volume.problem else None
    work = known.flatten if known else None
    return {
        "namespace": claim.name.namespace if claim else None,
        "claim": claim.name.name if claim else None,
        "bound": claim.phase == BOUND if claim else None,
        "storageClass": _storage_class(row) or None,
        "requested": (claim.requested or None) if claim else None,
        "persistentVolume": persistent.name if persistent else None,
        "capacity": (persistent.capacity or None) if persistent else None,
        "volumeID": _volume_id(row) or None,
        "image": volume.names.path if volume else None,
        "bytes": known.size if known else None,
        "encrypted": known.mode != _PLAINTEXT if known else None,
        "mode": known.mode if known else None,
        "fingerprint": (known.fingerprint or None) if known else None,
        "depth": known.depth if known else None,
        "nodes": list(known.nodes) if known else [],
        "flatten": {"done": work.done, "total": work.total} if work else None,
        "state": row.state,
        "problem": row.problem or None,
        "outlook": row.outlook or None,
    }


def _storage_class(row: Row) -> str:
    if row.claim is not None:
        return row.claim.storage_class
    return row.persistent.storage_class if row.persistent else ""


def _volume_id(row: Row) -> str:
    if row.volume is not None:
        return row.volume.names.volume_id
    return row.persistent.handle if row.persistent else ""
