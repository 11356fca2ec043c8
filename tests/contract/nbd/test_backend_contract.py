# SPDX-License-Identifier: Apache-2.0
"""What every backend promises: memory, memory behind faults, and librbd."""

from __future__ import annotations

import errno
import random
import select
import time
from collections.abc import Iterator

import pytest

from csi_driver.nbd.backend import Backend
from csi_driver.nbd.buffers import Slot
from csi_driver.nbd.librbd_backend import LibrbdBackend
from csi_driver.nbd.librbd_image import LibrbdImage
from csi_driver.nbd.librbd_image import Plaintext
from csi_driver.testing.backends import Fault
from csi_driver.testing.backends import FaultyBackend
from csi_driver.testing.backends import MemoryBackend
from csi_driver.testing.lab_images import MIB
from csi_driver.testing.lab_images import LabImages
from csi_driver.testing.lab_images import load_specs

SIZE = 64 * MIB
KEY = b"contract\0key"


@pytest.fixture(
    params=["memory", "shuffled", "wrapped", "delayed", "librbd", "librbd-plain"]
)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend[str]]:
    match request.param:
        case "memory":
            yield from closing(MemoryBackend(SIZE))
        case "shuffled":
            yield from closing(MemoryBackend(SIZE, seed=7))
        case "wrapped":
            yield from closing(FaultyBackend(MemoryBackend(SIZE)))
        case "delayed":
            faults = (Fault(every=2, delay=0.02),)
            yield from closing(FaultyBackend(MemoryBackend(SIZE), faults))
        case "librbd":
            yield from librbd(request.getfixturevalue("lab"), KEY)
        case "librbd-plain":
            yield from librbd(request.getfixturevalue("lab"), None)


def closing(backend: Backend[str]) -> Iterator[Backend[str]]:
    yield backend
    backend.close()


def librbd(lab: LabImages, key: bytes | None) -> Iterator[Backend[str]]:
    with lab.image(SIZE, key) as target:
        encryption = Plaintext() if key is None else load_specs(key)
        yield from closing(LibrbdBackend(LibrbdImage(lab.client(), target, encryption)))


def collect(backend: Backend[str], count: int) -> dict[str, int]:
    """Wait for `count` results, only by polling the descriptor."""
    results: dict[str, int] = {}
    deadline = time.monotonic() + 30
    while len(results) < count:
        assert time.monotonic() < deadline, results
        if not select.select([backend.fileno()], [], [], 1)[0]:
            continue
        for token, result in backend.completions():
            assert token not in results
            results[token] = result
    return results


def write(backend: Backend[str], offset: int, data: bytes, *, fua: bool = False) -> int:
    slot = Slot(len(data))
    slot.payload(len(data))[:] = data
    backend.submit_write("w", offset, len(data), slot, fua=fua)
    return collect(backend, 1)["w"]


def read(backend: Backend[str], offset: int, length: int) -> tuple[int, bytes]:
    slot = Slot(length)
    backend.submit_read("r", offset, length, slot)
    result = collect(backend, 1)["r"]
    return result, bytes(slot.payload(length))


def test_it_says_what_it_can(backend: Backend[str]) -> None:
    assert backend.size() == SIZE
    assert not backend.read_only
    assert backend.can_flush
    assert backend.can_fua
    assert backend.can_multi_conn


def test_nothing_done_means_nothing_reported(backend: Backend[str]) -> None:
    assert backend.completions() == []
    assert select.select([backend.fileno()], [], [], 0.05)[0] == []


@pytest.mark.parametrize("length", [4096, 65536, 4 * MIB, 32 * MIB])
def test_what_is_written_is_read(backend: Backend[str], length: int) -> None:
    data = random.Random(length).randbytes(length)  # noqa: S311
    assert write(backend, 8192, data) == 0
    assert read(backend, 8192, length) == (length, data)


def test_the_ends_of_the_image_are_reached(backend: Backend[str]) -> None:
    for offset in (0, SIZE - 4096):
        assert write(backend, offset, b"e" * 4096, fua=True) == 0
        assert read(backend, offset, 4096) == (4096, b"e" * 4096)


def test_many_at_once_each_come_back_once(backend: Backend[str]) -> None:
    slots = []
    for index in range(300):
        slot = Slot(4096)
        slot.payload(4096)[:] = index.to_bytes(2) * 2048
        slots.append(slot)
        backend.submit_write(f"w{index}", index * 4096, 4096, slot, fua=False)
    assert collect(backend, 300) == {f"w{index}": 0 for index in range(300)}
    for index, slot in enumerate(slots):
        slot.payload(4096)[:] = bytes(4096)
        backend.submit_read(f"r{index}", index * 4096, 4096, slot)
    assert collect(backend, 300) == {f"r{index}": 4096 for index in range(300)}
    for index, slot in enumerate(slots):
        assert bytes(slot.payload(4096)) == index.to_bytes(2) * 2048


def test_a_flush_comes_back(backend: Backend[str]) -> None:
    assert write(backend, 0, b"f" * 4096) == 0
    backend.submit_flush("f")
    assert collect(backend, 1) == {"f": 0}


def test_a_late_look_finds_everything(backend: Backend[str]) -> None:
    slot = Slot(4096)
    for index in range(20):
        backend.submit_read(f"r{index}", 0, 4096, slot)
    time.sleep(0.2)
    assert collect(backend, 20) == {f"r{index}": 4096 for index in range(20)}


def test_random_work_equals_an_oracle(backend: Backend[str]) -> None:
    rng = random.Random(1)  # noqa: S311
    oracle = bytearray(8 * MIB)
    assert write(backend, 0, bytes(oracle)) == 0
    for _ in range(100):
        length = rng.choice([4096, 12288, 65536, MIB])
        offset = rng.randrange(0, len(oracle) - length + 1, 4096)
        if rng.random() < 0.5:
            data = rng.randbytes(length)
            assert write(backend, offset, data) == 0
            oracle[offset : offset + length] = data
        else:
            wanted = bytes(oracle[offset : offset + length])
            assert read(backend, offset, length) == (length, wanted)


@pytest.mark.parametrize("kind", ["memory", "librbd"])
def test_a_read_only_backend_says_so_and_refuses(
    kind: str, request: pytest.FixtureRequest
) -> None:
    if kind == "memory":
        refuses(MemoryBackend(SIZE, read_only=True))
        return
    lab: LabImages = request.getfixturevalue("lab")
    with lab.image(SIZE, KEY, read_only=True) as target:
        refuses(LibrbdBackend(LibrbdImage(lab.client(), target, load_specs(KEY))))


def refuses(backend: Backend[str]) -> None:
    assert backend.read_only
    assert write(backend, 0, bytes(4096)) == -errno.EROFS
    assert read(backend, 0, 4096)[0] == 4096
    backend.close()


@pytest.mark.parametrize("kind", ["memory", "librbd"])
def test_a_fenced_backend_fails_everything(
    kind: str, request: pytest.FixtureRequest
) -> None:
    if kind == "memory":
        memory: MemoryBackend[str] = MemoryBackend(SIZE)
        memory.fence()
        is_fenced(memory)
        return
    lab: LabImages = request.getfixturevalue("lab")
    with lab.image(SIZE, KEY) as target:
        image = LibrbdImage(lab.client(), target, load_specs(KEY))
        image.acquire_lock()
        # It could not be made any more, once the client hears of the blocklist.
        backend: LibrbdBackend[str] = LibrbdBackend(image)
        lab.blocklist(image.address)
        is_fenced(backend)


def is_fenced(backend: Backend[str]) -> None:
    assert write(backend, 0, bytes(4096)) == -errno.ESHUTDOWN
    assert read(backend, 0, 4096)[0] == -errno.ESHUTDOWN
    backend.close()
