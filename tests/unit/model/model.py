# SPDX-License-Identifier: Apache-2.0
"""What volumes and snapshots hold, kept in memory and compared with Ceph.

A *view* is the content of one volume or one snapshot, with what is known of
each byte.  On a plaintext volume that is everything: what was never written
reads as zeros.  On an encrypted one librbd decrypts whatever an object holds,
zeros of a hole included, and the rules are these (measured on 18.2.7):

* A block is 4096 bytes.  An object ends behind the last block that was written
  to it.  From there on, and in an object that does not exist, zeros are read.
* A block that was never written and lies in front of its object's end is a
  hole.  Reads shorter than `rbd_sparse_read_threshold_bytes` (64 KiB) of an
  object show a hole as pseudo-random bytes.  On BlueStore, longer ones show
  zeros, since the store tells where it holds nothing; memstore does not tell,
  and so every read shows the same random bytes.  Nothing is promised of a hole.
* A write that covers a part of a block reads the rest of it first.  Behind the
  object's end that rest is zeros; in a hole, whatever was read stays there.
* A clone shows what its parent shows until one of an object's blocks is
  written; then the parent's object is copied, its holes as holes.  So blocks
  that a plaintext parent never wrote, and shows as zeros, become holes of its
  encrypted clone then.  Flattening does the same to all objects at once.
* That copy also goes into the clone's snapshots that lack the object, and so
  under everything that was cloned from them.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from csi_driver.domain.sizes import BLOCK_SIZE
from csi_driver.domain.sizes import round_up

_KNOWN: Final = b"\xff"
_UNKNOWN: Final = b"\0"


@dataclasses.dataclass(slots=True)
class View:
    """The content of a volume or of a snapshot, in exported bytes.

    `lineage` names the volumes whose objects it may read: the one that it
    belongs to, and those that it was cloned from.
    """

    object_size: int
    encrypted: bool
    lineage: frozenset[str]
    data: bytearray = dataclasses.field(default_factory=bytearray)
    known: bytearray = dataclasses.field(default_factory=bytearray)
    stored: set[int] = dataclasses.field(default_factory=set)
    """Numbers of the blocks that were written."""
    ends: dict[int, int] = dataclasses.field(default_factory=dict)
    """Where each object ends, as an offset in the view."""

    @property
    def size(self) -> int:
        """Exported bytes."""
        return len(self.data)

    def copy(self) -> View:
        """Return the view of a snapshot taken now."""
        return dataclasses.replace(
            self,
            data=self.data[:],
            known=self.known[:],
            stored=set(self.stored),
            ends=dict(self.ends),
        )

    def clone(self, name: str, *, encrypted: bool) -> View:
        """Return the view of a clone made now."""
        made = self.copy()
        made.lineage |= {name}
        made.encrypted = encrypted
        return made

    def grow(self, size: int) -> None:
        """Append zeros: the new bytes lie behind all objects' ends."""
        added = size - self.size
        assert added >= 0
        self.data += bytes(added)
        self.known += _KNOWN * added

    def write(self, offset: int, data: bytes) -> None:
        """Write at any offset."""
        end = offset + len(data)
        for number in self.objects(offset, end):
            start = max(offset, number * self.object_size)
            stop = min(end, (number + 1) * self.object_size)
            self._write(number, start, data[start - offset : stop - offset])

    def objects(self, offset: int, end: int) -> range:
        """Return the numbers of the objects that hold a range."""
        return range(offset // self.object_size, -(-end // self.object_size))

    def settle(self, number: int) -> None:
        """Forget an object's holes: it exists in its own right by now."""
        if not self.encrypted:
            return
        for start in self._blocks(number, self.ends.get(number, 0)):
            if start // BLOCK_SIZE not in self.stored:
                self._forget(start, start + BLOCK_SIZE)

    def difference(self, offset: int, found: bytes) -> str:
        """Say where bytes that were read differ from what is known, or ""."""
        end = offset + len(found)
        expected, known = self.data[offset:end], self.known[offset:end]
        if found == expected:
            return ""
        mask = int.from_bytes(known)
        if (int.from_bytes(found) ^ int.from_bytes(expected)) & mask == 0:
            return ""
        wrong = [
            at
            for at, (mine, theirs, counts) in enumerate(
                zip(expected, found, known, strict=True)
            )
            if counts and mine != theirs
        ]
        first, last = wrong[0], wrong[-1]
        return (
            f"{len(wrong)} of {len(found)} bytes differ from {offset + first} to"
            f" {offset + last}, in block {(offset + first) // BLOCK_SIZE}: expected"
            f" {expected[first : first + 16].hex()}, read"
            f" {found[first : first + 16].hex()}"
        )

    def _write(self, number: int, start: int, data: bytes) -> None:
        stop = start + len(data)
        self.settle(number)
        blocks = range(start // BLOCK_SIZE, -(-stop // BLOCK_SIZE))
        first, last = blocks[0] * BLOCK_SIZE, round_up(stop, BLOCK_SIZE)
        end = self.ends.get(number, number * self.object_size)
        if self.encrypted and first > end:
            self._forget(end, first)
        self.data[start:stop] = data
        self.known[start:stop] = _KNOWN * len(data)
        self.stored.update(blocks)
        self.ends[number] = max(end, last)

    def _blocks(self, number: int, end: int) -> range:
        return range(number * self.object_size, min(end, self.size), BLOCK_SIZE)

    def _forget(self, start: int, end: int) -> None:
        stop = min(end, self.size)
        if stop > start:
            self.known[start:stop] = _UNKNOWN * (stop - start)


@dataclasses.dataclass(slots=True)
class ModelSnapshot:
    """A snapshot that its user can see."""

    name: str
    volume: ModelVolume
    view: View
    ancestors: int


@dataclasses.dataclass(slots=True)
class ModelVolume:
    """A volume; `desired` was promised, its view has the actual size.

    `secret` names what opens it, "" for plaintext.
    """

    name: str
    secret: str
    view: View
    desired: int
    ancestors: int = 0


@dataclasses.dataclass(slots=True)
class Model:
    """All volumes and snapshots by name, and every view there ever was.

    A view that nobody can see any more may still be read by a clone.
    """

    volumes: dict[str, ModelVolume] = dataclasses.field(default_factory=dict)
    snapshots: dict[str, ModelSnapshot] = dataclasses.field(default_factory=dict)
    views: list[View] = dataclasses.field(default_factory=list)

    def create(self, name: str, secret: str, size: int, object_size: int) -> None:
        """Add an empty volume."""
        view = View(object_size, bool(secret), frozenset({name}))
        view.grow(size)
        self._add(ModelVolume(name, secret, view, size))

    def clone(self, name: str, secret: str, source: str, size: int) -> None:
        """Add a clone of a volume or of a snapshot, with a promise of `size`."""
        found = self.source(source)
        view = found.view.clone(name, encrypted=bool(secret))
        self._add(ModelVolume(name, secret, view, size, found.ancestors + 1))

    def snapshot(self, name: str, volume: str) -> None:
        """Add a snapshot."""
        taken = self.volumes[volume]
        made = ModelSnapshot(name, taken, taken.view.copy(), taken.ancestors)
        self.snapshots[name] = made
        self.views.append(made.view)

    def write(self, volume: str, offset: int, data: bytes) -> None:
        """Write, and note which objects are copied under others thereby."""
        view = self.volumes[volume].view
        view.write(offset, data)
        if view.encrypted:
            self._settle(volume, view.objects(offset, offset + len(data)))

    def flatten(self, volume: str, *, whole: bool = True) -> None:
        """Copy all objects of the parent, or nobody knows how many."""
        flat = self.volumes[volume]
        if flat.view.encrypted:
            self._settle(volume, flat.view.objects(0, flat.view.size))
        if whole:
            flat.ancestors = 0
            flat.view.lineage = frozenset({volume})

    def source(self, name: str) -> ModelVolume | ModelSnapshot:
        """Return a volume or a snapshot by its name."""
        return self.snapshots.get(name) or self.volumes[name]

    def _add(self, volume: ModelVolume) -> None:
        self.volumes[volume.name] = volume
        self.views.append(volume.view)

    def _settle(self, volume: str, numbers: range) -> None:
        for view in self.views:
            if volume in view.lineage:
                for number in numbers:
                    view.settle(number)
