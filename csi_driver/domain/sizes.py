# SPDX-License-Identifier: Apache-2.0
"""Raw and effective sizes, the stripe geometry, and the reserve between them.

librbd shows the *raw* size of an image until its encryption is loaded and the
*effective* size (raw minus the header's room) afterwards; the same integer
passed to the wrong handle grows or truncates by a header.  So the two are two
types here, they do not compare or add up with one another, and the only way
from one to the other is through a `Layout`.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import SizeError
from csi_driver.domain.errors import UnsupportedError

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30

BLOCK_SIZE: Final = 4096
"""Bytes in one block of every export: LUKS2's sector size under librbd."""

HEADER_ROOM: Final = 16 * MIB
"""Bytes that a LUKS2 header of libcryptsetup's default layout takes."""

MOST_MAPPED_OBJECTS: Final = 256_000_000
"""Objects that librbd's object map covers (cls_rbd); a create or resize of an
image that has one and would have more fails with EINVAL."""

LARGEST_IMAGE: Final = 1 << 53
"""Bytes (8 PiB): the most the driver will ask of one image."""

DEFAULT_SIZE: Final = GIB
"""Bytes of a volume for which no size was asked."""

_INT64_MAX: Final = (1 << 63) - 1


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class RawSize:
    """Bytes of an image as RADOS holds it: header or tail reserve included."""

    count: int

    def __post_init__(self) -> None:
        """Refuse negative sizes."""
        _not_negative(self.count)

    def __str__(self) -> str:
        return f"{self.count} bytes raw"


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class EffectiveSize:
    """Bytes that a loaded handle shows and that an export offers."""

    count: int

    def __post_init__(self) -> None:
        """Refuse negative sizes."""
        _not_negative(self.count)

    def __str__(self) -> str:
        return f"{self.count} bytes"


@dataclasses.dataclass(frozen=True, slots=True)
class Striping:
    """How an image is cut into RADOS objects; all in bytes but the count."""

    object_size: int = 4 * MIB
    stripe_unit: int = 4 * MIB
    stripe_count: int = 1

    def __post_init__(self) -> None:
        """Hold to librbd's rules for striping (rbd(8), 'STRIPING')."""
        if not _is_power_of_two(self.object_size) or not (
            4 * KIB <= self.object_size <= 32 * MIB
        ):
            message = (
                "objectSize must be a power of two from 4096 to 33554432 bytes,"
                f" not {self.object_size}"
            )
            raise InvalidRequestError(message)
        if self.stripe_unit <= 0 or self.object_size % self.stripe_unit:
            message = (
                f"stripeUnit must divide the object size {self.object_size},"
                f" {self.stripe_unit} does not"
            )
            raise InvalidRequestError(message)
        if not 1 <= self.stripe_count <= 1024:  # noqa: PLR2004 (said in the text)
            message = f"stripeCount must be from 1 to 1024, not {self.stripe_count}"
            raise InvalidRequestError(message)
        if self.stripe_count == 1 and self.stripe_unit != self.object_size:
            message = (
                "stripeUnit differs from objectSize only together with a"
                " stripeCount above 1"
            )
            raise InvalidRequestError(message)

    @property
    def order(self) -> int:
        """The object size as a power of two, as librbd's create takes it."""
        return self.object_size.bit_length() - 1

    @property
    def encryptable(self) -> bool:
        """False if librbd's encryption would mix up the blocks of such an image.

        With stripe units smaller than an object, a request that returns to an
        object in a later stripe is encrypted as if its pieces were neighbours
        in the image; what was written in one request is garbage when read in
        two (measured on 18.2.7).
        """
        return self.stripe_unit == self.object_size

    def require_encryptable(self, image: str) -> None:
        """Refuse an encrypted image that librbd would garble (UnsupportedError)."""
        if not self.encryptable:
            message = (
                f"image {image} has stripe units of {self.stripe_unit} bytes in"
                f" objects of {self.object_size}: librbd mixes up the blocks of"
                " such an encrypted image; copy its data to another"
            )
            raise UnsupportedError(message)

    def require_mappable(self, raw: RawSize) -> None:
        """Refuse a size that an object map cannot cover (SizeError)."""
        objects = round_up(raw.count, self.period) // self.object_size
        if objects > MOST_MAPPED_OBJECTS:
            message = (
                f"{raw} take {objects} objects of {self.object_size} bytes, an object"
                f" map covers {MOST_MAPPED_OBJECTS}: use a larger objectSize, or leave"
                " object-map out of imageFeatures"
            )
            raise SizeError(message)

    @property
    def period(self) -> int:
        """Bytes of one stripe period, which every data offset is a multiple of."""
        return self.object_size * self.stripe_count


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """Where the exported bytes lie in the raw image.

    `reserve` bytes are kept beside the exported ones in *every* volume: in
    front, under the header, when it is encrypted; at the tail when it is
    plaintext, so that an encrypted clone of it finds room for its header.
    An adopted image keeps what it has: its header's size, or nothing.
    """

    reserve: int

    def __post_init__(self) -> None:
        """Refuse negative reserves."""
        _not_negative(self.reserve)

    @classmethod
    def for_striping(cls, striping: Striping) -> Layout:
        """Reserve the header's room rounded up to whole stripe periods."""
        return cls(round_up(HEADER_ROOM, striping.period))

    def raw(self, effective: EffectiveSize) -> RawSize:
        """Return the raw size that carries so many exported bytes."""
        return RawSize(effective.count + self.reserve)

    def effective(self, raw: RawSize) -> EffectiveSize:
        """Return what a raw size exports; SizeError if nothing is left."""
        if raw.count < self.reserve:
            message = f"an image of {raw} is smaller than its reserve {self.reserve}"
            raise SizeError(message)
        return EffectiveSize(raw.count - self.reserve)


@dataclasses.dataclass(frozen=True, slots=True)
class CapacityRange:
    """What a request asks for, in exported bytes; 0 means not given."""

    required: int = 0
    limit: int = 0

    def __post_init__(self) -> None:
        """Refuse what no size can satisfy (CSI, CapacityRange)."""
        for name, value in (("required", self.required), ("limit", self.limit)):
            if not 0 <= value <= _INT64_MAX:
                message = f"{name}_bytes must not be negative, {value} is"
                raise InvalidRequestError(message)
        if self.limit and self.limit < self.required:
            message = (
                f"limit_bytes {self.limit} is below required_bytes {self.required}"
            )
            raise InvalidRequestError(message)

    def choose(self, smallest: int = BLOCK_SIZE) -> EffectiveSize:
        """Return the smallest whole number of blocks that satisfies the range.

        `smallest` is what the volume's use needs at least, in bytes.
        SizeError when rounding up passes the limit, or when the size lies
        beyond what one image can hold.
        """
        wanted = self.required
        if not wanted:
            wanted = min(DEFAULT_SIZE, self.limit or DEFAULT_SIZE)
            wanted -= wanted % BLOCK_SIZE if wanted >= BLOCK_SIZE else 0
        size = round_up(max(wanted, smallest), BLOCK_SIZE)
        if self.limit and size > self.limit:
            message = (
                f"the volume would have {size} bytes (whole blocks of {BLOCK_SIZE},"
                f" at least {smallest}), which is above the limit of {self.limit}"
            )
            raise SizeError(message)
        if size > LARGEST_IMAGE:
            message = (
                f"{size} bytes asked for, one volume holds at most {LARGEST_IMAGE}"
            )
            raise SizeError(message)
        return EffectiveSize(size)

    def admits(self, size: EffectiveSize) -> bool:
        """Tell whether an existing volume of that size satisfies the range."""
        return size.count >= self.required and (
            not self.limit or size.count <= self.limit
        )


def round_up(value: int, unit: int) -> int:
    """Return the smallest multiple of `unit` that is not below `value`."""
    return -(-value // unit) * unit


def _not_negative(count: int) -> None:
    if count < 0:
        message = f"a size of {count} bytes is negative"
        raise SizeError(message)


def _is_power_of_two(value: int) -> bool:
    return value > 0 and not value & (value - 1)
