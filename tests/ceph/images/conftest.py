# SPDX-License-Identifier: Apache-2.0
"""Real Ceph: python-rbd and rados beside the driver's own port.

What the port can show is in tests/contract/images, which runs on real Ceph,
too.  Here is what needs to look past it: bytes in RADOS, cryptsetup, librbd.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from csi_driver.domain.chain import LayerSpec
from csi_driver.domain.chain import LoadSpecs
from csi_driver.domain.secrets import SecretBytes
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.domain.sizes import Layout
from csi_driver.domain.sizes import Striping
from csi_driver.images.headers import make_header
from csi_driver.images.port import Pool
from csi_driver.images.values import NewImage
from tests.contract.images.worlds import FEATURES
from tests.contract.images.worlds import NAMESPACE
from tests.contract.images.worlds import POOL
from tests.contract.images.worlds import RealWorld
from tests.contract.images.worlds import id_of

SIZE = EffectiveSize(32 * MIB)


@dataclasses.dataclass(frozen=True, slots=True)
class Flat:
    """One encrypted image and what opens it."""

    name: str
    image_id: str
    striping: Striping
    layout: Layout
    dek: SecretBytes
    header: bytes

    @property
    def specs(self) -> LoadSpecs:
        return LoadSpecs((LayerSpec(self.dek),))


class Lab:
    """The driver's port, and beside it librados and librbd themselves."""

    def __init__(self) -> None:
        self.world = RealWorld()
        self.ceph = self.world.connector.connect(self.world.cluster)
        self.pool: Pool = self.ceph.pool(POOL, NAMESPACE)
        self.rbd = self.world.rbd
        self.rados = self.world.rados.Rados(
            conffile=str(self.world.conf),
            name="client.admin",
        )
        self.rados.connect()
        self.ioctx: Any = self.rados.open_ioctx(POOL)
        self.ioctx.set_namespace(NAMESPACE)

    def close(self) -> None:
        self.ioctx.close()
        self.rados.shutdown()
        self.ceph.close()

    def make(self, striping: Striping | None = None, size: EffectiveSize = SIZE) -> str:
        """Make an image without a header; return its name."""
        cut = striping or Striping()
        name = f"ceph-images-{uuid.uuid4()}"
        raw = Layout.for_striping(cut).raw(size)
        self.pool.create_image(NewImage(name, raw, cut, FEATURES))
        return name

    @contextlib.contextmanager
    def flat(self, striping: Striping | None = None) -> Iterator[Flat]:
        """Make an encrypted image of 32 MiB effective; remove it again."""
        cut = striping or Striping()
        layout = Layout.for_striping(cut)
        dek = SecretBytes(os.urandom(32))
        name = self.make(cut)
        try:
            image_id = id_of(self.pool, name)
            header = make_header(dek, uuid.uuid4(), layout)
            with self.pool.open_raw(image_id) as raw:
                raw.write_header(header)
            yield Flat(name, image_id, cut, layout, dek, header)
        finally:
            self.pool.remove_image(name)

    def raw_bytes(self, name: str) -> bytes:
        """Return the whole raw image, as `rbd export` does."""
        with self.rbd.Image(self.ioctx, name, read_only=True) as image:
            size = int(image.size())
            pieces = (image.read(at, 4 * MIB) for at in range(0, size, 4 * MIB))
            return b"".join(pieces)

    def objects(self, image_id: str) -> dict[int, int]:
        """Return the image's data objects in RADOS: number to bytes."""
        prefix = f"rbd_data.{image_id}."
        found = {}
        for each in self.ioctx.list_objects():
            if each.key.startswith(prefix):
                number = int(each.key.removeprefix(prefix), 16)
                found[number] = int(self.ioctx.stat(each.key)[0])
        return found

    def object(self, image_id: str, number: int) -> bytes:
        """Return one data object, read through librados alone."""
        size = self.objects(image_id)[number]
        key = f"rbd_data.{image_id}.{number:016x}"
        return bytes(self.ioctx.read(key, length=size, offset=0))


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.close()


@pytest.fixture
def flat(lab: Lab) -> Iterator[Flat]:
    with lab.flat() as flat:
        yield flat
