# SPDX-License-Identifier: Apache-2.0
"""How the fake reads and writes through a chain of images, as librbd does.

A layer without an open volume passes raw bytes on; a chain of such layers is
what a raw handle sees.  With volumes, an object that a clone lacks is read from
the parent, decrypted under the parent's key; before the clone writes to it, what
the parent holds is copied up under the clone's own.  Holes are not copied: what
was never written is undefined once anything else in its object was.
"""

from __future__ import annotations

from collections.abc import Iterator

from csi_driver.domain.chain import HeaderKind
from csi_driver.domain.chain import LayerSpec
from csi_driver.domain.chain import LoadSpecs
from csi_driver.domain.chain import LuksFormat
from csi_driver.domain.chain import header_kind
from csi_driver.domain.errors import HeaderError
from csi_driver.domain.errors import UnsupportedError
from csi_driver.domain.sizes import round_up
from csi_driver.testing.ceph_fake_data import BLOCK
from csi_driver.testing.ceph_fake_images import StoredImage
from csi_driver.testing.ceph_fake_images import StoredSnapshot
from csi_driver.testing.luks import OpenVolume
from csi_driver.testing.luks import open_volume
from csi_driver.testing.luks_sectors import Sectors

_MAGIC_LENGTH = 8
_USABLE = {
    LuksFormat.ANY: frozenset(HeaderKind) - {HeaderKind.NONE},
    LuksFormat.LUKS1: {HeaderKind.LUKS1, HeaderKind.CLONE_LUKS1},
    LuksFormat.LUKS2: {HeaderKind.LUKS2, HeaderKind.CLONE_LUKS2},
}

type Viewed = StoredImage | StoredSnapshot


class Layer:
    """One image of a chain; offsets are effective ones, raw without a volume."""

    def __init__(
        self,
        view: Viewed,
        volume: OpenVolume | None = None,
        below: Layer | None = None,
    ) -> None:
        self._view = view
        self._volume = volume
        self._sectors: Sectors | None = None if volume is None else volume.sectors()
        self.below = below

    @property
    def data_offset(self) -> int:
        """Raw bytes in front of the data."""
        return 0 if self._volume is None else self._volume.data_offset

    @property
    def size(self) -> int:
        """Bytes that the layer shows at present."""
        return max(0, self._view.size - self.data_offset)

    @property
    def overlap(self) -> int:
        """Bytes from the start that the layer below may answer for."""
        if self._view.parent is None or self.below is None:
            return 0
        own = self._view.parent.overlap - self.data_offset
        return max(0, min(own, self.below.size))

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes as they were written; the caller checks the bounds."""
        start, stop = self._around(offset, length)
        return self._plain(start, stop)[offset - start :][:length]

    def write(self, offset: int, data: bytes) -> None:
        """Write; whole sectors are written, and objects are copied up before."""
        start, stop = self._around(offset, len(data))
        plain = bytearray(self._plain(start, stop))
        plain[offset - start : offset - start + len(data)] = data
        stored = self._view.data
        raw = self.data_offset + start
        for number in {each[0] for each in stored.extents(raw, stop - start)}:
            self.copy_up(number)
        stored.write(raw, self._sealed(start, bytes(plain)))

    def copy_up(self, number: int) -> None:
        """Copy what the layer below holds of an object that is absent here."""
        stored = self._view.data
        if self.below is None or stored.object(number) is not None:
            return
        for raw, _, count in stored.ranges(number):
            start = raw - self.data_offset
            end = min(start + count, self.overlap)
            for at in self.below.solid(start, end) if start >= 0 else ():
                plain = self.below.read(at, min(BLOCK, end - at))
                whole = plain.ljust(BLOCK if self._volume else 0, b"\0")
                stored.write(self.data_offset + at, self._sealed(at, whole))

    def solid(self, start: int, end: int) -> Iterator[int]:
        """Yield where blocks begin that were written, here or further below."""
        stored, here = self._view.data, start
        extents = stored.extents(self.data_offset + start, max(0, end - start))
        for number, at, count in extents:
            if stored.object(number) is not None:
                for block in stored.blocks(number):
                    if at <= block * BLOCK < at + count:
                        yield here + block * BLOCK - at
            elif self.below is not None:
                yield from self.below.solid(here, min(here + count, self.overlap))
            here += count

    def wipe(self) -> None:
        """Forget the volume keys of this and all layers below."""
        if self._volume is not None:
            self._volume.volume_key.wipe()
        if self.below is not None:
            self.below.wipe()

    def _around(self, offset: int, length: int) -> tuple[int, int]:
        unit = 1 if self._volume is None else self._volume.sector_size
        return offset // unit * unit, round_up(offset + length, unit)

    def _plain(self, start: int, stop: int) -> bytes:
        """Return whole sectors, object by object."""
        result = bytearray()
        stored = self._view.data
        extents = stored.extents(self.data_offset + start, stop - start)
        for number, at, count in extents:
            here, data = start + len(result), stored.object(number)
            if data is None:
                piece = self._from_below(here, count)
            else:
                piece = self._opened(here, bytes(data[at : at + count]))
            result += piece + bytes(count - len(piece))
        return bytes(result)

    def _from_below(self, offset: int, length: int) -> bytes:
        covered = min(length, self.overlap - offset)
        if covered <= 0 or self.below is None:
            return b""
        return self.below.read(offset, covered)

    def _opened(self, offset: int, data: bytes) -> bytes:
        """Decrypt up to where an object ends: what lies beyond shows as zeros."""
        if self._sectors is None:
            return data
        whole = data.ljust(round_up(len(data), self._sectors.sector_size), b"\0")
        return self._sectors.decrypt(offset, whole)

    def _sealed(self, offset: int, data: bytes) -> bytes:
        return data if self._sectors is None else self._sectors.encrypt(offset, data)


def raw_layers(view: Viewed) -> Layer:
    """Return the chain as a raw handle sees it: nothing is decrypted."""
    parent = view.parent
    below = None if parent is None else raw_layers(parent.snapshot)
    return Layer(view, None, below)


def load(view: Viewed, specs: LoadSpecs) -> Layer:
    """Load a chain as librbd does; its EINVAL is HeaderError, EPERM SecretError.

    Own image first.  When specs run out, the last one is tried on every further
    layer, and only there may a header be missing: all from it on is plaintext.
    """
    image = view.image if isinstance(view, StoredSnapshot) else view
    opened: list[tuple[Viewed, OpenVolume]] = []
    present: Viewed | None = view
    while present is not None:
        given = len(opened) < len(specs.layers)
        spec = specs.layers[len(opened)] if given else specs.layers[-1]
        volume = _opened(present, spec, given=given)
        if volume is None:
            break
        opened.append((present, volume))
        present = None if present.parent is None else present.parent.snapshot
    if len(specs.layers) > len(opened):
        message = f"a load of {len(specs.layers)} layers, the image has {len(opened)}"
        raise HeaderError(message)
    if not image.striping.encryptable:
        message = "the fake refuses what librbd would mix up"
        raise UnsupportedError(message)
    below = None if present is None else raw_layers(present)
    own, *others = opened
    for each, volume in reversed(others):
        below = Layer(each, volume, below)
    return Layer(*own, below)


def _opened(view: Viewed, spec: LayerSpec, *, given: bool) -> OpenVolume | None:
    """Open one layer's header; None where plaintext may be assumed."""
    raw = raw_layers(view)
    kind = header_kind(raw.read(0, min(_MAGIC_LENGTH, view.size)))
    if kind is HeaderKind.NONE and not given:
        return None
    if kind not in _USABLE[spec.format] or (
        kind.formatted_clone and view.parent is None
    ):
        message = f"the image's first bytes are {kind.value}, not a header to load"
        raise HeaderError(message)
    if kind in {HeaderKind.LUKS1, HeaderKind.CLONE_LUKS1}:
        message = "the fake does not open LUKS1 headers"
        raise UnsupportedError(message)
    volume = open_volume(raw.read, spec.passphrase.reveal())
    image = view.image if isinstance(view, StoredSnapshot) else view
    if volume.data_offset % image.striping.period or volume.data_offset > view.size:
        message = f"the data offset {volume.data_offset} does not fit the image"
        raise HeaderError(message)
    return volume
