# SPDX-License-Identifier: Apache-2.0
"""Make an image's archive, once for what it is made of.

An archive is what `ctr images import` and `podman load` take.
"""

from __future__ import annotations

import contextlib
import glob
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Final

from labtools import places
from labtools import shell

from imagetools import base
from imagetools import podman
from imagetools import trust

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imagetools.recipe import Recipe

_KEPT: Final = 6
"""Archives of one image that stay, the last used ones: clones share the cache."""


def directory() -> Path:
    """Return where the archives are."""
    return places.cache_dir() / "images"


def archive(recipe: Recipe) -> Path:
    """Return where the archive of an image is, or will be."""
    return directory() / f"{recipe.name}-{recipe.key()}.tar"


def archives() -> list[Path]:
    """Return the archives in the cache, by name."""
    return sorted(directory().glob("*.tar"))


def ensure(recipe: Recipe) -> Path:
    """Return the archive of an image, made if it is not in the cache."""
    target = archive(recipe)
    cache = places.cache_dir()
    with places.locked(cache / "locks" / "images"):
        if not target.exists():
            shell.say(f"building {recipe.reference}")
            begin = time.monotonic()
            with _fresh_file(target) as file:
                _build(recipe, file, cache / "log" / f"image-{recipe.name}.log")
            size = target.stat().st_size / 1_000_000
            seconds = time.monotonic() - begin
            shell.say(f"{recipe.reference}: {size:.0f} MB in {seconds:.0f} s")
        os.utime(target)
        _forget_old(recipe.name)
    return target


def _build(recipe: Recipe, file: Path, log: Path) -> None:
    root = base.ensure()
    tag = f"localhost/rbdcrypt-base:{base.key()}"
    with tempfile.TemporaryDirectory(prefix="rbdcrypt-image-") as scratch:
        job = Path(scratch)
        containerfile = job / "Containerfile"
        containerfile.write_text(recipe.containerfile)
        secrets = trust.write_secrets(job)
        build = podman.command(
            "build",
            *podman.build_flags(),
            *(f"--secret=id={name},src={path}" for name, path in secrets.items()),
            *(f"--build-arg={name}={value}" for name, value in recipe.arguments),
            f"--file={containerfile}",
            f"--tag={recipe.reference}",
            recipe.context,
        )
        exists = podman.command("image", "exists", tag)
        load = podman.command("import", root, tag)
        save = ("save", "--format=docker-archive", f"--output={file}", recipe.reference)
        steps = (
            f"{exists} || {load}",
            podman.command("tag", tag, base.REFERENCE),
            build,
            podman.command(*save),
        )
        podman.run("\n".join(steps), (job, recipe.context, directory()), log)


@contextlib.contextmanager
def _fresh_file(target: Path) -> Iterator[Path]:
    """Give a name for a file that becomes `target` whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{target.name}.new-{os.getpid()}")
    try:
        yield temporary
        temporary.rename(target)
    finally:
        temporary.unlink(missing_ok=True)


def _forget_old(name: str) -> None:
    """Remove the archives of an image that were not used for the longest time."""
    pattern = f"{glob.escape(name)}-{'[0-9a-f]' * 12}.tar"
    found = sorted(directory().glob(pattern), key=lambda path: -path.stat().st_mtime)
    for path in found[_KEPT:]:
        path.unlink()
