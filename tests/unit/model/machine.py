# SPDX-License-Identifier: Apache-2.0
"""Operations drawn at random, and everything compared after each of them.

A failure is shown as the script of a shortest run: `state = Machine()`, then
the calls.  It can be run as it stands where `Machine` is imported.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import Bundle
from hypothesis.stateful import MultipleResults
from hypothesis.stateful import RuleBasedStateMachine
from hypothesis.stateful import consumes
from hypothesis.stateful import initialize
from hypothesis.stateful import invariant
from hypothesis.stateful import multiple
from hypothesis.stateful import precondition
from hypothesis.stateful import rule

from csi_driver.domain.sizes import BLOCK_SIZE
from csi_driver.domain.sizes import KIB
from csi_driver.domain.sizes import MIB
from csi_driver.testing.faults import When
from tests.unit.model.data import Place
from tests.unit.model.driver import Driver
from tests.unit.model.dying import Trouble

MOST_VOLUMES = 5
MOST_SNAPSHOTS = 4
MOST_ANCESTORS = 5

SMALLEST_OBJECT = 128 * KIB
OBJECT_SIZES = st.sampled_from([SMALLEST_OBJECT, 512 * KIB, 4 * MIB])
FIRST_SIZE = 40 * BLOCK_SIZE
SIZES = st.integers(1, 96).map(lambda blocks: blocks * BLOCK_SIZE)
ADDED = st.sampled_from([0, 1, 5, 32, 45]).map(lambda blocks: blocks * BLOCK_SIZE)
SECRET_NAMES = st.sampled_from(["key-a", "", "key-b", "key-a", "", "key-b", "words"])
"""Of `SECRETS`; a passphrase takes time."""
TROUBLE = st.none() | st.builds(
    Trouble,
    st.integers(1, 25) | st.integers(1, 72),
    st.booleans(),
    st.sampled_from(When),
)
"""Most calls have some 20 steps, clones up to 70; shorter ones get through."""
OFFSETS = st.tuples(
    st.integers(0, 6).map(lambda objects: objects * SMALLEST_OBJECT),
    st.integers(-8, 8).map(lambda blocks: blocks * BLOCK_SIZE)
    | st.integers(-2 * BLOCK_SIZE, 2 * BLOCK_SIZE),
).map(sum)
LENGTHS = (
    st.integers(1, 40).map(lambda blocks: blocks * BLOCK_SIZE)
    | st.integers(1, 3 * BLOCK_SIZE)
    | st.just(2 * SMALLEST_OBJECT)
)


def content(seed: int, length: int) -> bytes:
    """Return bytes that no other seed gives; seed 0 gives zeros."""
    return hashlib.shake_128(b"%d" % seed).digest(length) if seed else bytes(length)


class Machine(RuleBasedStateMachine):
    """One run in a place of its own.  Subclasses say what place that is."""

    new_place: ClassVar[Callable[[], Place]]
    steps: ClassVar[int] = 0
    """Operations that all runs have done."""

    volumes: Bundle[str] = Bundle("volumes")
    snapshots: Bundle[str] = Bundle("snapshots")

    def __init__(self) -> None:
        super().__init__()
        self.place = type(self).new_place()
        self.driver = Driver(self.place)
        self.order = 0
        self.good = True

    @initialize(
        target=volumes,
        order=st.integers(0, 999),
        secret=SECRET_NAMES,
        object_size=OBJECT_SIZES,
    )
    def begin(self, order: int, secret: str, object_size: int) -> str:
        """Create a first volume; choose in which order all are deleted at the end."""
        self.good = False
        self.order = order
        return self.driver.create(secret, FIRST_SIZE, object_size, None)

    @invariant()
    def everything_is_as_it_should_be(self) -> None:
        """Compare, and count the operation."""
        type(self).steps += 1
        self.good = False
        self.driver.compare()
        self.good = True

    def teardown(self) -> None:
        """Delete everything, if the run was good; then nothing may be left."""
        try:
            if self.good:
                self.driver.end(self.order)
        finally:
            self.driver.close()
            self.place.end()

    # --------------------------------------------------- the controller's work

    def _room(self) -> bool:
        return len(self.driver.model.volumes) < MOST_VOLUMES

    @precondition(_room)
    @rule(
        target=volumes,
        secret=SECRET_NAMES,
        size=SIZES,
        object_size=OBJECT_SIZES,
        trouble=TROUBLE,
    )
    def create(
        self, secret: str, size: int, object_size: int, trouble: Trouble | None
    ) -> str:
        """Create an empty volume."""
        self.good = False
        return self.driver.create(secret, size, object_size, trouble)

    @precondition(_room)
    @rule(
        target=volumes,
        source=volumes,
        secret=SECRET_NAMES,
        added=ADDED,
        trouble=TROUBLE,
    )
    def clone_volume(
        self, source: str, secret: str, added: int, trouble: Trouble | None
    ) -> str | MultipleResults[str]:
        """Clone a volume."""
        return self._clone(source, secret, added, trouble)

    @precondition(_room)
    @rule(
        target=volumes,
        source=snapshots,
        secret=SECRET_NAMES,
        added=ADDED,
        trouble=TROUBLE,
    )
    def clone_snapshot(
        self, source: str, secret: str, added: int, trouble: Trouble | None
    ) -> str | MultipleResults[str]:
        """Clone a snapshot."""
        return self._clone(source, secret, added, trouble)

    @precondition(lambda self: len(self.driver.model.snapshots) < MOST_SNAPSHOTS)
    @rule(target=snapshots, volume=volumes, trouble=TROUBLE)
    def snapshot(self, volume: str, trouble: Trouble | None) -> str:
        """Take a snapshot."""
        self.good = False
        return self.driver.snapshot(volume, trouble)

    @rule(volume=consumes(volumes), trouble=TROUBLE)
    def delete_volume(self, volume: str, trouble: Trouble | None) -> None:
        """Delete a volume; its snapshots and clones go on."""
        self.good = False
        self.driver.delete_volume(volume, trouble)

    @rule(snapshot=consumes(snapshots), trouble=TROUBLE)
    def delete_snapshot(self, snapshot: str, trouble: Trouble | None) -> None:
        """Delete a snapshot; its clones go on."""
        self.good = False
        self.driver.delete_snapshot(snapshot, trouble)

    @rule(volume=volumes, added=ADDED, now=st.booleans())
    def expand(self, volume: str, added: int, now: bool) -> None:
        """Promise a bigger size, and perhaps grow at once."""
        self.good = False
        self.driver.expand(volume, added, now=now)

    @rule(volume=volumes, secret=SECRET_NAMES)
    def rotate(self, volume: str, secret: str) -> None:
        """Put the keys under another Secret."""
        if secret and self.driver.model.volumes[volume].secret:
            self.good = False
            self.driver.rotate(volume, secret)

    @precondition(lambda self: self.driver.tombstones)
    @rule(trouble=TROUBLE)
    def collect(self, trouble: Trouble | None) -> None:
        """Collect tombstones."""
        self.good = False
        self.driver.collect(trouble)

    # --------------------------------------------------------- the node's work

    @rule(volume=volumes, offset=OFFSETS, length=LENGTHS, seed=st.integers(0, 9))
    def write(self, volume: str, offset: int, length: int, seed: int) -> None:
        """Write somewhere: near the end for offsets that are negative or too big."""
        self.good = False
        size = self.driver.model.volumes[volume].view.size
        start = offset % size
        data = content(seed, min(length, size - start))
        self.driver.write(volume, start, data)

    @precondition(
        lambda self: any(v.ancestors for v in self.driver.model.volumes.values())
    )
    @rule(volume=volumes, cancel_at=st.none() | st.integers(0, 160))
    def flatten(self, volume: str, cancel_at: int | None) -> None:
        """Flatten, or begin to."""
        self.good = False
        self.driver.flatten(volume, cancel_at)

    @precondition(lambda self: self.driver.staged)
    @rule(volume=volumes)
    def unstage(self, volume: str) -> None:
        """Close; the next use opens it again."""
        if volume in self.driver.staged:
            self.good = False
            self.driver.unstage(volume)

    @rule(volume=volumes)
    def crash(self, volume: str) -> None:
        """Let the node die while it holds the lock."""
        self.good = False
        self.driver.crash(volume)

    def _clone(
        self, source: str, secret: str, added: int, trouble: Trouble | None
    ) -> str | MultipleResults[str]:
        if self.driver.model.source(source).ancestors >= MOST_ANCESTORS:
            return multiple()
        self.good = False
        return self.driver.clone(source, secret, added, trouble) or multiple()
