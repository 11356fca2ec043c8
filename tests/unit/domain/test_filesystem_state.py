# SPDX-License-Identifier: Apache-2.0
"""The table of what a stage does, whole: state by request by signature."""

from __future__ import annotations

import itertools

import pytest

from csi_driver.domain.access import AccessMode
from csi_driver.domain.access import Capability
from csi_driver.domain.access import Filesystem
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.filesystem_state import MADE
from csi_driver.domain.filesystem_state import FilesystemState
from csi_driver.domain.filesystem_state import Step
from csi_driver.domain.filesystem_state import plan

STATES = list(FilesystemState)
SIGNATURES = [None, "ext4", "xfs", "btrfs", "partition table"]
REQUESTS = [None, Filesystem.EXT4, Filesystem.XFS]
MOUNTS = list(itertools.product(STATES, REQUESTS, SIGNATURES, [False, True]))


def capability(*, block: bool = False, filesystem: Filesystem | None) -> Capability:
    return Capability(AccessMode.SINGLE_NODE_WRITER, block, filesystem)


def expected(
    state: FilesystemState,
    wanted: Filesystem | None,
    signature: str | None,
    *,
    read_only: bool,
) -> tuple[Step, Filesystem] | None:
    """Say the rules once more, by enumeration; None is a refusal."""
    fresh = state is FilesystemState.NONE and signature is None
    if fresh or state is FilesystemState.MAKING:
        return None if read_only else (Step.MAKE, wanted or Filesystem.EXT4)
    mountable = {
        (FilesystemState.EXT4, "ext4"),
        (FilesystemState.XFS, "xfs"),
        (FilesystemState.FOREIGN, "ext4"),
        (FilesystemState.FOREIGN, "xfs"),
    }
    if (state, signature) not in mountable:
        return None
    found = Filesystem(signature)
    return (Step.MOUNT, found) if wanted in {None, found} else None


@pytest.mark.parametrize(
    ("state", "wanted", "signature", "read_only"),
    MOUNTS,
    ids=["-".join(map(str, row)) for row in MOUNTS],
)
def test_mounting(
    state: FilesystemState,
    wanted: Filesystem | None,
    signature: str | None,
    read_only: bool,
) -> None:
    asked = capability(filesystem=wanted)
    result = expected(state, wanted, signature, read_only=read_only)
    if result is None:
        with pytest.raises(PreconditionError):
            plan(state, asked, signature, read_only=read_only)
    else:
        assert plan(state, asked, signature, read_only=read_only) == result


@pytest.mark.parametrize(
    ("state", "signature", "read_only"),
    list(itertools.product(STATES, SIGNATURES, [False, True])),
)
def test_handing_out_a_block_device(
    state: FilesystemState,
    signature: str | None,
    read_only: bool,
) -> None:
    asked = capability(block=True, filesystem=None)
    if state is FilesystemState.MAKING:
        with pytest.raises(PreconditionError, match="mkfs"):
            plan(state, asked, signature, read_only=read_only)
    else:
        found = plan(state, asked, signature, read_only=read_only)
        assert found == (Step.HAND_OUT, None)


def test_mkfs_is_planned_nowhere_but_on_fresh_volumes() -> None:
    """The rule that protects data, apart from the table above."""
    for state, wanted, signature, read_only in MOUNTS:
        try:
            step, _ = plan(
                state,
                capability(filesystem=wanted),
                signature,
                read_only=read_only,
            )
        except PreconditionError:
            continue
        if step is Step.MAKE:
            assert not read_only
            assert state is FilesystemState.MAKING or (
                state is FilesystemState.NONE and signature is None
            )


@pytest.mark.parametrize(
    ("state", "signature", "words"),
    [
        (FilesystemState.NONE, "xfs", ("fresh", "xfs", "nothing was overwritten")),
        (FilesystemState.EXT4, None, ("ext4", "no signature", "nothing was changed")),
        (FilesystemState.EXT4, "xfs", ("ext4", "xfs", "nothing was changed")),
        (FilesystemState.FOREIGN, None, ("no filesystem", "--block")),
        (FilesystemState.FOREIGN, "btrfs", ("btrfs", "not ext4 or xfs")),
        (FilesystemState.RAW, None, ("block device",)),
    ],
)
def test_a_refusal_says_what_was_found(
    state: FilesystemState,
    signature: str | None,
    words: tuple[str, ...],
) -> None:
    with pytest.raises(PreconditionError) as caught:
        plan(state, capability(filesystem=None), signature, read_only=False)
    for word in words:
        assert word in str(caught.value)


def test_every_filesystem_has_a_state() -> None:
    assert set(MADE) == set(Filesystem)
