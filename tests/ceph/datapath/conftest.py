# SPDX-License-Identifier: Apache-2.0
"""A real datapath with real workers, on volumes of the lab's Ceph.

The volumes are made by hand: an image, a header and a record are all that the
datapath looks at.
"""

from __future__ import annotations

import contextlib
import dataclasses
import mmap
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path

import pytest

from csi_driver.datapath.client import Datapath
from csi_driver.datapath.messages import OpenVolume
from csi_driver.datapath.state import current_boot_id
from csi_driver.domain.clusters import ClusterConfig
from csi_driver.domain.clusters import parse_clusters
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.ids import new_image_name
from csi_driver.domain.parameters import DEFAULT_FEATURES
from csi_driver.domain.parameters import VolumeParameters
from csi_driver.domain.record import EncryptionMode
from csi_driver.domain.record import Record
from csi_driver.domain.record import VolumeState
from csi_driver.domain.secrets import SecretBytes
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.domain.sizes import Layout
from csi_driver.domain.sizes import Striping
from csi_driver.images.ceph import CephConnection
from csi_driver.images.ceph import CephConnector
from csi_driver.images.headers import make_header
from csi_driver.images.pools import CephPool
from csi_driver.images.records import change_record
from csi_driver.images.records import create_record
from csi_driver.images.records import read_record
from csi_driver.images.users import own_user
from csi_driver.images.values import NewImage
from csi_driver.testing.lab_images import load_specs

LAUNCHER = Path(__file__).with_name("run_datapath.py")
SIZE = EffectiveSize(64 * MIB)
NODE = "node-a"


@dataclasses.dataclass(frozen=True)
class Volume:
    """A volume of the lab, and what opens it."""

    volume_id: VolumeId
    name: str
    mode: EncryptionMode
    dek: bytes
    pool: CephPool
    config: ClusterConfig
    below: tuple[bytes, ...] = ()
    """The keys of what a clone reads, its parent's first."""

    def request(
        self,
        *,
        dek: bytes | None = None,
        read_only: bool = False,
        node_id: str = NODE,
        mode: EncryptionMode | None = None,
    ) -> OpenVolume:
        mode = mode or self.mode
        specs = None
        if mode.encrypted:
            specs = load_specs(dek or self.dek, *self.below)
        user = own_user(self.config)
        return OpenVolume(
            volume_id=self.volume_id,
            monitors=self.config.monitors,
            user_id=user.user_id,
            key=user.key,
            pool_name=self.pool.pool_name,
            specs=specs,
            mode=mode,
            read_only=read_only,
            node_id=node_id,
            boot_id=current_boot_id(),
        )

    def record(self) -> Record:
        return read_record(self.pool, self.volume_id.image_id)

    def change(self, change: Callable[[Record], Record]) -> Record:
        return change_record(self.pool, self.volume_id.image_id, change)

    def desire(self, size: EffectiveSize) -> None:
        self.change(lambda record: dataclasses.replace(record, desired=size))

    def raw_size(self) -> int:
        with self.pool.open_raw(self.volume_id.image_id, read_only=True) as raw:
            return raw.raw_size().count

    def lock_owner(self) -> str | None:
        with self.pool.open_raw(self.volume_id.image_id) as raw:
            owner = raw.lock_owner()
            return None if owner is None else owner.address


class Disk:
    """A block device, read and written past the page cache in whole blocks."""

    BLOCK = 4096

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, offset: int, content: bytes) -> None:
        device = os.open(self._path, os.O_RDWR | os.O_DIRECT)
        try:
            with mmap.mmap(-1, self.BLOCK) as page:
                page[:] = content
                assert os.pwritev(device, [page], offset) == self.BLOCK
                os.fsync(device)
        finally:
            os.close(device)

    def read(self, offset: int) -> bytes:
        device = os.open(self._path, os.O_RDONLY | os.O_DIRECT)
        try:
            with mmap.mmap(-1, self.BLOCK) as page:
                assert os.preadv(device, [page], offset) == self.BLOCK
                return page[:]
        finally:
            os.close(device)

    def size(self) -> int:
        with self._path.open("rb") as device:
            return device.seek(0, os.SEEK_END)


@dataclasses.dataclass
class Running:
    """A datapath process on its own directories."""

    process: subprocess.Popen[bytes]
    client: Datapath
    directory: Path

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    @property
    def state_files(self) -> list[Path]:
        return sorted((self.directory / "state").glob("*.json"))

    def worker_pid(self, volume: Volume) -> int:
        status = self.client.status(volume.volume_id)
        assert status is not None
        assert status.worker_pid
        return status.worker_pid

    def disk(self, volume: Volume) -> Disk:
        status = self.client.status(volume.volume_id)
        assert status is not None
        assert status.device is not None
        return Disk(status.device.path)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="session")
def config() -> ClusterConfig:
    text = Path(os.environ["RBDCRYPT_CLUSTERS_FILE"]).read_text()
    return parse_clusters(text).get("lab")


@pytest.fixture(scope="session")
def ceph() -> Iterator[CephConnection]:
    text = Path(os.environ["RBDCRYPT_CLUSTERS_FILE"]).read_text()
    connection = CephConnector(parse_clusters(text)).connect("lab")
    with contextlib.closing(connection):
        yield connection


@pytest.fixture
def pool(ceph: CephConnection) -> CephPool:
    return ceph.pool("rbd")


type MakeVolume = Callable[..., Volume]


@pytest.fixture
def make_volume(pool: CephPool, config: ClusterConfig) -> Iterator[MakeVolume]:
    made: list[Volume] = []

    def make(
        mode: EncryptionMode = EncryptionMode.KEYRING,
        *,
        state: VolumeState = VolumeState.READY,
        size: EffectiveSize = SIZE,
    ) -> Volume:
        name = new_image_name()
        layout = Layout.for_striping(Striping())
        pool.create_image(
            NewImage(name, layout.raw(size), Striping(), DEFAULT_FEATURES),
        )
        image_id = pool.find_image(name)
        assert image_id is not None
        dek = secrets.token_bytes(32)
        volume_id = VolumeId(pool.location, image_id)
        volume = Volume(volume_id, name, mode, dek, pool, config)
        made.append(volume)
        if mode.encrypted:
            header = make_header(SecretBytes(dek), uuid.uuid4(), layout)
            with pool.open_raw(image_id) as raw:
                raw.write_header(header)
        create_record(pool, _record(volume, layout, state, size))
        return volume

    yield make
    for volume in made:
        _remove(volume)


def _record(
    volume: Volume, layout: Layout, state: VolumeState, size: EffectiveSize
) -> Record:
    parameters = VolumeParameters(
        cluster="lab", pool="rbd", encrypted=volume.mode.encrypted
    )
    return Record(
        name=volume.name,
        image_id=volume.volume_id.image_id,
        state=state,
        mode=volume.mode,
        parameters=parameters,
        layout=layout,
        desired=size,
        actual=size,
    )


def _remove(volume: Volume) -> None:
    """Remove an image; a lock that a test left is broken first."""
    with volume.pool.open_raw(volume.volume_id.image_id) as raw:
        owner = raw.lock_owner()
        if owner is not None:
            raw.break_lock(owner)
    volume.pool.remove_image(volume.name)


@pytest.fixture
def volume(make_volume: MakeVolume) -> Volume:
    return make_volume()


def _start(directory: Path, prefix: Sequence[str | Path] = ()) -> Running:
    path = directory / "datapath.sock"
    words: list[str | Path] = [*prefix, sys.executable, LAUNCHER, path]
    words += [directory / "run", directory / "state", "auto"]
    with (directory / "log").open("ab") as log:
        process = subprocess.Popen(words, stderr=log)
    client = Datapath(path)
    deadline = time.monotonic() + 30
    while True:
        assert process.poll() is None, (directory / "log").read_text()
        try:
            client.ping()
        except UnavailableError:
            assert time.monotonic() < deadline, "no datapath within 30 s"
            time.sleep(0.02)
        else:
            return Running(process, client, directory)


def eventually(what: str, holds: Callable[[], bool], seconds: float) -> float:
    """Wait until something holds; return the seconds that it took."""
    begin = time.monotonic()
    while not holds():
        assert time.monotonic() - begin < seconds, f"{what}: not within {seconds} s"
        time.sleep(0.01)
    return time.monotonic() - begin


@pytest.fixture(name="eventually")
def eventually_fixture() -> Eventually:
    return eventually


type Eventually = Callable[[str, Callable[[], bool], float], float]
type StartDatapath = Callable[..., Running]


@pytest.fixture
def start_datapath(make_volume: MakeVolume) -> Iterator[StartDatapath]:
    """Start datapaths, each "node" in its own directory; end them cleanly.

    They end before the volumes that they serve are removed.
    """
    running: list[Running] = []
    directories: list[Path] = []

    def start(
        directory: Path | None = None, prefix: Sequence[str | Path] = ()
    ) -> Running:
        if directory is None:
            directory = Path(tempfile.mkdtemp(prefix="datapath-"))
            directories.append(directory)
        one = _start(directory, prefix)
        running.append(one)
        return one

    yield start
    for one in running:
        _stop(one)
    for directory in directories:
        shutil.rmtree(directory)


def _stop(one: Running) -> None:
    if one.process.poll() is not None:
        return
    for status in one.client.list():
        with contextlib.suppress(DriverError):
            one.client.close(status.volume_id)
    one.process.send_signal(signal.SIGTERM)
    try:
        one.process.wait(40)
    except subprocess.TimeoutExpired:
        one.kill()
        raise


@pytest.fixture
def datapath(start_datapath: StartDatapath) -> Running:
    return start_datapath()
