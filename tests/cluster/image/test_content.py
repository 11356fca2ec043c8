# SPDX-License-Identifier: Apache-2.0
"""What is in the driver's image, and what is not."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any
from typing import Final

import pytest

from csi_driver.devices.commands import SEARCH_PATH
from tests.cluster.image.called import INTERPRETER
from tests.cluster.image.called import programs
from tests.cluster.image.podman import Ended
from tests.cluster.image.podman import Podman

_PROJECT: Final = Path(__file__).parents[3] / "pyproject.toml"
_LABEL: Final = "org.opencontainers.image"
_UNWANTED: Final = (
    *("pip", "pip3", "uv", "ensurepip"),
    *("cc", "c++", "gcc", "g++", "clang", "tcc", "ld", "make", "git", "curl"),
)
_NOBODY: Final = "--user=65532"


@pytest.fixture(scope="session")
def config(podman: Podman, image: str) -> dict[str, Any]:
    """Return the image's configuration."""
    text = podman.check("image", "inspect", "--format={{json .}}", image)
    found: dict[str, Any] = json.loads(text)
    return found


def _shell(podman: Podman, image: str, script: str, *flags: str) -> Ended:
    return podman.run(*flags, "--entrypoint=sh", image, "-euc", script)


def _lines(podman: Podman, image: str, script: str) -> list[str]:
    done = _shell(podman, image, script)
    assert done.status == 0, done.errors
    return done.output.splitlines()


def test_labels_say_what_it_is_and_what_it_was_made_from(
    config: dict[str, Any], podman: Podman, image: str
) -> None:
    project = tomllib.loads(_PROJECT.read_text())["project"]
    labels = config["Config"]["Labels"]
    assert labels[f"{_LABEL}.title"] == project["name"]
    assert labels[f"{_LABEL}.description"] == project["description"]
    assert labels[f"{_LABEL}.licenses"] == project["license"]
    assert labels[f"{_LABEL}.version"] == project["version"]
    assert labels[f"{_LABEL}.source"].startswith("https://")
    assert len(labels[f"{_LABEL}.revision"].removesuffix("-dirty")) == 40
    assert podman.run(image, "version").output.strip() == project["version"]


def test_it_has_no_healthcheck_and_starts_under_an_init(config: dict[str, Any]) -> None:
    assert not config.get("HealthCheck")
    assert config["Config"]["Entrypoint"] == ["tini", "-s", "--", "rbdcrypt-csi"]


def test_every_program_that_the_driver_starts_is_there(
    podman: Podman, image: str
) -> None:
    wanted = sorted(programs() - {INTERPRETER})
    assert {"mount", "mkfs.ext4", "nbdfuse", "cryptsetup"} <= set(wanted)
    script = f"""
    PATH={SEARCH_PATH}
    for name in {" ".join(wanted)}; do
        path=$(command -v "$name") || {{ echo "$name: not there"; continue; }}
        ldd "$path" 2>/dev/null | sed -n "s/^.*not found/$name: &/p"
    done
    """
    assert _lines(podman, image, script) == []


def test_every_module_of_the_driver_can_be_imported(podman: Podman, image: str) -> None:
    script = """
import importlib, pkgutil, csi_driver
from kubernetes import client, config
names = [m.name for m in pkgutil.walk_packages(csi_driver.__path__, "csi_driver.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
print(len(names), "csi_driver.testing" in names)
"""
    done = podman.run("--entrypoint=python", image, "-W", "error", "-c", script)
    assert done.status == 0, done.errors
    count, has_fakes = done.output.split()
    assert int(count) > 100
    assert has_fakes == "False"


def test_python_comes_from_debian_with_librbd_and_the_rest_from_the_lock(
    podman: Podman, image: str
) -> None:
    script = (
        "import rados, rbd, grpc; print(rbd.__file__, rados.__file__, grpc.__file__)"
    )
    done = podman.run("--entrypoint=python", image, "-c", script)
    rbd, rados, grpc = done.output.split()
    assert rbd.startswith("/usr/lib/python3/")
    assert rados.startswith("/usr/lib/python3/")
    assert grpc.startswith("/opt/rbdcrypt/")


def test_all_bytecode_is_there_and_valid_whatever_the_files_times_are(
    podman: Podman, image: str
) -> None:
    script = """
import importlib.util, pathlib, sys
for source in pathlib.Path("/opt/rbdcrypt/lib").rglob("*.py"):
    cached = pathlib.Path(importlib.util.cache_from_source(source))
    flags = cached.read_bytes()[4:8] if cached.exists() else b""
    if flags != bytes([1, 0, 0, 0]):  # PEP 552: by hash, and not checked
        print(source)
"""
    done = podman.run("--entrypoint=python", image, "-c", script)
    assert (done.status, done.output) == (0, ""), done.errors


def test_nothing_of_the_build_is_left(podman: Podman, image: str) -> None:
    names = " ".join(_UNWANTED)
    found = f"""
    for name in {names}; do command -v "$name" || true; done
    find /var/lib/apt/lists /var/cache/apt /var/log/apt -type f ! -name lock
    find / -xdev -name "*.a" -o -xdev -name "*.deb" -o -xdev -path "*/site-packages/pip"
    find /src /opt/build /opt/wheel /root/.cache /tmp/pip* 2>/dev/null || true
    """
    assert _lines(podman, image, found) == []


def test_no_program_gains_rights_when_it_is_started(podman: Podman, image: str) -> None:
    script = "find / -xdev -type f -perm /6000; getcap -r / 2>/dev/null || true"
    assert _lines(podman, image, script) == []


def test_the_controllers_user_can_read_all_that_it_needs(
    podman: Podman, image: str
) -> None:
    script = (
        "find /opt /usr ! -type l ! -readable -o -type d ! -executable; id -u; id -g"
    )
    done = _shell(podman, image, script, _NOBODY)
    assert done.output.split() == ["65532", "65532"], done.errors


def test_the_controllers_user_can_make_a_header(podman: Podman, image: str) -> None:
    script = """
import secrets, uuid
from csi_driver.domain.secrets import SecretBytes
from csi_driver.domain.sizes import MIB, Layout
from csi_driver.images.headers import make_header
from csi_driver.images.probe import probe_cryptsetup, probe_library
probe_library()
probe_cryptsetup()
layout = Layout(16 * MIB)
header = make_header(SecretBytes(secrets.token_bytes(32)), uuid.uuid4(), layout)
print(header[:4])
"""
    sealed = (_NOBODY, "--cap-drop=all", "--read-only-tmpfs=false")
    done = podman.run(*sealed, "--entrypoint=python", image, "-c", script)
    assert done.output.strip() == "b'LUKS'", done.errors


def test_filesystems_are_made_recognized_and_grown(podman: Podman, image: str) -> None:
    script = """
    for kind in ext4 xfs; do
        truncate -s 300M /tmp/disk
        mkfs.$kind -q /tmp/disk
        blkid -p -o value -s TYPE /tmp/disk
        wipefs --no-act --noheadings --output TYPE /tmp/disk
        [ $kind = xfs ] || { truncate -s 400M /tmp/disk; e2fsck -fp /tmp/disk >&2; }
        [ $kind = xfs ] || resize2fs /tmp/disk 2>/dev/null | grep -o "is now"
        rm /tmp/disk
    done
    """
    found = _lines(podman, image, script)
    assert found == ["ext4", "ext4", "is now", "xfs", "xfs"]
