# SPDX-License-Identifier: Apache-2.0
"""Opening a source's keys: which of several Secrets counts, and what is wiped."""

from __future__ import annotations

from contextlib import closing

import pytest

from csi_driver.domain.errors import RecordError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.record import EncryptionMode
from csi_driver.keys.inheritance import NoKeys
from csi_driver.keys.inheritance import RingKeys
from csi_driver.provisioning.source_keys import open_source
from csi_driver.provisioning.sources import CloneSource
from csi_driver.provisioning.sources import find_source
from tests.unit.provisioning.family import OTHER
from tests.unit.provisioning.family import SOURCE
from tests.unit.provisioning.family import clone
from tests.unit.provisioning.family import flatten
from tests.unit.provisioning.family import plain_volume
from tests.unit.provisioning.family import volume
from tests.unit.provisioning.worlds import NO_SECRETS
from tests.unit.provisioning.worlds import SECRET
from tests.unit.provisioning.worlds import FakeWorld


def source(world: FakeWorld, volume_id: VolumeId) -> CloneSource:
    """Return a volume as a source; its connection stays open."""
    ceph = world.connector.connect(world.cluster)
    return find_source(ceph.pool_at(volume_id.location), volume_id)


def test_plaintext_has_no_keys(world: FakeWorld) -> None:
    found = open_source(source(world, plain_volume(world)), {}, NO_SECRETS)
    assert isinstance(found, NoKeys)


def test_the_sources_keys_go_before_the_clones_own(world: FakeWorld) -> None:
    one = source(world, volume(world))
    for secrets in (SECRET, SOURCE, {**OTHER, **SOURCE}):
        with closing(open_source(one, secrets, NO_SECRETS)) as found:
            assert isinstance(found, RingKeys)
            assert found.layers == one.record.layers
    wrong = {**SECRET, "sourceEncryptionKey": OTHER["encryptionKey"]}
    with pytest.raises(SecretError, match="of the clone's Secret does not open"):
        open_source(one, wrong, NO_SECRETS)


def test_a_snapshot_has_its_own_layers(world: FakeWorld) -> None:
    one = volume(world)
    twin = clone(world, one)
    found = world.snapshot(twin, "snap")
    flatten(world, twin)
    ceph = world.connector.connect(world.cluster)
    old = find_source(ceph.pool_at(twin.location), found)
    new = find_source(ceph.pool_at(twin.location), twin)
    with closing(open_source(old, SECRET, NO_SECRETS)) as keys:
        assert len(keys.layers) == 2
    with closing(open_source(new, SECRET, NO_SECRETS)) as keys:
        assert len(keys.layers) == 1
    assert (old.ancestors, new.ancestors) == (1, 0)
    ceph.close()


def test_a_record_without_ring_is_damaged(world: FakeWorld) -> None:
    one = volume(world)
    world.change(one, ring=None)
    with pytest.raises(RecordError, match="no key ring"):
        open_source(source(world, one), SECRET, NO_SECRETS)


def test_a_foreign_image_is_opened_to_see_that_the_passphrase_is_right(
    world: FakeWorld,
) -> None:
    """The header's own key is random bytes, which no Secret could hold."""
    one = volume(world)
    world.change(one, mode=EncryptionMode.PASSPHRASE, ring=None, layers=())
    foreign = source(world, one)
    for wrong in ({}, OTHER, {"encryptionPassphrase": "wrong"}):
        with pytest.raises(SecretError):
            open_source(foreign, wrong, NO_SECRETS)
