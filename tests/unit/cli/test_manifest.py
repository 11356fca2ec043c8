# SPDX-License-Identifier: Apache-2.0
"""What `volume adopt` prints: a PersistentVolume, and what it still lacks."""

from __future__ import annotations

import dataclasses

import pytest
import yaml

from csi_driver.commands.adopting import manifest_text
from csi_driver.domain.ids import Location
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.parameters import SecretRef
from csi_driver.domain.record import EncryptionMode
from tests.unit.domain.strategies import a_record

VOLUME_ID = VolumeId(Location("lab", 1), "10ab")
SECRET = SecretRef("ns", "name")


@pytest.mark.parametrize(
    ("mode", "secret", "lacking"),
    [
        (EncryptionMode.PASSPHRASE, None, True),
        (EncryptionMode.PASSPHRASE, SECRET, False),
        (EncryptionMode.NONE, None, False),
    ],
)
def test_a_volume_without_its_secret_is_said_to_lack_it(
    mode: EncryptionMode, secret: SecretRef | None, lacking: bool
) -> None:
    record = dataclasses.replace(a_record(), mode=mode)
    text = manifest_text(VOLUME_ID, record, "csi.rbdcrypt.io", secret)
    assert text.startswith(f"# volume id: {VOLUME_ID}\n")
    assert ("nodeStageSecretRef to the Secret" in text) is lacking
    csi = yaml.safe_load(text)["spec"]["csi"]
    assert csi["volumeHandle"] == str(VOLUME_ID)
    assert csi.get("nodeStageSecretRef") == (
        None if secret is None else {"namespace": "ns", "name": "name"}
    )
