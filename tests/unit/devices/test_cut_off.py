# SPDX-License-Identifier: Apache-2.0
"""A dead kernel device that is shown to a pod, and cannot be kept open."""

from __future__ import annotations

from pathlib import Path

import pytest

from csi_driver.devices import kernel_nbd
from csi_driver.devices import mounts
from csi_driver.devices.device import Device
from csi_driver.devices.device import DeviceKind
from csi_driver.devices.kernel_nbd import KernelNbd
from csi_driver.devices.netlink import NbdControl
from csi_driver.domain.errors import UnavailableError


class Control(NbdControl):
    """Writes down what it was told to disconnect."""

    def __init__(self) -> None:
        super().__init__()
        self.disconnected: list[int] = []

    def disconnect(self, index: int) -> None:
        self.disconnected.append(index)


@pytest.mark.parametrize("shown", [True, False])
def test_what_is_shown_and_cannot_be_kept_is_not_given_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, shown: bool
) -> None:
    (mount,) = (each for each in mounts.read_mounts() if each.mount_point == "/")
    monkeypatch.setattr(mounts, "users", lambda _: (mount,) if shown else ())
    monkeypatch.setattr(kernel_nbd, "backend", lambda _: "volume-1")
    control = Control()
    device = Device(tmp_path / "nbd3", DeviceKind.KERNEL, "volume-1", read_only=False)
    kernel = KernelNbd(control=control)
    if shown:
        with pytest.raises(UnavailableError, match="cannot be kept"):
            kernel.cut_off(device)
    else:
        kernel.cut_off(device)
    assert control.disconnected == ([] if shown else [3])


def test_another_volumes_device_is_not_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_nbd, "backend", lambda _: "volume-2")
    control = Control()
    device = Device(tmp_path / "nbd3", DeviceKind.KERNEL, "volume-1", read_only=False)
    KernelNbd(control=control).cut_off(device)
    assert control.disconnected == []
