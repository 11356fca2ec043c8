# SPDX-License-Identifier: Apache-2.0
"""Adopting images that others made and formatted, with their own tools.

`rbd encryption format` picks a slow key derivation, so there is one image of
each of its formats, made side by side.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import rbd

from csi_driver.domain.chain import LayerSpec
from csi_driver.domain.chain import LoadSpecs
from csi_driver.domain.errors import AlreadyExistsError
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import HeaderError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.errors import SizeError
from csi_driver.domain.filesystem_state import FilesystemState
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.parameters import SecretRef
from csi_driver.domain.record import EncryptionMode
from csi_driver.domain.record import Record
from csi_driver.domain.record import VolumeState
from csi_driver.domain.sizes import BLOCK_SIZE
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.images.directory import Directory
from csi_driver.images.directory import Entry
from csi_driver.keys.material import parse_layer_passphrases
from csi_driver.provisioning.adopt import Adoption
from csi_driver.provisioning.adopt import adopt
from csi_driver.provisioning.adopt import manifest
from tests.ceph.provisioning.real import CephWorld

SECRET = {"encryptionPassphrase": "what the others chose"}
SIZE = 64 * MIB
DATA = b"their data" + bytes(BLOCK_SIZE - 10)
FEATURES = (
    rbd.RBD_FEATURE_LAYERING
    | rbd.RBD_FEATURE_EXCLUSIVE_LOCK
    | rbd.RBD_FEATURE_OBJECT_MAP
    | rbd.RBD_FEATURE_FAST_DIFF
)


def make(
    world: CephWorld, name: str, size: int = SIZE, features: int = FEATURES
) -> None:
    """Make an image as `rbd create` does."""
    with world.ioctx() as ioctx:
        rbd.RBD().create(ioctx, name, size, old_format=False, features=features)


def write(world: CephWorld, name: str, data: bytes, offset: int = 0) -> None:
    """Write raw bytes."""
    with world.ioctx() as ioctx, rbd.Image(ioctx, name) as image:
        image.write(data, offset)


def take(world: CephWorld, name: str, as_name: str = "") -> Record:
    with world.pool() as pool:
        return adopt(pool, world.config, Adoption(name, as_name))


def specs(secret: dict[str, str]) -> LoadSpecs:
    return LoadSpecs(tuple(LayerSpec(p) for p in parse_layer_passphrases(secret)))


def require_opens(world: CephWorld, record: Record) -> None:
    """Check that the Secret's passphrase opens the image, at the size adopted."""
    with world.pool() as pool:
        with pool.open_loaded(record.image_id, specs(SECRET)) as image:
            assert image.size() == record.actual == record.desired
            assert image.read(0, BLOCK_SIZE) == DATA
            image.write(record.actual.count - BLOCK_SIZE, DATA)
        with pytest.raises(SecretError):
            pool.open_loaded(record.image_id, specs({"encryptionPassphrase": "no"}))


def require_safe_from_create(world: CephWorld, name: str) -> None:
    """Check that CreateVolume never formats what was adopted."""
    before = world.content()
    requests = [world.request(name, BLOCK_SIZE), world.plaintext(name, BLOCK_SIZE)]
    for request in requests:
        with pytest.raises(AlreadyExistsError, match="an adopted image there"):
            world.volumes.create(request)
    assert world.content() == before


def write_loaded(world: CephWorld, name: str) -> None:
    """Write the others' data through a client of theirs."""
    with world.ioctx() as ioctx, rbd.Image(ioctx, name) as image:
        passphrase = SECRET["encryptionPassphrase"]
        image.encryption_load(rbd.RBD_ENCRYPTION_FORMAT_LUKS, passphrase)
        image.write(DATA, 0)


@pytest.fixture(scope="module")
def formatted(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[CephWorld, dict[str, Future[None]]]]:
    """Give images that `rbd encryption format` is working on."""
    world = CephWorld()
    world.begin()
    file = tmp_path_factory.mktemp("passphrase") / "file"
    file.write_text(SECRET["encryptionPassphrase"])

    def work(kind: str) -> None:
        make(world, kind)
        spec = f"{world.pool_name}/{world.namespace}/{kind}"
        subprocess.run(
            ["rbd", "encryption", "format", spec, kind, str(file)],
            check=True,
            capture_output=True,
            timeout=200,
        )
        write_loaded(world, kind)

    with ThreadPoolExecutor(2) as threads:
        futures = {kind: threads.submit(work, kind) for kind in ("luks1", "luks2")}
        yield world, futures
    world.end()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", ["luks1", "luks2"])
def test_images_that_rbd_formatted(
    formatted: tuple[CephWorld, dict[str, Future[None]]], kind: str
) -> None:
    world, futures = formatted
    futures[kind].result(timeout=200)
    record = take(world, kind)
    assert record.mode is EncryptionMode.PASSPHRASE
    assert record.layout.reserve > 0
    require_opens(world, record)
    require_safe_from_create(world, kind)
    assert take(world, kind) == record


def cryptsetup_format(
    world: CephWorld, directory: Path, kind: str, *options: str
) -> None:
    """Make the image `theirs` as `rbd import` of a formatted file does."""
    file = directory / "image"
    file.write_bytes(b"")
    with file.open("r+b") as opened:
        opened.truncate(SIZE)
    subprocess.run(
        [
            *("cryptsetup", "luksFormat", "--batch-mode", "--type", kind),
            *("--cipher", "aes-xts-plain64", "--key-size", "512"),
            *("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"),
            *options,
            *("--key-file", "-", str(file)),
        ],
        input=SECRET["encryptionPassphrase"].encode(),
        check=True,
        capture_output=True,
        timeout=60,
    )
    make(world, "theirs")
    write(world, "theirs", file.read_bytes()[: 16 * MIB])


def test_a_header_that_librbd_cannot_load(world: CephWorld, tmp_path: Path) -> None:
    cryptsetup_format(world, tmp_path, "luks1")
    with pytest.raises(rbd.InvalidArgument):
        write_loaded(world, "theirs")
    refused(world, "theirs", HeaderError, "begins 2097152 bytes")


@pytest.mark.parametrize(
    ("kind", "options"), [("luks1", ("--align-payload", "8192")), ("luks2", ())]
)
def test_images_that_cryptsetup_formatted(
    world: CephWorld, tmp_path: Path, kind: str, options: tuple[str, ...]
) -> None:
    cryptsetup_format(world, tmp_path, kind, *options)
    write_loaded(world, "theirs")
    record = take(world, "theirs", "renamed")
    assert record.name == "renamed"
    assert record.mode is EncryptionMode.PASSPHRASE
    require_opens(world, record)
    require_safe_from_create(world, "renamed")
    assert world.names() == ["renamed"]


def test_a_plaintext_image(world: CephWorld) -> None:
    make(world, "theirs", SIZE + BLOCK_SIZE)
    write(world, "theirs", DATA)
    before = world.content()
    record = take(world, "theirs")
    assert record.mode is EncryptionMode.NONE
    assert record.state is VolumeState.READY
    assert record.filesystem is FilesystemState.FOREIGN
    assert record.layout.reserve == 0
    assert record.actual == record.desired == EffectiveSize(SIZE + BLOCK_SIZE)
    assert record.ring is None
    # Nothing but the record and the entry is new.
    after = world.content()
    changed = {
        name.rpartition("/")[2] for name in after if after[name] != before.get(name)
    }
    assert changed == {"rbdcrypt.directory", f"rbd_header.{record.image_id}"}
    with world.ioctx() as ioctx, rbd.Image(ioctx, "theirs", read_only=True) as image:
        assert image.read(0, BLOCK_SIZE) == DATA
    require_safe_from_create(world, "theirs")
    assert take(world, "theirs") == record
    assert world.names() == ["theirs"]
    with world.pool() as pool:
        volume_id = VolumeId(pool.location, record.image_id)
    assert world.volumes.get(volume_id).context == {"encryption": "none"}


def test_the_manifest_names_the_volume_and_the_secret(world: CephWorld) -> None:
    make(world, "theirs")
    record = take(world, "theirs")
    with world.pool() as pool:
        volume_id = VolumeId(pool.location, record.image_id)
    made = manifest(volume_id, record, "a.driver", SecretRef("team", "key"))
    csi = made["spec"]["csi"]
    assert csi["driver"] == "a.driver"
    assert VolumeId.parse(csi["volumeHandle"]) == volume_id
    assert csi["volumeAttributes"] == {"encryption": "none"}
    assert csi["nodeStageSecretRef"] == {"name": "key", "namespace": "team"}
    assert made["spec"]["capacity"] == {"storage": str(SIZE)}
    assert made["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    assert (
        "nodeStageSecretRef"
        not in manifest(volume_id, record, "d", None)["spec"]["csi"]
    )


def refused(world: CephWorld, name: str, kind: type[DriverError], said: str) -> None:
    before = world.content()
    with pytest.raises(kind, match=said):
        take(world, name)
    assert world.content() == before


def test_images_that_cannot_be_served(world: CephWorld) -> None:
    refused(world, "none-such", NotFoundError, "none-such")
    make(world, "unlocked", features=rbd.RBD_FEATURE_LAYERING)
    refused(world, "unlocked", PreconditionError, "exclusive-lock")
    journaled = rbd.RBD_FEATURE_EXCLUSIVE_LOCK | rbd.RBD_FEATURE_JOURNALING
    make(world, "journaled", features=journaled)
    refused(world, "journaled", PreconditionError, "journaled")
    make(world, "unaligned", SIZE + 512)
    refused(world, "unaligned", SizeError, "whole blocks")
    make(world, "empty", 0)
    refused(world, "empty", SizeError, "0 bytes")
    for number, start in enumerate((b"LUKS\xba\xbe\x00\x02", b"LUKS\xba\xbe\x00\x09")):
        make(world, f"damaged-{number}")
        write(world, f"damaged-{number}", start)
        refused(world, f"damaged-{number}", HeaderError, "LUKS")


def test_a_place_that_the_driver_does_not_own(world: CephWorld) -> None:
    make(world, "theirs")
    other = CephWorld()
    with world.pool() as pool, pytest.raises(InvalidRequestError, match="not among"):
        adopt(pool, other.config, Adoption("theirs"))
    other.close()


def test_names_that_are_taken(world: CephWorld) -> None:
    made = world.create("taken")
    make(world, "theirs")
    with pytest.raises(AlreadyExistsError, match="--name"):
        take(world, "theirs", "taken")
    assert world.volumes.get(made.volume_id) == made
    # Under another name it works, and is one volume only.
    record = take(world, "theirs", "free")
    with pytest.raises(AlreadyExistsError, match="'free' already"):
        take(world, "theirs", "second")
    assert take(world, "theirs", "free") == record
    assert world.names() == ["free", "taken"]


def test_an_adoption_that_was_interrupted_is_finished(world: CephWorld) -> None:
    make(world, "theirs")
    record = take(world, "theirs")
    with world.pool() as pool:
        directory = Directory(pool)
        entry = Entry("theirs", "theirs", record.image_id)
        directory.bury(entry)
        directory.forget(entry)
    assert world.names() == []
    assert take(world, "theirs") == record
    assert world.names() == ["theirs"]


def test_an_adoption_that_lost_its_name_gets_another(world: CephWorld) -> None:
    make(world, "theirs")
    first = take(world, "theirs", "wanted")
    with world.pool() as pool:
        directory = Directory(pool)
        entry = Entry("wanted", "theirs", first.image_id)
        directory.bury(entry)
        directory.forget(entry)
    # As if a CreateVolume had been faster between the record and the entry.
    winner = world.create("wanted")
    with pytest.raises(AlreadyExistsError, match="--name"):
        take(world, "theirs", "wanted")
    record = take(world, "theirs", "other")
    assert (record.name, record.image_id) == ("other", first.image_id)
    assert world.names() == ["other", "wanted"]
    assert world.volumes.get(winner.volume_id) == winner


def test_a_lost_record_does_not_make_an_adopted_image_fresh(world: CephWorld) -> None:
    make(world, "theirs")
    write(world, "theirs", DATA)
    record = take(world, "theirs")
    with world.ioctx() as ioctx, rbd.Image(ioctx, "theirs") as image:
        image.metadata_remove(".rbdcrypt")
    before = world.content()
    for request in (world.request("theirs"), world.plaintext("theirs", SIZE)):
        with pytest.raises(PreconditionError, match="lost its record"):
            world.volumes.create(request)
    assert world.content() == before
    with world.pool() as pool, pool.open_raw(record.image_id) as raw:
        assert raw.read_header(BLOCK_SIZE) == DATA


def test_deleting_an_adopted_volume_removes_the_image(world: CephWorld) -> None:
    make(world, "theirs")
    record = take(world, "theirs")
    with world.pool() as pool:
        volume_id = VolumeId(pool.location, record.image_id)
    world.volumes.delete(volume_id)
    world.collect_all()
    assert world.content() == {}


@pytest.mark.parametrize("block", [False, True])
def test_an_adopted_image_does_not_change_its_kind(
    world: CephWorld, *, block: bool
) -> None:
    make(world, "kind")
    with world.pool() as pool:
        first = adopt(pool, world.config, Adoption("kind", block=block))
        assert first.block is block
        before = world.content()
        with pytest.raises(AlreadyExistsError, match="--block"):
            adopt(pool, world.config, Adoption("kind", block=not block))
        assert adopt(pool, world.config, Adoption("kind", block=block)) == first
    assert world.content() == before
