# SPDX-License-Identifier: Apache-2.0
"""Where a process id means something: one PID namespace of one boot.

A datapath in a container may have a namespace of its own, in which ids begin at 1
again with each container, and which its processes do not outlive.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

INITIAL: Final = 0xEFFFFFFC
"""The first PID namespace of a kernel (PROC_PID_INIT_INO, linux/proc_ns.h)."""


def boot_id() -> str:
    """Return the kernel's id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def pid_namespace() -> int:
    """Return the number of this process's PID namespace.

    Of those that exist at the same time no two have the same.
    """
    return Path("/proc/self/ns/pid").stat().st_ino


def ends_with_its_first_process() -> bool:
    """Whether what is left behind here is killed when a container ends."""
    return pid_namespace() != INITIAL
