# SPDX-License-Identifier: Apache-2.0
"""Choose how exports become devices on this node.

`auto` prefers the kernel's NBD client, which is the shorter way; the fallback is
nbdfuse with a loop device.  The code above works with
`AttachMethod` and does not know which one it has.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final
from typing import Literal

from csi_driver.devices.device import AttachMethod
from csi_driver.devices.fuse_loop import FuseLoop
from csi_driver.devices.kernel_nbd import DEAD_CONNECTION_SECONDS
from csi_driver.devices.kernel_nbd import KernelNbd
from csi_driver.domain.errors import UnsupportedError

type MethodName = Literal["auto", "kernel", "fuse"]

_REMEDIES: Final[Mapping[MethodName, str]] = {
    "auto": "load nbd, or fuse and loop, into its kernel (`modprobe nbd`)",
    "kernel": (
        "load nbd into its kernel (`modprobe nbd`), or let nbdfuse and loop devices do:"
        " set RBDCRYPT_DEVICE_METHOD of node and datapath to auto (the chart's"
        " deviceMethod, and delete the datapath's pod, which no upgrade replaces)"
    ),
    "fuse": "load fuse and loop into its kernel (`modprobe --all fuse loop`)",
}


def choose(
    method: MethodName,
    *,
    directory: Path,
    dead_connection_seconds: int = DEAD_CONNECTION_SECONDS,
) -> AttachMethod:
    """Return the named method, or for `auto` the first one that works here.

    `directory` holds the fallback's mount points (a tmpfs such as /run).
    Raises UnsupportedError with every reason found when none works.
    """
    kernel = KernelNbd(dead_connection_seconds=dead_connection_seconds)
    fuse = FuseLoop(directory)
    candidates: tuple[AttachMethod, ...]
    match method:
        case "auto":
            candidates = (kernel, fuse)
        case "kernel":
            candidates = (kernel,)
        case "fuse":
            candidates = (fuse,)
    reasons: list[str] = []
    for candidate in candidates:
        reason = candidate.available()
        if reason is None:
            return candidate
        reasons.append(f"{candidate.kind.value}: {reason}")
    raise UnsupportedError(
        f"no way to attach a device on this node; {'; '.join(reasons)};"
        f" {_REMEDIES[method]}"
    )
