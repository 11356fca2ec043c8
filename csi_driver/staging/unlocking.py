# SPDX-License-Identifier: Apache-2.0
"""Which keys open the layers of a volume, from its Secret and its record.

The record names the layers that the image had when it was made or flattened.
They are taken at their word, because the load is the judge of them, and to read
a chain from Ceph opens each of its images with all that lies below.  Where the
load refuses them, `Unlocked.anew` looks at what is really there.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Final

from csi_driver.domain.chain import Layer
from csi_driver.domain.chain import LayerSpec
from csi_driver.domain.chain import LoadSpecs
from csi_driver.domain.chain import specs_for
from csi_driver.domain.errors import HeaderError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.record import EncryptionMode
from csi_driver.domain.record import Record
from csi_driver.domain.secrets import SecretBytes
from csi_driver.images.chains import read_chain
from csi_driver.images.chains import read_layer
from csi_driver.images.port import Pool
from csi_driver.keys.material import parse_layer_passphrases
from csi_driver.keys.volume import ring_passphrases

_CHECK: Final = "run `rbdcrypt-csi volume check` on it"


@dataclasses.dataclass(frozen=True, slots=True)
class Unlocked:
    """What a load is tried with; `specs` is None for a plaintext volume.

    `keys` are those of the key ring by header UUID, empty without one.
    """

    record: Record
    specs: LoadSpecs | None
    keys: Mapping[str, SecretBytes] = dataclasses.field(
        default_factory=dict, repr=False
    )

    def anew(self, pool: Pool) -> LoadSpecs | None:
        """Return the specs of the chain that Ceph shows; None if they are the same.

        None without a key ring, too: then the Secret says all there is to say.
        SecretError names an image whose key the ring lacks.
        """
        if not self.keys:
            return None
        specs = _real_specs(pool, self.record, self.keys)
        return None if specs == self.specs else specs


def unlock(
    pool: Pool,
    record: Record,
    secrets: Mapping[str, str],
    wiping: contextlib.ExitStack,
) -> Unlocked:
    """Return what loads a volume; `wiping` overwrites its keys in the end.

    SecretError for a Secret that is not the volume's; HeaderError for an
    encrypted volume without the header that its record knows, and for a clone
    that lost its parent.
    """
    match record.mode:
        case EncryptionMode.NONE:
            return Unlocked(record, None)
        case EncryptionMode.KEYRING:
            keys = ring_passphrases(record, secrets)
            for key in keys.values():
                wiping.callback(key.wipe)
            return Unlocked(record, _ring_specs(pool, record, keys), keys)
        case EncryptionMode.PASSPHRASE:
            passphrases = parse_layer_passphrases(secrets)
            for passphrase in passphrases:
                wiping.callback(passphrase.wipe)
            _, has_parent = _look(pool, record)
            # Once it is flat, librbd refuses what was for its ancestors.
            needed = passphrases if has_parent else passphrases[:1]
            specs = tuple(LayerSpec(each) for each in needed)
            return Unlocked(record, LoadSpecs(specs))


def _ring_specs(
    pool: Pool, record: Record, keys: Mapping[str, SecretBytes]
) -> LoadSpecs:
    """Return specs for the layers that the record names, if the image has a parent."""
    own, has_parent = _look(pool, record)
    if own.key is None or own.key not in keys:
        message = (
            f"the LUKS header on the image of volume {record.name!r} has the UUID"
            f" {own.key}, which its key ring does not know: the header was"
            " replaced or damaged"
        )
        raise HeaderError(message)
    if record.layers and own.key != record.layers[0]:
        message = (
            f"the LUKS header on the image of volume {record.name!r} has the UUID"
            f" {own.key}, which is another layer's; its own is {record.layers[0]}:"
            f" the header was replaced or erased; {_CHECK}"
        )
        raise HeaderError(message)
    if not has_parent:
        return LoadSpecs((LayerSpec(keys[own.key]),))
    if record.layers and all(each in keys for each in record.layers):
        return LoadSpecs(tuple(LayerSpec(keys[each]) for each in record.layers))
    return _real_specs(pool, record, keys)


def _real_specs(
    pool: Pool, record: Record, keys: Mapping[str, SecretBytes]
) -> LoadSpecs:
    chain = read_chain(pool, record.image_id)
    try:
        return specs_for(chain, keys)
    except SecretError as error:
        message = (
            f"volume {record.name!r}: {error} in its key ring, so that nobody can"
            f" read what the volume shares with that image; {_CHECK}"
        )
        raise SecretError(message) from error


def _look(pool: Pool, record: Record) -> tuple[Layer, bool]:
    """Return the image's own layer, and whether a parent lies below it.

    HeaderError for an encrypted volume whose header is gone, and for a clone's
    header that cannot be loaded any more.
    """
    with pool.open_raw(record.image_id, read_only=True) as image:
        own = read_layer(image)
        has_parent = image.parent() is not None
    if not own.kind.encrypted:
        message = (
            f"volume {record.name!r} is encrypted, but no LUKS header stands on its"
            " image: it is not served as plaintext"
        )
        raise HeaderError(message)
    if own.kind.formatted_clone and not has_parent:
        message = (
            f"the image of volume {record.name!r} has the header of a clone, but no"
            " parent: it was flattened, or copied, by a client that had not loaded"
            " its keys, which copies what the parent held without encrypting it"
            f" anew; it cannot be loaded like this: {_CHECK}"
        )
        raise HeaderError(message)
    return own, has_parent
