# SPDX-License-Identifier: Apache-2.0
"""What a stage leaves behind when it fails, wherever that is.

The datapath and the mounts are replaced by records of their calls; `tests/ceph`
has the real ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from csi_driver.datapath.client import Datapath
from csi_driver.datapath.messages import ExportStatus
from csi_driver.datapath.messages import OpenedVolume
from csi_driver.datapath.messages import OpenVolume
from csi_driver.devices import hold
from csi_driver.devices.device import Device
from csi_driver.devices.device import DeviceKind
from csi_driver.domain.access import AccessMode
from csi_driver.domain.access import Capability
from csi_driver.domain.access import Filesystem
from csi_driver.domain.clusters import Clusters
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import HeaderError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.record import Record
from csi_driver.domain.secrets import SecretBytes
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.images.connections import SharedConnections
from csi_driver.images.port import Pool
from csi_driver.images.records import change_record
from csi_driver.images.records import read_record
from csi_driver.provisioning.requests import VolumeInfo
from csi_driver.staging import content
from csi_driver.staging.requests import StageRequest
from csi_driver.staging.stager import NodeStager

KEY = {"encryptionKey": "q83vEjRWeJq83vEjRWeJq83vEjRWeJq83vEjRWeJq80="}
WRITER = Capability(AccessMode.SINGLE_NODE_WRITER)
READER = Capability(AccessMode.MULTI_NODE_READER_ONLY)


class FakeDatapath:
    """Notes what is asked, and fails where it is told to."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.failing: dict[str, DriverError] = {}
        self.opened: dict[VolumeId, OpenVolume] = {}
        self.keys: list[SecretBytes] = []
        self.read_only: list[bool] = []

    def _note(self, name: str) -> None:
        self.calls.append(name)
        if name in self.failing:
            raise self.failing[name]

    def open(self, volume: OpenVolume) -> OpenedVolume:
        self._note("open")
        assert volume.specs is not None
        self.keys = [volume.key, *(each.passphrase for each in volume.specs.layers)]
        assert all(map(len, self.keys))
        self.opened[volume.volume_id] = volume
        self.read_only.append(volume.read_only)
        device = Device(
            Path("/dev/null"), DeviceKind.FUSE, str(volume.volume_id), read_only=False
        )
        return OpenedVolume(device, EffectiveSize(8 << 20), "")

    def close(self, volume_id: VolumeId) -> None:
        self._note("close")
        self.opened.pop(volume_id, None)

    def status(self, volume_id: VolumeId) -> ExportStatus | None:
        if volume_id not in self.opened:
            return None
        return ExportStatus(
            volume_id=volume_id,
            alive=True,
            reason="",
            device=None,
            size=EffectiveSize(8 << 20),
            read_only=False,
            worker_pid=1,
            counters=None,
        )


class World:
    """A node service over a fake datapath, and one volume."""

    def __init__(
        self,
        directory: Path,
        clusters: Clusters,
        connections: SharedConnections,
        volume: VolumeInfo,
    ) -> None:
        self.datapath = FakeDatapath()
        self.states = directory / "states"
        self.staging = directory / "staging"
        self.volume = volume
        self._connections = connections
        self.service = NodeStager(
            connections=connections,
            clusters=clusters,
            datapath=cast("Datapath", self.datapath),
            secrets=None,
            state_dir=self.states,
            node_id="node-1",
            boot_id="boot-1",
            device_method="auto",
        )

    def record(self) -> Record:
        with self._connections.pool_at(self.volume.volume_id.location) as pool:
            return read_record(pool, self.volume.volume_id.image_id)

    def set_recovered(self, recovered: bool) -> None:
        with self._connections.pool_at(self.volume.volume_id.location) as pool:
            change_record(
                pool,
                self.volume.volume_id.image_id,
                lambda record: dataclasses.replace(record, recovered=recovered),
            )

    def stage(self, capability: Capability = WRITER) -> None:
        self.service.stage(
            StageRequest(
                self.volume.volume_id,
                self.staging,
                capability,
                self.volume.context,
                KEY,
            )
        )


@pytest.fixture
def world(
    tmp_path: Path,
    clusters: Clusters,
    connections: SharedConnections,
    create: Callable[..., VolumeInfo],
) -> World:
    return World(tmp_path, clusters, connections, create(secrets=KEY))


def settled(*_: object) -> Filesystem | None:
    return None


def unsettled(*_: object) -> Filesystem | None:
    raise PreconditionError("the first error")


@pytest.fixture(autouse=True)
def devices_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no device here; tests/ceph/staging has real ones."""
    monkeypatch.setattr(hold, "serves", lambda _: True)


def test_keys_are_gone_after_a_stage(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "settle", settled)
    world.stage()
    assert world.datapath.keys
    assert not any(map(len, world.datapath.keys))
    (state,) = world.states.iterdir()
    assert KEY["encryptionKey"] not in state.read_text()


def test_a_failed_open_leaves_no_state(world: World) -> None:
    world.datapath.failing["open"] = InUseError("on node two")
    with pytest.raises(InUseError, match="node two"):
        world.stage()
    assert world.datapath.calls == ["open", "close"]
    assert not list(world.states.iterdir())


def test_a_failed_filesystem_is_closed_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "settle", unsettled)
    with pytest.raises(PreconditionError, match="the first error"):
        world.stage()
    assert world.datapath.calls == ["open", "close"]
    assert not any(map(len, world.datapath.keys))
    assert not list(world.states.iterdir())


def test_an_undo_that_fails_is_made_up_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "settle", unsettled)
    world.datapath.failing["close"] = UnavailableError("no answer")
    with pytest.raises(PreconditionError, match="the first error") as caught:
        world.stage()
    assert any("no answer" in note for note in caught.value.__notes__)
    assert len(list(world.states.iterdir())) == 1

    world.datapath.failing.clear()
    world.datapath.calls.clear()
    monkeypatch.setattr(content, "settle", settled)
    world.stage()
    assert world.datapath.calls == ["close", "open"]


def test_a_refusal_of_the_mode_asks_nobody(world: World) -> None:
    with pytest.raises(InvalidRequestError, match="ReadWriteMany"):
        world.stage(Capability(AccessMode.MULTI_NODE_MULTI_WRITER))
    assert world.datapath.calls == []


def test_an_export_that_vanished_is_staged_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "settle", settled)
    world.stage()
    world.stage()
    assert world.datapath.calls == ["open"]
    world.datapath.opened.clear()
    world.stage()
    assert world.datapath.calls == ["open", "close", "open"]


def test_a_reader_comes_after_the_first_stage_of_a_clone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = []

    def recover(_: Pool, place: content.Place) -> None:
        places.append(place)
        assert not world.record().recovered

    monkeypatch.setattr(content, "recover", recover)
    monkeypatch.setattr(content, "settle", settled)
    world.set_recovered(False)
    world.stage(READER)
    assert world.datapath.calls == ["open", "close", "open"]
    assert world.datapath.read_only == [False, True]
    assert [place.read_only for place in places] == [False]
    assert world.record().recovered
    assert not any(map(len, world.datapath.keys))


@pytest.mark.parametrize("capability", [WRITER, READER])
def test_who_meets_the_first_stage_comes_again(
    world: World, capability: Capability
) -> None:
    world.datapath.failing["open"] = InUseError("on node two")
    with pytest.raises(InUseError, match="node two"):
        world.stage(capability)
    world.set_recovered(False)
    with pytest.raises(PendingError, match=r"first time elsewhere.*on node two"):
        world.stage(capability)
    assert not list(world.states.iterdir())


@pytest.mark.parametrize("error", [PreconditionError, HeaderError])
def test_what_no_other_node_caused_stays_what_it_is(
    world: World, error: type[DriverError]
) -> None:
    world.set_recovered(False)
    world.datapath.failing["open"] = error("its header is damaged")
    with pytest.raises(error, match="damaged"):
        world.stage(READER)


def test_a_first_stage_that_fails_stays_to_be_done(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "recover", unsettled)
    world.set_recovered(False)
    with pytest.raises(PreconditionError, match="the first error"):
        world.stage(READER)
    assert world.datapath.calls == ["open", "close"]
    assert not world.record().recovered
    assert not list(world.states.iterdir())
