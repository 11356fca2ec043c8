# SPDX-License-Identifier: Apache-2.0
"""What destroys formatted clones without a word, and how the driver avoids it.

Each test first does the damage with other tools, then asks the driver for the
same: its handles have no way to do it, refuse it, or do it right.  If a damage
is not there any more, on a newer librbd, a rule of the driver may be relaxed.
Sizes have a module of their own, `test_traps_of_size`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import rbd

from csi_driver.domain.chain import HeaderKind
from csi_driver.domain.chain import header_kind
from csi_driver.domain.errors import AlreadyLoadedError
from csi_driver.domain.errors import HeaderError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.secrets import SecretBytes
from csi_driver.domain.sizes import MIB
from csi_driver.images.port import LoadedImage
from csi_driver.images.port import RawImage
from tests.ceph.clones.conftest import Clone
from tests.ceph.clones.conftest import Place
from tests.ceph.clones.conftest import Source
from tests.ceph.clones.conftest import clone_of
from tests.ceph.clones.making import DEEP
from tests.ceph.clones.making import LAYOUT
from tests.ceph.clones.making import SIZE
from tests.ceph.clones.making import Making
from tests.ceph.clones.making import whole
from tests.ceph.clones.raw_tools import RawTools

FIRST_DATA = LAYOUT.reserve // (4 * MIB)
"""The number of the object that holds the first byte behind the header."""


def require_no_way(handle: RawImage | LoadedImage, *names: str) -> None:
    """Show, by calling them, that a handle offers none of these."""
    for name in names:
        with pytest.raises(AttributeError):
            getattr(handle, name)()


def require_neither_has(making: Making, image_id: str, *names: str) -> None:
    with making.pool.open_raw(image_id) as raw:
        require_no_way(raw, *names)
    with making.open(image_id) as loaded:
        require_no_way(loaded, *names)


def require_lost(
    place: Place, image_id: str, keys: list[SecretBytes], snapshot: int = 0
) -> None:
    """Show that nothing opens an image any more, or a snapshot of it."""
    for tried in (keys, keys[:1], keys[1:]):
        with pytest.raises(rbd.InvalidArgument):
            place.tools.content(image_id, *tried, snapshot=snapshot)
    with pytest.raises(HeaderError):
        place.making.content(image_id, snapshot)


def go_on(_done: int, _total: int) -> bool:
    return True


# ------------------------------------------------------------------- flatten


def flatten_by_python(tools: RawTools, image_id: str) -> None:
    with tools.image(image_id) as image:
        image.flatten()


def flatten_by_command(tools: RawTools, image_id: str) -> None:
    tools.command("flatten", tools.path(image_id))


def flatten_by_manager(tools: RawTools, image_id: str) -> None:
    """Let the manager flatten, or do what it does where it cannot.

    Its module rbd_support has no Python that runs it in every distribution
    (Debian 13: "PyO3 modules do not yet support subinterpreters").  What it
    would do is in Ceph's src/pybind/mgr/rbd_support/task.py: it opens the image
    by its id, loads nothing, and flattens.
    """
    path = tools.path(image_id)
    if tools.manager(prefix="rbd task add flatten", image_spec=path):
        assert "Module 'rbd_support' has failed" in tools.health()
        flatten_by_python(tools, image_id)
        return
    deadline = time.monotonic() + 60
    while tools.has_parent(image_id):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(
    "flatten",
    [flatten_by_python, flatten_by_command, flatten_by_manager],
    ids=["python-rbd", "rbd flatten", "rbd task add flatten"],
)
def test_raw_flatten_of_a_formatted_clone(
    place: Place, source: Source, flatten: Callable[[RawTools, str], None]
) -> None:
    making, tools = place.making, place.tools
    lost = making.formatted(source.image_id, source.snapshot)
    keys = making.chain_keys(lost)
    flatten(tools, lost)
    require_lost(place, lost, keys)
    assert header_kind(tools.raw_bytes(lost)) is HeaderKind.CLONE_LUKS2
    # The parent's own ciphertext stands in the clone.
    for number in range(FIRST_DATA, FIRST_DATA + 4):
        theirs = tools.object(source.image_id, number)
        assert tools.object(lost, number) == theirs

    clone = clone_of(making, source)
    own = making.chain_keys(clone.image_id)[0]
    with making.pool.open_raw(clone.image_id) as raw:
        require_no_way(raw, "flatten")
    with making.open(clone.image_id) as image:
        with pytest.raises(InUseError, match="owner of its lock"):
            image.flatten(go_on)
        image.acquire_lock()
        image.flatten(go_on)
    assert tools.content(clone.image_id, own) == clone.content
    assert header_kind(tools.raw_bytes(clone.image_id)) is HeaderKind.LUKS2


def test_loaded_flatten_of_a_formatted_clone_that_has_snapshots(
    place: Place, source: Source
) -> None:
    """With the feature deep-flatten, which clones have by default."""
    making, tools = place.making, place.tools
    clone = clone_of(making, source, DEEP)
    snapshot = making.snapshot(clone.image_id)
    keys = making.chain_keys(clone.image_id)
    with tools.loaded(clone.image_id, *keys) as image:
        image.flatten()
    assert tools.content(clone.image_id, keys[0]) == clone.content
    require_lost(place, clone.image_id, keys, snapshot)

    other = clone_of(making, source, DEEP)
    snapshot = making.snapshot(other.image_id)
    with making.open(other.image_id) as image:
        image.acquire_lock()
        with pytest.raises(PreconditionError, match="deep-flatten") as caught:
            image.flatten(go_on)
    assert "lose their parent" in str(caught.value)
    # What the message says to do:
    with tools.image(other.image_id) as image:
        image.update_features(rbd.RBD_FEATURE_DEEP_FLATTEN, False)
    making.flatten(other.image_id)
    assert making.content(other.image_id) == other.content
    assert making.content(other.image_id, snapshot) == other.content


def test_loaded_flatten_without_deep_flatten(
    place: Place, source: Source, clone: Clone
) -> None:
    """How the driver makes its clones: their snapshots stay as they are."""
    making, tools = place.making, place.tools
    snapshot = making.snapshot(clone.image_id)
    keys = making.chain_keys(clone.image_id)
    making.flatten(clone.image_id)
    assert tools.content(clone.image_id, keys[0]) == clone.content
    assert tools.content(clone.image_id, *keys, snapshot=snapshot) == clone.content
    assert making.content(clone.image_id, snapshot) == clone.content


def test_a_raw_flatten_that_outlives_the_owner_it_was_handed_to(
    place: Place, many: Source
) -> None:
    making, tools = place.making, place.tools
    lost = making.formatted(many.image_id, many.snapshot)
    keys = making.chain_keys(lost)
    owner = tools.another(rbd_concurrent_management_ops="1")  # slowly
    with owner.loaded(lost, *keys) as loaded:
        loaded.lock_acquire(rbd.RBD_LOCK_MODE_EXCLUSIVE)
        begun = tools.start("flatten", tools.path(lost))
        owner.wait_for_object(lost, FIRST_DATA)
    owner.close()
    assert begun.wait(60) == 0  # "Image flatten: 100% complete...done."
    require_lost(place, lost, keys)

    clone = making.formatted(many.image_id, many.snapshot)
    stranger = tools.another()
    with (
        stranger.loaded(clone, *making.chain_keys(clone)) as loaded,
        making.open(clone) as image,
    ):
        loaded.lock_acquire(rbd.RBD_LOCK_MODE_EXCLUSIVE)
        with pytest.raises(InUseError, match="owner of its lock"):
            image.flatten(go_on)
    stranger.close()
    assert set(tools.objects(clone)) == set(range(FIRST_DATA))
    assert making.content(clone) == many.content


def test_rollback_to_a_snapshot_from_before_the_flatten(
    place: Place, source: Source, clone: Clone
) -> None:
    making, tools = place.making, place.tools
    snapshot = making.snapshot(clone.image_id, "before")
    keys = making.chain_keys(clone.image_id)
    making.flatten(clone.image_id)
    require_neither_has(making, clone.image_id, "rollback", "rollback_to_snap")
    # The driver's way back is a clone of the snapshot.
    back = making.formatted(clone.image_id, snapshot)
    assert making.content(back) == clone.content

    with tools.image(clone.image_id) as image:
        image.rollback_to_snap("before")
    require_lost(place, clone.image_id, keys)
    assert making.content(back) == clone.content


# ---------------------------------------------------------------------- copy


def copy(image: Any, tools: RawTools, name: str) -> None:
    image.copy(tools.ioctx, name)


def deep_copy(image: Any, tools: RawTools, name: str) -> None:
    image.deep_copy(tools.ioctx, name, clone_format=2)


def deep_copy_flattened(image: Any, tools: RawTools, name: str) -> None:
    image.deep_copy(tools.ioctx, name, flatten=True)


type Copy = Callable[[Any, RawTools, str], None]


def require_ours_copies_by_clone(place: Place, clone: Clone) -> None:
    """Copy as the driver does: by a snapshot, a clone and a flatten."""
    making = place.making
    require_neither_has(making, clone.image_id, "copy", "deep_copy")
    copied = making.formatted(clone.image_id, making.snapshot(clone.image_id))
    making.flatten(copied)
    assert making.content(copied) == clone.content


@pytest.mark.parametrize("how", [copy, deep_copy_flattened])
def test_raw_copy_of_a_formatted_clone(place: Place, clone: Clone, how: Copy) -> None:
    tools, name = place.tools, f"copy-{uuid.uuid4()}"
    keys = place.making.chain_keys(clone.image_id)
    with tools.image(clone.image_id, read_only=True) as image:
        how(image, tools, name)
    require_lost(place, tools.id_of(name), keys)
    require_ours_copies_by_clone(place, clone)


def test_loaded_copy(place: Place, clone: Clone) -> None:
    tools, name = place.tools, f"copy-{uuid.uuid4()}"
    keys = place.making.chain_keys(clone.image_id)
    with (
        tools.loaded(clone.image_id, *keys) as image,
        pytest.raises(rbd.InvalidArgument),
    ):
        copy(image, tools, name)
    # It failed, and left all that was secret in the clear.
    left = tools.raw_bytes(tools.id_of(name))
    assert left[:SIZE] == clone.content
    require_ours_copies_by_clone(place, clone)


@pytest.mark.parametrize("how", [deep_copy, deep_copy_flattened])
def test_loaded_deep_copy(place: Place, clone: Clone, how: Copy) -> None:
    tools, name = place.tools, f"copy-{uuid.uuid4()}"
    keys = place.making.chain_keys(clone.image_id)
    with tools.loaded(clone.image_id, *keys) as image:
        how(image, tools, name)  # no error
    broken = tools.id_of(name)
    for tried in (keys, keys[:1], keys[1:]):
        with pytest.raises(rbd.InvalidArgument):
            tools.content(broken, *tried)
    # Without a header, and with what was secret in the clear.
    left = tools.raw_bytes(broken)
    assert header_kind(left) is HeaderKind.NONE
    assert left[: 4 * MIB] == clone.content[: 4 * MIB]
    require_ours_copies_by_clone(place, clone)


# --------------------------------------------------------------- raw changes

RAW_AT = LAYOUT.reserve + MIB


def raw_write(image: Any) -> None:
    image.write(bytes(4096), RAW_AT)


def raw_discard(image: Any) -> None:
    image.discard(RAW_AT, 64 * 1024)


def raw_write_zeroes(image: Any) -> None:
    image.write_zeroes(RAW_AT, 4096)


@pytest.mark.parametrize("change", [raw_write, raw_discard, raw_write_zeroes])
def test_raw_change_of_part_of_an_object(
    place: Place, source: Source, change: Callable[[Any], None]
) -> None:
    making, tools = place.making, place.tools
    ruined = making.formatted(source.image_id, source.snapshot)
    with tools.image(ruined) as image:
        change(image)
    # What stood around it came up from the parent as it was, not re-encrypted.
    theirs = tools.object(source.image_id, FIRST_DATA)
    assert tools.object(ruined, FIRST_DATA)[:MIB] == theirs[:MIB]
    shown = tools.content(ruined, *making.chain_keys(ruined))  # no error
    assert shown[4 * MIB :] == source.content[4 * MIB :]
    for at in (0, MIB - 4096, MIB + 64 * 1024, 4 * MIB - 4096):
        assert shown[at : at + 4096] != source.content[at : at + 4096]

    ours = making.formatted(source.image_id, source.snapshot)
    names = ("write", "discard", "write_zeroes")
    with making.pool.open_raw(ours) as raw:
        require_no_way(raw, *names)
    content = bytearray(source.content)
    content[MIB + 100 : MIB + 200] = bytes(100)
    with making.open(ours) as image:
        require_no_way(image, *names[1:])
        image.write(MIB + 100, bytes(100))
        assert whole(image) == content
    assert tools.content(ours, *making.chain_keys(ours)) == content


def test_format_of_a_loaded_flat_image(place: Place, making: Making) -> None:
    tools = place.tools
    image_id = making.flat()
    (key,) = making.chain_keys(image_id)
    header = tools.raw_bytes(image_id)[: LAYOUT.reserve]
    with making.open(image_id) as image:
        image.write(0, b"x" * 4096)
        with pytest.raises(AlreadyLoadedError, match="destroy its data"):
            image.write_header(header)
        with pytest.raises(AlreadyLoadedError, match="second load"):
            image.load(making.specs(image_id))
        require_no_way(image, "encryption_format", "encryption_load2")
    with tools.loaded(image_id, key) as image:
        assert image.read(0, 4096) == b"x" * 4096
        image.encryption_format(rbd.RBD_ENCRYPTION_FORMAT_LUKS1, key.reveal())
    assert b"x" * 16 not in tools.content(image_id, key)
