# SPDX-License-Identifier: Apache-2.0
"""Growing clones of every kind, live and at a stage, with others at work on them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from collections.abc import Mapping

import pytest

from csi_driver.devices import stats
from csi_driver.images.port import Pool
from csi_driver.provisioning.requests import VolumeInfo
from tests.ceph.staging.clones import Clones
from tests.ceph.staging.harness import BLOCK_WRITER
from tests.ceph.staging.harness import MIB
from tests.ceph.staging.harness import OTHER_SECRETS
from tests.ceph.staging.harness import SECRETS
from tests.ceph.staging.harness import SIZE
from tests.ceph.staging.harness import CreateVolume
from tests.ceph.staging.harness import Node
from tests.ceph.staging.harness import Promise
from tests.ceph.staging.harness import read_device
from tests.ceph.staging.harness import write_device

BLOCK = 4096
STEP = 24 * MIB
END = b"the end of the source"

type Made = tuple[VolumeInfo, Mapping[str, str]]


@pytest.fixture
def make(node: Node, create: CreateVolume, clones: Clones) -> Callable[[str], Made]:
    """Make a block volume of a kind, with something in its last block."""

    def call(kind: str) -> Made:
        plain = kind in {"plaintext", "over plaintext"}
        secrets = {} if plain else SECRETS
        parameters = {"encrypted": "false"} if plain else None
        volume = create(capability=BLOCK_WRITER, parameters=parameters, secrets=secrets)
        node.stage(volume, BLOCK_WRITER, secrets)
        write_device(node.publish(volume, BLOCK_WRITER), END, SIZE - BLOCK)
        node.unpublish(volume)
        node.unstage(volume)
        match kind:
            case "flat":
                return volume, secrets
            case "inherit" | "plaintext":
                return clones.make(volume, formatted=False), secrets
        return clones.make(volume), OTHER_SECRETS

    return call


@pytest.mark.parametrize(
    "kind", ["flat", "formatted", "inherit", "plaintext", "over plaintext"]
)
def test_every_kind_grows(
    node: Node, make: Callable[[str], Made], promise: Promise, pool: Pool, kind: str
) -> None:
    volume, secrets = make(kind)

    def require(size: int) -> None:
        target = node.publish(volume, BLOCK_WRITER)
        assert stats.device_size(target) == size
        assert read_device(target, len(END), SIZE - BLOCK) == END
        assert read_device(target, BLOCK, size - BLOCK) == bytes(BLOCK)
        record = node.record(volume)
        assert record.actual.count == size
        with pool.open_raw(volume.volume_id.image_id, read_only=True) as image:
            assert image.raw_size() == record.raw_size
        node.unpublish(volume)

    node.stage(volume, BLOCK_WRITER, secrets)
    promise(volume, SIZE + STEP)
    for _ in range(2):
        assert node.expand(volume, SIZE + STEP) == SIZE + STEP
    require(SIZE + STEP)
    node.unstage(volume)
    promise(volume, SIZE + 2 * STEP)
    node.stage(volume, BLOCK_WRITER, secrets)
    require(SIZE + 2 * STEP)


def test_growing_while_snapshots_are_taken(
    node: Node, make: Callable[[str], Made], promise: Promise, pool: Pool
) -> None:
    volume, secrets = make("formatted")
    names = [f"during-{number}" for number in range(4)]
    node.stage(volume, BLOCK_WRITER, secrets)

    def snapshots() -> None:
        with pool.open_raw(volume.volume_id.image_id) as image:
            for name in names:
                image.create_snapshot(name)

    thread = threading.Thread(target=snapshots)
    thread.start()
    sizes = [SIZE]
    while thread.is_alive() and len(sizes) < 40:
        sizes.append(sizes[-1] + 4 * MIB)
        promise(volume, sizes[-1])
        assert node.expand(volume, 0) == sizes[-1]
    thread.join()
    reserve = node.record(volume).layout.reserve
    with pool.open_raw(volume.volume_id.image_id) as image:
        assert image.raw_size().count == sizes[-1] + reserve
        found = {each.name: each.size.count for each in image.snapshots()}
        for name in names:
            assert found[name] - reserve in sizes
            image.remove_snapshot(name)
    target = node.publish(volume, BLOCK_WRITER)
    assert read_device(target, len(END), SIZE - BLOCK) == END
