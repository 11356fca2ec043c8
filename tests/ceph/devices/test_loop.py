# SPDX-License-Identifier: Apache-2.0
"""Loop devices by themselves: what others of the machine may do meanwhile."""

from __future__ import annotations

import concurrent.futures
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from csi_driver.devices import loop
from csi_driver.domain.errors import InUseError

SIZE = 1 << 20


@contextlib.contextmanager
def bound(file: Path) -> Iterator[Path]:
    """Yield a loop device that is bound to a new file."""
    file.write_bytes(bytes(SIZE))
    device = loop.bind(file, SIZE, read_only=False)
    try:
        yield device
    finally:
        loop.release(device)


def test_a_device_that_another_file_gets_at_once_was_released(
    work_directory: Path,
) -> None:
    first = work_directory / "first"
    first.write_bytes(bytes(SIZE))
    device = loop.bind(first, SIZE, read_only=False)
    with (
        concurrent.futures.ThreadPoolExecutor(1) as pool,
        contextlib.ExitStack() as others,
    ):
        with device.open("rb"):
            released = pool.submit(loop.release, device, 2.0)
            while not released.running():
                pass
        # The kernel gives the lowest free one, which is ours once it is closed.
        for number in range(8):
            if others.enter_context(bound(work_directory / f"{number}")) == device:
                break
        released.result()


def test_a_device_that_stays_open_is_not_released(work_directory: Path) -> None:
    with bound(work_directory / "file") as device:
        with device.open("rb"), pytest.raises(InUseError, match=str(device)):
            loop.release(device, 0.2)
        assert loop.backing_file(device.name) is None
