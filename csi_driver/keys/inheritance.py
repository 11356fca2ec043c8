# SPDX-License-Identifier: Apache-2.0
"""Which keys of its ancestors a clone's ring takes over, and from where.

librbd needs the passphrase of every layer below to load a clone, and the clone
shall need no Secret but its own; so its ring holds the ancestors' keys, wrapped
anew under its own KEK.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

from csi_driver.domain.chain import LuksFormat
from csi_driver.domain.secrets import SecretBytes
from csi_driver.keys.ring import OpenRing


class Inheritance(Protocol):
    """The keys of the layers below a clone, until `close`."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Header UUIDs of the layers below, the nearest first."""

    def give(self, ring: OpenRing) -> None:
        """Add them to the clone's ring.

        RecordError if one is missing or was altered.
        """

    def close(self) -> None:
        """Wipe what was unwrapped."""


@dataclasses.dataclass(frozen=True, slots=True)
class NoKeys:
    """Nothing below is encrypted."""

    layers: tuple[str, ...] = ()

    def give(self, ring: OpenRing) -> None:
        """Add nothing."""

    def close(self) -> None:
        """Wipe nothing."""


@dataclasses.dataclass(frozen=True, slots=True)
class RingKeys:
    """The keys of a volume of ours, from its opened ring."""

    ring: OpenRing
    layers: tuple[str, ...]

    def give(self, ring: OpenRing) -> None:
        """Wrap each of them anew; one header may stand in several layers."""
        ring.add_from(self.ring, tuple(dict.fromkeys(self.layers)))

    def close(self) -> None:
        """Wipe the source's KEK."""
        self.ring.close()


@dataclasses.dataclass(frozen=True, slots=True)
class ForeignPassphrases:
    """The passphrases of layers that others formatted, the nearest first."""

    layers: tuple[str, ...]
    passphrases: tuple[SecretBytes, ...] = dataclasses.field(repr=False)

    def give(self, ring: OpenRing) -> None:
        """Wrap each of them; one header may stand in several layers."""
        for header, passphrase in dict(
            zip(self.layers, self.passphrases, strict=True)
        ).items():
            ring.add_passphrase(header, passphrase, LuksFormat.ANY)

    def close(self) -> None:
        """Wipe the passphrases."""
        for each in self.passphrases:
            each.wipe()
