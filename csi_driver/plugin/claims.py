# SPDX-License-Identifier: Apache-2.0
"""From the name of a claim to the volume behind it.

There is a sentence for each way in which that may fail.
"""

from __future__ import annotations

from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import UnsupportedError
from csi_driver.domain.ids import VolumeId
from csi_driver.plugin.kubectl import Kubectl
from csi_driver.plugin.objects import BOUND
from csi_driver.plugin.objects import Claim
from csi_driver.plugin.objects import PersistentVolume
from csi_driver.plugin.objects import Volumes

CLAIMS = "persistentvolumeclaims"
VOLUMES = "persistentvolumes"


def read_claim(kubectl: Kubectl, name: str, namespace: str | None) -> Claim:
    """Return a claim by name; `namespace` is None for the context's own."""
    try:
        return Claim.of(kubectl.get(CLAIMS, name, namespace=namespace))
    except NotFoundError as error:
        where = f"namespace {namespace}" if namespace else "the context's namespace"
        raise NotFoundError(
            f"there is no PersistentVolumeClaim {name} in {where}: look at `kubectl"
            " get pvc`, or choose another namespace with --namespace"
        ) from error


def volume_of(claim: Claim, volumes: Volumes, driver: str) -> PersistentVolume:
    """Return the PersistentVolume of a claim of this driver.

    PreconditionError if the claim is not bound; NotFoundError if its volume is
    gone; UnsupportedError if that is another driver's.
    """
    persistent = volumes.named(claim.volume) if claim.volume else None
    if persistent is None and claim.volume:
        raise NotFoundError(
            f"PersistentVolume {claim.volume} of claim {claim.name} does not exist: the"
            " claim is lost, and its volume, if the driver still has it, stands in"
            " `kubectl rbdcrypt list -A`"
        )
    if persistent is None or claim.phase != BOUND:
        raise PreconditionError(
            f"claim {claim.name} is not bound ({claim.phase or 'no phase'}), so there"
            f" is no volume yet: `kubectl describe pvc --namespace"
            f" {claim.name.namespace} {claim.name.name}` says why"
        )
    if persistent.driver != driver:
        of = f"of driver {persistent.driver}" if persistent.driver else "no CSI volume"
        raise UnsupportedError(
            f"claim {claim.name} has a volume that is {of}; this is for volumes of"
            f" {driver}"
        )
    return persistent


def checked_id(persistent: PersistentVolume) -> str:
    """Return the CSI id of a volume, which becomes a word of a command.

    NotFoundError if it is none that this driver gives.
    """
    try:
        return str(VolumeId.parse(persistent.handle))
    except NotFoundError as error:
        raise NotFoundError(f"PersistentVolume {persistent.name}: {error}") from None
