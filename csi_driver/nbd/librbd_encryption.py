# SPDX-License-Identifier: Apache-2.0
"""Handing the passphrases of a chain to librbd, and wiping what that took."""

from __future__ import annotations

import contextlib
import ctypes

from csi_driver.domain.chain import LayerSpec
from csi_driver.domain.chain import LoadSpecs
from csi_driver.domain.chain import LuksFormat
from csi_driver.nbd import librbd_api as api


def load_encryption(library: api.Library, handle: int, specs: LoadSpecs) -> int:
    """Call rbd_encryption_load2 on a just-opened image; return its result."""
    layers = specs.layers
    with contextlib.ExitStack() as wipe:
        keep = []
        array = (api.EncryptionSpec * len(layers))()
        for index, layer in enumerate(layers):
            secret = api.Secret(layer.passphrase.reveal())
            wipe.callback(secret.wipe)
            options = _options(layer, secret)
            keep.append((secret, options))  # alive until librbd has read them
            array[index].format = int(layer.format)
            array[index].options = ctypes.addressof(options)
            array[index].options_size = ctypes.sizeof(options)
        load = library["rbd_encryption_load2"]
        result = int(load(handle, array, len(layers)))
        del keep
        return result


def _options(
    layer: LayerSpec, secret: api.Secret
) -> api.LuksOptions | api.VersionedLuksOptions:
    """Return the options struct that librbd expects for the layer's format."""
    options: api.LuksOptions | api.VersionedLuksOptions
    if layer.format is LuksFormat.ANY:
        options = api.LuksOptions()
    else:
        options = api.VersionedLuksOptions()
    options.passphrase = secret.address
    options.passphrase_size = secret.length
    return options
