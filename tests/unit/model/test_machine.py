# SPDX-License-Identifier: Apache-2.0
"""Random lives of volumes, snapshots and clones on the fake.

tests/ceph/model does the same on real Ceph, more slowly.
"""

from __future__ import annotations

import hypothesis
import pytest
from hypothesis.stateful import run_state_machine_as_test

from csi_driver.domain.sizes import Layout
from csi_driver.domain.sizes import RawSize
from csi_driver.images.port import Ceph
from csi_driver.images.port import PlainImage
from csi_driver.testing.ceph_fake import FakeCeph
from csi_driver.testing.ceph_fake_layers import raw_layers
from csi_driver.testing.ceph_fake_whole import FakePlainImage
from tests.unit.model.data import Place
from tests.unit.model.data import PlainData
from tests.unit.model.machine import Machine
from tests.unit.provisioning.worlds import FakeWorld


class FakePlainData(PlainData):
    """Written behind the handle's back: the port has no such call."""

    def __init__(self, image: PlainImage, layout: Layout) -> None:
        super().__init__(image, layout)
        assert isinstance(image, FakePlainImage)
        self._image = image

    def write(self, offset: int, data: bytes) -> None:
        """Write."""
        with self._image._writing("writing"):
            raw_layers(self._image._image).write(offset, data)

    def grow_raw(self, size: RawSize) -> None:
        """Grow."""
        with self._image._writing("growing"):
            self._image._image.size = size.count


class FakePlace(Place):
    """A store of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._world = FakeWorld()
        self.world = self._world

    def plain(self, image: PlainImage, layout: Layout) -> PlainData:
        """Give access to a plaintext image."""
        return FakePlainData(image, layout)

    def bury(self, ceph: Ceph) -> None:
        """Fence it."""
        assert isinstance(ceph, FakeCeph)
        self._world.store.fence(ceph._instance)

    def end(self) -> None:
        """Disconnect."""
        self._world.close()


class FakeMachine(Machine):
    """A run on the fake."""

    new_place = FakePlace


@pytest.mark.timeout(3600)
def test_volumes_snapshots_and_clones_keep_their_bytes() -> None:
    settings = hypothesis.settings(
        max_examples=hypothesis.settings().max_examples // 10,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    FakeMachine.steps = 0
    run_state_machine_as_test(FakeMachine, settings=settings)
    assert FakeMachine.steps >= 40
