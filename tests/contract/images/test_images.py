# SPDX-License-Identifier: Apache-2.0
"""Making, finding, opening and removing images; their header areas."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from csi_driver.domain.errors import AlreadyExistsError
from csi_driver.domain.errors import HeaderExistsError
from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SizeError
from csi_driver.domain.sizes import HEADER_ROOM
from csi_driver.domain.sizes import KIB
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import RawSize
from csi_driver.domain.sizes import Striping
from csi_driver.images.port import Pool
from csi_driver.images.values import Dependants
from csi_driver.images.values import NewImage
from tests.contract.images.worlds import FEATURES
from tests.contract.images.worlds import MakeImage
from tests.contract.images.worlds import World
from tests.contract.images.worlds import id_of
from tests.contract.images.worlds import make_clone
from tests.contract.images.worlds import make_snapshot
from tests.contract.images.worlds import remove_snapshot

STRIPED = Striping(4 * MIB, 64 * KIB, 4)


@pytest.mark.parametrize(
    "striping",
    [Striping(), Striping(MIB, MIB), STRIPED, Striping(32 * MIB, 32 * MIB)],
    ids=str,
)
def test_an_image_is_as_it_was_asked_for(
    pool: Pool,
    make_image: MakeImage,
    striping: Striping,
) -> None:
    name = make_image(size=48 * MIB + 4096, striping=striping)
    with pool.open_raw(id_of(pool, name)) as image:
        assert image.name == name
        assert image.image_id == pool.find_image(name)
        assert image.raw_size() == RawSize(48 * MIB + 4096)
        assert image.striping() == striping
        expected = {*FEATURES, "striping"} if striping is STRIPED else set(FEATURES)
        assert image.features() == expected
        assert image.parent() is None
        assert image.dependants() == Dependants(0, 0)
        assert not image.dependants()
        assert image.read_header(4096) == bytes(4096)


def test_a_name_is_taken_once(pool: Pool, make_image: MakeImage) -> None:
    name = make_image()
    with pytest.raises(AlreadyExistsError):
        pool.create_image(NewImage(name, RawSize(MIB), Striping(), FEATURES))


def test_a_removed_name_comes_back_as_another_image(
    pool: Pool,
    make_image: MakeImage,
) -> None:
    name = make_image()
    first = id_of(pool, name)
    pool.remove_image(name)
    assert pool.find_image(name) is None
    pool.create_image(NewImage(name, RawSize(MIB), Striping(), FEATURES))
    assert id_of(pool, name) != first
    with pytest.raises(NotFoundError):
        pool.open_raw(first)


def test_what_is_absent_is_not_found(pool: Pool) -> None:
    assert pool.find_image("contract-absent") is None
    with pytest.raises(NotFoundError):
        pool.remove_image("contract-absent")
    with pytest.raises(NotFoundError):
        pool.open_raw("abcdef0123")


def test_a_data_pool_that_is_absent_is_not_found(
    pool: Pool,
    new_name: Callable[[], str],
) -> None:
    image = NewImage(new_name(), RawSize(MIB), Striping(), FEATURES, "nosuchpool")
    with pytest.raises(NotFoundError):
        pool.create_image(image)
    assert pool.find_image(image.name) is None


def test_data_may_lie_in_another_pool(pool: Pool, new_name: Callable[[], str]) -> None:
    image = NewImage(new_name(), RawSize(MIB), Striping(), FEATURES, "rbd2")
    pool.create_image(image)
    with pool.open_raw(id_of(pool, image.name)) as raw:
        assert raw.features() == {*FEATURES, "data-pool"}


def test_an_unknown_feature_is_named(pool: Pool, new_name: Callable[[], str]) -> None:
    image = NewImage(new_name(), RawSize(MIB), Striping(), ("layering", "teleport"))
    with pytest.raises(InvalidRequestError, match="teleport"):
        pool.create_image(image)


def test_an_image_open_for_writing_is_not_removed(
    pool: Pool,
    peer_pool: Pool,
    make_image: MakeImage,
) -> None:
    name = make_image()
    with peer_pool.open_raw(id_of(pool, name)):
        for asker in (pool, peer_pool):
            with pytest.raises(InUseError):
                asker.remove_image(name)
    pool.remove_image(name)


def test_a_reader_does_not_keep_an_image(pool: Pool, make_image: MakeImage) -> None:
    name = make_image()
    with pool.open_raw(id_of(pool, name), read_only=True):
        pool.remove_image(name)
    assert pool.find_image(name) is None


def test_snapshots_and_clones_keep_an_image(
    pool: Pool,
    make_image: MakeImage,
    new_name: Callable[[], str],
) -> None:
    name, clone = make_image(), new_name()
    image_id = id_of(pool, name)
    make_snapshot(pool, name, "s")
    with pytest.raises(PreconditionError) as caught:
        pool.remove_image(name)
    assert not isinstance(caught.value, InUseError)
    make_clone(pool, name, "s", clone)
    with pool.open_raw(image_id) as image:
        assert image.dependants() == Dependants(1, 1)
    remove_snapshot(pool, name, "s")  # stays while the clone reads it
    with pool.open_raw(image_id) as image:
        assert image.dependants() == Dependants(1, 1)
    with pytest.raises(PreconditionError):
        pool.remove_image(name)
    pool.remove_image(clone)
    with pool.open_raw(image_id) as image:
        assert image.dependants() == Dependants(0, 0)
    pool.remove_image(name)


def test_being_locked_is_said_before_having_snapshots(
    pool: Pool,
    peer_pool: Pool,
    make_image: MakeImage,
) -> None:
    name = make_image()
    make_snapshot(pool, name, "s")
    with peer_pool.open_raw(id_of(pool, name)) as image:
        with pytest.raises(PreconditionError) as caught:
            pool.remove_image(name)
        assert not isinstance(caught.value, InUseError)
        image.acquire_lock()
        with pytest.raises(InUseError):
            pool.remove_image(name)
    remove_snapshot(pool, name, "s")


def test_a_clone_has_a_parent_and_its_header(
    pool: Pool,
    make_image: MakeImage,
    new_name: Callable[[], str],
    header: bytes,
) -> None:
    name, clone = make_image(header=header), new_name()
    make_snapshot(pool, name, "s")
    make_clone(pool, name, "s", clone)
    with pool.open_raw(id_of(pool, clone)) as image:
        assert image.parent() is not None
        assert image.read_header(len(header)) == header
        with pytest.raises(PreconditionError):
            image.write_header(header)
    remove_snapshot(pool, name, "s")


def test_a_header_is_written_once(
    pool: Pool,
    make_image: MakeImage,
    header: bytes,
) -> None:
    name = make_image()
    with pool.open_raw(id_of(pool, name)) as image:
        image.write_header(header)
        assert image.read_header(len(header)) == header
        with pytest.raises(HeaderExistsError, match="luks2"):
            image.write_header(header)
        image.erase_header(HEADER_ROOM)
        assert image.read_header(HEADER_ROOM) == bytes(HEADER_ROOM)
        image.write_header(header)


@pytest.mark.parametrize(
    "magic",
    [b"LUKS\xba\xbe\x00\x01", b"RBDL\xba\xbe\x00\x01", b"RBDL\xba\xbe\x00\x02"],
)
def test_no_header_is_written_over_one_of_another_kind(
    world: World,
    pool: Pool,
    make_image: MakeImage,
    header: bytes,
    magic: bytes,
) -> None:
    name = make_image()
    world.write_raw(pool, name, magic)
    with pool.open_raw(id_of(pool, name)) as image:
        with pytest.raises(HeaderExistsError):
            image.write_header(header)
        assert image.read_header(8) == magic


def test_a_header_that_does_not_fit_is_not_begun(
    pool: Pool,
    make_image: MakeImage,
) -> None:
    name = make_image(size=MIB)
    with pool.open_raw(id_of(pool, name)) as image:
        for attempt in (image.write_header, lambda data: image.erase_header(len(data))):
            with pytest.raises(SizeError):
                attempt(b"x" * (2 * MIB))
        assert image.read_header(MIB) == bytes(MIB)
        assert len(image.read_header(2 * MIB)) == MIB


@pytest.mark.parametrize("length", [0, -1, HEADER_ROOM + 1])
def test_raw_handles_reach_the_header_area_only(
    pool: Pool,
    make_image: MakeImage,
    length: int,
) -> None:
    name = make_image()
    with pool.open_raw(id_of(pool, name)) as image:
        with pytest.raises(InternalError):
            image.read_header(length)
        with pytest.raises(InternalError):
            image.erase_header(length)
        with pytest.raises(InternalError):
            image.write_header(bytes(max(length, 0)))


def test_a_read_only_handle_writes_nothing(
    pool: Pool,
    make_image: MakeImage,
    header: bytes,
) -> None:
    name = make_image()
    with pool.open_raw(id_of(pool, name), read_only=True) as image:
        with pytest.raises(InUseError):
            image.write_header(header)
        with pytest.raises(InUseError):
            image.erase_header(4096)
        assert image.read_header(4096) == bytes(4096)


def test_a_closed_handle_is_dead(pool: Pool, make_image: MakeImage) -> None:
    image = pool.open_raw(id_of(pool, make_image()))
    image.close()
    image.close()
    with pytest.raises(InvalidRequestError):
        image.raw_size()
    with pytest.raises(InvalidRequestError):
        image.read_header(8)
