# SPDX-License-Identifier: Apache-2.0
"""Reading request fields: what is refused, and that nothing else is."""

from __future__ import annotations

from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from csi_driver.domain.access import AccessMode
from csi_driver.domain.access import Filesystem
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.sizes import CapacityRange
from csi_driver.rpc import fields
from csi_driver.rpc.stubs import csi_pb2

MODE = csi_pb2.VolumeCapability.AccessMode


def capability(mode: str = "SINGLE_NODE_WRITER") -> csi_pb2.VolumeCapability:
    return csi_pb2.VolumeCapability(
        access_mode=MODE(mode=MODE.Mode.Value(mode)),
        mount=csi_pb2.VolumeCapability.MountVolume(),
    )


@pytest.mark.parametrize(
    "text",
    ["", "relative/path", "/a/../b", "/..", "/a\0b", "/", "//", "/" + "x" * 4096],
)
def test_bad_paths_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="target_path"):
        fields.path("target_path", text)


@given(st.lists(st.text("abc.… -", min_size=1), min_size=1))
def test_a_path_that_does_not_climb_is_taken_as_it_is(parts: list[str]) -> None:
    text = "/" + "/".join(parts)
    if ".." in parts or set(parts) <= {"."}:
        with pytest.raises(InvalidRequestError):
            fields.path("target_path", text)
    else:
        assert fields.path("target_path", text) == Path(text)


def test_two_dots_inside_a_name_do_not_climb() -> None:
    assert fields.path("target_path", "/a/..data") == Path("/a/..data")


@given(st.dictionaries(st.text(), st.text(), max_size=4))
def test_maps_are_taken_up_to_four_kibibytes(given: dict[str, str]) -> None:
    size = sum(len((key + value).encode()) for key, value in given.items())
    given = {**given, "padding": "x" * (4096 - len("padding") - size)}
    assert fields.mapping("parameters", given) == given
    with pytest.raises(InvalidRequestError, match="4097 bytes"):
        fields.mapping("parameters", {**given, "padding": given["padding"] + "x"})


def test_every_access_mode_of_csi_is_known() -> None:
    known = {each.value for each in AccessMode}
    assert known == set(MODE.Mode.keys()) - {"UNKNOWN"}
    for name in known:
        assert fields.capability(capability(name)).mode is AccessMode(name)


@pytest.mark.parametrize(
    "bad",
    [
        csi_pb2.VolumeCapability(),
        csi_pb2.VolumeCapability(mount=csi_pb2.VolumeCapability.MountVolume()),
        csi_pb2.VolumeCapability(
            block=csi_pb2.VolumeCapability.BlockVolume(), access_mode=MODE()
        ),
        csi_pb2.VolumeCapability(access_mode=MODE(mode=MODE.SINGLE_NODE_WRITER)),
        csi_pb2.VolumeCapability(
            mount=csi_pb2.VolumeCapability.MountVolume(),
            access_mode=MODE.FromString(b"\x08\x63"),
        ),
    ],
    ids=["nothing", "no mode", "mode UNKNOWN", "no access type", "a newer mode"],
)
def test_a_capability_needs_both_its_parts(bad: csi_pb2.VolumeCapability) -> None:
    with pytest.raises(InvalidRequestError):
        fields.capability(bad)


def test_filesystem_and_mount_flags_are_read() -> None:
    given = capability()
    given.mount.fs_type = "xfs"
    given.mount.mount_flags.extend(["noatime", "context=a b"])
    found = fields.capability(given)
    assert found.filesystem is Filesystem.XFS
    assert found.mount_flags == ("noatime", "context=a b")
    assert not found.block


def test_an_unknown_filesystem_is_refused_with_the_known_ones() -> None:
    given = capability()
    given.mount.fs_type = "btrfs"
    with pytest.raises(InvalidRequestError, match="ext4, xfs"):
        fields.capability(given)


@pytest.mark.parametrize("flag", ["", "a\nb", "a\0b"])
def test_unprintable_mount_flags_are_refused(flag: str) -> None:
    given = capability()
    given.mount.mount_flags.append(flag)
    with pytest.raises(InvalidRequestError, match="mount flag"):
        fields.capability(given)


def test_a_mount_group_is_refused() -> None:
    given = capability()
    given.mount.volume_mount_group = "1000"
    with pytest.raises(InvalidRequestError, match="volume_mount_group"):
        fields.capability(given)


def test_no_capacity_range_asks_for_nothing() -> None:
    assert fields.capacity(csi_pb2.CreateVolumeRequest()) == CapacityRange()
    with pytest.raises(InvalidRequestError, match="missing"):
        fields.capacity(csi_pb2.ControllerExpandVolumeRequest(), must=True)


@pytest.mark.parametrize(("required", "limit"), [(0, 0), (-1, 0), (0, -1), (2, 1)])
def test_a_senseless_capacity_range_is_refused(required: int, limit: int) -> None:
    request = csi_pb2.CreateVolumeRequest(
        capacity_range={"required_bytes": required, "limit_bytes": limit}  # type: ignore[arg-type]  # a dict does too
    )
    with pytest.raises(InvalidRequestError, match="_bytes"):
        fields.capacity(request)
