# SPDX-License-Identifier: Apache-2.0
"""Which way exports become devices, and what a node without any is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from csi_driver.devices import attach
from csi_driver.devices.attach import MethodName
from csi_driver.devices.device import DeviceKind
from csi_driver.devices.fuse_loop import FuseLoop
from csi_driver.devices.kernel_nbd import KernelNbd
from csi_driver.domain.errors import UnsupportedError


def lacking(
    monkeypatch: pytest.MonkeyPatch, *, kernel: str | None, fuse: str | None
) -> None:
    monkeypatch.setattr(KernelNbd, "available", lambda _: kernel)
    monkeypatch.setattr(FuseLoop, "available", lambda _: fuse)


@pytest.mark.parametrize(
    ("kernel", "chosen"), [(None, DeviceKind.KERNEL), ("no nbd", DeviceKind.FUSE)]
)
def test_auto_prefers_the_kernel(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    kernel: str | None,
    chosen: DeviceKind,
) -> None:
    lacking(monkeypatch, kernel=kernel, fuse=None)
    assert attach.choose("auto", directory=tmp_path).kind is chosen


@pytest.mark.parametrize(
    ("method", "told"),
    [
        ("auto", ["no nbd", "no /dev/fuse", "load nbd, or fuse and loop"]),
        ("kernel", ["no nbd", "modprobe nbd", "datapath to auto"]),
        ("fuse", ["no /dev/fuse", "load fuse and loop into"]),
    ],
)
def test_a_node_without_any_is_told_what_to_load(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    method: MethodName,
    told: list[str],
) -> None:
    lacking(monkeypatch, kernel="no nbd", fuse="no /dev/fuse")
    with pytest.raises(UnsupportedError) as caught:
        attach.choose(method, directory=tmp_path)
    for words in told:
        assert words in str(caught.value)
