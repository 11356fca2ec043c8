# SPDX-License-Identifier: Apache-2.0
"""Everything that is known of one claim's volume, put together.  Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Final

from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.ids import SnapshotId
from csi_driver.plugin.answers.parts import Finding
from csi_driver.plugin.answers.shown import Export
from csi_driver.plugin.answers.shown import ShownVolume
from csi_driver.plugin.objects import Attachment
from csi_driver.plugin.objects import Claim
from csi_driver.plugin.objects import ObjectName
from csi_driver.plugin.objects import PersistentVolume
from csi_driver.plugin.objects import User
from csi_driver.plugin.objects import Volumes

_RUNNING: Final = "Running"


@dataclasses.dataclass(frozen=True, slots=True)
class Family:
    """One volume with those around it.

    `attachments`, `users` and `snapshots` are None where the user may not see
    them, which is another thing than that there are none.
    """

    claim: Claim
    persistent: PersistentVolume
    volume: ShownVolume
    volumes: Volumes
    attachments: Sequence[Attachment] | None
    users: Sequence[User] | None
    snapshots: Mapping[str, ObjectName] | None

    def claim_of_image(self, image_id: str) -> ObjectName | None:
        """Return the claim whose volume has that image."""
        found = self.volumes.of_image(self.volume.names.cluster, image_id)
        return found.claim if found else None

    def snapshot_named(self, snapshot_id: str) -> ObjectName | None:
        """Return the VolumeSnapshot with that CSI id."""
        return (self.snapshots or {}).get(snapshot_id)

    @property
    def source(self) -> str:
        """What the volume was made from, by the best name there is; "" if fresh."""
        made_from = self.volume.source
        if not made_from:
            return ""
        if name := self.snapshot_named(made_from):
            return f"VolumeSnapshot {name}"
        if found := self.volumes.of_handle(_volume_of(made_from)):
            what = "a snapshot of " if made_from.startswith("s1:") else ""
            return f"{what}PVC {found.claim}" if found.claim else f"PV {found.name}"
        return made_from

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is wrong: as the driver sees it, and as pods must feel it."""
        return (*map(self._unserved, self.unserved), *self.volume.findings)

    @property
    def unserved(self) -> list[str]:
        """The nodes on which pods run with the volume and nobody serves it.

        kubelet starts no container before the volume is there: it was, and the
        datapath that served it has ended.
        """
        served = {each.node for each in self.volume.exports if each.alive}
        return [
            node
            for node in self.nodes
            if node not in served
            and any(each.phase == _RUNNING for each in self.users_on(node))
        ]

    def _unserved(self, node: str) -> Finding:
        running = [e for e in self.users_on(node) if e.phase == _RUNNING]
        pods = ", ".join(str(each.name) for each in running)
        return Finding(
            "not-served",
            wrong=True,
            meaning=f"{pods} runs on node {node} with this volume, and no datapath"
            " serves it there any more: every read and write of it fails",
            remedy="delete the pod, so that it starts anew; what was answered as"
            " written is in the volume",
        )

    @property
    def nodes(self) -> list[str]:
        """Every node that has to do with the volume, by name."""
        found = {each.node for each in self.volume.exports}
        found |= {each.node for each in self.attachments or ()}
        found |= {each.node for each in self.users or ()}
        return sorted(found - {""})

    def export_on(self, node: str) -> Export | None:
        """Return the export on a node."""
        found = (each for each in self.volume.exports if each.node == node)
        return next(found, None)

    def attachment_to(self, node: str) -> Attachment | None:
        """Return the VolumeAttachment of a node."""
        found = (each for each in self.attachments or () if each.node == node)
        return next(found, None)

    def users_on(self, node: str) -> list[User]:
        """Return the pods of a node that use the claim; "" for those of none."""
        return [each for each in self.users or () if each.node == node]


def _volume_of(source: str) -> str:
    """Return the id of the volume that a snapshot id belongs to, or the id itself."""
    try:
        return str(SnapshotId.parse(source).volume)
    except NotFoundError:
        return source
