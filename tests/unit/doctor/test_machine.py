# SPDX-License-Identifier: Apache-2.0
"""Looks at a machine, each shown both ways."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from csi_driver.datapath import wire
from csi_driver.datapath.messages import Done
from csi_driver.devices import attach
from csi_driver.devices import commands
from csi_driver.devices import loop
from csi_driver.devices.device import DeviceKind
from csi_driver.devices.kernel_nbd import KernelNbd
from csi_driver.devices.mountinfo import parse
from csi_driver.doctor import machine
from csi_driver.doctor.check import Check
from csi_driver.doctor.check import Status
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.errors import UnsupportedError
from csi_driver.keys.hygiene import Hygiene
from csi_driver.observability.conditions import Condition
from csi_driver.observability.http import serving
from csi_driver.observability.pages import pages
from csi_driver.settings import DeviceMethod


def only(look_at: Callable[[], Iterator[Check]]) -> Check:
    (check,) = look_at()
    return check


def test_the_library_that_the_tests_run_on_is_known() -> None:
    assert only(machine.library).status is Status.OK


def test_another_library_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "library_version", lambda: (1, 99, 0))
    check = only(machine.library)
    assert check.status is Status.WARNING
    assert "1.99.0" in check.found


def test_a_missing_tool_is_named_with_its_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    absent = {"xfs_growfs", "blkid"}
    monkeypatch.setattr(
        commands, "find", lambda tool: None if tool in absent else f"/bin/{tool}"
    )
    check = only(machine.node_tools)
    assert check.status is Status.FAILED
    assert check.found.startswith("blkid, xfs_growfs is not in")
    assert check.remedy == "install util-linux xfsprogs"
    absent.clear()
    assert only(machine.node_tools).status is Status.OK


@pytest.mark.parametrize("able", [True, False])
def test_growth_of_a_mounted_ext4(monkeypatch: pytest.MonkeyPatch, able: bool) -> None:
    monkeypatch.setattr(machine, "can_grow_ext4_mounted", lambda: able)
    check = only(machine.ext4_growth)
    assert check.status is (Status.OK if able else Status.WARNING)
    assert ("CAP_SYS_RESOURCE" in check.remedy) is not able


def hygiene(*warnings: str, dumpable: bool = False) -> Hygiene:
    return Hygiene(
        no_core_files=True,
        not_dumpable=not dumpable,
        memory_locked=not warnings,
        io_flusher=False,
        warnings=warnings,
    )


def test_keys_that_could_leave_the_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pattern = tmp_path / "core_pattern"
    pattern.write_text("|/usr/lib/systemd/systemd-coredump %P\n")
    monkeypatch.setattr(machine, "CORE_PATTERN", pattern)
    monkeypatch.setattr(machine, "harden", hygiene)
    assert only(machine.secrecy).status is Status.OK
    monkeypatch.setattr(machine, "harden", lambda: hygiene("keys may be swapped out"))
    check = only(machine.secrecy)
    assert (check.status, check.found) == (Status.WARNING, "keys may be swapped out")
    monkeypatch.setattr(machine, "harden", lambda: hygiene(dumpable=True))
    assert "/usr/lib/systemd/systemd-coredump" in only(machine.secrecy).found
    pattern.write_text("core\n")
    assert only(machine.secrecy).status is Status.OK


class Way:
    """A way to make devices that is there."""

    def __init__(self, kind: DeviceKind) -> None:
        self.kind = kind


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> Callable[[DeviceKind], None]:
    """Say which way exports become devices here."""

    def choose(kind: DeviceKind) -> None:
        monkeypatch.setattr(attach, "choose", lambda *_, **__: Way(kind))
        monkeypatch.setattr(KernelNbd, "available", lambda _: "no nbd here")

    return choose


def look(method: DeviceMethod = DeviceMethod.AUTO) -> Check:
    return only(lambda: machine.devices(method, Path("/run/x")))


def test_the_kernels_own_devices(chosen: Callable[[DeviceKind], None]) -> None:
    chosen(DeviceKind.KERNEL)
    assert look().status is Status.OK


def test_the_fallback_is_a_warning_unless_it_is_wanted(
    chosen: Callable[[DeviceKind], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    chosen(DeviceKind.FUSE)
    for name, place in (("FUSE", machine), ("CONTROL", loop)):
        (tmp_path / name).touch()
        monkeypatch.setattr(place, name, tmp_path / name)
    check = look()
    assert check.status is Status.WARNING
    assert "no nbd here" in check.found
    assert look(DeviceMethod.FUSE).status is Status.OK
    (tmp_path / "CONTROL").unlink()
    check = look()
    assert check.status is Status.FAILED
    assert "CONTROL cannot be opened: No such file" in check.found
    assert "privileged" in check.remedy


def test_no_way_at_all_is_what_the_driver_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def choose(*_: object, **__: object) -> None:
        message = "no way to attach a device"
        raise UnsupportedError(message)

    monkeypatch.setattr(attach, "choose", choose)
    with pytest.raises(UnsupportedError):
        look()


def test_a_directory_has_to_be_writable(tmp_path: Path) -> None:
    assert only(lambda: machine.directory("run-dir", tmp_path)).status is Status.OK
    assert not list(tmp_path.iterdir())
    check = only(lambda: machine.directory("run-dir", tmp_path / "none"))
    assert check.status is Status.FAILED
    assert "No such file or directory" in check.found


def test_a_socket_has_to_be_served_at(tmp_path: Path) -> None:
    path = tmp_path / "csi.sock"
    assert "No such file" in only(lambda: machine.served("csi-socket", path)).found
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        assert only(lambda: machine.served("csi-socket", path)).status is Status.FAILED
        server.listen()
        assert only(lambda: machine.served("csi-socket", path)).status is Status.OK


def test_the_datapath_has_to_answer(tmp_path: Path) -> None:
    path = tmp_path / "datapath.sock"
    with pytest.raises(UnavailableError, match="does not answer"):
        only(lambda: machine.datapath(path))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def answer() -> None:
            with server.accept()[0] as asking:
                wire.receive(asking)
                wire.send(asking, Done())

        thread = threading.Thread(target=answer)
        thread.start()
        assert only(lambda: machine.datapath(path)).status is Status.OK
        thread.join()


PODS = Path("/var/lib/kubelet/pods")
MOUNTS = b"""\
1 0 8:1 / / rw master:1 - ext4 /dev/sda rw
2 1 8:2 / /var/lib rw shared:5 - ext4 /dev/sdb rw
"""
COVER = b"4 3 8:3 / /var/lib/kubelet rw - tmpfs none rw\n"


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (b"", Status.OK),
        (b"3 2 8:2 /k /var/lib/kubelet rw master:5 - ext4 /dev/sdb rw\n", "failed"),
        (b"3 2 8:2 /k /var/lib/kubelet rw shared:5 - ext4 /dev/sdb rw\n", "ok"),
        (b"3 2 8:2 /k /var/lib/kubelet/pods rw shared:5 - ext4 /dev/sdb rw\n", "ok"),
        (
            b"3 2 8:2 /k /var/lib/kubelet rw shared:5 - ext4 /dev/sdb rw\n" + COVER,
            "failed",
        ),
        (b"3 2 8:2 /k /var/lib/kubelet/plugins rw - ext4 /dev/sdb rw\n", "ok"),
    ],
    ids=["its filesystem", "slave", "shared", "itself", "covered", "beside"],
)
def test_mounts_have_to_reach_the_pods(lines: bytes, status: str) -> None:
    check = machine.judge_propagation(PODS, parse(MOUNTS + lines))
    assert check.status == status


def test_a_machine_without_kubelet(tmp_path: Path) -> None:
    absent = tmp_path / "kubelet"
    look_at = machine.propagation
    assert only(lambda: look_at(absent, needed=True)).status is Status.FAILED
    assert only(lambda: look_at(absent, needed=False)).status is Status.WARNING
    absent.mkdir()
    found = list(look_at(absent, needed=True))
    assert [Path(each.subject).name for each in found] == ["plugins", "pods"]


def test_this_machine_is_looked_at_without_a_trace() -> None:
    before = set(os.listdir("/run"))  # noqa: PTH208  # names alone
    only(machine.node_tools)
    only(machine.ext4_growth)
    assert set(os.listdir("/run")) == before  # noqa: PTH208


def asked(*conditions: Condition) -> Check:
    """Ask a process for which these conditions have to hold."""
    found = pages(alive=(), ready=conditions, registry=CollectorRegistry())
    with serving("127.0.0.1", 0, found) as port:
        return only(lambda: machine.readiness("127.0.0.1", port))


def test_a_process_is_asked_whether_it_is_ready() -> None:
    def bad() -> None:
        message = "kubelet has not answered"
        raise UnavailableError(message)

    fine = Condition("librbd", lambda: None)
    assert asked(fine).status is Status.OK
    check = asked(fine, Condition("x", bad))
    assert check.status is Status.FAILED
    assert check.found == "the process is not ready: failed x: kubelet has not answered"


def test_a_process_that_serves_no_pages() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    check = only(lambda: machine.readiness("127.0.0.1", port))
    assert (check.status, check.found) == (
        Status.FAILED,
        "does not answer: Connection refused",
    )
