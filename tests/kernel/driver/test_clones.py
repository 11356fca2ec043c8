# SPDX-License-Identifier: Apache-2.0
"""Clones as real /dev/nbdN, mounted beside their source and flattened so."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from csi_driver.devices import stats
from csi_driver.domain.ids import VolumeId
from tests.ceph.end_to_end.client import MIB
from tests.ceph.end_to_end.client import mount
from tests.ceph.end_to_end.world import eventually
from tests.ceph.end_to_end.world import flattened
from tests.ceph.end_to_end.writer import Writer
from tests.ceph.end_to_end.writer import lost

if TYPE_CHECKING:
    from tests.kernel.driver.conftest import Guest

SOURCE = {"encryptionKey": "q83vEjRWeJq83vEjRWeJq83vEjRWeJq83vEjRWeJq80="}
CLONE = {"encryptionKey": "EjRWeJq83vEjRWeJq83vEjRWeJq83vEjRWeJq83vEjQ="}
WITH_SOURCE = {**CLONE, "sourceEncryptionKey": SOURCE["encryptionKey"]}


@pytest.mark.parametrize(("fs", "size"), [("ext4", 64 * MIB), ("xfs", 304 * MIB)])
def test_a_larger_clone_of_a_busy_volume_beside_it(
    guest: Guest, fs: str, size: int
) -> None:
    """Its journal is replayed, it is grown, written and flattened while mounted."""
    capability = mount(fs)
    volume = guest.create(SOURCE, capability, size)
    target = guest.stage(volume, SOURCE, capability)
    with Writer(target) as writer:
        writer.progress(10, 120)
        promised = dict(writer.acknowledged)
        clone = guest.clone(WITH_SOURCE, volume, capability, 2 * size)
        cloned = guest.stage(clone, CLONE, capability)
        writer.progress(2, 120)
    assert not lost(promised, cloned)
    device = guest.device(clone)
    assert device is not None
    assert stats.device_size(device) == 2 * size
    found = os.statvfs(cloned)
    assert found.f_blocks * found.f_frsize > 1.6 * size

    with Writer(cloned) as other:
        other.progress(5, 120)
        guest.datapath.flatten(VolumeId.parse(clone.volume_id))
        eventually("flattening", lambda: flattened(guest.datapath, clone), 120)
        other.progress(2, 120)
    assert not writer.lost(target)
    guest.unstage(volume)
    guest.unstage(clone)
    assert not other.lost(guest.stage(clone, CLONE, capability))
    guest.unstage(clone)
