# SPDX-License-Identifier: Apache-2.0
"""Other people's clients on a real encrypted image, and what Ceph holds then."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from csi_driver.domain.errors import InUseError
from csi_driver.nbd.connection import Operation
from csi_driver.nbd.librbd_backend import LibrbdBackend
from csi_driver.nbd.librbd_image import ImageTarget
from csi_driver.nbd.librbd_image import LibrbdImage
from csi_driver.nbd.server import Server
from csi_driver.nbd.server import export_of
from csi_driver.testing import nbd_peers
from csi_driver.testing.lab_images import HEADER
from csi_driver.testing.lab_images import MIB
from csi_driver.testing.lab_images import LabImages
from csi_driver.testing.lab_images import load_specs
from csi_driver.testing.nbd_client import RawClient
from csi_driver.testing.nbd_client import running
from csi_driver.testing.nbd_client import serving

KEY = b"a random\0key"
SIZE = 64 * MIB


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


@pytest.fixture
def target(lab: LabImages) -> Iterator[ImageTarget]:
    with lab.image(SIZE, KEY) as target:
        yield target


def open_backend(lab: LabImages, target: ImageTarget) -> LibrbdBackend[Operation]:
    image = LibrbdImage(lab.client(), target, load_specs(KEY))
    image.acquire_lock()
    return LibrbdBackend(image)


@pytest.fixture
def server(lab: LabImages, target: ImageTarget, path: Path) -> Iterator[Server]:
    with serving(open_backend(lab, target), path) as server:
        yield server


def test_the_export_has_the_effective_size(server: Server, path: Path) -> None:
    info = nbd_peers.info(path)
    assert info["export-size"] == SIZE
    assert info["can_multi_conn"]


def test_what_nbdcopy_wrote_is_on_ceph_and_is_ciphertext(
    lab: LabImages, target: ImageTarget, path: Path, tmp_path: Path
) -> None:
    data = os.urandom(4096) * (SIZE // 4096)
    (tmp_path / "in").write_bytes(data)
    with serving(open_backend(lab, target), path):
        nbd_peers.copy_in(path, tmp_path / "in")
        nbd_peers.copy_out(path, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == data
    assert lab.contents(target, KEY) == data
    raw = lab.contents(target, None)
    assert len(raw) == SIZE + HEADER
    assert data[:64] not in raw


def test_qemu_io_reads_what_it_wrote(server: Server, path: Path) -> None:
    nbd_peers.qemu_io(
        path,
        "write -P 0xa5 0 1M",
        "write -f -P 0x5a 1M 64k",
        "flush",
        "read -P 0xa5 0 1M",
        "read -P 0x5a 1M 64k",
    )


def test_invalid_requests_get_the_same_errors(server: Server, path: Path) -> None:
    answers = nbd_peers.invalid_requests(path)
    assert {name for name, answer in answers.items() if answer == "success"} == {
        "good read",
        "good write",
        "good flush",
    }
    assert answers["write across the end"] == "ENOSPC"


@pytest.mark.parametrize("block", ["4k", "64k", "1m"])
def test_fio_verifies_what_it_wrote(server: Server, path: Path, block: str) -> None:
    nbd_peers.fio_verify(path, size=SIZE // 2, block=block)


def test_an_answered_write_survives_kill_minus_nine(
    lab: LabImages, target: ImageTarget, path: Path, tmp_path: Path
) -> None:
    with nbd_serve(lab, target, path, tmp_path) as process:
        data = os.urandom(MIB)
        with RawClient.ready(path) as client:
            client.write(0, data)  # neither FUA nor flush
            process.kill()
            process.wait()
    assert lab.contents(target, KEY)[:MIB] == data


def test_a_signal_gives_the_lock_back(
    lab: LabImages, target: ImageTarget, path: Path, tmp_path: Path
) -> None:
    successor = LibrbdImage(lab.client(), target, load_specs(KEY))
    with (
        nbd_serve(lab, target, path, tmp_path) as process,
        RawClient.ready(path) as client,
    ):
        client.write(0, b"x" * 4096)
        with pytest.raises(InUseError):
            successor.acquire_lock()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        before = time.monotonic()
        successor.acquire_lock()
        assert time.monotonic() - before < 5
        successor.close()


@contextlib.contextmanager
def nbd_serve(
    lab: LabImages, target: ImageTarget, path: Path, folder: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Serve an image from its own process."""
    (folder / "cephx").write_bytes(lab.client().key.reveal())
    (folder / "passphrase").write_bytes(KEY)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "csi_driver.testing.nbd_serve"),
            *("--socket", str(path), "--image", f"{target.pool}/{target.name}"),
            *("--conf", os.environ["CEPH_CONF"], "--user", "rbdcrypt"),
            *("--key-file", str(folder / "cephx")),
            *("--passphrase-file", str(folder / "passphrase")),
        ]
    )
    try:
        deadline = time.monotonic() + 20
        while not path.exists():
            assert process.poll() is None, "nbd_serve ended"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.wait()
        lab.fence(target)  # else the image counts as watched for half a minute


def test_growth_reaches_a_live_client(
    lab: LabImages, target: ImageTarget, path: Path
) -> None:
    image = LibrbdImage(lab.client(), target, load_specs(KEY))
    image.acquire_lock()
    backend: LibrbdBackend[Operation] = LibrbdBackend(image)
    with serving(backend, path) as server, RawClient.ready(path) as client:
        with pytest.raises(OSError, match="28"):
            client.write(SIZE, bytes(4096))
        server.set_size(image.grow(2 * SIZE))
        client.write(2 * SIZE - 4096, b"g" * 4096)
        assert client.read(2 * SIZE - 4096, 4096) == b"g" * 4096


def test_a_fenced_export_says_so_and_fails(
    lab: LabImages, target: ImageTarget, path: Path
) -> None:
    image = LibrbdImage(lab.client(), target, load_specs(KEY))
    image.acquire_lock()
    backend: LibrbdBackend[Operation] = LibrbdBackend(image)
    fatal: list[int] = []
    server = Server(backend, export_of(backend), on_fatal=fatal.append)
    server.listen(path)
    with running(server), RawClient.ready(path) as client:
        client.write(0, b"before" + bytes(4090))
        lab.blocklist(image.address)
        for _ in range(3):
            with pytest.raises(OSError, match="108"):
                client.write(0, b"after!" + bytes(4090))
        assert fatal == [108]
        assert server.stats().fenced
    backend.close()
    assert lab.contents(target, KEY)[:6] == b"before"
