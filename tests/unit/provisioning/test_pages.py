# SPDX-License-Identifier: Apache-2.0
"""Cutting one volume's snapshots into pages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_driver.domain.errors import PendingError
from csi_driver.domain.ids import Location
from csi_driver.domain.ids import SnapshotId
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.provisioning.listing import page_of
from csi_driver.provisioning.requests import SnapshotInfo

VOLUME = VolumeId(Location("lab", 3), "abc")


def infos(numbers: set[int]) -> list[SnapshotInfo]:
    """Return snapshots of these numbers, in order."""
    return [
        SnapshotInfo(SnapshotId(VOLUME, number), EffectiveSize(4096), number)
        for number in sorted(numbers)
    ]


numbers = st.sets(st.integers(1, 10**18), max_size=30)


@given(numbers, st.integers(0, 7))
def test_pages_together_are_the_whole(found: set[int], limit: int) -> None:
    whole = infos(found)
    token, pages = "", []
    for _ in range(40):
        page = page_of(whole, token, limit)
        pages.append(page.snapshots)
        token = page.next_token
        if not token:
            break
    assert [each for page in pages for each in page] == whole
    if limit:
        assert all(len(page) == limit for page in pages[:-1])
        assert len(pages[-1]) <= limit
        assert pages[-1] or not whole
    else:
        assert len(pages) == 1


@given(numbers, numbers, st.integers(1, 7))
def test_a_token_outlives_its_snapshot(
    found: set[int], deleted: set[int], limit: int
) -> None:
    first = page_of(infos(found), "", limit)
    rest = page_of(infos(found - deleted), first.next_token, 0).snapshots
    if first.next_token:
        shown = {each.snapshot_id.number for each in first.snapshots}
        assert {each.snapshot_id.number for each in rest} == found - deleted - shown


@pytest.mark.parametrize("token", ["x", "-1", "1.2", " 1", "1" * 20, "\u0661"])
def test_a_foreign_token_is_refused(token: str) -> None:
    with pytest.raises(PendingError, match="was not given out by this driver"):
        page_of(infos({1, 2}), token, 1)
