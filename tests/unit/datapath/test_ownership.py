# SPDX-License-Identifier: Apache-2.0
"""Whose lock may be broken: one's own dead predecessor's and nobody else's."""

from __future__ import annotations

import dataclasses

import pytest

from csi_driver.datapath import ownership
from csi_driver.datapath.messages import Predecessor
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.exports import ExportEntry
from csi_driver.domain.parameters import VolumeParameters
from csi_driver.domain.record import EncryptionMode
from csi_driver.domain.record import Record
from csi_driver.domain.record import VolumeState
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.domain.sizes import Layout

HERE, OLD, NEW = "10.0.0.1:0/7", "boot-old", "boot-new"


@pytest.fixture
def record() -> Record:
    return Record(
        name="pvc-1",
        image_id="abc",
        state=VolumeState.READY,
        mode=EncryptionMode.KEYRING,
        parameters=VolumeParameters("lab", "rbd"),
        layout=Layout(16 << 20),
        desired=EffectiveSize(4096),
        actual=EffectiveSize(4096),
    )


def exported(record: Record, node: str, boot: str) -> Record:
    entry = ExportEntry(node, boot, HERE, read_only=False)
    return dataclasses.replace(record, exports=(entry,))


@pytest.mark.parametrize(
    ("node", "boot", "predecessor"),
    [
        ("a", OLD, Predecessor()),
        ("a", NEW, Predecessor(gone=True)),
        ("b", NEW, Predecessor((HERE,), gone=True)),
    ],
    ids=["another boot", "process gone", "address written down"],
)
def test_a_dead_predecessors_lock_may_be_broken(
    record: Record, node: str, boot: str, predecessor: Predecessor
) -> None:
    ownership.require_dead_predecessor(
        HERE, exported(record, node, boot), "a", NEW, predecessor
    )


@pytest.mark.parametrize(
    ("node", "boot", "predecessor", "words"),
    [
        ("b", OLD, Predecessor(gone=True), "on node 'b'"),
        ("b", NEW, Predecessor(gone=True), "on node 'b'"),
        ("a", NEW, Predecessor(), "not proven"),
        ("a", NEW, Predecessor((HERE,)), "not proven"),
    ],
)
def test_no_other_lock_may(
    record: Record, node: str, boot: str, predecessor: Predecessor, words: str
) -> None:
    with pytest.raises(InUseError, match=words):
        ownership.require_dead_predecessor(
            HERE, exported(record, node, boot), "a", NEW, predecessor
        )


def test_a_stranger_is_named_by_its_address(record: Record) -> None:
    with pytest.raises(InUseError, match=HERE):
        ownership.require_dead_predecessor(
            HERE, record, "a", NEW, Predecessor(gone=True)
        )


def test_only_a_ready_volume_of_the_asked_mode_is_served(record: Record) -> None:
    ownership.require_servable(record, EncryptionMode.KEYRING)
    for mode in (EncryptionMode.NONE, EncryptionMode.PASSPHRASE):
        with pytest.raises(PreconditionError, match="nothing was served"):
            ownership.require_servable(record, mode)
    creating = dataclasses.replace(record, state=VolumeState.CREATING)
    with pytest.raises(PendingError):
        ownership.require_servable(creating, EncryptionMode.KEYRING)
    deleted = dataclasses.replace(record, state=VolumeState.DELETED)
    with pytest.raises(NotFoundError):
        ownership.require_servable(deleted, EncryptionMode.KEYRING)


def test_an_image_may_be_larger_but_not_smaller(record: Record) -> None:
    ownership.require_size(record, EffectiveSize(4096))
    ownership.require_size(record, EffectiveSize(8192))
    with pytest.raises(PreconditionError, match=r"4096 bytes by its record.*0 bytes"):
        ownership.require_size(record, EffectiveSize(0))
