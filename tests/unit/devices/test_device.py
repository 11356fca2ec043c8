# SPDX-License-Identifier: Apache-2.0
"""Devices as the node's state keeps them, and exports as they may be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_driver.devices import fuse_export
from csi_driver.devices.device import Device
from csi_driver.devices.device import DeviceKind
from csi_driver.devices.device import NbdExport
from csi_driver.devices.device import ProcessMark
from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import SizeError

DEVICES = st.builds(
    Device,
    st.integers(0, 1000).map(lambda number: Path(f"/dev/nbd{number}")),
    st.sampled_from(DeviceKind),
    st.text(min_size=1),
    st.booleans(),
    st.none() | st.builds(ProcessMark, st.integers(1), st.integers(0)),
)
OFFERED = {
    "export-size": 1 << 30,
    "can_zero": True,
    "can_flush": True,
    "can_trim": False,
    "is_read_only": False,
}


@given(DEVICES)
def test_a_device_survives_json(device: Device) -> None:
    assert Device.from_json(device.to_json()) == device


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"kind": "other"},
        {"read_only": 1},
        {"process": [1]},
        {"process": [1, 2, 3]},
        {"path": 3},
    ],
)
def test_an_altered_device_is_refused(change: dict[str, object]) -> None:
    device = Device(Path("/dev/nbd0"), DeviceKind.KERNEL, "id", read_only=False)
    fields = json.loads(device.to_json()) | change
    with pytest.raises(InternalError):
        Device.from_json(json.dumps(fields))


@given(st.text())
def test_arbitrary_text_is_no_device(text: str) -> None:
    with pytest.raises(InternalError):
        Device.from_json(text)


@pytest.mark.parametrize("identity", ["", "x" * 129, "ü" * 65, "a\nb", "a\0b"])
def test_an_unusable_identity_is_refused(identity: str) -> None:
    with pytest.raises(InvalidRequestError):
        NbdExport(identity, 4096, read_only=False, flags=1)


@pytest.mark.parametrize("size", [0, -4096, 1, 4097])
def test_an_unusable_size_is_refused(size: int) -> None:
    with pytest.raises(InvalidRequestError, match=str(size)):
        NbdExport("id", size, read_only=False, flags=1)


def test_a_process_is_told_from_its_successors() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    mark = ProcessMark.of(child.pid)
    assert mark is not None
    assert not mark.wait_gone(0)
    assert ProcessMark(child.pid, mark.started + 1).wait_gone(0)
    child.communicate()
    assert mark.wait_gone(0)
    assert ProcessMark.of(child.pid) is None
    assert ProcessMark.of(os.getpid()) is not None


def export(*, read_only: bool = False) -> NbdExport:
    path = Path("/run/a b/s&?")
    return NbdExport("volume-1", 1 << 29, read_only, 1, path, "pool/ü")


def test_the_uri_names_socket_and_export() -> None:
    assert fuse_export.export_uri(export()) == (
        "nbd+unix:///pool%2F%C3%BC?socket=%2Frun%2Fa%20b%2Fs%26%3F"
    )
    with pytest.raises(InvalidRequestError, match="socket"):
        fuse_export.export_uri(NbdExport("id", 4096, read_only=False, flags=1))


def judge(read_only: bool, **change: object) -> None:
    answer = json.dumps({"exports": [OFFERED | change]})
    fuse_export.judge(export(read_only=read_only), answer)


def test_a_complete_offer_is_accepted() -> None:
    judge(read_only=False)
    judge(read_only=True, can_zero=False, can_flush=False, is_read_only=True)


@pytest.mark.parametrize(
    "change",
    [
        {"can_zero": False},
        {"can_flush": False},
        {"can_trim": True},
        {"is_read_only": True},
    ],
)
def test_an_offer_that_would_damage_data_is_refused(change: dict[str, bool]) -> None:
    with pytest.raises(InternalError, match="cannot be a writable disk"):
        judge(False, **change)


def test_an_export_that_is_too_small_is_refused() -> None:
    with pytest.raises(SizeError):
        judge(True, **{"export-size": (1 << 29) - 4096})


@pytest.mark.parametrize("answer", ["", "[]", "{}", '{"exports": []}', "{", "null"])
def test_an_answer_that_is_none_is_an_error(answer: str) -> None:
    with pytest.raises(InternalError, match="no usable answer"):
        fuse_export.judge(export(), answer)
