# SPDX-License-Identifier: Apache-2.0
"""When a released loop device is free, on kernels that do not count disks."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from csi_driver.devices import loop
from csi_driver.devices import sysfs
from csi_driver.domain.errors import InUseError

DEVICE = Path("/nowhere/loop5")


@pytest.fixture
def backing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the attribute that names the file behind the device."""
    monkeypatch.setattr(sysfs, "BLOCK", tmp_path)
    path = tmp_path / DEVICE.name / "loop" / "backing_file"
    path.parent.mkdir(parents=True)
    path.write_text("/run/fuse/mnt/one-a\n")
    return path


def test_a_device_that_somebody_binds_anew_at_once_is_free(backing: Path) -> None:
    timer = threading.Timer(0.05, backing.write_text, ("/run/fuse/mnt/two-a\n",))
    timer.start()
    loop.release(DEVICE, 5)
    timer.join()


@pytest.mark.parametrize("path", ["/run/fuse/mnt/one-a", "/one-a"])
def test_a_device_on_the_same_file_is_not_free_wherever_that_is(
    backing: Path, path: str
) -> None:
    timer = threading.Timer(0.05, backing.write_text, (f"{path}\n",))
    timer.start()
    with pytest.raises(InUseError, match="still open"):
        loop.release(DEVICE, 0.2)
    timer.join()
