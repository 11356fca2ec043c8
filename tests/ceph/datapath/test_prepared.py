# SPDX-License-Identifier: Apache-2.0
"""A spare worker's Ceph client, connected before there is a volume."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from csi_driver.datapath.messages import CloseImage
from csi_driver.datapath.messages import Connected
from csi_driver.datapath.messages import Done
from csi_driver.datapath.messages import OpenImage
from csi_driver.datapath.messages import Predecessor
from csi_driver.datapath.messages import Prepare
from csi_driver.datapath.messages import Proceed
from csi_driver.datapath.messages import Serving
from csi_driver.datapath.prepared import Prepared
from csi_driver.datapath.prepared import prepare
from csi_driver.datapath.session import open_session
from csi_driver.datapath.workers import WORKER
from csi_driver.datapath.workers import Worker
from csi_driver.domain.chain import LoadSpecs
from csi_driver.domain.errors import SecretError
from csi_driver.domain.secrets import SecretBytes
from csi_driver.testing.lab_images import LabImages

if TYPE_CHECKING:
    from tests.ceph.datapath.running import Volume

SECONDS = 60.0


def asked(volume: Volume) -> Prepare:
    """Return the preparation that fits the volume."""
    request = volume.request()
    cluster = volume.volume_id.location.cluster
    return Prepare(cluster, request.monitors, request.user_id, request.key)


@pytest.fixture
def prepared(volume: Volume) -> Prepared:
    return prepare(asked(volume))


@pytest.fixture
def worker(volume: Volume) -> Iterator[Worker]:
    one = Worker(WORKER)
    one.greet()
    yield one
    one.dismiss()
    assert one.wait(30), "a worker ends when its supervisor hangs up"
    assert one.end == "ended with status 0"


def test_clients_that_fit_are_taken(volume: Volume, prepared: Prepared) -> None:
    assert prepared.fits(volume.request())
    pool = prepared.pool_for(volume.request())
    assert pool is not None
    assert pool.location == volume.volume_id.location
    prepared.close()


def test_a_volume_that_is_reached_otherwise_does_not_take_them(
    volume: Volume, prepared: Prepared
) -> None:
    request = volume.request()
    others = (
        dataclasses.replace(request, user_id="admin"),
        dataclasses.replace(request, key=SecretBytes(b"another")),
        dataclasses.replace(request, monitors=("127.0.0.1:1",)),
    )
    assert [prepared.fits(other) for other in others] == [False] * 3
    prepared.close()


def test_a_session_replaces_clients_that_were_fenced(
    volume: Volume, prepared: Prepared
) -> None:
    fenced = {prepared.image.addresses(), prepared.records.address}
    lab = LabImages()
    try:
        for address in fenced:
            lab.blocklist(address)
    finally:
        lab.close()
    announced: list[str] = []
    request = OpenImage(volume.request(), Predecessor(), "", 0)
    session, _ = open_session(request, announced.append, prepared)
    try:
        assert len(announced) == 1
        assert announced[0] not in fenced
        assert volume.lock_owner() == announced[0]
    finally:
        assert session.close() == []


def test_a_session_uses_the_clients_made_ahead(
    volume: Volume, prepared: Prepared
) -> None:
    address = prepared.image.addresses()
    announced: list[str] = []
    request = OpenImage(volume.request(), Predecessor(), "", 0)
    session, _ = open_session(request, announced.append, prepared)
    assert announced == [address]
    assert session.close() == []


def test_a_prepared_worker_serves(worker: Worker, volume: Volume) -> None:
    assert isinstance(worker.ask(asked(volume), SECONDS), Done)
    request = OpenImage(volume.request(), Predecessor(), "", 0)
    assert isinstance(worker.ask(request, SECONDS), Connected)
    assert isinstance(worker.ask(Proceed(), SECONDS), Serving)
    assert [each.node_id for each in volume.record().exports] == ["node-a"]
    assert isinstance(worker.ask(CloseImage(), SECONDS), Done)
    assert volume.record().exports == ()
    assert volume.lock_owner() is None


def test_a_failed_preparation_leaves_a_worker_that_serves(
    worker: Worker, volume: Volume
) -> None:
    wrong = dataclasses.replace(asked(volume), key=SecretBytes(b"not a key"))
    with pytest.raises(SecretError):
        worker.ask(wrong, SECONDS)
    request = OpenImage(volume.request(), Predecessor(), "", 0)
    assert isinstance(worker.ask(request, SECONDS), Connected)
    assert isinstance(worker.ask(Proceed(), SECONDS), Serving)
    assert isinstance(worker.ask(CloseImage(), SECONDS), Done)


def test_a_prepared_worker_that_gets_no_volume_ends(
    worker: Worker, volume: Volume
) -> None:
    assert isinstance(worker.ask(asked(volume), SECONDS), Done)
    worker.dismiss()
    assert worker.wait(30)


def test_a_prepared_worker_refuses_a_wrong_key_and_ends(
    worker: Worker, volume: Volume
) -> None:
    assert isinstance(worker.ask(asked(volume), SECONDS), Done)
    request = volume.request(dek=b"x" * 32)
    assert isinstance(request.specs, LoadSpecs)
    with pytest.raises(SecretError):
        worker.ask(OpenImage(request, Predecessor(), "", 0), SECONDS)
    assert worker.wait(30)
