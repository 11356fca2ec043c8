# SPDX-License-Identifier: Apache-2.0
"""Connecting, and finding pools by name and by number."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.ids import Location
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import RawSize
from csi_driver.domain.sizes import Striping
from csi_driver.images.port import Ceph
from csi_driver.images.values import NewImage
from tests.contract.images.worlds import NAMESPACE
from tests.contract.images.worlds import OTHER_POOL
from tests.contract.images.worlds import POOL
from tests.contract.images.worlds import World
from tests.contract.images.worlds import id_of


def test_a_pool_is_the_same_by_name_and_by_number(world: World, ceph: Ceph) -> None:
    by_name = ceph.pool(POOL, NAMESPACE)
    assert by_name.pool_name == POOL
    assert by_name.location.cluster == world.cluster
    assert by_name.location.namespace == NAMESPACE
    by_number = ceph.pool_at(by_name.location)
    assert by_number.location == by_name.location
    assert by_number.pool_name == POOL


def test_pools_have_numbers_of_their_own(ceph: Ceph) -> None:
    assert ceph.pool(POOL).location.pool_id != ceph.pool(OTHER_POOL).location.pool_id


def test_an_absent_pool_is_not_found(world: World, ceph: Ceph) -> None:
    with pytest.raises(NotFoundError, match="nosuchpool"):
        ceph.pool("nosuchpool")
    with pytest.raises(NotFoundError, match="99999"):
        ceph.pool_at(Location(world.cluster, 99999))


def test_an_unknown_cluster_lists_the_known_ones(world: World) -> None:
    with pytest.raises(InvalidRequestError, match=world.cluster):
        world.connector.connect("elsewhere")


def test_monitors_that_do_not_answer_are_a_bounded_wait(world: World) -> None:
    begin = time.monotonic()
    with pytest.raises(UnavailableError):
        world.unreachable().connect(world.cluster)
    assert time.monotonic() - begin < 10


def test_a_wrong_key_is_named(world: World) -> None:
    with pytest.raises(SecretError, match="refused the key"):
        world.wrong_key().connect(world.cluster)


def test_instances_have_addresses_of_their_own(ceph: Ceph, peer: Ceph) -> None:
    assert ceph.address != peer.address
    assert ceph.address.rpartition("/")[2].isdigit()


def test_a_pool_has_room(ceph: Ceph) -> None:
    assert ceph.pool(POOL).free_bytes() > 64 * MIB
    assert not ceph.pool(POOL).is_full()


def test_namespaces_do_not_see_each_other(
    ceph: Ceph,
    make_image: Callable[..., str],
) -> None:
    name = make_image()
    assert ceph.pool(POOL, NAMESPACE).find_image(name) is not None
    assert ceph.pool(POOL).find_image(name) is None
    assert ceph.pool(OTHER_POOL).find_image(name) is None


def test_a_namespace_that_was_not_created_takes_no_image(ceph: Ceph) -> None:
    pool = ceph.pool(POOL, "nosuchnamespace")
    assert not pool.namespace_exists()
    assert ceph.pool(POOL, NAMESPACE).namespace_exists()
    assert ceph.pool(POOL).namespace_exists()
    assert pool.find_image("any") is None
    with pytest.raises(NotFoundError):
        pool.create_image(NewImage("any", RawSize(MIB), Striping(), ("layering",)))


def test_a_closed_connection_closes_its_handles(
    ceph: Ceph,
    peer: Ceph,
    make_image: Callable[..., str],
    connect: Callable[[], Ceph],
) -> None:
    pool = peer.pool(POOL, NAMESPACE)
    name = make_image(into=pool)
    image = pool.open_raw(id_of(pool, name))
    image.acquire_lock()
    peer.close()
    peer.close()
    image.close()
    with pytest.raises(InvalidRequestError):
        image.raw_size()
    with pytest.raises(InternalError, match="closed"):
        pool.find_image(name)
    with pytest.raises(InternalError):
        peer.pool(POOL)
    ceph.pool(POOL, NAMESPACE).remove_image(name)
