# SPDX-License-Identifier: Apache-2.0
"""Requests, and exports with real processes but neither Ceph nor devices."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path

import pytest

from csi_driver.datapath import export as bounds
from csi_driver.datapath import exports as exports_module
from csi_driver.datapath.exports import Exports
from csi_driver.datapath.leftovers import Leftovers
from csi_driver.datapath.lives import Life
from csi_driver.datapath.messages import OpenVolume
from csi_driver.datapath.state import StateDirectory
from csi_driver.datapath.workers import WorkerPool
from csi_driver.devices.device import AttachMethod
from csi_driver.devices.device import Device
from csi_driver.devices.device import DeviceKind
from csi_driver.devices.device import GiveSocket
from csi_driver.devices.device import NbdExport
from csi_driver.devices.device import ServerAlive
from csi_driver.domain.chain import LayerSpec
from csi_driver.domain.chain import LoadSpecs
from csi_driver.domain.clusters import ClusterConfig
from csi_driver.domain.clusters import Clusters
from csi_driver.domain.errors import InUseError
from csi_driver.domain.ids import Location
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.record import EncryptionMode
from csi_driver.domain.secrets import SecretBytes

WORKER = ("-m", "tests.unit.datapath.fake_worker")
BOOT = "boot-1"


def open_volume(user: str = "obedient", *, read_only: bool = False) -> OpenVolume:
    return OpenVolume(
        volume_id=VolumeId(Location("lab", 1, "tenant"), "abc123"),
        monitors=("127.0.0.1:3300",),
        user_id=user,
        key=SecretBytes(b"cephx-canary"),
        pool_name="rbd",
        specs=LoadSpecs((LayerSpec(SecretBytes(b"dek-canary\0\xff")),)),
        mode=EncryptionMode.KEYRING,
        read_only=read_only,
        node_id="node-a",
        boot_id=BOOT,
    )


class FakeDevices:
    """Devices that are only written down; one way, which takes the socket."""

    kind = DeviceKind.KERNEL

    def __init__(self) -> None:
        self.attached: dict[str, Device] = {}
        self.sizes: dict[str, int] = {}
        self.cut: list[Device] = []
        self.detached_served: list[bool] = []
        self.busy = False
        self.fails = False
        self.takes_socket = True

    def method(self, name: str) -> AttachMethod:
        return self

    def of(self, device: Device) -> AttachMethod:
        return self

    def find(self, identity: str) -> Device | None:
        return self.attached.get(identity)

    def cut_off(self, device: Device) -> None:
        self.cut.append(device)

    def available(self) -> str | None:
        return None

    def attach(self, export: NbdExport, give_socket: GiveSocket) -> Device:
        if self.takes_socket:
            ours, theirs = socket.socketpair()
            with ours:
                give_socket(theirs)
        if self.fails:
            message = "no device is free"
            raise InUseError(message)
        device = Device(Path("/dev/nbd7"), self.kind, export.identity, export.read_only)
        self.attached[export.identity] = device
        self.sizes[export.identity] = export.size
        return device

    def detach(self, device: Device, *, served: bool = True) -> None:
        self.detached_served.append(served)
        if self.busy:
            message = "it is mounted"
            raise InUseError(message)
        self.attached.pop(device.identity, None)

    def grow(self, device: Device, size: int, server_alive: ServerAlive) -> None:
        assert server_alive()
        self.sizes[device.identity] = size


@dataclasses.dataclass
class Node:
    """Exports and everything below them."""

    exports: Exports
    devices: FakeDevices
    state: StateDirectory
    leftovers: Leftovers


type MakeNode = Callable[[], Node]
type MakeVolume = Callable[..., OpenVolume]


@pytest.fixture(name="open_volume")
def open_volume_fixture() -> MakeVolume:
    return open_volume


@pytest.fixture
def worker_command() -> tuple[str, ...]:
    return WORKER


@pytest.fixture
def clusters(tmp_path: Path) -> Clusters:
    key_file = tmp_path / "key"
    key_file.write_text("driver-key\n")
    config = ClusterConfig("lab", ("127.0.0.1:3300",), "driver", str(key_file), ())
    return Clusters({"lab": config})


@pytest.fixture
def make_node(
    tmp_path: Path,
    clusters: Clusters,
    worker_command: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[MakeNode]:
    """Make a node; a second one stands for the first after a restart."""
    monkeypatch.setattr(exports_module, "CLOSE_SECONDS", 1.0)
    monkeypatch.setattr(bounds, "CLOSE_SECONDS", 1.0)
    made: list[Exports] = []
    lives: list[Life] = []
    devices = FakeDevices()

    def make() -> Node:
        state = StateDirectory(tmp_path / "state")
        life = state.lives.begin()
        lives.append(life)
        pool = WorkerPool(worker_command, life=life)
        leftovers = Leftovers(
            state=state, pool=pool, devices=devices, clusters=clusters, boot_id=BOOT
        )
        exports = Exports(
            state=state,
            pool=pool,
            devices=devices,
            leftovers=leftovers,
            run_dir=tmp_path,
        )
        made.append(exports)
        return Node(exports, devices, state, leftovers)

    yield make
    devices.busy = False
    for exports in made:
        exports.shut_down(5.0)
    for life in lives:
        life.close()


@pytest.fixture
def node(make_node: MakeNode) -> Node:
    return make_node()
