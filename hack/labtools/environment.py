# SPDX-License-Identifier: Apache-2.0
"""The project's virtual environment, made inside the root filesystem.

Two steps, both cached: the locked third-party packages, and on a copy of them
(hard links) the clone itself, installed editable with its generated stubs.
The environment is closed: of Debian's packages it sees only rbd and rados.
Debian's older cryptography would otherwise be taken for the locked one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from labtools import places
from labtools import sandbox
from labtools import shell

if TYPE_CHECKING:
    from collections.abc import Iterator

RECIPE = "1"

_PACKAGES = f"""
python3 -m venv /root/uv
/root/uv/bin/pip install --quiet uv
/root/uv/bin/uv export --quiet --frozen --no-emit-project --all-groups --all-extras \
    --format requirements-txt --output-file /run/requirements.txt
python3 -m venv {places.VENV}
{places.VENV}/bin/pip install --quiet --no-deps --no-compile --require-hashes \
    -r /run/requirements.txt
{places.VENV}/bin/python -m compileall -q -j0 {places.VENV}/lib || true
cd {places.VENV}/lib/python3.*/site-packages
for name in rados rbd; do
    ln -s /usr/lib/python3/dist-packages/"$name"[.-]* .
done
{places.VENV}/bin/python -c 'import rados, rbd, grpc, cryptography'
"""

_PROJECT = f"{places.VENV}/bin/pip install --quiet --no-deps --no-build-isolation -e ."


@contextmanager
def _building(rootfs: Path, directory: Path) -> Iterator[sandbox.Root]:
    """Give a root in which `directory` is seen as the virtual environment."""
    with tempfile.TemporaryDirectory(prefix="rbdcrypt-build-") as scratch:
        repo = str(places.REPO)
        yield sandbox.Root(
            lower=str(rootfs),
            scratch=scratch,
            binds=[
                *sandbox.machine_binds(),
                (repo, repo),
                (str(directory), str(places.VENV)),
            ],
        )


def _packages(rootfs: Path) -> Path:
    cache = places.cache_dir()
    key = places.digest(rootfs.name, RECIPE, _PACKAGES, places.REPO / "uv.lock")
    target = cache / f"packages-{key}"
    if not target.exists():
        shell.say("installing the locked Python packages (once per uv.lock)")
        begin = time.monotonic()
        with (
            places.fresh_dir(target) as directory,
            _building(rootfs, directory) as root,
        ):
            script = f"cd {places.REPO}\n{_PACKAGES}"
            sandbox.run(root, script, cache / "log" / "packages.log")
        shell.say(f"Python packages ready in {time.monotonic() - begin:.0f} s")
    return target


def _stubs_exist() -> bool:
    """Tell whether the clone still has what its build generates."""
    return any(places.REPO.glob("csi_driver/**/*_pb2.py"))


def ensure(rootfs: Path) -> Path:
    """Return the virtual environment of this clone, built if needed."""
    cache = places.cache_dir()
    repo = places.REPO
    with places.locked(cache / "locks" / "environment"):
        packages = _packages(rootfs)
        build = (repo / "pyproject.toml", repo / "hatch_build.py")
        protos = sorted((repo / "proto").glob("*.proto"))
        key = places.digest(packages.name, str(repo), *build, *protos)
        target = cache / f"environment-{key}"
        if target.exists() and _stubs_exist():
            os.utime(target)
            return target
        shutil.rmtree(target, ignore_errors=True)
        shell.say("installing the clone into its environment")
        with places.fresh_dir(target) as directory:
            shell.run("cp", "-al", f"{packages}/.", directory)
            with _building(rootfs, directory) as root:
                script = f"cd {repo}\n{_PROJECT}"
                sandbox.run(root, script, cache / "log" / "environment.log")
    return target
