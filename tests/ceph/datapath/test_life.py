# SPDX-License-Identifier: Apache-2.0
"""Open, use, close; and what stays afterwards: nothing."""

from __future__ import annotations

import dataclasses
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import rbd

from csi_driver.domain.errors import HeaderError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.record import EncryptionMode
from csi_driver.domain.record import VolumeState
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import EffectiveSize

if TYPE_CHECKING:
    from csi_driver.domain.record import Record
    from tests.ceph.datapath.conftest import MakeVolume
    from tests.ceph.datapath.running import Running
    from tests.ceph.datapath.running import Volume

BLOCK = 4096


@pytest.fixture(params=[EncryptionMode.KEYRING, EncryptionMode.NONE])
def either(request: pytest.FixtureRequest, make_volume: MakeVolume) -> Volume:
    volume: Volume = make_volume(request.param)
    return volume


def test_what_was_written_is_there_after_closing_and_opening(
    datapath: Running, either: Volume
) -> None:
    volume = either
    content = secrets.token_bytes(BLOCK)
    opened = datapath.client.open(volume.request())
    assert opened.size == EffectiveSize(64 * MIB)
    assert datapath.disk(volume).size() == opened.size.count
    last = opened.size.count - BLOCK
    disk = datapath.disk(volume)
    disk.write(last, content)
    assert disk.read(last) == content
    assert volume.lock_owner() == opened.client_address
    (entry,) = volume.record().exports
    assert entry.client_address == opened.client_address
    worker = datapath.worker_pid(volume)

    datapath.client.close(volume.volume_id)

    assert not Path(f"/proc/{worker}").exists(), "the worker, and the key, stay"
    assert volume.lock_owner() is None
    assert volume.record().exports == ()
    assert datapath.client.status(volume.volume_id) is None
    assert datapath.state_files == []
    datapath.client.open(volume.request())
    assert datapath.disk(volume).read(last) == content


def test_opening_and_closing_twice_is_the_same_as_once(
    datapath: Running, volume: Volume
) -> None:
    first = datapath.client.open(volume.request())
    worker = datapath.worker_pid(volume)
    assert datapath.client.open(volume.request()) == first
    assert datapath.worker_pid(volume) == worker
    with pytest.raises(PreconditionError, match="is open writable"):
        datapath.client.open(volume.request(read_only=True))
    datapath.client.close(volume.volume_id)
    datapath.client.close(volume.volume_id)


def test_a_wrong_key_leaves_nothing(datapath: Running, volume: Volume) -> None:
    with pytest.raises(SecretError):
        datapath.client.open(volume.request(dek=secrets.token_bytes(32)))
    assert datapath.client.list() == ()
    assert datapath.state_files == []
    assert volume.record().exports == ()
    assert volume.lock_owner() is None
    datapath.client.open(volume.request())


def test_an_encrypted_volume_is_never_served_raw(
    datapath: Running, volume: Volume
) -> None:
    with pytest.raises(PreconditionError, match="encryption mode"):
        datapath.client.open(volume.request(mode=EncryptionMode.NONE))
    assert volume.record().exports == ()
    assert volume.lock_owner() is None


def test_a_missing_header_is_not_taken_for_plaintext(
    datapath: Running, volume: Volume
) -> None:
    with volume.pool.open_raw(volume.volume_id.image_id) as raw:
        raw.erase_header(BLOCK)
    with pytest.raises(HeaderError, match="not served as plaintext"):
        datapath.client.open(volume.request())
    assert volume.record().exports == ()


def test_a_volume_being_created_is_not_served(
    datapath: Running, make_volume: MakeVolume
) -> None:
    volume = make_volume(state=VolumeState.CREATING)
    with pytest.raises(PendingError, match="still being created"):
        datapath.client.open(volume.request())
    assert volume.lock_owner() is None


def test_an_image_smaller_than_its_record_is_refused(
    datapath: Running, make_volume: MakeVolume
) -> None:
    volume = make_volume(size=EffectiveSize(32 * MIB))
    bigger = EffectiveSize(33 * MIB)
    volume.change(lambda record: _sized(record, bigger))
    with pytest.raises(PreconditionError, match=str(32 * MIB)):
        datapath.client.open(volume.request())
    assert volume.record().exports == ()
    assert volume.lock_owner() is None


def _sized(record: Record, size: EffectiveSize) -> Record:
    return dataclasses.replace(record, desired=size, actual=size)


@pytest.mark.parametrize("mode", [EncryptionMode.KEYRING, EncryptionMode.NONE])
def test_growing_online_keeps_the_data_and_is_repeatable(
    datapath: Running, make_volume: MakeVolume, mode: EncryptionMode
) -> None:
    volume = make_volume(mode)
    content = secrets.token_bytes(BLOCK)
    datapath.client.open(volume.request())
    datapath.disk(volume).write(0, content)
    wanted = EffectiveSize(96 * MIB)
    volume.desire(wanted)

    assert datapath.client.grow(volume.volume_id) == wanted
    assert datapath.client.grow(volume.volume_id) == wanted

    record = volume.record()
    assert record.actual == wanted
    assert volume.raw_size() == record.layout.raw(wanted).count
    assert datapath.disk(volume).size() == wanted.count
    end = secrets.token_bytes(BLOCK)
    datapath.disk(volume).write(wanted.count - BLOCK, end)
    assert datapath.disk(volume).read(wanted.count - BLOCK) == end
    assert datapath.disk(volume).read(0) == content


def test_a_grow_that_was_missed_is_made_at_the_next_open(
    datapath: Running, volume: Volume
) -> None:
    wanted = EffectiveSize(80 * MIB)
    volume.desire(wanted)
    opened = datapath.client.open(volume.request())
    assert opened.size == wanted
    assert volume.record().actual == wanted
    assert datapath.disk(volume).size() == wanted.count


@pytest.mark.parametrize("mode", [EncryptionMode.KEYRING, EncryptionMode.NONE])
def test_a_foreign_resize_is_mended(
    datapath: Running, make_volume: MakeVolume, mode: EncryptionMode
) -> None:
    """Librbd hands it to the worker, which takes raw bytes for effective ones."""
    volume = make_volume(mode)
    content = secrets.token_bytes(BLOCK)
    datapath.client.open(volume.request())
    datapath.disk(volume).write(volume.record().actual.count - BLOCK, content)
    with rbd.Image(volume.pool.ioctx, volume.name) as foreign:
        foreign.resize(112 * MIB, allow_shrink=False)
    shifted = volume.record().layout.reserve if mode.encrypted else 0
    assert volume.raw_size() == 112 * MIB + shifted

    for wanted in (EffectiveSize(64 * MIB), EffectiveSize(96 * MIB)):
        volume.desire(wanted)
        assert datapath.client.grow(volume.volume_id) == wanted
        assert volume.raw_size() == volume.record().layout.raw(wanted).count
        assert datapath.disk(volume).size() == wanted.count
    assert datapath.disk(volume).read(64 * MIB - BLOCK) == content
    assert datapath.disk(volume).read(96 * MIB - BLOCK) == bytes(BLOCK)


def test_what_a_foreigner_added_before_is_left_alone(
    datapath: Running, make_volume: MakeVolume
) -> None:
    """Whoever has the keys of an adopted image may have data there."""
    volume = make_volume(EncryptionMode.PASSPHRASE)
    with rbd.Image(volume.pool.ioctx, volume.name) as foreign:
        foreign.resize(112 * MIB, allow_shrink=False)
    datapath.client.open(volume.request())
    assert datapath.client.grow(volume.volume_id) == EffectiveSize(64 * MIB)
    assert volume.raw_size() == 112 * MIB


def test_a_reader_is_a_watcher_and_cannot_write(
    datapath: Running, volume: Volume
) -> None:
    datapath.client.open(volume.request(read_only=True))
    with volume.pool.open_raw(volume.volume_id.image_id) as raw:
        assert raw.foreign_watchers()
        assert raw.lock_owner() is None
    with pytest.raises(OSError, match=r"ermi|ead-only"):
        datapath.disk(volume).write(0, bytes(BLOCK))
    datapath.client.close(volume.volume_id)
    with volume.pool.open_raw(volume.volume_id.image_id) as raw:
        assert not raw.foreign_watchers()
