# SPDX-License-Identifier: Apache-2.0
"""Where the key of a clone's source comes from, when the request has none."""

from __future__ import annotations

import pytest

from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import ForbiddenError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.parameters import SecretRef
from csi_driver.kube.contract import CsiVolumeSource
from csi_driver.provisioning.requests import SnapshotRequest
from csi_driver.provisioning.source_secrets import SourceSecrets
from csi_driver.provisioning.volumes import Volumes
from tests.unit.provisioning.family import OTHER
from tests.unit.provisioning.family import SIZE
from tests.unit.provisioning.family import THIRD
from tests.unit.provisioning.family import clone_request
from tests.unit.provisioning.family import content_of
from tests.unit.provisioning.family import fill
from tests.unit.provisioning.family import plain_request
from tests.unit.provisioning.family import plain_volume
from tests.unit.provisioning.family import remove_all
from tests.unit.provisioning.family import volume
from tests.unit.provisioning.worlds import DRIVER
from tests.unit.provisioning.worlds import SECRET
from tests.unit.provisioning.worlds import World

KEYS = SecretRef("tenant", "keys")
PV = "pvc-1"


class Kubernetes:
    """The Secrets and PersistentVolumes of a cluster, in memory."""

    def __init__(self) -> None:
        self.secrets: dict[SecretRef, dict[str, str] | DriverError] = {}
        self.volumes: dict[str, CsiVolumeSource | DriverError] = {}
        self.asked: list[str] = []

    def read_secret(self, reference: SecretRef) -> dict[str, str]:
        self.asked.append(f"secret {reference}")
        found = self.secrets.get(reference)
        if found is None:
            message = f"Secret {reference} does not exist"
            raise NotFoundError(message)
        if isinstance(found, DriverError):
            raise found
        return found

    def read_persistent_volume(self, name: str) -> CsiVolumeSource:
        self.asked.append(f"volume {name}")
        found = self.volumes.get(name)
        if found is None:
            message = f"PersistentVolume {name} does not exist"
            raise NotFoundError(message)
        if isinstance(found, DriverError):
            raise found
        return found

    def of(self, world: World) -> Volumes:
        """Return a controller's volumes that read from here."""
        return world.controller(secrets=SourceSecrets(DRIVER, self, self)).volumes


@pytest.fixture
def kube() -> Kubernetes:
    return Kubernetes()


def provisioned(world: World) -> VolumeId:
    """Create a volume as the provisioner does: its PersistentVolume has a name."""
    return volume(world, parameters={"csi.storage.k8s.io/pv/name": PV})


def bound(kube: Kubernetes, volume_id: VolumeId, driver: str = DRIVER) -> None:
    """Make the volume's PersistentVolume and its Secret."""
    kube.volumes[PV] = CsiVolumeSource(driver, str(volume_id), KEYS)
    kube.secrets[KEYS] = dict(SECRET)


def test_the_persistent_volume_says_where_the_sources_secret_is(
    world: World, kube: Kubernetes
) -> None:
    one = provisioned(world)
    bound(kube, one)
    made = kube.of(world).create(clone_request(world, one, secrets=OTHER))
    assert content_of(world, made.volume_id, OTHER) == {"the source's"}
    assert kube.asked == [f"volume {PV}", "secret tenant/keys"]
    # What it said is remembered, for when it is gone.
    assert world.record(one).node_secret == KEYS
    assert world.record(made.volume_id).node_secret is None
    kube.volumes.clear()
    kube.of(world).create(clone_request(world, one, "another", secrets=OTHER))
    assert kube.asked[2:] == ["secret tenant/keys"]
    # Once it is made, the clone needs no Secret but its own.
    kube.secrets.clear()
    again = kube.of(world).create(clone_request(world, one, secrets=OTHER))
    assert again == made
    remove_all(world)


def test_no_secret_is_read_that_is_not_needed(world: World, kube: Kubernetes) -> None:
    one, plain = provisioned(world), plain_volume(world, "plain")
    bound(kube, one)
    volumes = kube.of(world)
    volumes.create(clone_request(world, one, "same Secret"))
    volumes.create(clone_request(world, plain, "of plaintext", secrets=OTHER))
    volumes.create(plain_request(world, plain, "plaintext"))
    named = {**OTHER, "sourceEncryptionKey": SECRET["encryptionKey"]}
    volumes.create(clone_request(world, one, "named", secrets=named))
    wrong = {**OTHER, "sourceEncryptionKey": THIRD["encryptionKey"]}
    with pytest.raises(SecretError, match="of the clone's Secret"):
        volumes.create(clone_request(world, one, "wrong", secrets=wrong))
    assert kube.asked == []
    remove_all(world)


def test_a_snapshot_remembers_the_secret_while_the_persistent_volume_exists(
    world: World, kube: Kubernetes
) -> None:
    one = provisioned(world)
    bound(kube, one)
    volumes = kube.of(world)
    found = volumes.create_snapshot(SnapshotRequest("snap", one))
    assert world.record(one).node_secret == KEYS
    assert kube.asked == [f"volume {PV}"]
    # The claim is deleted, and with it its PersistentVolume.
    fill(world, one, "later")
    volumes.delete(one)
    kube.volumes.clear()
    request = clone_request(world, found.snapshot_id, secrets=OTHER)
    made = volumes.create(request)
    assert content_of(world, made.volume_id, OTHER) == {"the source's"}
    remove_all(world)


def test_a_snapshot_is_taken_also_when_nothing_can_be_remembered(
    world: World, kube: Kubernetes
) -> None:
    one = provisioned(world)
    volumes = kube.of(world)
    kube.volumes[PV] = ForbiddenError("not allowed")
    first = volumes.create_snapshot(SnapshotRequest("snap", one))
    assert volumes.create_snapshot(SnapshotRequest("snap", one)) == first
    assert world.record(one).node_secret is None
    remove_all(world)


def test_the_class_of_the_source_may_name_the_secret(
    world: World, kube: Kubernetes
) -> None:
    kube.secrets[KEYS] = dict(SECRET)
    volumes = kube.of(world)
    request = world.request(
        "one",
        SIZE,
        secrets={},
        passphraseSecretName=KEYS.name,
        passphraseSecretNamespace=KEYS.namespace,
    )
    one = volumes.create(request).volume_id
    fill(world, one, "the source's")
    kube.asked.clear()
    made = volumes.create(clone_request(world, one, secrets=OTHER))
    assert kube.asked == ["secret tenant/keys"]
    assert content_of(world, made.volume_id, OTHER) == {"the source's"}
    remove_all(world)


FORBIDDEN = ForbiddenError("may not get it: allow it")
DOWN = UnavailableError("the API server does not answer")


@pytest.mark.parametrize(
    ("volumes", "secrets", "error", "match"),
    [
        ({}, {}, NotFoundError, f"PersistentVolume {PV} does not exist"),
        ({PV: FORBIDDEN}, {}, ForbiddenError, "may not get it: allow it"),
        ({PV: DOWN}, {}, UnavailableError, "does not answer"),
        (None, {}, NotFoundError, "Secret tenant/keys does.*the keys of volume 'one'"),
        (
            None,
            {KEYS: FORBIDDEN},
            ForbiddenError,
            "may not get.*the keys of volume 'one'",
        ),
        (None, {KEYS: DOWN}, UnavailableError, "does not answer.*can also be given as"),
        (None, {KEYS: THIRD}, SecretError, "Secret tenant/keys does not open"),
        (None, {KEYS: {"a": "b"}}, SecretError, "holds neither encryptionPassphrase"),
    ],
)
def test_what_kubernetes_refuses_is_told_and_leaves_nothing(  # noqa: PLR0917
    world: World,
    kube: Kubernetes,
    volumes: dict[str, CsiVolumeSource | DriverError] | None,
    secrets: dict[SecretRef, dict[str, str] | DriverError],
    error: type[DriverError],
    match: str,
) -> None:
    one = provisioned(world)
    bound(kube, one)
    if volumes is None:
        world.change(one, node_secret=KEYS)
    else:
        kube.volumes = volumes
    kube.secrets = secrets
    before = world.content()
    with pytest.raises(error, match=match) as caught:
        kube.of(world).create(clone_request(world, one, secrets=OTHER))
    assert type(caught.value) is error
    for value in (*SECRET.values(), *OTHER.values(), *THIRD.values()):
        assert value not in str(caught.value)
    assert world.content() == before


@pytest.mark.parametrize("what", ["driver", "handle"])
def test_a_persistent_volume_of_another_volume_is_not_followed(
    world: World, kube: Kubernetes, what: str
) -> None:
    one = provisioned(world)
    if what == "driver":
        bound(kube, one, "another.csi.driver")
    else:
        bound(kube, VolumeId(one.location, "0123456789ab"))
    before = world.content()
    with pytest.raises(PreconditionError, match="its Secret is not read"):
        kube.of(world).create(clone_request(world, one, secrets=OTHER))
    assert kube.asked == [f"volume {PV}"]
    assert world.content() == before
    assert world.record(one).node_secret is None


def test_without_kubernetes_the_request_has_to_bring_the_key(
    world: World, kube: Kubernetes
) -> None:
    one = provisioned(world)
    request = clone_request(world, one, secrets=OTHER)
    with pytest.raises(SecretError, match="sourceEncryptionPassphrase"):
        world.volumes.create(request)
    world.change(one, node_secret=KEYS)
    with pytest.raises(PreconditionError, match="no access to a Kubernetes API"):
        world.volumes.create(request)
    # A PersistentVolume that names no Secret is no help either.
    world.change(one, node_secret=None)
    kube.volumes[PV] = CsiVolumeSource(DRIVER, str(one), None)
    with pytest.raises(SecretError, match="sourceEncryptionPassphrase"):
        kube.of(world).create(request)
    assert world.names() == ["one"]
    remove_all(world)
