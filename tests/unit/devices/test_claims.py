# SPDX-License-Identifier: Apache-2.0
"""Who has a device for himself, when opening it takes longer than is waited."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from csi_driver.devices import claims
from csi_driver.devices.claims import require_unclaimed
from csi_driver.devices.device import Device
from csi_driver.devices.device import DeviceKind
from csi_driver.domain.errors import InUseError

DEVICE = Device(Path("/dev/nbd7"), DeviceKind.KERNEL, "volume-1", read_only=False)


@pytest.fixture
def blocked(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Let opening wait, as the kernel does for a server that does not answer."""
    opening, leave = threading.Event(), threading.Event()

    def wait(*_: object) -> int:
        opening.set()
        leave.wait(10)
        raise OSError(errno.EIO, "nobody answered")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", wait)
        patch.setattr(claims, "CLAIM_SECONDS", 0.05)
        try:
            yield opening
        finally:
            leave.set()


def test_a_served_device_that_cannot_be_opened_in_time_is_in_use(
    blocked: threading.Event,
) -> None:
    with pytest.raises(InUseError, match=r"nbd7 of volume volume-1.*within 0.05 s"):
        require_unclaimed(DEVICE, served=True)
    assert blocked.is_set()


def test_a_dead_device_that_cannot_be_opened_in_time_is_free(
    blocked: threading.Event,
) -> None:
    require_unclaimed(DEVICE, served=False)
    assert blocked.is_set()


@pytest.mark.parametrize("served", [True, False])
def test_a_claimed_device_is_in_use_whoever_serves_it(
    monkeypatch: pytest.MonkeyPatch, *, served: bool
) -> None:
    def claimed(*_: object) -> int:
        raise OSError(errno.EBUSY, "busy")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", claimed)
        with pytest.raises(InUseError, match="another mount namespace"):
            require_unclaimed(DEVICE, served=served)


@pytest.mark.parametrize("served", [True, False])
def test_a_device_that_opens_is_free(tmp_path: Path, *, served: bool) -> None:
    path = tmp_path / "device"
    path.touch()
    require_unclaimed(Device(path, DeviceKind.FUSE, "volume-1", False), served=served)
