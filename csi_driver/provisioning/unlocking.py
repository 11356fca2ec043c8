# SPDX-License-Identifier: Apache-2.0
"""From a volume's Secret to what loads its head or one of its snapshots.

The chain is read from Ceph each time, never from the record: while a parent is
attached an image wants the keys of all its layers, afterwards its own alone.
Keys are wiped at the end of the `with` statement.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from csi_driver.domain.chain import Layer
from csi_driver.domain.chain import LayerSpec
from csi_driver.domain.chain import LoadSpecs
from csi_driver.domain.chain import specs_for
from csi_driver.domain.errors import HeaderError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.record import EncryptionMode
from csi_driver.domain.record import Record
from csi_driver.domain.secrets import SecretBytes
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.images.chains import read_chain
from csi_driver.images.port import LoadedImage
from csi_driver.images.port import PlainImage
from csi_driver.images.port import Pool
from csi_driver.keys.material import parse_layer_passphrases
from csi_driver.keys.volume import ring_passphrases


@dataclasses.dataclass(frozen=True, slots=True)
class Content:
    """The exported bytes of a head or snapshot, by whichever handle reaches them.

    They begin at offset 0 of either handle: behind the header of an encrypted
    volume, at the start of a plaintext image, whose reserve is its tail.
    `shrink` takes exported bytes.
    """

    image: LoadedImage | PlainImage
    shrink: Callable[[EffectiveSize], None]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.image.close()


@dataclasses.dataclass(frozen=True, slots=True)
class Keys:
    """The keys of a volume, by header UUID, or by layer if others formatted it."""

    record: Record
    by_header: Mapping[str, SecretBytes]
    by_layer: Sequence[SecretBytes] = ()

    def specs(self, layers: Sequence[Layer]) -> LoadSpecs:
        """Return what loads an image that consists of these layers.

        HeaderError if there is nothing to load; SecretError names a layer for
        which no key is at hand.
        """
        if self.record.mode is EncryptionMode.KEYRING:
            return specs_for(layers, self.by_header)
        encrypted = list(itertools.takewhile(lambda each: each.kind.encrypted, layers))
        if not encrypted:
            message = (
                f"volume {self.record.name!r} is encrypted, but no LUKS header stands"
                " on its image"
            )
            raise HeaderError(message)
        # librbd refuses more than there are layers, and repeats the last one.
        chosen = self.by_layer[: len(encrypted)]
        return LoadSpecs(tuple(LayerSpec(each) for each in chosen))

    def open(
        self, pool: Pool, *, read_only: bool = False, snapshot: int = 0
    ) -> Content:
        """Open head or snapshot for its data; errors as `Pool.open_loaded`."""
        image_id = self.record.image_id
        if not self.record.mode.encrypted:
            layout = self.record.layout
            plain = pool.open_plain(image_id, read_only=read_only, snapshot=snapshot)
            return Content(plain, lambda size: plain.shrink(layout.raw(size)))
        specs = self.specs(read_chain(pool, image_id, snapshot=snapshot))
        loaded = pool.open_loaded(
            image_id, specs, read_only=read_only, snapshot=snapshot
        )
        return Content(loaded, loaded.shrink)


@contextlib.contextmanager
def unlocked(record: Record, secrets: Mapping[str, str]) -> Iterator[Keys]:
    """Lend the keys of a volume; SecretError for a Secret that is not its own."""
    if record.mode.encrypted and not secrets:
        message = f"volume {record.name!r} is encrypted, and no Secret was given"
        raise SecretError(message)
    match record.mode:
        case EncryptionMode.NONE:
            yield Keys(record, {})
        case EncryptionMode.KEYRING:
            keys = ring_passphrases(record, secrets)
            with _wiped(keys.values()):
                yield Keys(record, keys)
        case EncryptionMode.PASSPHRASE:
            passphrases = parse_layer_passphrases(secrets)
            with _wiped(passphrases):
                yield Keys(record, {}, passphrases)


@contextlib.contextmanager
def _wiped(keys: Iterable[SecretBytes]) -> Iterator[None]:
    try:
        yield
    finally:
        for key in keys:
            key.wipe()
