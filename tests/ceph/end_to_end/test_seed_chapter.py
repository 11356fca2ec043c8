# SPDX-License-Identifier: Apache-2.0
"""The seven rules of encryption load, each proven on volumes of the driver.

1. Without load, all I/O is raw: the driver does no data I/O on a raw handle.
2. Load comes right after open, before any other call on the image.
3. Loading covers the whole chain of parents.
4. The key lives in the client's memory until the image is closed, no longer.
5. A second load, or a format of a loaded image, is refused by the driver.
6. A loaded handle shows effective sizes; raw ones are another type.
7. Mapping as a block device loads: NodeStageVolume needs no further step.

Rule 4 is proven in `test_key_lifetime.py`, by reading memory; what librbd
itself does where the driver refuses stands in `tests/ceph/images`.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rbd

import csi_driver
from csi_driver.domain.chain import LayerSpec
from csi_driver.domain.chain import LoadSpecs
from csi_driver.domain.clusters import parse_clusters
from csi_driver.domain.errors import AlreadyLoadedError
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.secrets import SecretBytes
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.domain.sizes import RawSize
from csi_driver.images import loaded as loading
from csi_driver.images.ceph import CephConnector
from csi_driver.images.users import own_user
from csi_driver.nbd import librbd_api
from csi_driver.nbd.librbd_connection import CephClient
from csi_driver.nbd.librbd_image import ImageTarget
from csi_driver.nbd.librbd_image import LibrbdImage
from csi_driver.rpc.stubs import csi_pb2
from tests.ceph.end_to_end import secrets_of
from tests.ceph.end_to_end import traces
from tests.ceph.end_to_end.client import MIB
from tests.ceph.end_to_end.client import block
from tests.ceph.end_to_end.world import World

SECRETS = {"encryptionKey": "q83vEjRWeJq83vEjRWeJq83vEjRWeJq83vEjRWeJq80="}
BLOCK = 4096
OBJECT = 4 * MIB
RESERVE = 16 * MIB

# Methods of rbd.Image that move data, or change what data is where.
DATA_CALLS = frozenset(
    {
        "aio_compare_and_write",
        "aio_discard",
        "aio_read",
        "aio_write",
        "aio_write_zeroes",
        "compare_and_write",
        "copy",
        "deep_copy",
        "discard",
        "flatten",
        "read",
        "rollback_to_snap",
        "sparsify",
        "write",
        "write_zeroes",
    }
)

OF_DATA = ("CephLoadedImage.", "CephWholeImage.")
"""The handles of loaded and of plaintext images, for which there is no raw I/O."""


@pytest.fixture
def volume(world: World) -> csi_pb2.Volume:
    return world.create(SECRETS, capability=block())


def dek_of(world: World, volume: csi_pb2.Volume) -> bytes:
    return secrets_of.derived(world.record(volume), SECRETS)["the DEK"]


def image_id(volume: csi_pb2.Volume) -> str:
    return VolumeId.parse(volume.volume_id).image_id


def data_objects(volume: csi_pb2.Volume) -> dict[int, bytes]:
    """Return the volume's data objects, by number."""
    prefix = f"rbd_data.{image_id(volume)}."
    with traces.pool_at(os.environ["CEPH_CONF"], "rbd") as pool:
        names = [item.key for item in pool.list_objects()]
        return {
            int(name.removeprefix(prefix), 16): pool.read(name, OBJECT)
            for name in names
            if name.startswith(prefix)
        }


def write_block(target: Path, content: bytes) -> None:
    with target.open("r+b", buffering=0) as device:
        device.write(content)
        os.fsync(device.fileno())


# --------------------------------------------------------------------- rule 1


def test_1_create_touches_nothing_but_the_header(volume: csi_pb2.Volume) -> None:
    found = data_objects(volume)
    assert set(found) == {0}
    assert found[0].startswith(b"LUKS\xba\xbe\x00\x02")
    assert len(found[0]) < MIB


def test_1_data_goes_through_the_encryption(
    world: World, volume: csi_pb2.Volume
) -> None:
    header = data_objects(volume)[0]
    content = b"plaintext that must not be there".ljust(BLOCK, b".")
    write_block(world.first.stage(volume, SECRETS, block()), content)
    found = data_objects(volume)
    assert found[0] == header, "serving has changed the header"
    assert RESERVE // OBJECT in found
    assert not any(b"plaintext" in each for each in found.values())
    world.first.unstage(volume)


def data_calls() -> Iterator[tuple[str, str, str]]:
    """Yield (module, class and function, method) of calls on python-rbd images."""
    package = Path(str(csi_driver.__file__)).parent
    for path in sorted((package / "images").rglob("*.py")):
        tree = ast.parse(path.read_text())
        for owner in tree.body:
            functions = owner.body if isinstance(owner, ast.ClassDef) else [owner]
            prefix = f"{owner.name}." if isinstance(owner, ast.ClassDef) else ""
            for function in functions:
                if not isinstance(function, ast.FunctionDef):
                    continue
                for node in ast.walk(function):
                    if isinstance(node, ast.Attribute) and node.attr in DATA_CALLS:
                        where = f"{prefix}{function.name}"
                        yield path.name, where, f"{ast.unparse(node)}"


def test_1_only_the_header_methods_move_bytes_on_a_raw_handle() -> None:
    found = {call for call in data_calls() if "_image." in call[2]}
    raw = {call for call in found if not call[1].startswith(OF_DATA)}
    assert raw == {
        ("raw.py", "CephRawImage.read_header", "self._image.read"),
        ("raw.py", "CephRawImage.write_header", "self._image.write"),
        ("raw.py", "CephRawImage.write_clone_header", "self._image.write"),
        # The room behind a clone's header, so that it is not its parent's.
        ("raw.py", "CephRawImage.write_clone_header", "self._image.discard"),
        ("raw.py", "CephRawImage.erase_header", "self._image.write"),
    }
    handles = {"raw.py", "whole.py", "loaded.py"}
    elsewhere = {call for call in data_calls() if call[0] not in handles}
    assert not {call for call in elsewhere if "image" in call[2].lower()}


# --------------------------------------------------------------------- rule 2


class Recorder:
    """librbd's functions, each noted when it is called."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.calls: list[str] = []

    def __getitem__(self, name: str) -> Any:
        function = self._real[name]

        def noted(*arguments: Any) -> Any:
            self.calls.append(name)
            return function(*arguments)

        return noted


def ceph_client() -> CephClient:
    text = Path(os.environ["RBDCRYPT_CLUSTERS_FILE"]).read_text()
    config = parse_clusters(text).get("lab")
    user = own_user(config)
    return CephClient(",".join(config.monitors), user.user_id, user.key)


def open_served(world: World, volume: csi_pb2.Volume) -> LibrbdImage:
    """Open as a worker does."""
    specs = LoadSpecs((LayerSpec(SecretBytes(dek_of(world, volume))),))
    target = ImageTarget(pool="rbd", image_id=image_id(volume))
    return LibrbdImage(ceph_client(), target, specs)


def test_2_a_worker_loads_right_after_opening(
    world: World, volume: csi_pb2.Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(librbd_api.library())
    monkeypatch.setattr(librbd_api, "library", lambda: recorder)
    open_served(world, volume).close()
    calls = [name for name in recorder.calls if name.startswith("rbd_")]
    assert calls[:2] == ["rbd_open_by_id", "rbd_encryption_load2"]
    assert calls.count("rbd_encryption_load2") == 1


def test_2_the_controller_loads_right_after_opening(
    world: World, volume: csi_pb2.Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    class Noting(rbd.Image):  # type: ignore[misc]  # python-rbd has no types
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            calls.clear()  # opening by id asks for the name by itself

        def __getattribute__(self, name: str) -> Any:
            calls.append(name)
            return super().__getattribute__(name)

    monkeypatch.setattr(rbd, "Image", Noting)
    specs = LoadSpecs((LayerSpec(SecretBytes(dek_of(world, volume))),))
    text = Path(os.environ["RBDCRYPT_CLUSTERS_FILE"]).read_text()
    connection = CephConnector(parse_clusters(text)).connect("lab")
    with connection.pool("rbd").open_loaded(image_id(volume), specs) as loaded:
        assert calls[0] == "encryption_load2"
        assert loaded.size() == EffectiveSize(64 * MIB)
    connection.close()


# --------------------------------------------------------------------- rule 3


def test_3_a_clone_reads_its_parent_through_one_load(
    world: World, volume: csi_pb2.Volume
) -> None:
    content = os.urandom(BLOCK)
    write_block(world.first.stage(volume, SECRETS, block()), content)
    world.first.unstage(volume)
    dek = dek_of(world, volume)
    name = world.record(volume).image_id + "-clone"
    with traces.pool_at(os.environ["CEPH_CONF"], "rbd") as pool:
        librbd = rbd.RBD()
        with rbd.Image(pool, image_id=image_id(volume)) as source:
            source.create_snap("now")
            parent = source.get_name()
        try:
            librbd.clone(pool, parent, "now", pool, name, clone_format=2)
            target = ImageTarget(pool="rbd", name=name, read_only=True)
            specs = LoadSpecs((LayerSpec(SecretBytes(dek)),))
            LibrbdImage(ceph_client(), target, specs).close()
            with rbd.Image(pool, name, read_only=True) as clone:
                loading.load(clone, specs)
                assert clone.read(0, BLOCK) == content
            librbd.remove(pool, name)
        finally:
            with rbd.Image(pool, image_id=image_id(volume)) as source:
                source.remove_snap("now")


# --------------------------------------------------------------------- rule 5


def test_5_a_second_load_is_refused_by_us(world: World, volume: csi_pb2.Volume) -> None:
    image = open_served(world, volume)
    try:
        with pytest.raises(AlreadyLoadedError, match="loaded already"):
            image.load(LoadSpecs((LayerSpec(SecretBytes(b"whatever")),)))
    finally:
        image.close()


def test_5_staging_twice_loads_once_and_changes_no_header(
    world: World, volume: csi_pb2.Volume
) -> None:
    header = data_objects(volume)[0]
    first = world.first
    content = os.urandom(BLOCK)
    target = first.stage(volume, SECRETS, block())
    write_block(target, content)
    worker = first.worker_pid(volume)
    for _ in range(3):
        assert first.stage(volume, SECRETS, block()) == target
    assert first.worker_pid(volume) == worker
    opened = [line for line in first.datapath.log.splitlines() if "volume open" in line]
    assert len([line for line in opened if volume.volume_id in line]) == 1
    # Nor does a repeated CreateVolume format what is in use.
    again = world.controller.create(
        world.record(volume).name, SECRETS, capability=block()
    )
    assert again.volume_id == volume.volume_id
    assert data_objects(volume)[0] == header
    with target.open("rb", buffering=0) as device:
        assert device.read(BLOCK) == content
    first.unstage(volume)


# --------------------------------------------------------------------- rule 6


def test_6_sizes_are_effective_and_never_mixed_up(
    world: World, volume: csi_pb2.Volume
) -> None:
    target = world.first.stage(volume, SECRETS, block())
    record = world.record(volume)
    with (
        traces.pool_at(os.environ["CEPH_CONF"], "rbd") as pool,
        rbd.Image(pool, image_id=image_id(volume), read_only=True) as image,
    ):
        raw = image.size()
    assert volume.capacity_bytes == 64 * MIB
    assert world.first.client.total_bytes(volume, target) == 64 * MIB
    assert raw == 64 * MIB + RESERVE
    assert record.actual == EffectiveSize(64 * MIB)
    assert record.raw_size == RawSize(raw)
    mixed: Any = RawSize(raw)
    assert mixed != EffectiveSize(raw)
    with pytest.raises(TypeError):
        assert record.actual < mixed
    world.first.unstage(volume)


# --------------------------------------------------------------------- rule 7


def test_7_stage_alone_makes_a_usable_device(
    world: World, volume: csi_pb2.Volume
) -> None:
    first = world.first
    staging = first.staging(volume)
    first.client.stage(volume, staging, SECRETS, block())
    status = first.control.status(VolumeId.parse(volume.volume_id))
    assert status is not None
    assert status.device is not None
    content = os.urandom(BLOCK)
    write_block(status.device.path, content)
    first.client.unstage(volume, staging)
    first.client.stage(volume, staging, SECRETS, block())
    status = first.control.status(VolumeId.parse(volume.volume_id))
    assert status is not None
    assert status.device is not None
    with status.device.path.open("rb", buffering=0) as device:
        assert device.read(BLOCK) == content
    first.client.unstage(volume, staging)
