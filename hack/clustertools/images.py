# SPDX-License-Identifier: Apache-2.0
"""Which images the cluster runs, and from what they are made."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Final

from imagetools import images

from clustertools import binaries

if TYPE_CHECKING:
    from pathlib import Path

DRIVER: Final = images.DRIVER
PAUSE: Final = images.PAUSE
_UPSTREAM: Final = "registry.k8s.io/sig-storage"
_MODULES: Final = {
    "csi-provisioner": "github.com/kubernetes-csi/external-provisioner/v6",
    "csi-attacher": "github.com/kubernetes-csi/external-attacher/v4",
    "csi-resizer": "github.com/kubernetes-csi/external-resizer/v2",
    "csi-snapshotter": "github.com/kubernetes-csi/external-snapshotter/v8",
    "snapshot-controller": "github.com/kubernetes-csi/external-snapshotter/v8",
}


def reference(program: str) -> str:
    """Return the name that upstream gives the image of a program of its own."""
    return f"{_UPSTREAM}/{program}:{binaries.versions()[_MODULES[program]]}"


def archives(programs: Path) -> list[Path]:
    """Return archives of the images, made if they are not in the cache."""
    found = [images.ensure_binary_image(PAUSE, programs / "pause")]
    found += [
        images.ensure_binary_image(reference(name), programs / name)
        for name in _MODULES
    ]
    return [*found, driver_archive(), images.ensure_workload_image()]


def driver_archive() -> Path:
    """Return the archive of the driver as the clone has it now."""
    return images.ensure_driver_image()


def successor_archive() -> Path:
    """Return the archive of the driver as its next version may be."""
    return images.ensure_successor_image()


def suite_archives(suite: Path) -> list[Path]:
    """Return archives of what the pods of upstream's storage suite run."""
    return [
        images.ensure_agnhost_image(suite / "agnhost"),
        images.ensure_busybox_image(),
        images.ensure_nginx_image(),
        images.ensure_glibc_image(),
    ]
