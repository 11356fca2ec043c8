# SPDX-License-Identifier: Apache-2.0
"""The images that pods of tests run, and images of one program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.cluster.image.podman import Podman
from tests.cluster.image.podman import archive

_HACK: Final = Path(__file__).parents[3] / "hack"
_STATIC: Final = Path("/usr/bin/catatonit")
"""A program of the lab that needs no libraries."""

_MAKE: Final = """
import pathlib, sys
sys.path.insert(0, sys.argv[1])
from imagetools import images
print(images.ensure_binary_image(sys.argv[2], pathlib.Path(sys.argv[3])))
"""

_UPSTREAM: Final = """
cd /tmp
dd if=/dev/urandom of=a bs=4K count=6 oflag=direct status=none
dd if=a iflag=direct bs=4096 count=1 2>/dev/null | sha256sum | grep -Eq '^.{64} '
echo aGVsbG8= | base64 -d | grep -Fq hello
stat -c %s a | grep -Fxq 24576
stat -f -c %s . | grep -q .
diff a a
chgrp 123 a && ls -ld a | grep -q 123
mkdir -p b/c && touch b/c/d
find b -mindepth 2 -maxdepth 2 | grep -Fxq b/c/d && rm -r b
echo 'ls /bin >/dev/null' > e.sh && chmod u+x e.sh && ./e.sh
command -v blockdev mount umount grep
"""
"""What pods of upstream's storage tests do."""


def test_the_workload_has_what_pods_of_tests_run(podman: Podman) -> None:
    image = podman.load(archive("workload"))
    assert image == "localhost/rbdcrypt-lab:latest"
    script = """
    fio --version
    python3 -c 'print("python")'
    fio --name=t --filename=/tmp/t --size=1M --rw=randwrite --verify=crc32c >/dev/null
    command -v sha256sum dd mkfs.xfs mkfs.ext4 xfs_io blkid lsblk mountpoint findmnt ps
    """
    done = podman.run(image, "sh", "-euc", script)
    assert done.status == 0, done.errors
    assert done.output.startswith("fio-3")


@pytest.mark.parametrize("name", ["busybox", "nginx", "glibc-dns-testing"])
def test_upstreams_storage_tests_find_their_tools(podman: Podman, name: str) -> None:
    image = podman.load(archive(name))
    assert image.startswith(f"registry.k8s.io/e2e-test-images/{name}:")
    done = podman.run(image, "/bin/sh", "-euc", _UPSTREAM)
    assert done.status == 0, done.errors


def test_a_program_becomes_an_image_of_its_own(podman: Podman) -> None:
    reference = "registry.example/group/catatonit:v1.2.3"
    words = (sys.executable, "-c", _MAKE, _HACK, reference, _STATIC)
    made = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    assert podman.load(Path(made.stdout.strip())) == reference
    done = podman.run(reference, "-V")
    assert done.status == 0, done.errors
    assert "catatonit" in done.output
    again = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    assert again.stdout == made.stdout
