# SPDX-License-Identifier: Apache-2.0
"""Access modes and filesystems that are offered, and those that are not."""

from __future__ import annotations

import pytest

from csi_driver.domain.access import AccessMode
from csi_driver.domain.access import Capability
from csi_driver.domain.access import Filesystem
from csi_driver.domain.access import parse_filesystem
from csi_driver.domain.errors import InvalidRequestError


@pytest.mark.parametrize("mode", AccessMode)
def test_what_is_offered(mode: AccessMode) -> None:
    refusal = Capability(mode).refusal()
    writers_elsewhere = {"MULTI_NODE_MULTI_WRITER", "MULTI_NODE_SINGLE_WRITER"}
    assert (refusal is not None) == (mode.name in writers_elsewhere)
    assert mode.read_only == mode.name.endswith("READER_ONLY")
    assert mode.name == mode.value


def test_read_write_many_is_refused_by_its_name() -> None:
    refusal = Capability(AccessMode.MULTI_NODE_MULTI_WRITER).refusal()
    assert refusal is not None
    assert "ReadWriteMany" in refusal


@pytest.mark.parametrize(
    ("name", "found"),
    [("", None), ("ext4", Filesystem.EXT4), ("xfs", Filesystem.XFS)],
)
def test_filesystems_by_name(name: str, found: Filesystem | None) -> None:
    assert parse_filesystem(name) is found


@pytest.mark.parametrize("name", ["ext3", "EXT4", "btrfs", " ext4", "ext4\n"])
def test_another_filesystem_lists_the_known_ones(name: str) -> None:
    with pytest.raises(InvalidRequestError, match="ext4, xfs"):
        parse_filesystem(name)
