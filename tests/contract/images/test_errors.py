# SPDX-License-Identifier: Apache-2.0
"""What Ceph's own exceptions become."""

from __future__ import annotations

import rados

from csi_driver.domain.errors import ForbiddenError
from csi_driver.images.errors import translate


def test_a_user_whom_ceph_refuses_is_told_what_it_lacks() -> None:
    error = translate(rados.PermissionError("no", 1), "changing rbdcrypt.directory")
    assert isinstance(error, ForbiddenError)
    assert str(error).startswith("changing rbdcrypt.directory: Operation not permitted")
    assert "`profile rbd`" in str(error)
