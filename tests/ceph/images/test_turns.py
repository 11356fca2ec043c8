# SPDX-License-Identifier: Apache-2.0
"""Handles of one process do not carry out each other's changes of snapshots.

They would: librbd asks the lock's owner, and one that closes meanwhile ends the
process, in about every fourth run of the tests that delete snapshots in parallel.
"""

from __future__ import annotations

import concurrent.futures
import contextlib

import pytest

from csi_driver.images.port import Pool
from tests.ceph.images.conftest import Flat
from tests.ceph.images.conftest import Lab
from tests.contract.images.worlds import NAMESPACE
from tests.contract.images.worlds import POOL


def _take(pool: Pool, image_id: str, name: str) -> None:
    with pool.open_raw(image_id) as image:
        image.create_snapshot(name)


def test_a_handle_waits_until_the_owner_of_the_lock_is_closed(
    lab: Lab, flat: Flat
) -> None:
    peer = lab.world.connector.connect(lab.world.cluster)
    with contextlib.closing(peer), concurrent.futures.ThreadPoolExecutor(1) as threads:
        with lab.pool.open_raw(flat.image_id) as owner:
            owner.create_snapshot("one")
            peer_pool = peer.pool(POOL, NAMESPACE)
            other = threads.submit(_take, peer_pool, flat.image_id, "two")
            with pytest.raises(TimeoutError):
                other.result(1)
            assert [each.name for each in owner.snapshots()] == ["one"]
        other.result(30)
    with lab.pool.open_raw(flat.image_id) as image:
        assert [each.name for each in image.snapshots()] == ["one", "two"]
        for name in ("one", "two"):
            image.remove_snapshot(name)
