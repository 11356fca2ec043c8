# SPDX-License-Identifier: Apache-2.0
"""Every test of this folder runs twice: on the fake and on real Ceph."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable
from collections.abc import Iterator

import pytest

from csi_driver.domain.chain import LayerSpec
from csi_driver.domain.chain import LoadSpecs
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.secrets import SecretBytes
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import Layout
from csi_driver.domain.sizes import RawSize
from csi_driver.domain.sizes import Striping
from csi_driver.images.headers import make_header
from csi_driver.images.port import Ceph
from csi_driver.images.port import Pool
from csi_driver.images.values import NewImage
from tests.contract.images.family import Family
from tests.contract.images.family import Key
from tests.contract.images.family import make_key
from tests.contract.images.worlds import FEATURES
from tests.contract.images.worlds import NAMESPACE
from tests.contract.images.worlds import PLACES
from tests.contract.images.worlds import POOL
from tests.contract.images.worlds import Clients
from tests.contract.images.worlds import FakeWorld
from tests.contract.images.worlds import MakeImage
from tests.contract.images.worlds import RealWorld
from tests.contract.images.worlds import World
from tests.contract.images.worlds import id_of


@pytest.fixture(scope="session", params=["fake", "real"])
def world(request: pytest.FixtureRequest) -> World:
    return FakeWorld() if request.param == "fake" else RealWorld()


@pytest.fixture
def connect(world: World) -> Iterator[Callable[[], Ceph]]:
    """Connect instances that are closed when the test ends."""
    with contextlib.ExitStack() as stack:

        def connect() -> Ceph:
            ceph = world.connector.connect(world.cluster)
            stack.callback(ceph.close)
            return ceph

        yield connect


@pytest.fixture
def ceph(connect: Callable[[], Ceph]) -> Ceph:
    return connect()


@pytest.fixture
def pool(ceph: Ceph) -> Pool:
    return ceph.pool(POOL, NAMESPACE)


@pytest.fixture
def peer(connect: Callable[[], Ceph]) -> Ceph:
    """Another client."""
    return connect()


@pytest.fixture
def peer_pool(peer: Ceph) -> Pool:
    return peer.pool(POOL, NAMESPACE)


@pytest.fixture
def clients(ceph: Ceph, pool: Pool, peer: Ceph, peer_pool: Pool) -> Clients:
    return Clients(ceph, pool, peer, peer_pool)


@pytest.fixture
def new_name(world: World) -> Iterator[Callable[[], str]]:
    """Make names of images; whatever was made under them is removed again."""
    names: list[str] = []

    def new_name() -> str:
        names.append(f"contract-{uuid.uuid4()}")
        return names[-1]

    yield new_name
    ceph = world.connector.connect(world.cluster)
    pools = [ceph.pool(*place) for place in PLACES]
    for name in reversed(names):
        for pool in pools:
            _remove(pool, name)
    ceph.close()


def _remove(pool: Pool, name: str) -> None:
    image_id = pool.find_image(name)
    if image_id is None:
        return
    with pool.open_raw(image_id) as image:
        owner = image.lock_owner()
        if owner is not None:
            image.break_lock(owner)
        for snapshot in image.snapshots():
            if not snapshot.lingering:
                image.remove_snapshot(snapshot.name)
    with contextlib.suppress(NotFoundError):
        pool.remove_image(name)


@pytest.fixture
def family(pool: Pool, new_name: Callable[[], str]) -> Family:
    return Family(pool, new_name)


@pytest.fixture(scope="session")
def keys() -> tuple[Key, ...]:
    """Make three headers for the default striping: data begins at 16 MiB."""
    return tuple(make_key() for _ in range(3))


@pytest.fixture
def make_image(pool: Pool, new_name: Callable[[], str]) -> MakeImage:
    def make_image(
        size: int = 64 * MIB,
        header: bytes | None = None,
        striping: Striping | None = None,
        into: Pool | None = None,
    ) -> str:
        name = new_name()
        target = into or pool
        image = NewImage(name, RawSize(size), striping or Striping(), FEATURES)
        target.create_image(image)
        if header is not None:
            with target.open_raw(id_of(target, name)) as raw:
                raw.write_header(header)
        return name

    return make_image


@pytest.fixture(scope="session")
def dek() -> SecretBytes:
    return SecretBytes(os.urandom(32))


@pytest.fixture(scope="session")
def specs(dek: SecretBytes) -> LoadSpecs:
    return LoadSpecs((LayerSpec(dek),))


@pytest.fixture(scope="session")
def header(dek: SecretBytes) -> bytes:
    """Make a header for the default striping: data begins at 16 MiB."""
    return make_header(dek, uuid.uuid4(), Layout(16 * MIB))


@pytest.fixture
def flat(pool: Pool, make_image: MakeImage, header: bytes) -> str:
    """Make an encrypted image of 64 MiB raw; return its id."""
    return id_of(pool, make_image(header=header))
