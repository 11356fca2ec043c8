# SPDX-License-Identifier: Apache-2.0
"""Clones that cannot be: each refused with its reason, and nothing left behind."""

from __future__ import annotations

import dataclasses

import pytest

from csi_driver.domain.access import AccessMode
from csi_driver.domain.access import Capability
from csi_driver.domain.access import Filesystem
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import ExhaustedError
from csi_driver.domain.errors import HeaderError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.errors import SizeError
from csi_driver.domain.filesystem_state import FilesystemState
from csi_driver.domain.flattening import HARD_DEPTH
from csi_driver.domain.ids import SnapshotId
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.record import VolumeState
from csi_driver.domain.sizes import BLOCK_SIZE
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import Layout
from csi_driver.domain.snapshots import MOST_SNAPSHOTS
from csi_driver.domain.snapshots import Snapshot
from csi_driver.domain.snapshots import SnapshotState
from csi_driver.domain.snapshots import new_snapshot_name
from csi_driver.images.directory import Directory
from csi_driver.provisioning.requests import CreateRequest
from csi_driver.testing.faults import Fault
from csi_driver.testing.faults import FaultyConnector
from csi_driver.testing.faults import Steps
from tests.unit.provisioning.family import OTHER
from tests.unit.provisioning.family import SIZE
from tests.unit.provisioning.family import SOURCE
from tests.unit.provisioning.family import THIRD
from tests.unit.provisioning.family import clone
from tests.unit.provisioning.family import clone_request
from tests.unit.provisioning.family import content_of
from tests.unit.provisioning.family import plain_clone
from tests.unit.provisioning.family import plain_request
from tests.unit.provisioning.family import plain_volume
from tests.unit.provisioning.family import remove_all
from tests.unit.provisioning.family import volume
from tests.unit.provisioning.worlds import WRITER
from tests.unit.provisioning.worlds import World

BLOCK = Capability(AccessMode.SINGLE_NODE_WRITER, block=True)


def require_refused(
    world: World, request: CreateRequest, error: type[DriverError], match: str
) -> None:
    """Check that a request is refused and changes nothing."""
    before = world.content()
    with pytest.raises(error, match=match) as caught:
        world.volumes.create(request)
    assert type(caught.value) is error
    assert world.content() == before


def test_a_plaintext_clone_of_an_encrypted_source_is_refused(world: World) -> None:
    one = volume(world)
    for source in (one, world.snapshot(one, "snap")):
        request = plain_request(world, source)
        require_refused(
            world, request, InvalidRequestError, "show its ciphertext, or leak"
        )
    remove_all(world)


@pytest.mark.parametrize("plain", [True, False])
def test_a_source_that_is_not_there_is_refused(world: World, *, plain: bool) -> None:
    make = plain_request if plain else clone_request
    one = plain_volume(world)
    found = world.snapshot(one, "snap")
    nobody = VolumeId(one.location, "0123456789ab")
    no_pool = dataclasses.replace(one.location, pool_id=9999)
    no_number = SnapshotId(one, found.number + 1000)
    for source in (
        nobody,
        VolumeId(no_pool, one.image_id),
        no_number,
        SnapshotId(nobody, 4),
    ):
        require_refused(world, make(world, source), NotFoundError, "does not exist")
    world.volumes.delete(one)
    require_refused(world, make(world, one), NotFoundError, "was deleted")
    # The snapshot outlives its volume, and can be cloned.
    assert content_of(world, plain_clone(world, found)) == {"the source's"}
    world.volumes.delete_snapshot(found)
    request = dataclasses.replace(make(world, found), name="another")
    require_refused(world, request, NotFoundError, "does not exist")
    remove_all(world)


def test_a_source_on_another_cluster_is_refused(world: World) -> None:
    one = plain_volume(world)
    elsewhere = dataclasses.replace(one.location, cluster="another")
    foreign = VolumeId(elsewhere, one.image_id)
    for source in (foreign, SnapshotId(foreign, 4)):
        require_refused(
            world,
            plain_request(world, source),
            InvalidRequestError,
            "lies on cluster 'another'.*within one cluster only",
        )


def test_a_source_in_the_making_is_waited_for(world: World) -> None:
    one = plain_volume(world)
    world.change(one, state=VolumeState.CREATING)
    request = plain_request(world, one)
    require_refused(world, request, PendingError, "still being created")
    world.change(one, state=VolumeState.READY, filesystem=FilesystemState.MAKING)
    with pytest.raises(PendingError, match="filesystem of volume 'one'"):
        world.volumes.create(request)
    world.collect_all()
    assert len(world.images()) == 1
    world.change(one, filesystem=FilesystemState.EXT4)
    assert content_of(world, world.volumes.create(request).volume_id)
    remove_all(world)


def test_a_clone_is_never_smaller_than_its_source(world: World) -> None:
    one = plain_volume(world)
    for source in (one, world.snapshot(one, "snap")):
        small = world.request("clone", SIZE - BLOCK_SIZE, source=source)
        require_refused(world, small, SizeError, f"has {SIZE} exported bytes|{SIZE}")
        limited = world.request("clone", 0, limit=SIZE - 1, source=source)
        require_refused(world, limited, SizeError, "above the limit")
    remove_all(world)


def test_a_filesystem_volume_is_not_cloned_to_a_block_device_and_back(
    world: World,
) -> None:
    one = plain_volume(world)
    world.change(one, filesystem=FilesystemState.RAW)
    require_refused(
        world, plain_request(world, one), InvalidRequestError, "as a block device"
    )
    world.change(one, filesystem=FilesystemState.EXT4)
    xfs = Capability(AccessMode.SINGLE_NODE_WRITER, filesystem=Filesystem.XFS)
    request = dataclasses.replace(plain_request(world, one), capabilities=(xfs,))
    require_refused(world, request, InvalidRequestError, "xfs was asked for")
    request = dataclasses.replace(request, capabilities=(BLOCK,))
    assert world.volumes.create(request).size.count == SIZE
    assert WRITER != BLOCK
    remove_all(world)


def with_policy(request: CreateRequest, policy: str) -> CreateRequest:
    """Return a request of a class with a flatten policy."""
    parameters = {**request.parameters, "flattenPolicy": policy}
    return dataclasses.replace(request, parameters=parameters)


def test_depth_is_limited_by_policy_and_by_librbd(world: World) -> None:
    one = plain_volume(world)
    world.change(one, ancestors=HARD_DEPTH)
    request = with_policy(plain_request(world, one), "depth")
    require_refused(world, request, PreconditionError, r"13 images below it.*12")
    world.change(one, ancestors=HARD_DEPTH - 1)
    world.volumes.create(request)
    world.change(one, ancestors=15)
    for policy in ("never", "always"):
        request = with_policy(plain_request(world, one, "deep"), policy)
        require_refused(world, request, PreconditionError, r"16 images below it.*15")
    world.change(one, ancestors=14)
    plain_clone(world, one, "deep")
    remove_all(world)


@pytest.mark.parametrize(
    "magic",
    [b"LUKS\xba\xbe\x00\x02", b"RBDL\xba\xbe\x00\x01", b"LUKS\xba\xbe\x00\x03"],
)
def test_plaintext_that_begins_like_a_header_gets_no_encrypted_clone(
    world: World, magic: bytes
) -> None:
    one = plain_volume(world)
    before = world.snapshot(one, "before")
    world.write_raw(one, 0, magic)
    after = world.snapshot(one, "after")
    for source in (one, after):
        require_refused(
            world, clone_request(world, source), HeaderError, "begins like a"
        )
    # Plaintext clones are no matter, and the snapshot before was harmless.
    plain_clone(world, after, "plain")
    assert content_of(world, clone(world, before)) == {"the source's"}
    remove_all(world)


def test_a_header_that_a_tenant_writes_in_the_last_moment(world: World) -> None:
    one = plain_volume(world)

    def write(number: int, name: str) -> None:
        del number
        if name == "image.create_snapshot":
            world.write_raw(one, 0, b"LUKS\xba\xbe\x00\x02")

    steps = Steps(Fault(0), write)
    other = world.controller(FaultyConnector(world.connector, steps))
    with pytest.raises(HeaderError, match="begins like a"):
        other.volumes.create(clone_request(world, one))
    world.collect_all()
    assert len(world.images()) == 1
    assert world.record(one).children == ()
    assert world.record(one).snapshots == ()
    remove_all(world)


def test_plaintext_without_room_for_a_header_gets_no_encrypted_clone(
    world: World,
) -> None:
    one = plain_volume(world)
    small = Layout(512 * 1024)
    world.change(
        one,
        layout=small,
        actual=small.effective(world.record(one).raw_size),
        desired=small.effective(world.record(one).raw_size),
    )
    request = world.request("clone", 0, limit=64 * MIB, source=one)
    require_refused(
        world, request, PreconditionError, "has 524288 bytes.*takes 1048576 at least"
    )
    plain = world.request(
        "clone", 0, limit=64 * MIB, source=one, secrets={}, encrypted="false"
    )
    assert world.volumes.create(plain).size == world.record(one).desired
    remove_all(world)


def test_wrong_and_missing_keys_leave_nothing(world: World) -> None:
    one = volume(world)
    wrong = dict.fromkeys(SOURCE, OTHER["encryptionKey"])
    both = {**SOURCE, "sourceEncryptionPassphrase": "x"}
    malformed = dict.fromkeys(SOURCE, "not base64")
    cases = [
        ({**THIRD, **wrong}, "of the clone's Secret does not open volume 'one'"),
        ({**THIRD, **both}, "holds both"),
        ({**THIRD, **malformed}, "sourceEncryptionKey is not base64"),
        (SOURCE, "holds neither encryptionPassphrase nor"),
        ({}, "no Secret came|sourceEncryptionPassphrase"),
        (THIRD, "the Secret of volume 'one' is needed once"),
    ]
    for source in (one, world.snapshot(one, "snap")):
        for secrets, match in cases:
            request = clone_request(world, source, secrets=secrets)
            require_refused(
                world,
                request,
                SecretError,
                match.replace("volume 'one'", ".*volume 'one'"),
            )
    remove_all(world)


def test_an_ancestor_whose_key_nobody_has_is_refused(world: World) -> None:
    one = volume(world)
    twin = clone(world, one, "twin")
    record = world.record(twin)
    assert record.ring is not None
    world.change(twin, ring=record.ring.without(record.layers[1:]))
    require_refused(
        world, clone_request(world, twin), SecretError, "its key ring has no key"
    )


def test_a_volume_with_too_many_snapshots_cannot_be_cloned(world: World) -> None:
    one = plain_volume(world)
    many = tuple(
        Snapshot(f"s{n}", new_snapshot_name(), SnapshotState.READY, number=10**6 + n)
        for n in range(MOST_SNAPSHOTS)
    )
    world.change(one, snapshots=many)
    with pytest.raises(ExhaustedError, match="256 snapshots"):
        plain_clone(world, one)
    assert world.record(one).snapshots == many
    assert world.record(one).children == ()
    world.change(one, snapshots=())
    remove_all(world)


@pytest.mark.parametrize("from_snapshot", [True, False])
def test_a_source_that_goes_while_its_clone_is_begun(
    world: World, *, from_snapshot: bool
) -> None:
    """Found, and deleted before the intent to clone it could be written."""
    one = plain_volume(world)
    found = world.snapshot(one, "snap") if from_snapshot else None

    def delete(number: int, name: str) -> None:
        del number
        if name == "pool.swap_entries":  # the clone's name is being claimed
            if found is not None:
                world.volumes.delete_snapshot(found)
            if world.record(one).state is VolumeState.READY:
                world.volumes.delete(one)

    steps = Steps(Fault(0), delete)
    other = world.controller(FaultyConnector(world.connector, steps))
    with pytest.raises(NotFoundError, match="deleted"):
        other.volumes.create(plain_request(world, found or one))
    world.collect_all()
    with world.pool() as pool:
        assert Directory(pool).find("clone") is None
    assert world.content() == {}
