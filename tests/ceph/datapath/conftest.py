# SPDX-License-Identifier: Apache-2.0
"""A real datapath with real workers, on volumes of the lab's Ceph.

The volumes are made by hand: an image, a header and a record are all that the
datapath looks at.
"""

from __future__ import annotations

import contextlib
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
from csi_driver.domain.clusters import ClusterConfig
from csi_driver.domain.clusters import parse_clusters
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.flattening import FlattenPolicy
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
from csi_driver.images.records import create_record
from csi_driver.images.values import NewImage
from tests.ceph.datapath.clones import Clone
from tests.ceph.datapath.clones import clone_of
from tests.ceph.datapath.flattening import SHORT
from tests.ceph.datapath.flattening import MakeClone
from tests.ceph.datapath.running import Running
from tests.ceph.datapath.running import Volume

LAUNCHER = Path(__file__).with_name("run_datapath.py")
SIZE = EffectiveSize(64 * MIB)


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


@pytest.fixture
def make_clone(make_volume: MakeVolume) -> Iterator[MakeClone]:
    """Make clones; asked for before a datapath, so that it ends before them."""
    made: list[Clone] = []

    def make(
        policy: FlattenPolicy,
        *,
        mode: EncryptionMode = EncryptionMode.KEYRING,
        parent_mode: EncryptionMode | None = None,
        size: EffectiveSize = SHORT,
        recovered: bool = True,
        features: Sequence[str] = (),
    ) -> Clone:
        parent = make_volume(parent_mode or mode, size=size)
        made.append(
            clone_of(parent, policy, mode=mode, recovered=recovered, features=features)
        )
        return made[-1]

    yield make
    for clone in made:
        clone.remove()
