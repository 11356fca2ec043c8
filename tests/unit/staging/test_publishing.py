# SPDX-License-Identifier: Apache-2.0
"""Which publishes a stage allows (CSI, NodePublishVolume, the table of T1/T2)."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from csi_driver.domain.access import AccessMode
from csi_driver.domain.access import Capability
from csi_driver.domain.errors import AlreadyExistsError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.ids import Location
from csi_driver.domain.ids import VolumeId
from csi_driver.staging.publishing import require_allowed
from csi_driver.staging.state import NodeState
from csi_driver.staging.state import Target

ONE, TWO = Path("/one"), Path("/two")
OFFERED = [mode for mode in AccessMode if Capability(mode).refusal() is None]
SEVERAL = {AccessMode.SINGLE_NODE_MULTI_WRITER, AccessMode.MULTI_NODE_READER_ONLY}


def staged(capability: Capability, *targets: Target) -> NodeState:
    return NodeState(
        VolumeId(Location("fake", 1), "10ab"),
        "boot",
        Path("/staging"),
        capability,
        capability.mode.read_only,
        targets=targets,
    )


def target(path: Path, capability: Capability, *, read_only: bool = False) -> Target:
    return Target(path, capability, read_only or capability.mode.read_only)


@pytest.mark.parametrize("mode", OFFERED)
@pytest.mark.parametrize("block", [False, True])
def test_the_same_target_again(mode: AccessMode, block: bool) -> None:
    capability = Capability(mode, block)
    first = target(ONE, capability)
    require_allowed(staged(capability), first)
    require_allowed(staged(capability, first), first)


@pytest.mark.parametrize("mode", OFFERED)
def test_a_second_target(mode: AccessMode) -> None:
    capability = Capability(mode)
    state = staged(capability, target(ONE, capability))
    second = target(TWO, capability)
    if mode in SEVERAL:
        require_allowed(state, second)
    else:
        with pytest.raises(PreconditionError, match="/one"):
            require_allowed(state, second)


@pytest.mark.parametrize("mode", OFFERED)
def test_the_same_target_with_other_arguments(mode: AccessMode) -> None:
    capability = Capability(mode)
    first = target(ONE, capability)
    flagged = dataclasses.replace(capability, mount_flags=("nosuid",))
    for other in (
        dataclasses.replace(first, read_only=not first.read_only),
        dataclasses.replace(first, capability=flagged),
        dataclasses.replace(first, capability=Capability(mode, block=True)),
    ):
        with pytest.raises(AlreadyExistsError, match="other arguments"):
            require_allowed(staged(capability, first), other)


@pytest.mark.parametrize("block", [False, True])
def test_another_kind_than_staged(block: bool) -> None:
    mode = AccessMode.SINGLE_NODE_WRITER
    with pytest.raises(PreconditionError, match="cannot be published as"):
        require_allowed(
            staged(Capability(mode, block)),
            target(ONE, Capability(mode, not block)),
        )


def test_a_reader_may_have_the_device_of_a_writer() -> None:
    writer = Capability(AccessMode.SINGLE_NODE_WRITER, block=True)
    require_allowed(staged(writer), target(ONE, writer, read_only=True))
    reader = Capability(AccessMode.MULTI_NODE_READER_ONLY, block=True)
    require_allowed(staged(reader), target(ONE, reader))
