# SPDX-License-Identifier: Apache-2.0
"""Stages that must not happen: wrong keys, other modes, unexpected content."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest

from csi_driver.devices import filesystems
from csi_driver.devices import mounts
from csi_driver.domain.chain import HeaderKind
from csi_driver.domain.chain import header_kind
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import HeaderError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.filesystem_state import FilesystemState
from csi_driver.domain.record import EncryptionMode
from csi_driver.domain.record import Record
from csi_driver.images.connections import SharedConnections
from csi_driver.provisioning.requests import VolumeInfo
from tests.ceph.staging.harness import BLOCK_WRITER
from tests.ceph.staging.harness import MIB
from tests.ceph.staging.harness import OTHER_SECRETS
from tests.ceph.staging.harness import SECRETS
from tests.ceph.staging.harness import WRITER
from tests.ceph.staging.harness import CreateVolume
from tests.ceph.staging.harness import Node
from tests.ceph.staging.harness import own_ceph_user
from tests.ceph.staging.harness import read_device

WELL_FORMED = "AQAA8VNlAAAAABAAAAECAwQFBgcICQoLDA0ODw=="
"""A key in cephx's form that no user has."""


def require_untouched(node: Node, volume: VolumeInfo, before: Record) -> None:
    """Check that a refused stage left nothing behind."""
    assert node.record(volume) == before
    assert node.datapath.status(volume.volume_id) is None
    assert not node.state_file(volume).exists()
    assert not mounts.at(mounts.read_mounts(), node.staging)


def test_a_wrong_secret_is_refused_before_any_export(
    node: Node, create: CreateVolume
) -> None:
    volume = create()
    before = node.record(volume)
    assert before.ring is not None
    with pytest.raises(SecretError, match="fingerprint") as caught:
        node.stage(volume, secrets=OTHER_SECRETS)
    assert before.ring.fingerprint in str(caught.value)
    assert OTHER_SECRETS["encryptionKey"] not in str(caught.value)
    require_untouched(node, volume, before)
    node.stage(volume)


@pytest.mark.parametrize(
    ("secrets", "words"),
    [
        ({}, "no Secret came"),
        ({"encryptionPassphrase": ""}, "empty"),
        ({"encryptionPassphrase": "a\n"}, "newline"),
        ({"encryptionPassphrase": "a\0b"}, "NUL"),
        ({**SECRETS, "userID": "someone"}, "userKey"),
    ],
    ids=["absent", "empty", "newline", "nul", "half-user"],
)
def test_bad_secrets(
    node: Node, create: CreateVolume, secrets: Mapping[str, str], words: str
) -> None:
    volume = create()
    before = node.record(volume)
    with pytest.raises(SecretError, match=words):
        node.stage(volume, secrets=secrets)
    require_untouched(node, volume, before)


@pytest.mark.parametrize(
    ("user", "key"),
    [("nobody", WELL_FORMED), ("rbdcrypt", WELL_FORMED), ("rbdcrypt", "bm9uZQ==")],
    ids=["unknown-user", "wrong-key", "malformed-key"],
)
def test_a_cephx_key_that_does_not_open(
    node: Node, create: CreateVolume, user: str, key: str
) -> None:
    volume = create()
    before = node.record(volume)
    secrets = {**SECRETS, "userID": user, "userKey": key}
    with pytest.raises(SecretError, match=user) as caught:
        node.stage(volume, secrets=secrets)
    assert key not in str(caught.value)
    require_untouched(node, volume, before)


def test_a_ceph_user_of_the_tenant(node: Node, create: CreateVolume) -> None:
    volume = create(capability=BLOCK_WRITER)
    node.stage(volume, BLOCK_WRITER, {**SECRETS, **own_ceph_user()})


@pytest.mark.parametrize(
    ("context", "error", "words"),
    [
        ({"encryption": "none"}, PreconditionError, "altered"),
        ({"encryption": "passphrase"}, PreconditionError, "altered"),
        ({"encryption": "rot13"}, InvalidRequestError, "rot13"),
        ({}, InvalidRequestError, "missing"),
    ],
)
def test_the_mode_of_the_context_must_be_the_records(
    node: Node,
    create: CreateVolume,
    context: Mapping[str, str],
    error: type[DriverError],
    words: str,
) -> None:
    volume = create()
    before = node.record(volume)
    with pytest.raises(error, match=words):
        node.stage(volume, context=context)
    require_untouched(node, volume, before)


def test_a_record_turned_to_plaintext(node: Node, create: CreateVolume) -> None:
    volume = create()
    node.change_record(
        volume,
        lambda record: dataclasses.replace(record, mode=EncryptionMode.NONE, ring=None),
    )
    before = node.record(volume)
    with pytest.raises(PreconditionError, match="altered"):
        node.stage(volume)
    require_untouched(node, volume, before)


def test_a_volume_without_its_header(
    node: Node, create: CreateVolume, connections: SharedConnections
) -> None:
    volume = create()
    before = node.record(volume)
    image_id = volume.volume_id.image_id
    with (
        connections.pool_at(volume.volume_id.location) as pool,
        pool.open_raw(image_id) as image,
    ):
        image.erase_header(4096)
        assert header_kind(image.read_header(8)) is HeaderKind.NONE
    with pytest.raises(HeaderError, match="not served as plaintext"):
        node.stage(volume)
    require_untouched(node, volume, before)


def test_mount_flags_that_reach_beyond_the_volume(
    node: Node, create: CreateVolume
) -> None:
    volume = create()
    before = node.record(volume)
    with pytest.raises(InvalidRequestError, match="remount"):
        node.stage(volume, dataclasses.replace(WRITER, mount_flags=("remount",)))
    require_untouched(node, volume, before)


def test_a_signature_on_a_fresh_volume_forbids_mkfs(
    node: Node, create: CreateVolume
) -> None:
    volume = create()
    node.stage(volume, BLOCK_WRITER)
    status = node.datapath.status(volume.volume_id)
    assert status is not None
    assert status.device is not None
    filesystems.make(status.device.path, "ext4")
    before = read_device(status.device.path, MIB)
    node.unstage(volume)
    set_filesystem(node, volume, FilesystemState.NONE)

    with pytest.raises(PreconditionError, match="already carries ext4"):
        node.stage(volume)
    require_untouched(node, volume, node.record(volume))
    assert node.record(volume).filesystem is FilesystemState.NONE
    node.stage(volume, BLOCK_WRITER)
    assert read_device(node.publish(volume, BLOCK_WRITER), MIB) == before


def test_an_interrupted_mkfs_is_repeated(node: Node, create: CreateVolume) -> None:
    volume = create()
    node.stage(volume)
    (node.staging / "file").write_bytes(b"of the first one")
    node.unstage(volume)
    set_filesystem(node, volume, FilesystemState.MAKING)
    with pytest.raises(PreconditionError, match="begun and not finished"):
        node.stage(volume, BLOCK_WRITER)
    node.stage(volume)
    assert node.record(volume).filesystem is FilesystemState.EXT4
    assert not (node.staging / "file").exists()


def test_a_block_volume_gets_no_filesystem(node: Node, create: CreateVolume) -> None:
    volume = create(capability=BLOCK_WRITER)
    node.stage(volume, BLOCK_WRITER)
    node.unstage(volume)
    before = node.record(volume)
    with pytest.raises(PreconditionError, match="as a block device"):
        node.stage(volume)
    require_untouched(node, volume, before)


def test_a_missing_filesystem_is_not_made_anew(
    node: Node, create: CreateVolume
) -> None:
    volume = create()
    set_filesystem(node, volume, FilesystemState.EXT4)
    before = node.record(volume)
    with pytest.raises(PreconditionError, match="no signature"):
        node.stage(volume)
    require_untouched(node, volume, before)


def set_filesystem(node: Node, volume: VolumeInfo, state: FilesystemState) -> None:
    node.change_record(
        volume, lambda record: dataclasses.replace(record, filesystem=state)
    )
