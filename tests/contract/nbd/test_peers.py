# SPDX-License-Identifier: Apache-2.0
"""Other people's clients agree with the server; the backend is memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from csi_driver.nbd.connection import Operation
from csi_driver.testing import nbd_peers
from csi_driver.testing.backends import MemoryBackend
from csi_driver.testing.nbd_client import serving

MIB = 1 << 20
SIZE = 64 * MIB


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


@pytest.fixture
def backend(path: Path) -> Iterator[MemoryBackend[Operation]]:
    backend: MemoryBackend[Operation] = MemoryBackend(SIZE)
    with serving(backend, path):
        yield backend


@pytest.mark.parametrize("name", ["", "volume"])
def test_nbdinfo_understands_the_export(
    backend: MemoryBackend[Operation], path: Path, name: str
) -> None:
    info = nbd_peers.info(path, name)
    assert info["export-size"] == SIZE
    assert not info["is_read_only"]
    assert info["can_flush"]
    assert info["can_fua"]
    assert info["can_multi_conn"]
    assert not info["can_trim"]
    assert not info["can_zero"]
    assert info["block_size_minimum"] == info["block_size_preferred"] == 4096
    assert info["block_size_maximum"] == 32 * MIB


def test_nbdinfo_lists_the_export(
    backend: MemoryBackend[Operation], path: Path
) -> None:
    assert nbd_peers.listed(path) == ["volume"]


def test_an_unknown_name_is_refused(
    backend: MemoryBackend[Operation], path: Path
) -> None:
    nbd_peers.run("nbdinfo", nbd_peers.uri(path, "other"), fails=True)


def test_nbdcopy_brings_everything_in_and_out(
    backend: MemoryBackend[Operation], path: Path, tmp_path: Path
) -> None:
    data = os.urandom(SIZE)
    (tmp_path / "in").write_bytes(data)
    nbd_peers.copy_in(path, tmp_path / "in")
    assert backend.contents() == data
    assert backend.flushes >= 1
    nbd_peers.copy_out(path, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == data


def test_qemu_io_writes_with_fua_reads_and_flushes(
    backend: MemoryBackend[Operation], path: Path
) -> None:
    nbd_peers.qemu_io(
        path,
        "write -P 0xa5 0 1M",
        "write -f -P 0x5a 1M 64k",
        "flush",
        "read -P 0xa5 0 1M",
        "read -P 0x5a 1M 64k",
        "read -P 0 2M 1M",
    )
    assert backend.contents()[: MIB + 65536] == b"\xa5" * MIB + b"\x5a" * 65536
    assert backend.fua_writes == 1
    assert backend.flushes >= 1


def test_qemu_io_notices_wrong_data(
    backend: MemoryBackend[Operation], path: Path
) -> None:
    assert "Pattern verification failed" in nbd_peers.qemu_io(
        path, "write -P 1 0 4k", "read -P 2 0 4k", fails=True
    )


def test_qemu_io_cannot_write_read_only(path: Path) -> None:
    with serving(MemoryBackend(SIZE, read_only=True), path):
        assert nbd_peers.info(path)["is_read_only"]
        nbd_peers.qemu_io(path, "write 0 4k", fails=True)


def test_libnbd_gets_the_right_error_for_each_invalid_request(
    backend: MemoryBackend[Operation], path: Path
) -> None:
    assert nbd_peers.invalid_requests(path) == {
        "read past the end": "EINVAL",
        "write past the end": "ENOSPC",
        "write across the end": "ENOSPC",
        "misaligned read": "EINVAL",
        "misaligned write": "EINVAL",
        "empty read": "EINVAL",
        "empty write": "EINVAL",
        "unknown flag": "EINVAL",
        "trim": "EINVAL",
        "write zeroes": "EINVAL",
        "cache": "EINVAL",
        "33 MiB read": "EINVAL",
        "33 MiB write": "EINVAL",
        "good read": "success",
        "good write": "success",
        "good flush": "success",
    }


@pytest.mark.parametrize("block", ["4k", "64k", "4m"])
def test_fio_verifies_what_it_wrote(path: Path, block: str) -> None:
    with serving(MemoryBackend(SIZE, seed=3), path):
        nbd_peers.fio_verify(path, size=SIZE, block=block)
