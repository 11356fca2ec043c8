# SPDX-License-Identifier: Apache-2.0
"""WRITE_ZEROES, for clients that do harm without it: exact, bounded, judged."""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from csi_driver.nbd.backend import Backend
from csi_driver.nbd.connection import ZEROES_AT_ONCE
from csi_driver.nbd.connection import Operation
from csi_driver.nbd.protocol import constants as c
from csi_driver.nbd.protocol.export import Export
from csi_driver.nbd.protocol.export import verdict
from csi_driver.nbd.server import Server
from csi_driver.nbd.server import export_of
from csi_driver.testing.backends import Fault
from csi_driver.testing.backends import FaultyBackend
from csi_driver.testing.backends import MemoryBackend
from csi_driver.testing.nbd_client import RawClient
from csi_driver.testing.nbd_client import running

BLOCK = 4096
SIZE = 16 * ZEROES_AT_ONCE


def zeroing(backend: Backend[Operation], path: Path) -> Server:
    export = dataclasses.replace(export_of(backend), can_zero=True)
    server = Server(backend, export)
    server.listen(path)
    return server


@pytest.fixture
def backend() -> MemoryBackend[Operation]:
    return MemoryBackend(SIZE)


@pytest.fixture
def client(backend: MemoryBackend[Operation], tmp_path: Path) -> Iterator[RawClient]:
    path = tmp_path / "s"
    with running(zeroing(backend, path)), RawClient.ready(path) as client:
        yield client


@pytest.mark.parametrize(
    "length",
    [BLOCK, ZEROES_AT_ONCE, ZEROES_AT_ONCE + BLOCK, 3 * ZEROES_AT_ONCE - BLOCK],
)
def test_exactly_the_range_is_zeroed(
    client: RawClient, backend: MemoryBackend[Operation], length: int
) -> None:
    content = os.urandom(length + 2 * BLOCK)
    client.write(0, content)
    error, _ = client.request(c.CMD_WRITE_ZEROES, BLOCK, length)
    assert error == c.OK
    found = backend.contents()[: len(content)]
    assert found[:BLOCK] == content[:BLOCK]
    assert found[BLOCK : BLOCK + length] == bytes(length)
    assert found[BLOCK + length :] == content[BLOCK + length :]


def test_the_whole_export_in_one_request(
    client: RawClient, backend: MemoryBackend[Operation]
) -> None:
    client.write(SIZE - BLOCK, b"x" * BLOCK)
    flags = c.CMD_FLAG_NO_HOLE | c.CMD_FLAG_FUA
    assert client.request(c.CMD_WRITE_ZEROES, 0, SIZE, flags=flags)[0] == c.OK
    assert backend.contents() == bytes(SIZE)


@pytest.mark.parametrize("length", [BLOCK, ZEROES_AT_ONCE])
def test_what_an_earlier_request_left_in_the_buffer_is_not_written(
    client: RawClient, backend: MemoryBackend[Operation], length: int
) -> None:
    client.write(0, b"s" * length)  # its buffer is used again for the zeros
    client.write(length, b"d" * length)
    assert client.request(c.CMD_WRITE_ZEROES, length, length)[0] == c.OK
    assert backend.contents()[length : 2 * length] == bytes(length)


def test_a_failure_in_the_middle_is_reported(tmp_path: Path) -> None:
    faults = [Fault("write", skip=2, error=errno.EIO)]
    backend: FaultyBackend[Operation] = FaultyBackend(MemoryBackend(SIZE), faults)
    path = tmp_path / "s"
    with running(zeroing(backend, path)), RawClient.ready(path) as client:
        error, _ = client.request(c.CMD_WRITE_ZEROES, 0, 4 * ZEROES_AT_ONCE)
        assert error == c.EIO
        assert client.read(0, BLOCK) == bytes(BLOCK)


@pytest.mark.parametrize(
    ("flags", "offset", "length", "expected"),
    [
        (0, 0, SIZE, c.OK),
        (c.CMD_FLAG_FUA, 0, BLOCK, c.OK),
        (c.CMD_FLAG_NO_HOLE, 0, BLOCK, c.OK),
        (1 << 4, 0, BLOCK, c.EINVAL),
        (0, 0, 0, c.EINVAL),
        (0, 512, BLOCK, c.EINVAL),
        (0, 0, 512, c.EINVAL),
        (0, SIZE, BLOCK, c.ENOSPC),
        (0, BLOCK, SIZE, c.ENOSPC),
    ],
)
def test_requests_are_judged(
    flags: int, offset: int, length: int, expected: int
) -> None:
    export = Export(size=SIZE, can_zero=True)
    assert verdict(export, c.CMD_WRITE_ZEROES, flags, offset, length) == expected


def test_it_is_refused_where_it_is_not_offered() -> None:
    assert verdict(Export(size=SIZE), c.CMD_WRITE_ZEROES, 0, 0, BLOCK) == c.EINVAL
    assert not Export(size=SIZE).flags & c.ExportFlag.SEND_WRITE_ZEROES


def test_a_read_only_export_does_not_offer_it() -> None:
    export = Export(size=SIZE, can_zero=True, read_only=True)
    assert verdict(export, c.CMD_WRITE_ZEROES, 0, 0, BLOCK) == c.EPERM
    assert not export.flags & c.ExportFlag.SEND_WRITE_ZEROES


def test_no_hole_belongs_to_it_alone() -> None:
    export = Export(size=SIZE, can_zero=True)
    assert verdict(export, c.CMD_WRITE, c.CMD_FLAG_NO_HOLE, 0, BLOCK) == c.EINVAL
