# SPDX-License-Identifier: Apache-2.0
"""The images that the cluster of hack/ runs on: which there are, and their archives.

Each `ensure_…` returns a docker-archive tar in the cache, made if it is missing.
"""

from __future__ import annotations

import dataclasses
import tempfile
import tomllib
from pathlib import Path
from typing import Final

from labtools import places
from labtools import shell

from imagetools import building
from imagetools import recipe
from imagetools import successor
from imagetools.recipe import Recipe

DRIVER: Final = "localhost/rbdcrypt-csi:dev"
SUCCESSOR: Final = "localhost/rbdcrypt-csi:next"
WORKLOAD: Final = "localhost/rbdcrypt-lab:latest"
PAUSE: Final = "registry.k8s.io/pause:3.10.2"
BUSYBOX: Final = "registry.k8s.io/e2e-test-images/busybox:1.37.0-1"
NGINX: Final = "registry.k8s.io/e2e-test-images/nginx:1.15-4"
GLIBC: Final = "registry.k8s.io/e2e-test-images/glibc-dns-testing:2.0.0"
AGNHOST: Final = "registry.k8s.io/e2e-test-images/agnhost:2.63.0"

_CONTAINERFILES: Final = places.REPO / "hack/kubernetes/images"


def ensure_driver_image() -> Path:
    """Return the archive of the driver as the clone has it now."""
    return building.ensure(driver())


def ensure_successor_image() -> Path:
    """Return the archive of the driver as its next version may be."""
    now = driver()
    with tempfile.TemporaryDirectory(prefix="rbdcrypt-successor-") as scratch:
        context = Path(scratch)
        rules = now.context / ".dockerignore"
        copies = successor.write(now.context, (rules, *now.inputs), context)
        later = dataclasses.replace(
            now, reference=SUCCESSOR, context=context, inputs=copies
        )
        return building.ensure(later)


def ensure_workload_image() -> Path:
    """Return the archive of what pods of tests and demos run."""
    return building.ensure(workload())


def ensure_busybox_image() -> Path:
    """Return the archive of the BusyBox that upstream's storage tests run."""
    return building.ensure(_from_debian(BUSYBOX, "busybox"))


def ensure_nginx_image() -> Path:
    """Return the archive in which upstream's storage tests run scripts."""
    return building.ensure(_from_debian(NGINX, "nginx"))


def ensure_glibc_image() -> Path:
    """Return the archive in which upstream's tests of several volumes run."""
    return building.ensure(_from_debian(GLIBC, "glibc-dns-testing"))


def ensure_agnhost_image(binary: Path) -> Path:
    """Return the archive of upstream's test program, compiled to `binary`."""
    text = (_CONTAINERFILES / "agnhost.Containerfile").read_text()
    return building.ensure(_with_binary(AGNHOST, binary, text))


def ensure_binary_image(
    reference: str, binary: Path, entry_point: tuple[str, ...] = ()
) -> Path:
    """Return the archive of an image of one static program and nothing else.

    It is started by `entry_point`, without that by its own name in the root.
    """
    words = entry_point or (f"/{binary.name}",)
    quoted = ", ".join(f'"{word}"' for word in words)
    text = f"FROM scratch\nCOPY --chmod=0755 {binary.name} /\nENTRYPOINT [{quoted}]\n"
    return building.ensure(_with_binary(reference, binary, text))


def driver() -> Recipe:
    """Return the recipe of the driver."""
    repo = places.REPO
    project = tomllib.loads((repo / "pyproject.toml").read_text())["project"]
    return Recipe(
        reference=DRIVER,
        containerfile=(repo / "Dockerfile").read_text(),
        context=repo,
        inputs=recipe.inputs(repo),
        arguments=(("VERSION", project["version"]), ("REVISION", _revision(repo))),
    )


def workload() -> Recipe:
    """Return the recipe of what pods of tests and demos run."""
    return _from_debian(WORKLOAD, "workload")


def _revision(repo: Path) -> str:
    """Return the commit that last changed the driver's image, "" if unknown.

    Other commits do not make another image of the same content.
    """
    git = ("git", "-c", "safe.directory=*", "-C", repo)
    inputs = ("--", "Dockerfile", ".dockerignore", *recipe.copied(repo))
    try:
        commit = shell.run(*git, "log", "-1", "--format=%H", *inputs).strip()
        changed = shell.run(*git, "status", "--porcelain", *inputs).strip()
    except (shell.LabError, FileNotFoundError):
        return ""  # an unpacked archive of the sources
    return f"{commit}-dirty" if changed else commit


def _from_debian(reference: str, name: str) -> Recipe:
    text = (_CONTAINERFILES / f"{name}.Containerfile").read_text()
    return Recipe(reference, text, _CONTAINERFILES)


def _with_binary(reference: str, binary: Path, text: str) -> Recipe:
    path = binary.resolve()
    return Recipe(reference, text, path.parent, inputs=(path,))
