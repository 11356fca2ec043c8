# SPDX-License-Identifier: Apache-2.0
"""What the rest of the driver may ask Kubernetes for.

Callers depend on these protocols; `api` implements them over HTTPS.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any
from typing import Protocol

from csi_driver.domain.notices import Claim
from csi_driver.domain.parameters import SecretRef


@dataclasses.dataclass(frozen=True, slots=True)
class CsiVolumeSource:
    """What a PersistentVolume says about the volume behind it.

    Anyone who may create a PersistentVolume chooses these values: compare
    `driver` and `volume_handle` with our own before following the reference.
    `claim` is what the volume is bound to.
    """

    driver: str
    volume_handle: str
    node_stage_secret: SecretRef | None
    claim: Claim | None = None


class SecretReader(Protocol):
    """Reads Secrets."""

    def read_secret(self, reference: SecretRef) -> dict[str, str]:
        """Return the Secret's data, decoded.

        NotFoundError, ForbiddenError, UnavailableError, or SecretError if a
        value is not UTF-8; InvalidRequestError if the reference is malformed.
        """


class VolumeReader(Protocol):
    """Reads PersistentVolumes."""

    def read_persistent_volume(self, name: str) -> CsiVolumeSource:
        """Return the CSI part of a PersistentVolume.

        NotFoundError, ForbiddenError, UnavailableError, or PreconditionError
        if it is not a CSI volume; InvalidRequestError if the name is malformed.
        """


class EventWriter(Protocol):
    """Writes Events (core/v1), as JSON objects."""

    def create_event(self, namespace: str, event: Mapping[str, Any]) -> None:
        """Make an Event.

        AlreadyExistsError if there is one of its name; NotFoundError without
        the namespace, ForbiddenError, UnavailableError.
        """

    def change_event(
        self, namespace: str, name: str, fields: Mapping[str, Any]
    ) -> None:
        """Change fields of an Event.

        NotFoundError if it is gone, as every Event is after an hour;
        ForbiddenError, UnavailableError.
        """
