# SPDX-License-Identifier: Apache-2.0
"""`rbdcrypt-csi volume adopt`."""

from __future__ import annotations

import contextlib
import json

from csi_driver.commands import composition
from csi_driver.commands import service
from csi_driver.commands.choosing import parse_reference
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.parameters import SecretRef
from csi_driver.domain.record import Record
from csi_driver.provisioning.adopt import Adoption
from csi_driver.provisioning.adopt import adopt
from csi_driver.provisioning.adopt import manifest
from csi_driver.settings import ClusterSettings

__all__ = ["Adoption", "adopt_image", "manifest_text"]


def adopt_image(
    settings: ClusterSettings,
    *,
    cluster: str,
    pool: str,
    namespace: str,
    asked: Adoption,
    secret: str,
) -> str:
    """Make a volume of an image that others made.

    Returns a PersistentVolume to give to kubectl, with the volume id in a
    comment before it.
    """
    service.start_logging(settings)
    reference = parse_reference(secret)
    storage = composition.ceph(settings)
    config = storage.clusters.get(cluster)
    with contextlib.closing(storage.connector.connect(cluster)) as ceph:
        place = ceph.pool(pool, namespace)
        record = adopt(place, config, asked)
        volume_id = VolumeId(place.location, record.image_id)
    return manifest_text(volume_id, record, settings.driver_name, reference)


def manifest_text(
    volume_id: VolumeId,
    record: Record,
    driver: str,
    secret: SecretRef | None,
) -> str:
    """Return the PersistentVolume of an adopted volume, with comments before it."""
    comments = [f"# volume id: {volume_id}"]
    if record.mode.encrypted and secret is None:
        comments.append(
            "# no --secret was given: set spec.csi.nodeStageSecretRef to the Secret"
            " with its passphrases"
        )
    # JSON is YAML, and YAML has comments.
    wanted = json.dumps(manifest(volume_id, record, driver, secret), indent=2)
    return "\n".join((*comments, wanted))
