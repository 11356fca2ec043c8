# SPDX-License-Identifier: Apache-2.0
"""One RADOS namespace for this folder's tests, the driver's port and raw tools."""

from __future__ import annotations

import dataclasses
import os
import uuid
from collections.abc import Iterator

import pytest

from csi_driver.domain.sizes import MIB
from csi_driver.images.port import Ceph
from csi_driver.testing.crash import real_connector
from tests.ceph.clones.making import FEATURES
from tests.ceph.clones.making import SIZE
from tests.ceph.clones.making import Making
from tests.ceph.clones.making import fill
from tests.ceph.clones.making import noise
from tests.ceph.clones.making import scattered
from tests.ceph.clones.raw_tools import RawTools

POOL = "rbd"


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Clients in one namespace: the driver's, and two of somebody else."""

    ceph: Ceph
    making: Making
    tools: RawTools
    other: RawTools
    namespace: str


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """An image that others clone, what it holds, and a snapshot of that."""

    image_id: str
    content: bytes
    snapshot: int


@dataclasses.dataclass(frozen=True, slots=True)
class Clone:
    """A formatted clone with writes of its own, and what it shows."""

    image_id: str
    content: bytes


@pytest.fixture(scope="session")
def place() -> Iterator[Place]:
    namespace = f"clones-{uuid.uuid4().hex[:12]}"
    tools = RawTools(os.environ["CEPH_CONF"], POOL, namespace)
    tools.make_namespace()
    other = tools.another()
    ceph = real_connector().connect("lab")
    yield Place(ceph, Making(ceph.pool(POOL, namespace)), tools, other, namespace)
    ceph.close()
    other.close()
    tools.remove_namespace()
    tools.close()


@pytest.fixture(scope="session")
def making(place: Place) -> Making:
    return place.making


@pytest.fixture(scope="session")
def tools(place: Place) -> RawTools:
    return place.tools


@pytest.fixture(scope="session")
def source(making: Making) -> Source:
    """Give an encrypted flat image, full of noise, with a snapshot."""
    image_id = making.flat()
    content = noise(1, SIZE)
    with making.open(image_id) as image:
        fill(image, content)
    return Source(image_id, content, making.snapshot(image_id))


@pytest.fixture(scope="session")
def many(making: Making) -> Source:
    """Give one of many objects, each with a little data: a flatten takes a while."""
    size = 512 * MIB
    image_id = making.flat(size)
    content = bytearray(size)
    with making.open(image_id) as image:
        image.acquire_lock()
        for at in range(0, size, 4 * MIB):
            image.write(at, noise(at, 4096))
            content[at : at + 4096] = noise(at, 4096)
    return Source(image_id, bytes(content), making.snapshot(image_id))


def clone_of(
    making: Making, source: Source, features: tuple[str, ...] = FEATURES
) -> Clone:
    """Make a formatted clone that differs from its source here and there."""
    image_id = making.formatted(source.image_id, source.snapshot, features=features)
    content = bytearray(source.content)
    with making.open(image_id) as image:
        for at, data in scattered(2, SIZE):
            image.write(at, data)
            content[at : at + len(data)] = data
    return Clone(image_id, bytes(content))


@pytest.fixture
def clone(making: Making, source: Source) -> Clone:
    return clone_of(making, source)
