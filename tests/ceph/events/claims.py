# SPDX-License-Identifier: Apache-2.0
"""Volumes that are bound to claims, and what is posted on those."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any
from typing import Final

import grpc

from csi_driver.rpc.stubs import csi_pb2
from tests.ceph.end_to_end import secrets_of
from tests.ceph.end_to_end.client import MIB
from tests.ceph.end_to_end.client import Controller
from tests.ceph.end_to_end.client import refused
from tests.ceph.end_to_end.world import Machine
from tests.ceph.end_to_end.world import World
from tests.ceph.end_to_end.world import eventually
from tests.unit.kube.event_server import EventServer

SOON: Final = 20.0


class Claims:
    """Volumes that are bound to claims, as the provisioner makes them."""

    def __init__(self, world: World, server: EventServer) -> None:
        self._world = world
        self._server = server
        self.secrets: list[dict[str, str]] = []

    def secret(self, mode: str = "key") -> dict[str, str]:
        """Return a new Secret, and remember it to be looked for."""
        self.secrets.append(secrets_of.new_secret(mode))
        return self.secrets[-1]

    def new(
        self,
        secrets: Mapping[str, str],
        source: csi_pb2.Volume | None = None,
        secret: tuple[str, str] | None = None,
        capability: csi_pb2.VolumeCapability | None = None,
        size: int = 64 * MIB,
        **parameters: str,
    ) -> Bound:
        """Make a volume and its PersistentVolume, bound to a claim of its own."""
        uid = str(uuid.uuid4())
        claim, name = f"claim-{uid[:8]}", f"pvc-{uid}"
        given = {
            **self._world.controller.parameters,
            "csi.storage.k8s.io/pvc/name": claim,
            "csi.storage.k8s.io/pvc/namespace": "tenant-a",
            "csi.storage.k8s.io/pv/name": name,
            **parameters,
        }
        with Controller(self._world.controller_part.endpoint, given) as controller:
            volume = controller.create(
                name, secrets, size=size, capability=capability, source=source
            )
        self._world.remember(volume)
        self._server.bind(
            name, volume.volume_id, ("tenant-a", claim, uid), secret=secret
        )
        return Bound(volume, claim, uid, self._server)


class Bound:
    """A volume, and what was posted on its claim."""

    def __init__(
        self, volume: csi_pb2.Volume, claim: str, uid: str, server: EventServer
    ) -> None:
        self.volume = volume
        self.claim = claim
        self.uid = uid
        self._server = server

    def used_by(self, uid: str) -> str:
        """Have it published for a pod, as kubelet says it; return the pod's name."""
        pod = f"pod-{self.uid[:8]}"
        said = {"name": pod, "namespace": "tenant-a", "uid": uid}
        for key, value in said.items():
            self.volume.volume_context[f"csi.storage.k8s.io/pod.{key}"] = value
        return pod

    @property
    def events(self) -> list[dict[str, Any]]:
        return self._server.about(self.claim)

    @property
    def reasons(self) -> list[str]:
        return self._server.reasons(self.claim)

    def await_reason(self, reason: str, seconds: float = SOON) -> dict[str, Any]:
        """Wait for an Event; return it."""
        eventually(reason, lambda: reason in self.reasons, seconds)
        (event,) = [each for each in self.events if each["reason"] == reason]
        return event


def refuse_stage(here: Machine, volume: csi_pb2.Volume, secret: dict[str, str]) -> str:
    with refused(
        grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.FAILED_PRECONDITION
    ) as refusal:
        here.client.stage(volume, here.staging(volume), secret)
    return refusal[0].message
