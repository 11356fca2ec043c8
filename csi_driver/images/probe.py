# SPDX-License-Identifier: Apache-2.0
"""A look at librbd and cryptsetup here before the driver promises anything."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import rbd

from csi_driver.domain.errors import UnavailableError
from csi_driver.images.headers import TOOLS_PATH

TESTED_LIBRARY: Final = (1, 18)
"""The librbd that this driver's tests run on: Ceph Reef, 18.2.7."""


def library_version() -> tuple[int, int, int]:
    """Return the version of librbd's interface, which is not Ceph's own."""
    major, minor, extra = rbd.RBD().version()
    return int(major), int(minor), int(extra)


def probe_library() -> None:
    """Check that librbd can do what the driver rests on.

    UnavailableError says what this build lacks.  `encryption_load2` came with
    Ceph Reef (18.2); LUKS can be left out when Ceph is built, and such a
    library answers every load with ENOTSUP (ceph/go-ceph issue 1066).
    """
    missing = []
    if not hasattr(rbd.Image, "encryption_load2"):
        missing.append("encryption_load2 (Ceph Reef, 18.2, or later)")
    # The library is mapped by now, and with it what it was linked against.
    if "libcryptsetup" not in Path("/proc/self/maps").read_text(encoding="utf-8"):
        missing.append("LUKS (a build with libcryptsetup)")
    if missing:
        message = f"this machine's librbd lacks {' and '.join(missing)}"
        raise UnavailableError(message)


def probe_cryptsetup() -> None:
    """Check that cryptsetup, which makes the headers, is there.

    UnavailableError says what to install.
    """
    if shutil.which("cryptsetup", path=TOOLS_PATH) is None:
        message = f"cryptsetup is not in {TOOLS_PATH}: install cryptsetup-bin"
        raise UnavailableError(message)
