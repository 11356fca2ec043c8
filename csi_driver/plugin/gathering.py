# SPDX-License-Identifier: Apache-2.0
"""Asking the API server and the driver for what a command needs, side by side.

What the user may not see, or the cluster does not have, is left out only where
the result says so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from csi_driver.domain.errors import ForbiddenError
from csi_driver.domain.errors import UnsupportedError
from csi_driver.plugin import objects
from csi_driver.plugin.answers.listed import ListedVolume
from csi_driver.plugin.answers.listed import listed
from csi_driver.plugin.answers.shown import shown
from csi_driver.plugin.claims import CLAIMS
from csi_driver.plugin.claims import VOLUMES
from csi_driver.plugin.claims import checked_id
from csi_driver.plugin.claims import read_claim
from csi_driver.plugin.claims import volume_of
from csi_driver.plugin.driver import Driver
from csi_driver.plugin.family import Family
from csi_driver.plugin.kubectl import Kubectl
from csi_driver.plugin.objects import Attachment
from csi_driver.plugin.objects import Claim
from csi_driver.plugin.objects import ObjectName
from csi_driver.plugin.objects import PersistentVolume
from csi_driver.plugin.objects import User
from csi_driver.plugin.objects import Volumes

ATTACHMENTS: Final = "volumeattachments.storage.k8s.io"
CONTENTS: Final = "volumesnapshotcontents.snapshot.storage.k8s.io"
_AT_ONCE: Final = 5


@dataclasses.dataclass(frozen=True, slots=True)
class Inventory:
    """All claims of a namespace or of all, and all PersistentVolumes."""

    claims: Sequence[Claim]
    volumes: Volumes


def inventory(driver: Driver, namespace: str | None) -> Inventory:
    """Read the claims of a namespace ("*": all) and all PersistentVolumes."""
    kubectl = driver.kubectl
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        claims = threads.submit(kubectl.items, CLAIMS, namespace=namespace)
        volumes = threads.submit(kubectl.items, VOLUMES)
        return Inventory(
            [Claim.of(each) for each in claims.result()],
            Volumes(volumes.result(), driver.name),
        )


def listing(
    driver: Driver, namespace: str | None
) -> tuple[Inventory, list[ListedVolume]]:
    """Read claims and PersistentVolumes, and the driver's volumes meanwhile."""
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        answer = threads.submit(driver.ask, listed, "volume", "list")
        found = inventory(driver, namespace)
        return found, answer.result()


def one_volume(
    driver: Driver, name: str, namespace: str | None
) -> tuple[Claim, PersistentVolume, Volumes]:
    """Read a claim and the PersistentVolume behind it; see `volume_of`."""
    kubectl = driver.kubectl
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        everything = threads.submit(kubectl.items, VOLUMES)
        claim = read_claim(kubectl, name, namespace)
        volumes = Volumes(everything.result(), driver.name)
    return claim, volume_of(claim, volumes, driver.name), volumes


def family(driver: Driver, name: str, namespace: str | None) -> Family:
    """Read everything about one claim's volume."""
    claim, persistent, volumes = one_volume(driver, name, namespace)
    volume_id = checked_id(persistent)
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        answer = threads.submit(driver.ask, shown, "volume", "show", volume_id)
        attachments = threads.submit(_attachments, driver.kubectl, persistent.name)
        users = threads.submit(_users, driver.kubectl, claim.name)
        snapshots = threads.submit(_snapshots, driver.kubectl)
        return Family(
            claim=claim,
            persistent=persistent,
            volume=answer.result(),
            volumes=volumes,
            attachments=attachments.result(),
            users=users.result(),
            snapshots=snapshots.result(),
        )


def _attachments(kubectl: Kubectl, volume: str) -> list[Attachment] | None:
    found = _permitted(lambda: kubectl.items(ATTACHMENTS))
    if found is None:
        return None
    every = [Attachment.of(each) for each in found]
    return [each for each in every if each.volume == volume]


def _users(kubectl: Kubectl, claim: ObjectName) -> list[User] | None:
    found = _permitted(lambda: kubectl.items("pods", namespace=claim.namespace))
    return None if found is None else list(objects.users_of(claim.name, found))


def _snapshots(kubectl: Kubectl) -> dict[str, ObjectName] | None:
    try:
        found = _permitted(lambda: kubectl.items(CONTENTS))
    except UnsupportedError:  # the cluster has no snapshots
        return {}
    return None if found is None else objects.snapshot_names(found)


def _permitted[T](read: Callable[[], T]) -> T | None:
    """Return what was read; None if the user may not."""
    try:
        return read()
    except ForbiddenError:
        return None
