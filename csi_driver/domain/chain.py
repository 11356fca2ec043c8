# SPDX-License-Identifier: Apache-2.0
"""What librbd has to be told to load an image: one spec per layer, in order.

The order and number rules are librbd's own (`rbd_encryption_load2`, Reef):
the image's own layer first, then its parent, its grandparent and so on; one
spec for every layer that carries or inherits a header; more specs than layers
are refused, and so is a spec for a plaintext ancestor.  Reading a chain from
Ceph is left to `images`.
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Final

from csi_driver.domain.errors import HeaderError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.secrets import SecretBytes

DEEPEST_CHAIN: Final = 16
"""Layers of a chain that the driver loads (librbd's own limit for clones)."""

LUKS_MAGICS: Final = (b"LUKS\xba\xbe", b"RBDL\xba\xbe")
"""What librbd takes for the begin of a header, of whatever version."""

_MAGIC_LENGTH: Final = 8


class LuksFormat(enum.IntEnum):
    """librbd's encryption formats (`rbd_encryption_format_t`)."""

    LUKS1 = 0
    LUKS2 = 1
    ANY = 2
    """Either, for loading only; leaves EPERM to mean a wrong passphrase."""


class HeaderKind(enum.Enum):
    """What the first eight raw bytes of an image say it is."""

    NONE = "none"
    LUKS1 = "luks1"
    LUKS2 = "luks2"
    CLONE_LUKS1 = "clone-luks1"
    """LUKS1 header of a formatted clone (magic RBDL)."""
    CLONE_LUKS2 = "clone-luks2"
    """LUKS2 header of a formatted clone (magic RBDL)."""

    @property
    def encrypted(self) -> bool:
        """True if some LUKS header is there."""
        return self is not HeaderKind.NONE

    @property
    def formatted_clone(self) -> bool:
        """True for the clone magic, which loads only while a parent exists."""
        return self in {HeaderKind.CLONE_LUKS1, HeaderKind.CLONE_LUKS2}


_KINDS: Final[Mapping[bytes, HeaderKind]] = {
    b"LUKS\xba\xbe\x00\x01": HeaderKind.LUKS1,
    b"LUKS\xba\xbe\x00\x02": HeaderKind.LUKS2,
    b"RBDL\xba\xbe\x00\x01": HeaderKind.CLONE_LUKS1,
    b"RBDL\xba\xbe\x00\x02": HeaderKind.CLONE_LUKS2,
}


def header_kind(first_bytes: bytes) -> HeaderKind:
    """Read the magic and version; anything unknown is no header."""
    return _KINDS.get(bytes(first_bytes[:_MAGIC_LENGTH]), HeaderKind.NONE)


@dataclasses.dataclass(frozen=True, slots=True)
class LayerSpec:
    """Format and passphrase of one layer, as librbd's load takes them."""

    passphrase: SecretBytes
    format: LuksFormat = LuksFormat.ANY


@dataclasses.dataclass(frozen=True, slots=True)
class Layer:
    """One image of a chain as it was found on Ceph.

    `key` names the passphrase that opens the layer: the UUID of the header that
    it shows, which for a clone that was never formatted is its parent's.  It is
    None for a plaintext layer.
    """

    image_id: str
    kind: HeaderKind
    key: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class LoadSpecs:
    """The argument of one load: own layer first, never empty."""

    layers: tuple[LayerSpec, ...]

    def __post_init__(self) -> None:
        """Refuse an empty load, librbd's EINVAL, and one that is too deep."""
        if not 1 <= len(self.layers) <= DEEPEST_CHAIN:
            message = (
                f"a load takes from 1 to {DEEPEST_CHAIN} layers, not {len(self.layers)}"
            )
            raise HeaderError(message)


def specs_for(
    chain: Sequence[Layer],
    passphrases: Mapping[str, SecretBytes],
) -> LoadSpecs:
    """Give each encrypted layer its passphrase, in librbd's order.

    A clone that was never formatted shows its parent's header and so repeats
    its parent's spec.  The chain ends at its first plaintext image, for which
    no spec may be given.  SecretError names a layer whose passphrase is
    missing; HeaderError says when the image itself has nothing to load.
    """
    encrypted = itertools.takewhile(lambda layer: layer.kind.encrypted, chain)
    specs = [LayerSpec(_passphrase(layer, passphrases)) for layer in encrypted]
    if not specs:
        message = "the image has no LUKS header, so there is nothing to load"
        raise HeaderError(message)
    return LoadSpecs(tuple(specs))


def _passphrase(layer: Layer, passphrases: Mapping[str, SecretBytes]) -> SecretBytes:
    if layer.key is None or layer.key not in passphrases:
        message = (
            f"image {layer.image_id} is encrypted under the header {layer.key}, for"
            " which no key is at hand"
        )
        raise SecretError(message)
    return passphrases[layer.key]
