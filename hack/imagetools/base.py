# SPDX-License-Identifier: Apache-2.0
"""The base image `debian:trixie-slim`, made from Debian's packages.

No registry has to be reachable for it.  What the published image leaves out
(manuals, translations, package lists) is left out here, too, so that a
Dockerfile builds on both alike.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from labtools import places
from labtools import rootfs
from labtools import shell

REFERENCE: Final = "docker.io/library/debian:trixie-slim"
"""What a Dockerfile calls it."""

_RECIPE: Final = "1"
"""Raise it when the way of building changes."""

_DPKG: Final = (
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/man/*",
)


def key() -> str:
    """Return what identifies the content of the base image."""
    return places.digest(_RECIPE, rootfs.SUITE, rootfs.MIRROR, *_DPKG)


def ensure() -> Path:
    """Return a tar of the base image's root, made if it is not in the cache."""
    cache = places.cache_dir()
    target = cache / f"base-{key()}"
    with places.locked(cache / "locks" / "base"):
        if not target.exists():
            shell.apt_install("mmdebstrap", "mmdebstrap")
            shell.say("making the base image (once, about half a minute)")
            begin = time.monotonic()
            with places.fresh_dir(target) as directory:
                _make(directory / "root.tar", cache / "log" / "base.log")
            shell.say(f"base image ready in {time.monotonic() - begin:.0f} s")
    return target / "root.tar"


def _make(tar: Path, log: Path) -> None:
    command: tuple[str | Path, ...] = (
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        # The machine's clock may be far from the archive's.
        "--aptopt=Acquire::Check-Valid-Until false",
        *(f"--dpkgopt={option}" for option in _DPKG),
        rootfs.SUITE,
        tar,
        rootfs.MIRROR,
    )
    shell.run_logged(command, log)
