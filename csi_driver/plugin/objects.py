# SPDX-License-Identifier: Apache-2.0
"""What the API server's objects say about volumes, as far as it matters here.

Pure functions over JSON as `kubectl get -o json` prints it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any
from typing import Final

from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.parameters import SecretRef

type Json = Mapping[str, Any]

_PROVISIONER: Final = (
    "volume.kubernetes.io/storage-provisioner",
    "volume.beta.kubernetes.io/storage-provisioner",
)
BOUND: Final = "Bound"


def at(found: object, *path: str) -> Any:
    """Return what stands at a path of an object; None where there is nothing."""
    for name in path:
        if not isinstance(found, Mapping):
            return None
        found = found.get(name)
    return found


def text_at(found: object, *path: str) -> str:
    """Return the string at a path, "" where there is none."""
    value = at(found, *path)
    return value if isinstance(value, str) else ""


def list_at(found: object, *path: str) -> list[Any]:
    """Return the list at a path, [] where there is none."""
    value = at(found, *path)
    return value if isinstance(value, list) else []


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class ObjectName:
    """A namespaced object's name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    def to_json_object(self) -> dict[str, str]:
        """Return the JSON form."""
        return {"namespace": self.namespace, "name": self.name}


@dataclasses.dataclass(frozen=True, slots=True)
class Claim:
    """A PersistentVolumeClaim; sizes are Kubernetes' own quantities."""

    name: ObjectName
    phase: str
    volume: str
    storage_class: str
    requested: str
    provisioner: str

    @classmethod
    def of(cls, found: Json) -> Claim:
        """Read one."""
        notes = at(found, "metadata", "annotations")
        texts = (text_at(notes, each) for each in _PROVISIONER)
        return cls(
            name=name_of(found),
            phase=text_at(found, "status", "phase"),
            volume=text_at(found, "spec", "volumeName"),
            storage_class=text_at(found, "spec", "storageClassName"),
            requested=text_at(found, "spec", "resources", "requests", "storage"),
            provisioner=next((each for each in texts if each), ""),
        )


@dataclasses.dataclass(frozen=True, slots=True)
class PersistentVolume:
    """A PersistentVolume; `driver` is "" unless it is a CSI volume.

    `secret` is what a node opens the volume with: what the class told the driver
    to read, or `nodeStageSecretRef`.
    """

    name: str
    driver: str
    handle: str
    claim: ObjectName | None
    storage_class: str
    capacity: str
    secret: SecretRef | None

    @classmethod
    def of(cls, found: Json) -> PersistentVolume:
        """Read one."""
        csi = at(found, "spec", "csi")
        claim = at(found, "spec", "claimRef")
        return cls(
            name=text_at(found, "metadata", "name"),
            driver=text_at(csi, "driver"),
            handle=text_at(csi, "volumeHandle"),
            claim=_reference(claim),
            storage_class=text_at(found, "spec", "storageClassName"),
            capacity=text_at(found, "spec", "capacity", "storage"),
            secret=_secret(csi),
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Attachment:
    """A VolumeAttachment: which node a volume is to be attached to."""

    volume: str
    node: str
    attached: bool
    problem: str

    @classmethod
    def of(cls, found: Json) -> Attachment:
        """Read one."""
        status = at(found, "status")
        errors = (text_at(status, f"{each}Error", "message") for each in _STEPS)
        return cls(
            volume=text_at(found, "spec", "source", "persistentVolumeName"),
            node=text_at(found, "spec", "nodeName"),
            attached=at(status, "attached") is True,
            problem=next((each for each in errors if each), ""),
        )


_STEPS: Final = ("attach", "detach")


@dataclasses.dataclass(frozen=True, slots=True)
class User:
    """A pod that uses a claim."""

    name: ObjectName
    node: str
    phase: str


def users_of(claim: str, pods: Iterable[Json]) -> Iterator[User]:
    """Go through the pods of the claim's namespace that name it."""
    for pod in pods:
        volumes = list_at(pod, "spec", "volumes")
        own = text_at(pod, "metadata", "name")
        if any(_claims(own, each) == claim for each in volumes):
            yield User(
                name_of(pod),
                text_at(pod, "spec", "nodeName"),
                text_at(pod, "status", "phase"),
            )


def name_of(found: Json) -> ObjectName:
    """Return an object's name and namespace."""
    metadata = at(found, "metadata")
    return ObjectName(text_at(metadata, "namespace"), text_at(metadata, "name"))


def snapshot_names(contents: Iterable[Json]) -> dict[str, ObjectName]:
    """Return the VolumeSnapshots by CSI snapshot ids."""
    found = {}
    for each in contents:
        handle = text_at(each, "status", "snapshotHandle")
        name = _reference(at(each, "spec", "volumeSnapshotRef"))
        if handle and name:
            found[handle] = name
    return found


class Volumes:
    """All PersistentVolumes of one driver, by what others know them by."""

    def __init__(self, found: Iterable[Json], driver: str) -> None:
        everything = [PersistentVolume.of(each) for each in found]
        self._all = {each.name: each for each in everything}
        ours = [each for each in everything if each.driver == driver]
        self._by_handle = {each.handle: each for each in ours}
        self._by_image = {
            image: each for each in ours if (image := _image(each.handle))
        }

    def named(self, name: str) -> PersistentVolume | None:
        """Return a PersistentVolume of whatever driver."""
        return self._all.get(name)

    def of_handle(self, handle: str) -> PersistentVolume | None:
        """Return the one with that CSI volume id."""
        return self._by_handle.get(handle)

    def of_image(self, cluster: str, image_id: str) -> PersistentVolume | None:
        """Return the one whose image has that id.

        RBD makes an image's id from the id of the client that made it, which no
        other client of the cluster ever has: the pool need not be told.
        """
        return self._by_image.get((cluster, image_id))


def _image(handle: str) -> tuple[str, str] | None:
    try:
        found = VolumeId.parse(handle)
    except NotFoundError:
        return None
    return found.location.cluster, found.image_id


def _claims(pod: str, volume: object) -> str:
    if at(volume, "ephemeral") is not None:
        return f"{pod}-{text_at(volume, 'name')}"
    return text_at(volume, "persistentVolumeClaim", "claimName")


def _reference(found: object) -> ObjectName | None:
    namespace, name = text_at(found, "namespace"), text_at(found, "name")
    return ObjectName(namespace, name) if name else None


def _secret(csi: object) -> SecretRef | None:
    # As at a stage: what the class named counts more than what the call brings.
    told, staged = at(csi, "volumeAttributes"), at(csi, "nodeStageSecretRef")
    for namespace, name in (
        (
            text_at(told, "passphraseSecretNamespace"),
            text_at(told, "passphraseSecretName"),
        ),
        (text_at(staged, "namespace"), text_at(staged, "name")),
    ):
        if namespace and name:
            return SecretRef(namespace, name)
    return None
