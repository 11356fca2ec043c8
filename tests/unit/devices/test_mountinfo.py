# SPDX-License-Identifier: Apache-2.0
"""The kernel's mount list, and flags that a mount may carry."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_driver.devices import mountinfo
from csi_driver.devices import mounts
from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import InvalidRequestError

LINES = rb"""
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
25 22 0:5 / /dev rw,nosuid - devtmpfs dev rw,size=4k
90 22 7:0 / /stage rw,noatime master:1 shared:3 - xfs /dev/loop0 rw,nouuid
91 22 7:0 /sub\040dir /pod/a\134b\011c ro - xfs /dev/loop0 rw
92 90 0:5 /nbd0 /stage ro,nosuid - devtmpfs dev rw
93 92 0:77 / /stage rw - tmpfs stranger ro
""".lstrip()

NAMES = st.binary(min_size=1).map(
    lambda raw: raw.replace(b"/", b"_").replace(b"\0", b"_")
)


def test_a_file_is_parsed() -> None:
    root, _, stage, pod, *_ = mountinfo.parse(LINES)
    assert (root.identifier, root.parent, root.numbers) == (22, 1, (254, 0))
    assert stage.filesystem == "xfs"
    assert stage.super_options == ("rw", "nouuid")
    assert (pod.root, pod.mount_point) == ("/sub dir", "/pod/a\\b\tc")
    assert pod.read_only
    assert not stage.read_only
    assert pod.describe() == "xfs of /dev/loop0, its /sub dir, read-only"


@given(NAMES)
def test_any_name_survives_the_kernels_escapes(name: bytes) -> None:
    escaped = b"".join(
        b"\\%03o" % byte if byte in b" \t\n\\#" else bytes([byte]) for byte in name
    )
    assert mountinfo.unescape(escaped) == os.fsdecode(name)


@given(st.binary(max_size=100).filter(lambda raw: b"\n" not in raw))
def test_an_arbitrary_line_is_a_mount_or_an_error(line: bytes) -> None:
    try:
        mountinfo.parse_line(line)
    except InternalError:
        return
    assert line.count(b" - ") >= 1


def test_stacked_mounts_come_from_bottom_to_top() -> None:
    found = mountinfo.parse(LINES)
    stacked = mountinfo.at(tuple(reversed(found)), Path("/stage"))
    assert [mount.identifier for mount in stacked] == [90, 92, 93]
    assert mountinfo.at(found, Path("/sta")) == ()


def test_mounts_of_a_device_include_binds() -> None:
    found = mountinfo.of_device(mountinfo.parse(LINES), (7, 0))
    assert [mount.identifier for mount in found] == [90, 91]


def test_the_mount_that_holds_a_path() -> None:
    found = mountinfo.parse(LINES)
    inside = mountinfo.holding(found, Path("/stages/file"))
    assert inside is not None
    assert (inside[0].identifier, inside[1]) == (22, "/stages/file")
    node = mountinfo.holding(found, Path("/dev/nbd3"))
    assert node is not None
    assert (node[0].identifier, node[1]) == (25, "/nbd3")
    assert mountinfo.holding((), Path("/x")) is None


def test_this_process_has_mounts() -> None:
    found = mountinfo.read_mounts()
    assert any(mount.mount_point == "/" for mount in found)


@pytest.mark.parametrize(
    "flag",
    ["noatime", "discard", "logbsize=256k", "data=ordered", 'context="a:b:c1,c2"'],
)
def test_ordinary_flags_pass(flag: str) -> None:
    mounts.check_flags([flag])


@pytest.mark.parametrize(
    "flag",
    [
        "",
        "-o",
        "a b",
        "a\n",
        "a\0",
        "noatime,bind",
        ",bind",
        "bind",
        "BIND",
        "remount",
        "loop=/dev/loop0",
        "logdev=/dev/vda",
        "journal_path=/dev/vda",
        "x-systemd.automount",
        "X-mount.mkdir",
        'context="a',
    ],
)
def test_flags_that_reach_further_are_refused(flag: str) -> None:
    with pytest.raises(InvalidRequestError):
        mounts.check_flags([flag])
