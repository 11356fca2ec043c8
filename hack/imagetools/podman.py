# SPDX-License-Identifier: Apache-2.0
"""Podman in a prepared root of its own, with its storage in the cache.

The storage keeps layers, so that after a change of the code only the last ones
are made anew.  It holds no containers, and only one build uses it at a time.
"""

from __future__ import annotations

import resource
import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Final

from labtools import places
from labtools import rootfs
from labtools import sandbox
from labtools import shell

if TYPE_CHECKING:
    from collections.abc import Sequence

_RECIPE: Final = "1"
"""Raise it when the storage cannot be used by what comes."""


def storage() -> Path:
    """Return the directory of Podman's storage."""
    return places.cache_dir() / f"containers-{places.digest(_RECIPE)}"


def command(*words: str | Path, place: Path | None = None) -> str:
    """Return the shell command that runs Podman.

    It keeps what it has in the directory `place`, without that in `storage`.
    """
    place = place or storage()
    place.mkdir(parents=True, exist_ok=True)
    # An overlay cannot lie on another one, as where the cache is in a container.
    kind = shell.run("stat", "--file-system", "--format=%T", place).strip()
    driver = "vfs" if kind == "overlayfs" else "overlay"
    options = (
        f"--root={place}",
        f"--storage-driver={driver}",
        "--cgroup-manager=cgroupfs",
    )
    return shlex.join(["podman", *options, *(str(word) for word in words)])


def build_flags() -> list[str]:
    """Return the flags with which a build works on every machine of ours."""
    limits = []
    for name, number in (
        ("nproc", resource.RLIMIT_NPROC),
        ("nofile", resource.RLIMIT_NOFILE),
    ):
        _, hard = resource.getrlimit(number)
        # Podman asks for more than a root without CAP_SYS_RESOURCE may take.
        limits.append(f"--ulimit={name}={hard}:{hard}")
    return [
        # A step is a process in a chroot: that needs no cgroups and no network
        # of its own.
        "--isolation=chroot",
        "--network=host",
        "--pull=never",
        *limits,
    ]


def run(script: str, shared: Sequence[Path], log: Path) -> None:
    """Run a shell script in a root that sees the paths `shared`, too.

    LabError with the end of the log if it fails.
    """
    paths = (places.cache_dir(), *shared)
    with tempfile.TemporaryDirectory(prefix="rbdcrypt-image-") as scratch:
        root = sandbox.Root(
            lower=str(rootfs.ensure()),
            scratch=scratch,
            binds=[
                *sandbox.machine_binds(),
                *((str(path), str(path)) for path in paths),
            ],
            # Podman cleans up behind a container in a process that outlives its
            # command, and would write to what is being removed here.
            own_processes=True,
        )
        # A line about cgroup v1, each time.
        silence = "export PODMAN_IGNORE_CGROUPSV1_WARNING=1"
        sandbox.run(root, f"{silence}\n{script}", log)
