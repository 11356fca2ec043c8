# SPDX-License-Identifier: Apache-2.0
"""What a stage tells beside its answer, and what it leaves to kubelet."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from csi_driver.datapath.client import Datapath
from csi_driver.datapath.messages import Fenced
from csi_driver.datapath.messages import OpenedVolume
from csi_driver.datapath.messages import OpenVolume
from csi_driver.devices import hold
from csi_driver.domain.clusters import Clusters
from csi_driver.domain.errors import CephKeyError
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import HeaderError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.errors import UnavailableError
from csi_driver.images.connections import SharedConnections
from csi_driver.provisioning.requests import VolumeInfo
from csi_driver.staging import content
from csi_driver.staging.requests import StageRequest
from csi_driver.staging.stager import NodeStager
from tests.unit.staging.exports import Heard
from tests.unit.staging.test_stager import WRITER
from tests.unit.staging.test_stager import FakeDatapath

KEY = {"encryptionKey": "q83vEjRWeJq83vEjRWeJq83vEjRWeJq83vEjRWeJq80="}
OTHER = {"encryptionKey": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="}


class World:
    """A node service over a fake datapath, one volume, and who hears of it."""

    def __init__(
        self,
        directory: Path,
        clusters: Clusters,
        connections: SharedConnections,
        volume: VolumeInfo,
    ) -> None:
        self.heard = Heard()
        self.datapath = FakeDatapath()
        self.volume = volume
        self.staged: list[str] = []
        self._staging = directory / "staging"
        self.service = NodeStager(
            connections=connections,
            clusters=clusters,
            datapath=cast("Datapath", self.datapath),
            secrets=None,
            state_dir=directory / "states",
            node_id="node-1",
            boot_id="boot-1",
            device_method="auto",
            notices=self.heard,
            staged=lambda: self.staged.append("staged"),
        )

    def stage(self, secrets: dict[str, str] | None = None) -> None:
        self.service.stage(
            StageRequest(
                self.volume.volume_id,
                self._staging,
                WRITER,
                self.volume.context,
                KEY if secrets is None else secrets,
            )
        )

    def messages(self) -> list[str]:
        return [notice.message for notice in self.heard.notices]


@pytest.fixture
def world(
    tmp_path: Path,
    clusters: Clusters,
    connections: SharedConnections,
    create: Callable[..., VolumeInfo],
    monkeypatch: pytest.MonkeyPatch,
) -> World:
    monkeypatch.setattr(hold, "serves", lambda _: True)
    monkeypatch.setattr(content, "settle", lambda *_: None)
    return World(tmp_path, clusters, connections, create(secrets=KEY))


def test_a_stage_that_succeeds_tells_nothing_and_wakes_the_watch(world: World) -> None:
    world.stage()
    assert world.heard.take() == []
    assert world.staged == ["staged"]


def test_a_wrong_secret_is_told_with_both_fingerprints(world: World) -> None:
    with pytest.raises(SecretError) as caught:
        world.stage(OTHER)
    (message,) = world.messages()
    assert message == str(caught.value), "as kubelet shows it"
    prints = re.findall(r"[0-9a-f]{4}(?:-[0-9a-f]{4}){3}", message)
    assert len(set(prints)) == 2
    assert world.heard.take() == [("WrongSecret", world.volume.volume_id)]
    assert world.staged == []


@pytest.mark.parametrize(
    "secrets", [{}, {"encryptionKey": "x"}, {"userID": "tenant"}], ids=str
)
def test_a_secret_that_is_none_is_told_too(
    world: World, secrets: dict[str, str]
) -> None:
    with pytest.raises(SecretError):
        world.stage(secrets)
    assert world.heard.take() == [("WrongSecret", world.volume.volume_id)]


def test_a_holder_elsewhere_is_told_by_name(world: World) -> None:
    world.datapath.failing["open"] = InUseError("volume 'volume' is on node 'node-2'")
    with pytest.raises(InUseError):
        world.stage()
    assert world.messages() == ["volume 'volume' is on node 'node-2'"]
    assert world.heard.take() == [("VolumeInUse", world.volume.volume_id)]


@pytest.mark.parametrize(
    "error",
    [CephKeyError, HeaderError, PendingError, PreconditionError, UnavailableError],
)
def test_other_failures_are_kubelets_to_tell(
    world: World, error: type[DriverError]
) -> None:
    """The key of a Ceph user among them: mostly it is the driver's own."""
    world.datapath.failing["open"] = error("some reason")
    with pytest.raises(error):
        world.stage()
    assert world.heard.take() == []


@pytest.mark.parametrize(
    ("fenced", "said"),
    [
        (Fenced("node-2", "192.0.2.9:0/1"), "node 'node-2' held the volume"),
        (Fenced("node-1", "192.0.2.9:0/1"), "an earlier export on the same node held"),
        (Fenced("", "192.0.2.9:0/1"), "a Ceph client that is no export of this"),
    ],
)
@pytest.mark.parametrize("later", [None, "settle"])
def test_who_was_fenced_is_told_whatever_becomes_of_the_stage(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    fenced: Fenced,
    said: str,
    later: str | None,
) -> None:
    opened = world.datapath.open

    def with_fencing(volume: OpenVolume) -> OpenedVolume:
        return dataclasses.replace(opened(volume), fenced=fenced)

    def fails(*_: object) -> None:
        message = "the filesystem is damaged"
        raise PreconditionError(message)

    monkeypatch.setattr(world.datapath, "open", with_fencing)
    if later:
        monkeypatch.setattr(content, later, fails)
        with pytest.raises(PreconditionError):
            world.stage()
    else:
        world.stage()
    (message,) = world.messages()
    assert message.startswith(said)
    assert "192.0.2.9:0/1 was fenced" in message
    assert "opened on node 'node-1'" in message
    assert world.heard.take() == [("HolderFenced", world.volume.volume_id)]
