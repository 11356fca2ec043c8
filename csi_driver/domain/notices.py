# SPDX-License-Identifier: Apache-2.0
"""What a user has to know although no call of theirs is answered with it.

A part that meets such a thing tells it here, with whom it is about.  Who is to
hear of it, and in which form, is left to whoever implements `Notices`.
"""

from __future__ import annotations

import dataclasses
import enum
import uuid
from collections.abc import Mapping
from typing import Final
from typing import Protocol

from csi_driver.domain.ids import VolumeId

_CLAIM_NAME: Final = "csi.storage.k8s.io/pvc/name"
_CLAIM_NAMESPACE: Final = "csi.storage.k8s.io/pvc/namespace"
_POD_NAME: Final = "csi.storage.k8s.io/pod.name"
_POD_NAMESPACE: Final = "csi.storage.k8s.io/pod.namespace"
_POD_UID: Final = "csi.storage.k8s.io/pod.uid"

_UID_LENGTH: Final = 36
"""Letters of a UUID, which the provisioner puts at the end of a volume's name."""


class Happening(enum.Enum):
    """What happened; the value is the reason that people and programs read."""

    WRONG_SECRET = "WrongSecret"  # noqa: S105  # the name of a happening
    VOLUME_IN_USE = "VolumeInUse"
    HOLDER_FENCED = "HolderFenced"
    CLONE_REFUSED = "CloneRefused"
    FLATTEN_STARTED = "FlattenStarted"
    FLATTEN_PROGRESS = "FlattenProgress"
    FLATTENED = "Flattened"
    FLATTEN_FAILED = "FlattenFailed"
    POOL_FULL = "PoolFull"
    POOL_HAS_ROOM = "PoolHasRoom"
    EXPORT_LOST = "ExportLost"

    @property
    def alarming(self) -> bool:
        """True for what somebody should look at."""
        return self not in _GOOD


_GOOD: Final = frozenset(
    {
        Happening.FLATTEN_STARTED,
        Happening.FLATTEN_PROGRESS,
        Happening.FLATTENED,
        Happening.POOL_HAS_ROOM,
    }
)


@dataclasses.dataclass(frozen=True, slots=True)
class Claim:
    """A PersistentVolumeClaim; `uid` is "" where nobody said it."""

    namespace: str
    name: str
    uid: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Pod:
    """A pod."""

    namespace: str
    name: str
    uid: str


type Subject = VolumeId | Claim | Pod
"""Whom a notice is about; a volume stands for the claim that is bound to it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Notice:
    """One thing that happened; the message is meant for a person, with no secret."""

    what: Happening
    about: Subject
    message: str


class Notices(Protocol):
    """Takes notices, from any thread; never waits and never raises."""

    def tell(self, notice: Notice) -> None:
        """Take one; whether somebody hears it is not certain."""


class Untold:
    """For processes without anybody to tell."""

    def tell(self, notice: Notice) -> None:
        """Tell nobody."""


def claim_of(name: str, parameters: Mapping[str, str]) -> Claim | None:
    """Return for which claim a volume of that name is made.

    csi-provisioner says so in the class parameters (--extra-create-metadata),
    and names a volume after the claim's uid.  None if it does not.
    """
    claim, namespace = parameters.get(_CLAIM_NAME), parameters.get(_CLAIM_NAMESPACE)
    if not claim or not namespace:
        return None
    uid = name[-_UID_LENGTH:]
    return Claim(namespace, claim, uid if _is_uid(uid) else "")


def pod_of(context: Mapping[str, str]) -> Pod | None:
    """Return for which pod a volume is published; None if nobody says so.

    kubelet does, where the CSIDriver object has podInfoOnMount.
    """
    namespace, name = context.get(_POD_NAMESPACE), context.get(_POD_NAME)
    if not namespace or not name:
        return None
    return Pod(namespace, name, context.get(_POD_UID, ""))


def _is_uid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
