# SPDX-License-Identifier: Apache-2.0
"""The Debian 13 root filesystem with Ceph Reef: built once, never changed.

Labs and guests see it through an overlay of their own (`sandbox`).
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from labtools import places
from labtools import shell

SUITE = "trixie"
MIRROR = os.environ.get("RBDCRYPT_DEBIAN_MIRROR", "http://deb.debian.org/debian")
RECIPE = "1"
"""Raise it when the way of building changes, so that old caches are left alone."""

PACKAGES = (
    "ca-certificates",
    "catatonit",  # the first process of a cluster's PID namespace: it reaps
    "ceph-common",
    "ceph-mgr",
    "ceph-mon",
    "ceph-osd",
    "containerd",
    "containernetworking-plugins",
    "crun",  # what podman runs builds with
    "cryptsetup-bin",
    "e2fsprogs",
    "fio",
    "fuse3",  # nbdfuse mounts by fusermount3
    "git",  # the tests and linters look at tracked files
    "hostname",
    "iproute2",
    "iptables",  # the network plugins' port mappings
    "kmod",
    "libnbd-bin",
    "mount",
    "nbdkit",
    "openssl",
    "podman",
    "procps",
    "python3-libnbd",
    "python3-rados",  # python3-rbd needs it and does not depend on it
    "python3-rbd",
    "python3-venv",
    "qemu-block-extra",
    "qemu-utils",
    "rbd-nbd",
    "runc",
    "socat",
    "tcc",  # for XSTATE_SOURCE
    "user-mode-linux",
    "util-linux",
    "xfsprogs",
)


XSTATE_SOURCE = places.REPO / "hack/labtools/uml-xstate.c"
XSTATE_LIBRARY = "/usr/lib/rbdcrypt/uml-xstate.so"
"""Preloaded into user-mode-linux; the source says why."""


def key() -> str:
    """Return what identifies the content of the root filesystem."""
    return places.digest(SUITE, RECIPE, XSTATE_SOURCE, *PACKAGES)


def ensure() -> Path:
    """Return the root filesystem, built if it is not in the cache."""
    cache = places.cache_dir()
    target = cache / f"rootfs-{key()}"
    with places.locked(cache / "locks" / "rootfs"):
        if target.exists():
            return target
        shell.apt_install("mmdebstrap", "mmdebstrap")
        shell.say("building the root filesystem (once, about a minute)")
        begin = time.monotonic()
        with places.fresh_dir(target) as directory:
            command = (
                "mmdebstrap",
                "--mode=root",
                "--variant=minbase",
                f"--include={','.join(PACKAGES)}",
                # The machine's clock may be far from the archive's.
                "--aptopt=Acquire::Check-Valid-Until false",
                "--dpkgopt=path-exclude=/usr/share/doc/*",
                "--dpkgopt=path-exclude=/usr/share/man/*",
                SUITE,
                directory,
                MIRROR,
            )
            shell.run_logged(command, cache / "log" / "rootfs.log")
            _build_xstate_library(directory)
        shell.say(f"root filesystem ready in {time.monotonic() - begin:.0f} s")
    return target


def _build_xstate_library(root: Path) -> None:
    library = root / XSTATE_LIBRARY.lstrip("/")
    library.parent.mkdir()
    source = library.with_suffix(".c")
    source.write_bytes(XSTATE_SOURCE.read_bytes())
    inside = Path("/") / source.relative_to(root)
    compile_it = ("tcc", "-O2", "-shared", "-nostdlib", "-o", XSTATE_LIBRARY, inside)
    shell.run("chroot", root, *compile_it)
