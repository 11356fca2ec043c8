# SPDX-License-Identifier: Apache-2.0
"""librbd's settings that an image carries: its limits of I/O."""

from __future__ import annotations

import pytest

from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.limits import BANDWIDTH_SETTING
from csi_driver.domain.limits import IOPS_SETTING
from csi_driver.domain.limits import LARGEST_LIMIT
from csi_driver.images.port import Pool
from tests.contract.images.family import Family
from tests.contract.images.family import Key


def test_settings_are_set_and_removed(family: Family) -> None:
    one = family.flat()
    with one.raw() as image:
        assert image.settings() == {}
        image.change_setting(IOPS_SETTING, "100")
        image.change_setting(BANDWIDTH_SETTING, str(LARGEST_LIMIT))
        image.change_setting(IOPS_SETTING, "200")
        expected = {IOPS_SETTING: "200", BANDWIDTH_SETTING: str(LARGEST_LIMIT)}
        assert image.settings() == expected
        one.pool.swap_metadata(one.image_id, ".rbdcrypt", None, "no setting")
        with one.raw(read_only=True) as reader:
            assert reader.settings() == expected
        image.change_setting(IOPS_SETTING, None)
        image.change_setting(IOPS_SETTING, None)
        image.change_setting(BANDWIDTH_SETTING, "0")
        assert image.settings() == {BANDWIDTH_SETTING: "0"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (IOPS_SETTING, "1Mi"),
        (IOPS_SETTING, "-1"),
        (IOPS_SETTING, ""),
        ("rbd_nonsense", "1"),
        ("rados_mon_op_timeout", "1"),
    ],
)
def test_what_librbd_does_not_know_is_refused(
    family: Family,
    name: str,
    value: str,
) -> None:
    with family.flat().raw() as image:
        with pytest.raises(InvalidRequestError):
            image.change_setting(name, value)
        image.change_setting(name, None)
        assert image.settings() == {}


def test_settings_change_round_the_lock(
    family: Family,
    keys: tuple[Key, ...],
    peer_pool: Pool,
) -> None:
    one = family.flat(keys[0])
    with one.loaded() as owner, peer_pool.open_raw(one.image_id) as other:
        owner.acquire_lock()
        other.change_setting(IOPS_SETTING, "1000")
        assert other.settings() == {IOPS_SETTING: "1000"}
        owner.write(0, b"limited")


def test_a_clone_takes_over_settings(family: Family) -> None:
    one = family.flat()
    with one.raw() as image:
        image.change_setting(IOPS_SETTING, "100")
    with family.clone(one).raw() as image:
        assert image.settings() == {IOPS_SETTING: "100"}
        image.change_setting(IOPS_SETTING, None)
    with one.raw() as image:
        assert image.settings() == {IOPS_SETTING: "100"}
