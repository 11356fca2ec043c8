# SPDX-License-Identifier: Apache-2.0
"""This machine: tools, librbd, devices, memory, mounts, sockets and directories.

What a container may do is looked at by doing it: a device is opened, a directory
written to, and this process hardened as one that holds keys.
"""

from __future__ import annotations

import http
import http.client
import os
import socket
import tempfile
from collections.abc import Iterable
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from csi_driver.datapath.client import Datapath
from csi_driver.devices import attach
from csi_driver.devices import commands
from csi_driver.devices import loop
from csi_driver.devices import mountinfo
from csi_driver.devices.device import DeviceKind
from csi_driver.devices.filesystems import can_grow_ext4_mounted
from csi_driver.devices.fuse_loop import FUSE
from csi_driver.devices.kernel_nbd import KernelNbd
from csi_driver.devices.mountinfo import Mount
from csi_driver.doctor.check import Check
from csi_driver.doctor.check import Topic
from csi_driver.images.probe import TESTED_LIBRARY
from csi_driver.images.probe import library_version
from csi_driver.images.probe import probe_cryptsetup
from csi_driver.images.probe import probe_library
from csi_driver.keys.hygiene import harden
from csi_driver.settings import DeviceMethod

NODE_TOOLS: Final = {
    "blkid": "util-linux",
    "wipefs": "util-linux",
    "mount": "mount",
    "umount": "mount",
    "mkfs.ext4": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "resize2fs": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
    "xfs_growfs": "xfsprogs",
}
"""What a node runs, and the Debian packages that have it."""

CORE_PATTERN: Final = Path("/proc/sys/kernel/core_pattern")
_MOUNTED_IN: Final = ("plugins", "pods")
"""Where a node mounts: staging paths in the one, targets in the other."""
_CONNECT_SECONDS: Final = 5.0
_LONGEST_PAGE: Final = 1 << 16


def library() -> Iterator[Check]:
    """Look at librbd."""
    topic = Topic("librbd")
    probe_library()
    version = library_version()
    text = ".".join(map(str, version))
    if version[:2] == TESTED_LIBRARY:
        yield topic.ok(f"{text}, with LUKS")
    else:
        tested = ".".join(map(str, TESTED_LIBRARY))
        yield topic.warning(
            f"{text}, with LUKS; this driver was tested with {tested} (Ceph Reef)",
            "use the driver's own image",
        )


def cryptsetup() -> Iterator[Check]:
    """Look for the tool that makes headers."""
    probe_cryptsetup()
    yield Topic("cryptsetup").ok("is installed")


def node_tools() -> Iterator[Check]:
    """Look for the tools of filesystems and mounts."""
    topic = Topic("tools")
    missing = {tool for tool in NODE_TOOLS if commands.find(tool) is None}
    if not missing:
        yield topic.ok("the tools of filesystems and mounts are installed")
        return
    packages = sorted({NODE_TOOLS[tool] for tool in missing})
    yield topic.failed(
        f"{', '.join(sorted(missing))} is not in {commands.SEARCH_PATH}",
        f"install {' '.join(packages)}",
    )


def ext4_growth() -> Iterator[Check]:
    """Look whether ext4 can grow while it is mounted."""
    topic = Topic("ext4-growth")
    if can_grow_ext4_mounted():
        yield topic.ok("a mounted ext4 can grow: CAP_SYS_RESOURCE is there")
    else:
        yield topic.warning(
            "a mounted ext4 cannot grow, it does so at the next stage; xfs is not"
            " concerned",
            "add the capability CAP_SYS_RESOURCE to the node's container",
        )


def secrecy() -> Iterator[Check]:
    """Harden this process as one that holds keys, and say what is not to be had."""
    topic = Topic("key-protection")
    made = harden()
    for text in made.warnings:
        yield topic.warning(text)
    pattern = CORE_PATTERN.read_text(encoding="utf-8", errors="replace").strip()
    if pattern.startswith("|") and not made.not_dumpable:
        yield topic.warning(
            f"core files go to a program ({pattern.split()[0][1:]}), which no limit"
            " keeps from being given the memory of a process that holds keys",
            "set kernel.core_pattern to a file, or let the driver make itself"
            " undumpable",
        )
    elif not made.warnings:
        yield topic.ok("no core files, no debuggers, memory locked against swapping")


def devices(method: DeviceMethod, directory: Path) -> Iterator[Check]:
    """Look which way exports become block devices here."""
    topic = Topic("device-method", method)
    chosen = attach.choose(method.value, directory=directory)
    if chosen.kind is DeviceKind.KERNEL:
        yield topic.ok("the kernel's own nbd")
        return
    for path in (FUSE, loop.CONTROL):
        fault = _cannot_open(path)
        if fault:
            yield topic.failed(
                f"{path} cannot be opened: {fault}",
                "the container has to be privileged, or to be given this device",
            )
            return
    if method is DeviceMethod.FUSE:
        yield topic.ok("nbdfuse and loop devices, as it is set")
        return
    yield topic.warning(
        f"nbdfuse and loop devices, since {KernelNbd().available()}",
        "load the module nbd on the node (`modprobe nbd`), if its kernel has one: it"
        " is the shorter way to the volume",
    )


def datapath(path: Path) -> Iterator[Check]:
    """Look whether the datapath answers."""
    Datapath(path).ping()
    yield Topic("datapath", str(path)).ok("answers")


def readiness(host: str, port: int) -> Iterator[Check]:
    """Ask the process beside this one whether it is ready."""
    topic = Topic("readiness", f"{host or 'localhost'}:{port}")
    connection = http.client.HTTPConnection(
        host or "localhost", port, timeout=_CONNECT_SECONDS
    )
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        text = answer.read(_LONGEST_PAGE).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        yield topic.failed(
            f"does not answer: {getattr(error, 'strerror', None) or error}",
            "look at the log of this container",
        )
        return
    finally:
        connection.close()
    if answer.status == http.HTTPStatus.OK:
        yield topic.ok("the process is ready")
        return
    lines = [each for each in text.splitlines() if not each.startswith("ok ")]
    yield topic.failed(f"the process is not ready: {'; '.join(lines)}")


def served(name: str, path: Path) -> Iterator[Check]:
    """Look whether somebody serves at a socket of this pod's."""
    topic = Topic(name, str(path))
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_CONNECT_SECONDS)
        try:
            probe.connect(str(path))
        except OSError as error:
            yield topic.failed(
                f"nobody serves here: {error.strerror or error}",
                "look at the log of this container; a doctor that is run elsewhere"
                " than beside the driver finds no socket",
            )
            return
    yield topic.ok("serves")


def directory(name: str, path: Path) -> Iterator[Check]:
    """Look whether a directory can be written to."""
    topic = Topic(name, str(path))
    try:
        with tempfile.NamedTemporaryFile(dir=path, prefix=".doctor-"):
            pass
    except OSError as error:
        yield topic.failed(
            f"cannot be written to: {error.strerror}",
            "mount it from the node (hostPath), writable, into node and datapath alike",
        )
        return
    yield topic.ok("can be written to")


def propagation(kubelet: Path, *, needed: bool) -> Iterator[Check]:
    """Look whether pods will see what is mounted below kubelet's directory.

    It is `needed` where there is a Kubernetes at all.
    """
    topic = Topic("mount-propagation", str(kubelet))
    if kubelet.is_dir():
        mounts = mountinfo.read_mounts()
        for name in _MOUNTED_IN:
            yield judge_propagation(kubelet / name, mounts)
    elif needed:
        yield topic.failed(
            "does not exist here",
            "mount kubelet's directory from the node, with mountPropagation"
            " Bidirectional",
        )
    else:
        yield topic.warning("there is no kubelet here")


def judge_propagation(directory: Path, mounts: Iterable[Mount]) -> Check:
    """Judge the mount that holds a directory of kubelet's."""
    topic = Topic("mount-propagation", str(directory))
    above = [each for each in mounts if directory.is_relative_to(each.mount_point)]
    if max(above, key=_depth).shared:
        return topic.ok("is shared: pods see what is mounted below it")
    return topic.failed(
        "is not shared: pods see an empty directory instead of their volume",
        "mount it with mountPropagation Bidirectional; on the node itself / has to be"
        " shared (`mount --make-rshared /`)",
    )


def _depth(mount: Mount) -> tuple[int, int]:
    # Of two mounts at one path the later one lies on top.
    return len(Path(mount.mount_point).parts), mount.identifier


def _cannot_open(path: Path) -> str:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return error.strerror or str(error)
    return ""
