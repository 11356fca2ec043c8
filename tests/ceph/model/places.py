# SPDX-License-Identifier: Apache-2.0
"""A RADOS namespace on the lab's Ceph for one run of the machine."""

from __future__ import annotations

from csi_driver.domain.sizes import Layout
from csi_driver.domain.sizes import RawSize
from csi_driver.images.errors import mapped
from csi_driver.images.plain import CephPlainImage
from csi_driver.images.port import Ceph
from csi_driver.images.port import PlainImage
from tests.ceph.provisioning.real import CephWorld
from tests.ceph.provisioning.real import administrator
from tests.unit.model.data import Place
from tests.unit.model.data import PlainData


class QuickWorld(CephWorld):
    """The dead are known as such at once: all of them are this test's own."""

    patience = 0.1


class CephPlainData(PlainData):
    """Written through python-rbd."""

    def __init__(self, image: PlainImage, layout: Layout) -> None:
        super().__init__(image, layout)
        assert isinstance(image, CephPlainImage)
        self._image = image._image

    def write(self, offset: int, data: bytes) -> None:
        """Write and flush."""
        with mapped("writing"):
            self._image.write(data, offset)
            self._image.flush()

    def grow_raw(self, size: RawSize) -> None:
        """Grow."""
        with mapped("growing"):
            self._image.resize(size.count, allow_shrink=False)


class CephPlace(Place):
    """A namespace of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._world = QuickWorld()
        self.world = self._world
        self._buried: list[Ceph] = []
        self._world.begin()

    def plain(self, image: PlainImage, layout: Layout) -> PlainData:
        """Give access to a plaintext image."""
        return CephPlainData(image, layout)

    def bury(self, ceph: Ceph) -> None:
        """Fence it: its watches and locks end as those of a dead client do."""
        with administrator() as cluster:
            cluster.blocklist_add(ceph.address)
        self._buried.append(ceph)

    def end(self) -> None:
        """Remove the namespace with all that is in it."""
        for ceph in self._buried:
            ceph.close()
        self._world.end()
