# SPDX-License-Identifier: Apache-2.0
"""What librbd itself does to clones of a snapshot whose image was flattened.

The driver's own way around it is in test_snapshots.  Once this fails, librbd has
learned to do it right.
"""

from __future__ import annotations

from typing import Any

import pytest
import rbd

from csi_driver.domain.sizes import MIB
from tests.ceph.provisioning.real import CephWorld

FEATURES = rbd.RBD_FEATURE_LAYERING | rbd.RBD_FEATURE_EXCLUSIVE_LOCK


def clone(ioctx: Any, source: str, name: str) -> None:
    """Clone the snapshot `snap` of an image."""
    rbd.RBD().clone(
        ioctx, source, "snap", ioctx, name, features=FEATURES, clone_format=2
    )


@pytest.mark.parametrize("flattened", [True, False])
def test_removing_the_last_snapshot_that_reads_a_parent_loses_it(
    world: CephWorld, *, flattened: bool
) -> None:
    with world.ioctx() as ioctx:
        rbd.RBD().create(ioctx, "lower", MIB, old_format=False, features=FEATURES)
        with rbd.Image(ioctx, "lower") as image:
            image.write(b"content", 0)
            image.create_snap("snap")
        clone(ioctx, "lower", "middle")
        with rbd.Image(ioctx, "middle") as image:
            image.create_snap("snap")
        clone(ioctx, "middle", "upper")
        with rbd.Image(ioctx, "middle") as image:
            if flattened:
                image.flatten()
            image.remove_snap("snap")
        with rbd.Image(ioctx, "lower") as image:
            children = [each["image"] for each in image.list_children2()]
            assert children == ([] if flattened else ["middle"])
            image.remove_snap("snap")
        if flattened:
            with pytest.raises(rbd.ImageNotFound):
                rbd.Image(ioctx, "upper", read_only=True).close()
        else:
            with rbd.Image(ioctx, "upper", read_only=True) as image:
                assert image.read(0, 7) == b"content"
