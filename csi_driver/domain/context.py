# SPDX-License-Identifier: Apache-2.0
"""What CreateVolume hands to the node through `volume_context`.

It carries the encryption mode, so that a record that was changed to plaintext
is refused at stage, and the name of the Secret if the class names one.
"""

from __future__ import annotations

from typing import Final

from csi_driver.domain.record import Record

ENCRYPTION: Final = "encryption"


def volume_context(record: Record) -> dict[str, str]:
    """Return the volume context; it holds no secret."""
    context = {ENCRYPTION: record.mode.value}
    secret = record.parameters.secret
    if secret is not None:
        context["passphraseSecretName"] = secret.name
        context["passphraseSecretNamespace"] = secret.namespace
    return context
