# SPDX-License-Identifier: Apache-2.0
"""Opening, loading, growing, locking and fencing a real image by ctypes."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import time
from collections.abc import Iterator

import pytest

from csi_driver.domain.chain import LayerSpec
from csi_driver.domain.chain import LoadSpecs
from csi_driver.domain.chain import LuksFormat
from csi_driver.domain.errors import AlreadyLoadedError
from csi_driver.domain.errors import FencedError
from csi_driver.domain.errors import HeaderError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.errors import SizeError
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.secrets import SecretBytes
from csi_driver.nbd.librbd_connection import CephClient
from csi_driver.nbd.librbd_connection import Connection
from csi_driver.nbd.librbd_image import ImageTarget
from csi_driver.nbd.librbd_image import LibrbdImage
from csi_driver.nbd.librbd_image import Plaintext
from csi_driver.testing.lab_images import HEADER
from csi_driver.testing.lab_images import MIB
from csi_driver.testing.lab_images import LabImages
from csi_driver.testing.lab_images import load_specs
from tests.ceph.images.cluster_settings import cluster_setting

KEY = bytes(range(32))  # NUL bytes count: it is pointer and length


@pytest.fixture
def target(lab: LabImages) -> Iterator[ImageTarget]:
    with lab.image(64 * MIB, KEY) as target:
        yield target


def watchers(lab: LabImages, target: ImageTarget) -> int:
    """Count the clients that have the image open, our own look apart."""
    with lab.raw(target, read_only=True) as image:
        return len(list(image.watchers_list()))


def test_the_size_is_effective_once_loaded(lab: LabImages, target: ImageTarget) -> None:
    image = LibrbdImage(lab.client(), target, load_specs(KEY))
    assert image.loaded
    assert image.size() == 64 * MIB
    image.close()
    image.close()
    with lab.raw(target) as raw:
        assert raw.size() == 64 * MIB + HEADER


@pytest.mark.parametrize("by", ["name", "id"])
def test_an_image_is_found_by_name_and_by_id(
    lab: LabImages, target: ImageTarget, by: str
) -> None:
    if by == "id":
        target = dataclasses.replace(target, name="")
    else:
        target = dataclasses.replace(target, image_id="")
    image = LibrbdImage(lab.client(), target, load_specs(KEY))
    assert image.size() == 64 * MIB
    image.close()


def test_plaintext_is_asked_for_by_name(lab: LabImages) -> None:
    with lab.image(8 * MIB) as target:
        image = LibrbdImage(lab.client(), target, Plaintext())
        assert not image.loaded
        assert image.size() == 8 * MIB
        image.close()


def test_a_named_format_loads_too(lab: LabImages, target: ImageTarget) -> None:
    specs = LoadSpecs((LayerSpec(SecretBytes(KEY), LuksFormat.LUKS2),))
    LibrbdImage(lab.client(), target, specs).close()
    wrong = LoadSpecs((LayerSpec(SecretBytes(KEY), LuksFormat.LUKS1),))
    with pytest.raises(HeaderError):
        LibrbdImage(lab.client(), target, wrong)


def test_a_second_load_is_refused_by_us(lab: LabImages, target: ImageTarget) -> None:
    image = LibrbdImage(lab.client(), target, load_specs(KEY))
    with pytest.raises(AlreadyLoadedError):
        image.load(load_specs(KEY))
    image.close()


@pytest.mark.parametrize(
    ("passphrases", "error"),
    [
        ([b"wrong"], SecretError),
        ([KEY[:-1]], SecretError),
        ([KEY + b"\n"], SecretError),
        ([b""], SecretError),
        ([KEY, KEY], HeaderError),
    ],
)
def test_a_failed_load_leaves_nothing_open(
    lab: LabImages,
    target: ImageTarget,
    passphrases: list[bytes],
    error: type[Exception],
) -> None:
    with pytest.raises(error, match=target.name) as caught:
        LibrbdImage(lab.client(), target, load_specs(*passphrases))
    assert KEY.hex() not in str(caught.value)
    assert watchers(lab, target) == 0


def test_an_image_without_header_cannot_be_loaded(lab: LabImages) -> None:
    with lab.image(8 * MIB) as target:
        with pytest.raises(HeaderError):
            LibrbdImage(lab.client(), target, load_specs(KEY))
        assert watchers(lab, target) == 0


def test_what_does_not_exist_is_named(lab: LabImages, target: ImageTarget) -> None:
    with pytest.raises(NotFoundError, match="rbd/nothing"):
        LibrbdImage(lab.client(), ImageTarget(pool="rbd", name="nothing"), Plaintext())
    with pytest.raises(NotFoundError, match="no such image"):
        LibrbdImage(
            lab.client(), ImageTarget(pool="rbd", image_id="feedbeef"), Plaintext()
        )
    with pytest.raises(NotFoundError, match="pool nopool"):
        LibrbdImage(
            lab.client("admin"), ImageTarget(pool="nopool", name="x"), Plaintext()
        )


WELL_FORMED = b"AQAA8VNlAAAAABAAAAECAwQFBgcICQoLDA0ODw=="
"""A key in cephx's form that no user has."""


@pytest.mark.parametrize(
    ("user", "key"),
    [
        ("rbdcrypt", WELL_FORMED),
        ("nobody", WELL_FORMED),
        ("rbdcrypt", b"no base64!"),
        ("rbdcrypt", b"bm9uZQ=="),
        ("rbdcrypt", b""),
    ],
    ids=["wrong", "unknown-user", "no-base64", "too-short", "empty"],
)
def test_a_cephx_key_that_does_not_open_is_a_secret_error(
    lab: LabImages,
    target: ImageTarget,
    user: str,
    key: bytes,
    capfd: pytest.CaptureFixture[str],
) -> None:
    client = CephClient(lab.monitors, user, SecretBytes(key))
    with pytest.raises(SecretError, match=rf"client\.{user}") as caught:
        LibrbdImage(client, target, load_specs(KEY))
    shown = "".join(capfd.readouterr()) + str(caught.value)
    assert not key or key.decode() not in shown


def test_unreachable_monitors_end_in_time(lab: LabImages, target: ImageTarget) -> None:
    client = CephClient("[v2:127.0.0.1:9]", "rbdcrypt", lab.client().key)
    before = time.monotonic()
    with pytest.raises(UnavailableError):
        LibrbdImage(client, target, load_specs(KEY))
    assert time.monotonic() - before < 20


@pytest.mark.parametrize(
    "settings",
    [
        {"rbd_cache": "true"},
        {"rbd cache": "true"},
        {"rados_osd_op_timeout": "30"},
        {"rbd_plugins": "pwl_cache"},
        {"key": "x"},
    ],
)
def test_settings_that_lose_writes_are_refused(
    lab: LabImages, settings: dict[str, str]
) -> None:
    with pytest.raises(InvalidRequestError):
        lab.client(**settings)


@pytest.mark.parametrize("option", ["rados_osd_op_timeout", "rados_mon_op_timeout"])
def test_no_write_times_out_whatever_all_clients_are_told(
    lab: LabImages, option: str
) -> None:
    found = ctypes.create_string_buffer(64)
    get = ctypes.CDLL("librados.so.2")["rados_conf_get"]
    with cluster_setting(option, "1234") as told:
        assert told.conf_get(option) == "1234"
        with contextlib.closing(Connection(lab.client())) as connection:
            assert get(connection.cluster, option.encode(), found, len(found)) == 0
    assert found.value == b"0"


def test_the_cache_is_off(lab: LabImages, target: ImageTarget) -> None:
    image = LibrbdImage(lab.client(), target, load_specs(KEY))
    assert image.settings()["rbd_cache"] == ("false", "client")
    image.close()


def test_a_cache_set_on_the_image_is_noticed(
    lab: LabImages, target: ImageTarget
) -> None:
    with lab.raw(target) as raw:
        raw.metadata_set("conf_rbd_cache", "true")
    with pytest.raises(PreconditionError, match=r"rbd_cache is 'true'.*image"):
        LibrbdImage(lab.client(), target, load_specs(KEY))
    assert watchers(lab, target) == 0


def test_a_cache_set_on_the_pool_is_noticed(lab: LabImages) -> None:
    with lab.own_pool() as pool, pool.image(8 * MIB, KEY) as target:
        pool.set_pool_option("rbd_cache", "true")
        with pytest.raises(PreconditionError, match=r"rbd_cache is 'true'.*pool"):
            LibrbdImage(pool.client("admin"), target, load_specs(KEY))


def test_growing_is_effective_and_never_shrinks(
    lab: LabImages, target: ImageTarget
) -> None:
    image = LibrbdImage(lab.client(), target, load_specs(KEY))
    image.acquire_lock()
    assert image.grow(96 * MIB) == 96 * MIB
    with pytest.raises(SizeError):
        image.grow(64 * MIB)
    assert image.size() == 96 * MIB
    image.close()
    with lab.raw(target) as raw:
        assert raw.size() == 96 * MIB + HEADER


def test_the_owner_of_the_lock_alone_shrinks(
    lab: LabImages, target: ImageTarget
) -> None:
    image = LibrbdImage(lab.client(), target, load_specs(KEY))
    with pytest.raises(InUseError, match="owner of its lock"):
        image.shrink(32 * MIB)
    image.acquire_lock()
    with pytest.raises(SizeError, match="would not shrink"):
        image.shrink(65 * MIB)
    assert image.shrink(32 * MIB) == 32 * MIB
    image.close()
    with lab.raw(target) as raw:
        assert raw.size() == 32 * MIB + HEADER


def test_one_owner_at_a_time(lab: LabImages, target: ImageTarget) -> None:
    first = LibrbdImage(lab.client(), target, load_specs(KEY))
    second = LibrbdImage(lab.client(), target, load_specs(KEY))
    assert not first.is_lock_owner()
    first.acquire_lock()
    assert first.is_lock_owner()
    with pytest.raises(InUseError, match=first.address.split("/")[-1]):
        second.acquire_lock()
    assert not second.is_lock_owner()
    first.close()
    second.acquire_lock()
    second.close()


def test_the_address_is_the_watchers(lab: LabImages, target: ImageTarget) -> None:
    image = LibrbdImage(lab.client(), target, load_specs(KEY))
    with lab.raw(target, read_only=True) as raw:
        assert image.address in {each["addr"] for each in raw.watchers_list()}
    image.close()


def test_a_fenced_client_knows_and_still_closes(
    lab: LabImages, target: ImageTarget
) -> None:
    image = LibrbdImage(lab.client(), target, load_specs(KEY))
    image.acquire_lock()
    lab.blocklist(image.address)
    with pytest.raises(FencedError):
        image.grow(96 * MIB)
    image.close()


def test_read_only_needs_no_lock(lab: LabImages, target: ImageTarget) -> None:
    writer = LibrbdImage(lab.client(), target, load_specs(KEY))
    writer.acquire_lock()
    reader = LibrbdImage(
        lab.client(), dataclasses.replace(target, read_only=True), load_specs(KEY)
    )
    assert reader.read_only
    assert reader.size() == 64 * MIB
    reader.close()
    writer.close()
