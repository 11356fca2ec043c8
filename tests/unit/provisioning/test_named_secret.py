# SPDX-License-Identifier: Apache-2.0
"""A Secret that the class names: its key and its Ceph user both count."""

from __future__ import annotations

import pytest

from csi_driver.domain.clusters import CephUser
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.parameters import SecretRef
from csi_driver.images.port import Ceph
from csi_driver.images.port import Connector
from csi_driver.provisioning.places import Places
from csi_driver.provisioning.source_secrets import SourceSecrets
from csi_driver.provisioning.volumes import Volumes
from tests.unit.provisioning.worlds import SECRET
from tests.unit.provisioning.worlds import FakeWorld
from tests.unit.provisioning.worlds import loaded

NAMED = {"passphraseSecretName": "keys", "passphraseSecretNamespace": "tenant"}
USER = {"userID": "tenant", "userKey": "QQ=="}


class Secrets:
    """The Secrets of a cluster, in memory."""

    def __init__(self, held: dict[str, dict[str, str]]) -> None:
        self._held = held

    def read_secret(self, reference: SecretRef) -> dict[str, str]:
        if str(reference) not in self._held:
            message = f"Secret {reference} does not exist"
            raise NotFoundError(message)
        return self._held[str(reference)]


class Connections:
    """A connector that remembers as whom it connected."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self.users: list[str] = []

    def connect(self, cluster: str, user: CephUser | None = None) -> Ceph:
        self.users.append(user.user_id if user else "the driver")
        return self._connector.connect(cluster, user)


def volumes(world: FakeWorld, connections: Connections, secrets: Secrets) -> Volumes:
    return Volumes(
        places=Places(connections, world.shared, world.clusters),
        collector=world.collector,
        secrets=SourceSecrets("rbdcrypt.csi.ceph.io", secrets, None),
    )


@pytest.mark.parametrize("user", [{}, USER], ids=["the driver's own", "the tenant's"])
def test_the_named_secret_opens_the_volume_and_names_the_user(
    world: FakeWorld, user: dict[str, str]
) -> None:
    connections = Connections(world.connector)
    service = volumes(world, connections, Secrets({"tenant/keys": {**SECRET, **user}}))
    made = service.create(world.request("one", secrets={}, **NAMED))  # type: ignore[arg-type]
    assert connections.users == [user.get("userID", "the driver")]
    with world.pool() as pool, loaded(pool, world.record(made.volume_id), SECRET):
        pass
    assert made.context["passphraseSecretName"] == "keys"


def test_an_absent_secret_or_api_server_is_said_and_nothing_is_made(
    world: FakeWorld,
) -> None:
    request = world.request("one", secrets={}, **NAMED)  # type: ignore[arg-type]
    service = volumes(world, Connections(world.connector), Secrets({}))
    with pytest.raises(NotFoundError, match="tenant/keys"):
        service.create(request)
    with pytest.raises(PreconditionError, match="kubeconfig"):
        world.volumes.create(request)
    assert world.content() == {}
