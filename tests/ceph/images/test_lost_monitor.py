# SPDX-License-Identifier: Apache-2.0
"""A connection whose monitor stops answering after it was made."""

from __future__ import annotations

import time

import pytest

from csi_driver.domain.errors import UnavailableError
from csi_driver.images.ceph import CONNECT_SECONDS
from tests.ceph.end_to_end.daemons import Daemon
from tests.ceph.images.conftest import Lab


def test_a_question_to_a_silent_monitor_is_a_bounded_wait(lab: Lab) -> None:
    assert lab.pool.free_bytes()
    with Daemon("mon").stopped():
        begin = time.monotonic()
        with pytest.raises(UnavailableError):
            lab.pool.free_bytes()
        assert time.monotonic() - begin < CONNECT_SECONDS + 3
        # What needs no monitor goes on.
        assert lab.pool.find_image("no such image") is None
    deadline = time.monotonic() + 30
    while True:
        try:
            assert lab.pool.free_bytes()
            break
        except UnavailableError:
            assert time.monotonic() < deadline
