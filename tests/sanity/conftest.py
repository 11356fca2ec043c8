# SPDX-License-Identifier: Apache-2.0
"""csi-sanity and the servers it runs against, as the lab names them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from csi_driver.rpc.stubs import csi_pb2
from csi_driver.rpc.stubs import csi_pb2_grpc
from tests.sanity.client import Driver


def _variable(name: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        pytest.fail(
            f"{name} is not set: run `hack/test sanity`, or bring the lab up with"
            " `hack/lab up`, take `hack/lab env`, and set CSI_SANITY to the program"
            " that `hack/gotool csi-sanity` makes",
        )
    return value


@dataclasses.dataclass(frozen=True, slots=True)
class Sanity:
    """The program, the sockets and the files it needs."""

    program: Path
    controller: str
    node: str
    secrets: Path
    parameters: Path


@pytest.fixture(scope="session")
def sanity() -> Sanity:
    """Find everything, or fail with how to get it."""
    found = Sanity(
        program=Path(_variable("CSI_SANITY")),
        controller=_variable("CSI_CONTROLLER_ENDPOINT"),
        node=_variable("CSI_NODE_ENDPOINT"),
        secrets=Path(_variable("CSI_SANITY_SECRETS")),
        parameters=Path(_variable("CSI_SANITY_PARAMETERS")),
    )
    for path in (found.program, found.secrets, found.parameters):
        if not path.is_file():
            pytest.fail(f"{path} does not exist: bring the lab up with `hack/lab up`")
    return found


@pytest.fixture(scope="module")
def driver(sanity: Any) -> Iterator[Driver]:
    lines = sanity.parameters.read_text().splitlines()
    pairs = (line.split(":", 1) for line in lines if line)
    parameters = {key.strip(): value.strip() for key, value in pairs}
    with (
        grpc.insecure_channel(sanity.controller) as to_controller,
        grpc.insecure_channel(sanity.node) as to_node,
    ):
        found = Driver(
            csi_pb2_grpc.ControllerStub(to_controller),
            csi_pb2_grpc.NodeStub(to_node),
            parameters,
        )
        yield found
        for snapshot_id in found.taken:
            found.controller.DeleteSnapshot(
                csi_pb2.DeleteSnapshotRequest(snapshot_id=snapshot_id)
            )
        for volume_id in found.made:
            found.controller.DeleteVolume(
                csi_pb2.DeleteVolumeRequest(volume_id=volume_id)
            )


@pytest.fixture(scope="module")
def volume(driver: Driver) -> csi_pb2.Volume:
    return driver.create()
