# SPDX-License-Identifier: Apache-2.0
"""Where the Secret of an existing volume is, and what it holds.

The provisioner strips references to Secrets from class parameters, so the
volume's PersistentVolume is asked, whose name the record has.  Anyone who may
make a PersistentVolume could point there at any Secret: it counts only if it
is of this driver and of this volume.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import structlog

from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.parameters import SecretRef
from csi_driver.domain.record import Record
from csi_driver.images.port import Pool
from csi_driver.images.records import change_record
from csi_driver.kube.contract import SecretReader
from csi_driver.kube.contract import VolumeReader
from csi_driver.provisioning.requests import Source
from csi_driver.provisioning.sources import CloneSource

_log = structlog.get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class SourceSecrets:
    """Reads references and Secrets; both readers are None without an API server."""

    driver: str
    secrets: SecretReader | None
    volumes: VolumeReader | None

    def reference(self, source: CloneSource) -> SecretRef:
        """Return where the source's Secret is, and remember it in its record.

        SecretError if nothing says so, with what the request could bring.
        """
        record = source.record
        known = record.parameters.secret or record.node_secret
        if known is not None:
            return known
        found = self.find(source.pool, record)
        if found is None:
            message = (
                f"the Secret of {source.title} is needed once: put its passphrase"
                " into the clone's Secret as sourceEncryptionPassphrase (or its key"
                " as sourceEncryptionKey), or let the driver read PersistentVolumes"
                " and that Secret"
            )
            raise SecretError(message)
        return found

    def read(self, reference: SecretRef, title: str) -> Mapping[str, str]:
        """Return the Secret's data; the reader's errors, with what it was for."""
        if self.secrets is None:
            message = (
                f"the Secret of {title} is {reference}, but this driver has no access"
                " to a Kubernetes API server: run it in a cluster, set a kubeconfig,"
                " or give sourceEncryptionPassphrase in the clone's Secret"
            )
            raise PreconditionError(message)
        try:
            return self.secrets.read_secret(reference)
        except DriverError as error:
            # The Secret first: where this is shown, long texts are cut.
            message = (
                f"{error}; it has the keys of {title}, which a clone needs once: they"
                " can also be given as sourceEncryptionPassphrase in the clone's Secret"
            )
            raise type(error)(message) from error

    def find(self, pool: Pool, record: Record) -> SecretRef | None:
        """Ask the volume's PersistentVolume, and remember what it says.

        None if the volume has none that is known; the reader's errors, and
        PreconditionError for one that is not of this volume.
        """
        name = record.parameters.pv_name
        if self.volumes is None or not name:
            return None
        found = self.volumes.read_persistent_volume(name)
        handle = str(VolumeId(pool.location, record.image_id))
        if (found.driver, found.volume_handle) != (self.driver, handle):
            message = (
                f"PersistentVolume {name} is of driver {found.driver!r} and volume"
                f" {found.volume_handle!r}, not of {handle}: its Secret is not read"
            )
            raise PreconditionError(message)
        if found.node_stage_secret is not None:
            change_record(
                pool,
                record.image_id,
                lambda present: dataclasses.replace(
                    present, node_secret=found.node_stage_secret
                ),
            )
        return found.node_stage_secret

    def remember(self, pool: Pool, record: Record, asked: Source) -> None:
        """Learn where a volume's Secret is, as long as its PersistentVolume exists.

        A snapshot may be restored when that is gone.  Taking it needs no Secret,
        so a failure is only noted.
        """
        if record.node_secret or record.parameters.secret or not record.mode.encrypted:
            return
        try:
            self.find(pool, record)
        except DriverError as error:
            _log.info("Secret not remembered", volume=str(asked), error=str(error))
