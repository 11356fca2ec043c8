# SPDX-License-Identifier: Apache-2.0
"""`kubectl rbdcrypt check`: what is wrong with claims' volumes, in words.

The driver judges; here its findings get the claims' names, and what Kubernetes
alone can tell is added: a claim that is lost, a volume that is missing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Final

from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.ids import VolumeId
from csi_driver.plugin.answers.checked import CheckedVolume
from csi_driver.plugin.answers.checked import checked
from csi_driver.plugin.answers.parts import Finding
from csi_driver.plugin.claims import checked_id
from csi_driver.plugin.driver import Driver
from csi_driver.plugin.gathering import Inventory
from csi_driver.plugin.objects import ObjectName
from csi_driver.plugin.objects import PersistentVolume
from csi_driver.plugin.printing import Document
from csi_driver.plugin.printing import Part
from csi_driver.plugin.printing import document
from csi_driver.plugin.showing import finding_lines
from csi_driver.plugin.shown_document import findings_document

MOST_NAMED: Final = 100
"""Volumes that are named in one command: all words of it stand in one URL."""


@dataclasses.dataclass(frozen=True, slots=True)
class Checked:
    """One volume, by its claim where it has one, and what was found."""

    claim: ObjectName | None
    persistent: str
    volume_id: str
    name: str
    ok: bool
    findings: tuple[Finding, ...]

    @property
    def title(self) -> str:
        """What people call it."""
        return str(self.claim) if self.claim else self.name or self.volume_id


def check_one(
    driver: Driver, claim: ObjectName, persistent: PersistentVolume
) -> list[Checked]:
    """Check the volume of one claim."""
    answer = driver.ask(checked, "volume", "check", checked_id(persistent))
    return [_named(each, claim, persistent.name) for each in answer]


def check_all(driver: Driver, found: Inventory, *, everything: bool) -> list[Checked]:
    """Check the volumes of the driver's claims; with `everything` all others, too."""
    lost, wanted = _sorted(driver.name, found)
    ids = [volume_id for volume_id in wanted if _known(volume_id)]
    words = ids if not everything and len(ids) <= MOST_NAMED else ["--all"]
    answer = driver.ask(checked, "volume", "check", *words) if words else []
    results, seen = [*lost], set()
    for each in answer:
        seen.add(each.volume_id)
        if each.volume_id in wanted:
            claim, persistent = wanted[each.volume_id]
            results.append(_named(each, claim, persistent.name))
        elif everything:
            results.append(_named(each, None, ""))
    for volume_id, (claim, persistent) in wanted.items():
        if volume_id not in seen:
            results.append(_missing(claim, persistent))
    return sorted(results, key=lambda each: (each.claim is None, each.title))


def as_document(results: Iterable[Checked]) -> Document:
    """Return the result for programs."""
    return document(
        "CheckList",
        items=[
            {
                "namespace": each.claim.namespace if each.claim else None,
                "claim": each.claim.name if each.claim else None,
                "persistentVolume": each.persistent or None,
                "volumeID": each.volume_id or None,
                "ok": each.ok,
                "findings": findings_document(each.findings),
            }
            for each in results
        ],
    )


def as_lines(results: Sequence[Checked]) -> Iterator[Part]:
    """Return the result for people."""
    if not results:
        yield "no claim of this driver is here; try -A"
    for each in results:
        state = "in order"
        if not each.ok:
            count = sum(finding.wrong for finding in each.findings)
            state = f"{count} {'thing is' if count == 1 else 'things are'} wrong"
        yield f"{each.title}: {state}"
        yield from finding_lines(each.findings)


type _Wanted = dict[str, tuple[ObjectName, PersistentVolume]]


def _sorted(driver: str, found: Inventory) -> tuple[list[Checked], _Wanted]:
    """Return the lost claims, and the volumes of the others by their ids."""
    lost: list[Checked] = []
    wanted: _Wanted = {}
    for claim in found.claims:
        persistent = found.volumes.named(claim.volume) if claim.volume else None
        if persistent is not None and persistent.driver == driver:
            wanted[persistent.handle] = (claim.name, persistent)
        elif persistent is None and claim.volume and claim.provisioner == driver:
            lost.append(_lost(claim.name, claim.volume))
    return lost, wanted


def _known(handle: str) -> bool:
    try:
        return bool(VolumeId.parse(handle))
    except NotFoundError:
        return False


def _named(found: CheckedVolume, claim: ObjectName | None, persistent: str) -> Checked:
    return Checked(
        claim, persistent, found.volume_id, found.name, found.ok, found.findings
    )


def _lost(claim: ObjectName, volume: str) -> Checked:
    finding = Finding(
        "claim-lost",
        wrong=True,
        meaning=f"the claim's PersistentVolume {volume} does not exist",
        remedy="if the driver still has the volume (`kubectl rbdcrypt list -A`), make"
        " a PersistentVolume for it, as `rbdcrypt-csi volume adopt` prints one, and a"
        " new claim; then delete this one",
    )
    return Checked(claim, volume, "", "", ok=False, findings=(finding,))


def _missing(claim: ObjectName, persistent: PersistentVolume) -> Checked:
    finding = Finding(
        "volume-missing",
        wrong=True,
        meaning=f"PersistentVolume {persistent.name} names the volume"
        f" {persistent.handle}, which the driver does not have",
        remedy="it was deleted, its name was mistyped, or its pool is not in the"
        " driver's cluster config",
    )
    return Checked(
        claim, persistent.name, persistent.handle, "", ok=False, findings=(finding,)
    )
