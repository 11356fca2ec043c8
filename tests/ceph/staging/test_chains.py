# SPDX-License-Identifier: Apache-2.0
"""The layers of a clone: which keys load them, and what stands against that."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import pytest
import rbd

from csi_driver.domain.chain import specs_for
from csi_driver.domain.errors import HeaderError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.record import Record
from csi_driver.images.chains import FIRST_BYTES
from csi_driver.images.chains import read_chain
from csi_driver.images.port import Pool
from csi_driver.keys.material import parse_key_source
from csi_driver.keys.ring import open_ring
from csi_driver.provisioning.requests import VolumeInfo
from tests.ceph.staging.clones import Clones
from tests.ceph.staging.clones import staged
from tests.ceph.staging.harness import MIB
from tests.ceph.staging.harness import OTHER_SECRETS
from tests.ceph.staging.harness import SECRETS
from tests.ceph.staging.harness import SIZE
from tests.ceph.staging.harness import WRITER
from tests.ceph.staging.harness import CreateVolume
from tests.ceph.staging.harness import Node


def change(node: Node, volume: VolumeInfo, layers: tuple[str, ...]) -> None:
    node.change_record(
        volume, lambda record: dataclasses.replace(record, layers=layers)
    )


def flatten(pool: Pool, record: Record) -> None:
    """Flatten a clone, loaded, and tell its record nothing."""
    assert record.ring is not None
    with open_ring(record.ring, parse_key_source(OTHER_SECRETS)) as opened:
        keys = opened.passphrases()
    specs = specs_for(read_chain(pool, record.image_id), keys)
    with pool.open_loaded(record.image_id, specs) as image:
        image.acquire_lock()
        image.flatten(lambda _done, _total: True)


def test_eight_layers(node: Node, source: VolumeInfo, clones: Clones) -> None:
    volume = clones.make(source)
    for _ in range(6):
        volume = clones.make(volume, source_secrets=OTHER_SECRETS)
    assert len(node.record(volume).layers) == 8
    assert staged(node, volume) == b"from the source"


def test_a_clone_that_was_flattened_meanwhile(
    node: Node, source: VolumeInfo, clones: Clones, pool: Pool
) -> None:
    clone = clones.make(source)
    flatten(pool, node.record(clone))
    assert len(node.record(clone).layers) == 2
    assert staged(node, clone) == b"from the source"


@pytest.mark.parametrize("wrong", [(), (0,), (0, 0), (0, 1), (0, 2, 1), (0, 2, 1, 1)])
def test_a_wrong_record_of_the_layers(
    node: Node, source: VolumeInfo, clones: Clones, wrong: tuple[int, ...]
) -> None:
    clone = clones.make(clones.make(source), source_secrets=OTHER_SECRETS)
    layers = node.record(clone).layers
    change(node, clone, tuple(layers[each] for each in wrong))
    assert staged(node, clone) == b"from the source"


def test_a_record_that_names_an_unknown_layer(
    node: Node, source: VolumeInfo, clones: Clones
) -> None:
    clone = clones.make(source)
    own, _ = node.record(clone).layers
    change(node, clone, (own, "00000000-0000-0000-0000-000000000000"))
    assert staged(node, clone) == b"from the source"


def test_a_key_that_the_ring_lacks(
    node: Node, source: VolumeInfo, clones: Clones
) -> None:
    clone = clones.make(source)
    _, below = node.record(clone).layers

    def without(record: Record) -> Record:
        assert record.ring is not None
        return dataclasses.replace(record, ring=record.ring.without({below}))

    node.change_record(clone, without)
    with pytest.raises(SecretError, match=below) as caught:
        node.stage(clone, WRITER, OTHER_SECRETS)
    assert source.volume_id.image_id in str(caught.value)
    assert node.record(clone).name in str(caught.value)


def test_the_sources_secret_does_not_open_the_clone(
    node: Node, source: VolumeInfo, clones: Clones
) -> None:
    clone = clones.make(source)
    with pytest.raises(SecretError, match="fingerprint"):
        node.stage(clone, WRITER, SECRETS)


def test_a_clone_that_was_flattened_raw(
    node: Node, source: VolumeInfo, clones: Clones, pool: Any
) -> None:
    clone = clones.make(source)
    with rbd.Image(pool.ioctx, image_id=clone.volume_id.image_id) as image:
        image.flatten()
    with pytest.raises(HeaderError, match="rbdcrypt-csi volume check") as caught:
        node.stage(clone, WRITER, OTHER_SECRETS)
    assert "no parent" in str(caught.value)


def test_a_clone_whose_own_header_is_gone(
    node: Node, source: VolumeInfo, clones: Clones, pool: Pool
) -> None:
    """It would load with its parent's key, and show garbage."""
    clone = clones.make(source)
    with (
        pool.open_raw(source.volume_id.image_id, read_only=True) as parent,
        pool.open_raw(clone.volume_id.image_id) as image,
    ):
        header = parent.read_header(4 * MIB)
        image.erase_header(4 * MIB)
        image.write_clone_header(header, header[:FIRST_BYTES])
    with pytest.raises(HeaderError, match="another layer"):
        node.stage(clone, WRITER, OTHER_SECRETS)


def test_an_encrypted_clone_of_a_plaintext_volume(
    node: Node, create: CreateVolume, clones: Clones
) -> None:
    volume = create(parameters={"encrypted": "false"}, secrets={})
    node.stage(volume, secrets={})
    (node.staging / "file").write_bytes(b"from the source")
    node.unstage(volume)
    clone = clones.make(volume)
    assert len(node.record(clone).layers) == 1
    assert staged(node, clone) == b"from the source"
    node.unstage(clone)
    deeper = clones.make(clone, source_secrets=OTHER_SECRETS)
    assert len(node.record(deeper).layers) == 2
    assert staged(node, deeper) == b"from the source"


def test_a_foreign_resize_of_a_staged_clone_is_mended(
    node: Node, source: VolumeInfo, clones: Clones, pool: Any
) -> None:
    clone = clones.make(source)
    assert staged(node, clone) == b"from the source"
    raw = node.record(clone).raw_size.count
    asked = raw + 8 * MIB
    with rbd.Image(pool.ioctx, image_id=clone.volume_id.image_id) as image:
        image.resize(asked, allow_shrink=False)
        assert image.size() > asked
    assert node.expand(clone, 0) == SIZE
    with contextlib.closing(
        rbd.Image(pool.ioctx, image_id=clone.volume_id.image_id, read_only=True)
    ) as image:
        assert image.size() == raw
    node.unstage(clone)
    assert staged(node, clone) == b"from the source"
