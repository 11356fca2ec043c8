# SPDX-License-Identifier: Apache-2.0
"""A flattening process killed by SIGKILL at twenty random points.

After each kill every byte is right, with the keys of all layers as long as the
parent is attached; the next one goes on; at the end the own key alone opens the
clone.  RBDCRYPT_SEED repeats the points of a run.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from csi_driver.domain.chain import HeaderKind
from csi_driver.domain.chain import LayerSpec
from csi_driver.domain.chain import LoadSpecs
from csi_driver.domain.errors import SecretError
from csi_driver.domain.sizes import GIB
from csi_driver.domain.sizes import MIB
from csi_driver.images.chains import read_chain
from csi_driver.images.port import LoadedImage
from tests.ceph.clones.conftest import POOL
from tests.ceph.clones.conftest import Place
from tests.ceph.clones.making import LAYOUT
from tests.ceph.clones.making import Making

SEED: Final = int(
    os.environ.get("RBDCRYPT_SEED") or random.SystemRandom().getrandbits(32)
)
CHILD: Final = Path(__file__).with_name("flattening.py")
OBJECT: Final = 4 * MIB
OBJECTS: Final = GIB // OBJECT
CLONES: Final = 5
EARLY: Final = 3
"""Kills of one clone at any point; one more is aimed at its last moments."""
BLOCK: Final = 4096


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    """After how many objects, and how many seconds later, a process dies."""

    after: int
    delay: float


class Model:
    """What 1 GiB holds: in most objects a little, in some everything."""

    def __init__(self, rng: random.Random) -> None:
        self._written: dict[int, tuple[int, bytes]] = {}
        self.full = [n for n in range(OBJECTS) if n % 8 == 5]
        for number in range(OBJECTS):
            if number in self.full:
                self._written[number] = (0, rng.randbytes(OBJECT))
            elif number % 16:
                at = rng.randrange(OBJECT // BLOCK - 1) * BLOCK
                self._written[number] = (at, rng.randbytes(2 * BLOCK))
        self._changes: dict[int, bytes] = {}

    def copy(self) -> Model:
        """Return one that can change by itself."""
        made = object.__new__(Model)
        made._written, made.full, made._changes = self._written, self.full, {}
        return made

    def fill(self, image: LoadedImage) -> None:
        """Write all of it."""
        for number, (at, data) in self._written.items():
            image.write(number * OBJECT + at, data)

    def change(self, image: LoadedImage, rng: random.Random) -> None:
        """Write one block, in an object that has no gaps."""
        at = rng.choice(self.full) * OBJECT + rng.randrange(OBJECT // BLOCK) * BLOCK
        self._changes[at] = rng.randbytes(BLOCK)
        image.write(at, self._changes[at])

    def _object(self, number: int) -> bytes:
        content = bytearray(OBJECT)
        at, data = self._written.get(number, (0, b""))
        content[at : at + len(data)] = data
        for at, data in self._changes.items():
            if at // OBJECT == number:
                content[at % OBJECT : at % OBJECT + BLOCK] = data
        return bytes(content)

    def wrong(self, image: LoadedImage) -> Iterator[int]:
        """Name the objects that are not right, every byte of them compared."""
        for number in range(OBJECTS):
            if image.read(number * OBJECT, OBJECT) != self._object(number):
                yield number


@pytest.fixture(scope="module")
def parent(making: Making) -> tuple[str, int, Model]:
    model = Model(random.Random(SEED))  # noqa: S311  # test data
    image_id = making.flat(GIB)
    with making.open(image_id) as image:
        image.acquire_lock()
        model.fill(image)
    return image_id, making.snapshot(image_id), model


def flatten_and_die(place: Place, image_id: str, point: Point) -> tuple[int, list[str]]:
    """Let a process flatten and die; return its status and what it told."""
    order = {
        "pool": POOL,
        "namespace": place.namespace,
        "image": image_id,
        "keys": {u: key.reveal().hex() for u, key in place.making.keys.items()},
        "after": point.after,
        "delay": point.delay,
    }
    path = os.pathsep.join(entry for entry in sys.path if entry)
    result = subprocess.run(
        [sys.executable, str(CHILD)],
        input=json.dumps(order),
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    assert result.returncode in {0, -signal.SIGKILL}, result.stderr
    return result.returncode, result.stdout.split()


def points(rng: random.Random, total: int, tail: float) -> list[Point]:
    """Return where the processes die that flatten one clone, in turn."""
    early = sorted(rng.sample(range(LAYOUT.reserve // OBJECT, total), EARLY))
    found = [Point(after, rng.uniform(0, 0.003)) for after in early]
    return [*found, Point(total - 1, rng.uniform(0, tail))]


def require_right(making: Making, image_id: str, model: Model, where: str) -> None:
    """Check each byte, with all keys, and that fewer do not while a parent is."""
    chain = read_chain(making.pool, image_id)
    keys = making.chain_keys(image_id)
    assert len(keys) == len(chain), where
    with making.open(image_id, read_only=True) as image:
        assert not list(model.wrong(image)), where
    if len(chain) > 1:
        own = LoadSpecs((LayerSpec(keys[0]),))
        with pytest.raises(SecretError):
            making.pool.open_loaded(image_id, own)
    else:
        assert chain[0].kind is HeaderKind.LUKS2, where


def break_dead_lock(making: Making, image_id: str, address: str) -> None:
    with making.pool.open_raw(image_id) as raw:
        owner = raw.lock_owner()
        assert owner is not None
        assert owner.address == address
        raw.break_lock(owner)


@pytest.mark.timeout(400)
def test_a_flatten_killed_at_twenty_points(
    place: Place, parent: tuple[str, int, Model]
) -> None:
    making, (source, snapshot, model) = place.making, parent
    rng = random.Random(SEED + 1)  # noqa: S311  # test data
    total = OBJECTS + LAYOUT.reserve // OBJECT
    # One that nobody kills tells how long the end takes.
    whole = making.formatted(source, snapshot)
    status, (_, tail) = flatten_and_die(place, whole, Point(total + 1, 0))
    assert status == 0
    require_right(making, whole, model, "not killed")
    kills = 0
    for number in range(CLONES):
        clone, own = making.formatted(source, snapshot), model.copy()
        for point in points(rng, total, float(tail)):
            where = f"seed {SEED}, clone {number}, killed at {point}"
            status, (address, *_) = flatten_and_die(place, clone, point)
            assert status == -signal.SIGKILL, where
            kills += 1
            break_dead_lock(making, clone, address)
            require_right(making, clone, own, where)
            with making.open(clone) as image:
                own.change(image, rng)
        if place.tools.has_parent(clone):
            making.flatten(clone)
        require_right(making, clone, own, f"seed {SEED}, clone {number}, flattened")
        assert len(making.chain_keys(clone)) == 1
        assert place.tools.raw_bytes_at(clone, 16384, 6) == b"SKUL\xba\xbe"
    assert kills == 20
