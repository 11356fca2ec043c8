# SPDX-License-Identifier: Apache-2.0
"""Opening the keys of a clone's source, once, to give them to the clone.

In this order: the keys that the request names for the source; the request's
own, for a clone under the same Secret; the Secret that the source's class or
PersistentVolume names, read through the Kubernetes API.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from collections.abc import Mapping

from csi_driver.domain.chain import Layer
from csi_driver.domain.chain import LayerSpec
from csi_driver.domain.chain import LoadSpecs
from csi_driver.domain.errors import RecordError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.record import EncryptionMode
from csi_driver.domain.secrets import SecretBytes
from csi_driver.images.chains import read_chain
from csi_driver.keys.inheritance import ForeignPassphrases
from csi_driver.keys.inheritance import Inheritance
from csi_driver.keys.inheritance import NoKeys
from csi_driver.keys.inheritance import RingKeys
from csi_driver.keys.material import SecretPrefix
from csi_driver.keys.material import find_key_source
from csi_driver.keys.material import parse_layer_passphrases
from csi_driver.keys.ring import OpenRing
from csi_driver.keys.ring import open_ring
from csi_driver.provisioning.source_secrets import SourceSecrets
from csi_driver.provisioning.sources import CloneSource


@dataclasses.dataclass(frozen=True, slots=True)
class _Offer:
    """Secrets that may open the source, and which keys of them are meant."""

    secrets: Mapping[str, str]
    prefix: SecretPrefix
    title: str
    final: bool
    """Somebody says that it is the one: its refusal ends the search."""


def open_source(
    source: CloneSource, brought: Mapping[str, str], elsewhere: SourceSecrets
) -> Inheritance:
    """Return the keys of all layers of the source, unlocked.

    SecretError if nothing at hand opens it, with what to give; the errors of
    `elsewhere` where only the Kubernetes API could help and did not.
    """
    match source.record.mode:
        case EncryptionMode.NONE:
            return NoKeys()
        case EncryptionMode.KEYRING:
            return _ring_keys(source, brought, elsewhere)
        case EncryptionMode.PASSPHRASE:
            return _foreign(source, brought, elsewhere)


def _offers(
    source: CloneSource, brought: Mapping[str, str], elsewhere: SourceSecrets
) -> Iterator[_Offer]:
    named = SecretPrefix.SOURCE
    for name in (named.passphrase_name, named.key_name):
        if name in brought:
            title = f"{name} of the clone's Secret"
            yield _Offer(brought, named, title, final=True)
            return
    yield _Offer(brought, SecretPrefix.OWN, "the clone's own Secret", final=False)
    reference = elsewhere.reference(source)
    found = elsewhere.read(reference, source.title)
    yield _Offer(found, SecretPrefix.OWN, f"Secret {reference}", final=True)


def _ring_keys(
    source: CloneSource, brought: Mapping[str, str], elsewhere: SourceSecrets
) -> RingKeys:
    for offer in _offers(source, brought, elsewhere):
        try:
            ring = _open_ring(source, offer)
        except SecretError as error:
            if offer.final:
                message = f"{offer.title} does not open {source.title}: {error}"
                raise SecretError(message) from error
            continue
        _require_all(source, ring)
        return RingKeys(ring, source.layers)
    raise SecretError(f"no Secret at hand opens {source.title}")


def _open_ring(source: CloneSource, offer: _Offer) -> OpenRing:
    ring = source.record.ring
    if ring is None:
        message = f"the record of {source.title} has no key ring"
        raise RecordError(message)
    key = find_key_source(offer.secrets, offer.prefix)
    if key is None:
        message = f"it holds neither {offer.prefix.passphrase_name} nor"
        raise SecretError(f"{message} {offer.prefix.key_name}")
    try:
        return open_ring(ring, key)
    finally:
        key.value.wipe()


def _require_all(source: CloneSource, ring: OpenRing) -> None:
    missing = [key for key in source.layers if ring.ring.entry_for(key) is None]
    if missing:
        ring.close()
        message = (
            f"{source.title} reads an ancestor that is encrypted under the header"
            f" {missing[0]}, for which its key ring has no key: no clone of it could"
            " be loaded"
        )
        raise SecretError(message)


def _foreign(
    source: CloneSource, brought: Mapping[str, str], elsewhere: SourceSecrets
) -> ForeignPassphrases:
    chain = [
        layer
        for layer in read_chain(
            source.pool, source.record.image_id, snapshot=source.number
        )
        if layer.kind.encrypted
    ]
    for offer in _offers(source, brought, elsewhere):
        try:
            return _opened_by(source, chain, offer)
        except SecretError as error:
            if offer.final:
                message = f"{offer.title} does not open {source.title}: {error}"
                raise SecretError(message) from error
    raise SecretError(f"no Secret at hand opens {source.title}")


def _opened_by(
    source: CloneSource, chain: list[Layer], offer: _Offer
) -> ForeignPassphrases:
    """Try passphrases on the source itself; SecretError if they do not open it."""
    given = parse_layer_passphrases(offer.secrets, offer.prefix)
    if len(given) < len(chain):
        # librbd would use the last one again; say which is missing instead.
        missing = f"{offer.prefix.passphrase_name}.{len(given)}"
        if not _same(given, chain):
            message = (
                f"{source.title} has {len(chain)} encrypted layers and {len(given)}"
                f" passphrases were given: {missing} is missing"
            )
            raise SecretError(message)
    passphrases = (*given, *([given[-1]] * (len(chain) - len(given))))[: len(chain)]
    specs = LoadSpecs(tuple(LayerSpec(each) for each in passphrases))
    source.pool.open_loaded(
        source.record.image_id, specs, read_only=True, snapshot=source.number
    ).close()
    headers = tuple(layer.key or "" for layer in chain)
    return ForeignPassphrases(headers, tuple(passphrases))


def _same(given: tuple[SecretBytes, ...], chain: list[Layer]) -> bool:
    """Tell whether the layers without a passphrase repeat the last one's header."""
    rest = {layer.key for layer in chain[len(given) - 1 :]}
    return len(rest) == 1
