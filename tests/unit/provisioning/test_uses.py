# SPDX-License-Identifier: Apache-2.0
"""ValidateVolumeCapabilities: what a volume can be used for, and as what."""

from __future__ import annotations

import dataclasses

import pytest

from csi_driver.domain.access import AccessMode
from csi_driver.domain.access import Capability
from csi_driver.domain.access import Filesystem
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.filesystem_state import FilesystemState
from csi_driver.images.records import change_record
from csi_driver.provisioning.requests import VolumeInfo
from tests.unit.provisioning.worlds import WRITER
from tests.unit.provisioning.worlds import World

BLOCK = Capability(AccessMode.SINGLE_NODE_WRITER, block=True)
EXT4 = Capability(AccessMode.SINGLE_NODE_WRITER, filesystem=Filesystem.EXT4)
XFS = Capability(AccessMode.SINGLE_NODE_WRITER, filesystem=Filesystem.XFS)
READER = dataclasses.replace(EXT4, mode=AccessMode.MULTI_NODE_READER_ONLY)
SHARED = Capability(AccessMode.MULTI_NODE_MULTI_WRITER)


def used_as(world: World, state: FilesystemState) -> VolumeInfo:
    """Make a volume that was staged before."""
    made = world.create("one")
    with world.pool() as pool:
        change_record(
            pool,
            made.volume_id.image_id,
            lambda present: dataclasses.replace(present, filesystem=state),
        )
    return made


@pytest.mark.parametrize(
    ("state", "capability", "said"),
    [
        (FilesystemState.NONE, XFS, None),
        (FilesystemState.NONE, BLOCK, None),
        (FilesystemState.EXT4, EXT4, None),
        (FilesystemState.EXT4, WRITER, None),
        (FilesystemState.EXT4, READER, None),
        (FilesystemState.EXT4, XFS, "xfs was asked for"),
        (FilesystemState.XFS, EXT4, "ext4 was asked for"),
        (FilesystemState.RAW, BLOCK, None),
        (FilesystemState.RAW, EXT4, "as a block device"),
        (FilesystemState.MAKING, EXT4, None),
        (FilesystemState.MAKING, BLOCK, "as a filesystem"),
        (FilesystemState.FOREIGN, XFS, None),
        (FilesystemState.FOREIGN, BLOCK, None),
        (FilesystemState.NONE, SHARED, "ReadWriteMany"),
    ],
)
def test_a_use_is_confirmed_only_if_a_stage_could_carry_it_out(
    world: World, state: FilesystemState, capability: Capability, said: str | None
) -> None:
    made = used_as(world, state)
    found = world.volumes.refusal(made.volume_id, (capability,), {}, {})
    if said is None:
        assert found is None
    else:
        assert found is not None
        assert said in found


def test_context_and_parameters_have_to_be_the_volumes_own(world: World) -> None:
    made = world.create("one")
    own = dict(world.plaintext("one").parameters)

    def refusal(context: dict[str, str], parameters: dict[str, str]) -> str | None:
        return world.volumes.refusal(made.volume_id, (WRITER,), context, parameters)

    assert refusal(dict(made.context), own) is None
    assert refusal({}, {**own, "csi.storage.k8s.io/pv/name": "pvc-1"}) is None
    assert "encryption" in str(refusal({"encryption": "keyring"}, own))
    assert "other class parameters" in str(refusal({}, {**own, "encrypted": "true"}))
    assert "unknown parameter" in str(refusal({}, {**own, "encyrpted": "true"}))
    world.volumes.delete(made.volume_id)
    with pytest.raises(NotFoundError):
        refusal({}, own)
