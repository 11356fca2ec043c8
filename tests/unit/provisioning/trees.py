# SPDX-License-Identifier: Apache-2.0
"""A volume, two snapshots and three clones, which are deleted in any order."""

from __future__ import annotations

from typing import Final

from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.ids import SnapshotId
from csi_driver.domain.ids import VolumeId
from csi_driver.provisioning.requests import CreateRequest
from tests.unit.provisioning.family import OTHER
from tests.unit.provisioning.family import SOURCE
from tests.unit.provisioning.family import THIRD
from tests.unit.provisioning.family import clone_request
from tests.unit.provisioning.family import content_of
from tests.unit.provisioning.family import fill
from tests.unit.provisioning.family import plain_request
from tests.unit.provisioning.family import plain_volume
from tests.unit.provisioning.family import volume
from tests.unit.provisioning.worlds import SECRET
from tests.unit.provisioning.worlds import World

MEMBERS: Final = (
    "volume",
    "first snapshot",
    "second snapshot",
    "clone of first",
    "clone of second",
    "clone of volume",
)

type Member = VolumeId | SnapshotId


class Tree:
    """One such family; its clones are under Secrets of their own."""

    def __init__(self, world: World, name: str, *, encrypted: bool) -> None:
        self.world = world
        self._encrypted = encrypted
        make = volume if encrypted else plain_volume
        root = make(world, name, "first")
        one = world.snapshot(root, f"{name} first")
        fill(world, root, "second")
        two = world.snapshot(root, f"{name} second")
        fill(world, root, "last")
        self.left: dict[str, Member] = dict(
            zip(MEMBERS[:3], (root, one, two), strict=True)
        )
        self._secrets = {"volume": SECRET}
        for member, source, own in (
            ("clone of first", one, OTHER),
            ("clone of second", two, THIRD),
            ("clone of volume", root, SECRET),
        ):
            request = self._request(source, f"{name} {member}", own)
            self.left[member] = world.volumes.create(request).volume_id
            self._secrets[member] = own

    def check(self) -> None:
        """Check that what is left can be read, each volume by its own Secret."""
        for member, found in self.left.items():
            if isinstance(found, SnapshotId):
                assert self.world.volumes.get_snapshot(found).snapshot_id == found
                continue
            text = content_of(self.world, found, self._secrets[member])
            assert text == {_TEXTS[member]}, (member, list(self.left))

    def delete(self, member: str) -> None:
        """Delete one; it is gone from sight at once."""
        found = self.left.pop(member)
        volumes = self.world.volumes
        for _ in range(2):
            if isinstance(found, SnapshotId):
                volumes.delete_snapshot(found)
            else:
                volumes.delete(found)
        try:
            if isinstance(found, SnapshotId):
                volumes.get_snapshot(found)
            else:
                volumes.get(found)
        except NotFoundError:
            return
        message = f"{member} is still there"
        raise AssertionError(message)

    def _request(self, source: Member, name: str, own: dict[str, str]) -> CreateRequest:
        if not self._encrypted:
            return plain_request(self.world, source, name)
        return clone_request(self.world, source, name, secrets={**own, **SOURCE})


_TEXTS: Final = {
    "volume": "last",
    "clone of first": "first",
    "clone of second": "second",
    "clone of volume": "last",
}
