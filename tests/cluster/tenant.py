# SPDX-License-Identifier: Apache-2.0
"""One tenant of the cluster: a namespace with Secrets, claims, snapshots and pods."""

from __future__ import annotations

import dataclasses
import secrets
from typing import Any
from typing import Final

from tests.cluster.kube import PATIENCE
from tests.cluster.kube import Kube
from tests.cluster.kube import Object
from tests.cluster.kube import containers_ready

IMAGE: Final = "localhost/rbdcrypt-lab:latest"
CLASS: Final = "rbdcrypt"
PER_PVC_CLASS: Final = "rbdcrypt-per-pvc"
SNAPSHOT_CLASS: Final = "rbdcrypt"
SECRET: Final = "rbdcrypt-passphrase"
DATA: Final = "/data"
DEVICE: Final = "/dev/volume"
XFS: Final = "320Mi"
"""The smallest size of these tests that xfs can be made on."""


@dataclasses.dataclass(frozen=True, slots=True)
class Tenant:
    """What a platform's user does, with short names."""

    kube: Kube
    namespace: str

    def apply(self, kind: str, name: str, version: str = "v1", **fields: Any) -> None:
        """Create or change an object of the namespace."""
        self.kube.apply(
            {
                "apiVersion": version,
                "kind": kind,
                "metadata": {"name": name, "namespace": self.namespace},
                **fields,
            }
        )

    def secret(self, name: str = SECRET, passphrase: str = "", **more: str) -> str:
        """Make a Secret with a passphrase, by default a new one; return that."""
        chosen = passphrase or secrets.token_urlsafe(18)
        self.apply("Secret", name, stringData={"encryptionPassphrase": chosen, **more})
        return chosen

    def claim(
        self,
        name: str,
        size: str = "64Mi",
        *,
        storage_class: str = CLASS,
        mode: str = "ReadWriteOnce",
        block: bool = False,
        source: Object | None = None,
        **more: Any,
    ) -> None:
        """Make a PersistentVolumeClaim."""
        spec: Object = {
            "accessModes": [mode],
            "resources": {"requests": {"storage": size}},
            "storageClassName": storage_class,
            **more,
        }
        if block:
            spec["volumeMode"] = "Block"
        if source is not None:
            spec["dataSource"] = source
        self.apply("PersistentVolumeClaim", name, spec=spec)

    def bound(self, name: str, seconds: float = PATIENCE) -> Object:
        """Wait until a claim is bound; return its PersistentVolume."""
        claim = self.kube.wait(
            "PersistentVolumeClaim", name, self.namespace, _is_bound, seconds
        )
        return self.kube.get("PersistentVolume", claim["spec"]["volumeName"])

    def told(self, kind: str, name: str, reason: str) -> Object:
        """Wait for an Event of a reason on a claim or pod, and return it."""
        return self.kube.wait_reason(kind, name, self.namespace, reason)

    def claim_uid(self, name: str) -> str:
        """Return the identity of a claim."""
        found = self.kube.get("PersistentVolumeClaim", name, self.namespace)
        return str(found["metadata"]["uid"])

    def resize(self, name: str, size: str) -> None:
        """Ask for another size of a claim."""
        request = {"spec": {"resources": {"requests": {"storage": size}}}}
        self.kube.patch("PersistentVolumeClaim", name, self.namespace, request)

    def resized(self, name: str, size: str, seconds: float = PATIENCE) -> None:
        """Ask for another size of a claim and wait until it has it."""
        self.resize(name, size)
        self.kube.wait(
            "PersistentVolumeClaim",
            name,
            self.namespace,
            lambda found: found["status"]["capacity"]["storage"] == size,
            seconds,
        )

    def pod(
        self,
        name: str,
        *claims: str,
        block: bool = False,
        read_only: bool = False,
        script: str = "exec sleep infinity",
        mount: Object | None = None,
        **more: Any,
    ) -> None:
        """Make a pod that has claims: at /data, /data1, … or /dev/volume, ….

        `mount` has further fields of the volume mounts, `more` of the pod.
        """
        sources: list[Object] = [
            {"persistentVolumeClaim": {"claimName": claim, "readOnly": read_only}}
            for claim in claims
        ]
        self.pod_with(
            name, sources, block=block, script=script, mount=mount or {}, **more
        )

    def pod_with(
        self,
        name: str,
        sources: list[Object],
        *,
        block: bool = False,
        script: str = "exec sleep infinity",
        mount: Object,
        **more: Any,
    ) -> None:
        """Make a pod with volumes of any source."""
        spec = _pod_spec(sources, block=block, script=script, mount=mount)
        self.apply("Pod", name, spec={**spec, **more})

    def stateful(self, name: str, claim: str, *, script: str, node: str) -> None:
        """Make a StatefulSet of one pod on a node, which comes back when evicted."""
        sources: list[Object] = [{"persistentVolumeClaim": {"claimName": claim}}]
        labels = {"app": name}
        placed = {
            "nodeSelector": {"kubernetes.io/hostname": node},
            "tolerations": [{"key": "lab/second", "operator": "Exists"}],
        }
        pod = _pod_spec(sources, block=False, script=script, mount={}) | placed
        self.apply(
            "StatefulSet",
            name,
            "apps/v1",
            spec={
                "replicas": 1,
                "serviceName": name,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        )

    def ready(self, name: str, seconds: float = PATIENCE) -> Object:
        """Wait until a pod runs and return it."""
        return self.kube.wait("Pod", name, self.namespace, containers_ready, seconds)

    def run(self, pod: str, script: str) -> str:
        """Run a shell script in a pod and return its output."""
        return self.kube.run(pod, self.namespace, script)

    def end(self, *pods: str) -> None:
        """Delete pods and wait until they are gone: unpublished, that is."""
        for name in pods:
            self.kube.delete("Pod", name, self.namespace)
        for name in pods:
            self.kube.wait_gone("Pod", name, self.namespace)

    def snapshot(self, name: str, claim: str) -> Object:
        """Take a VolumeSnapshot and wait until it can be used."""
        self.apply(
            "VolumeSnapshot",
            name,
            "snapshot.storage.k8s.io/v1",
            spec={
                "volumeSnapshotClassName": SNAPSHOT_CLASS,
                "source": {"persistentVolumeClaimName": claim},
            },
        )
        return self.kube.wait(
            "VolumeSnapshot",
            name,
            self.namespace,
            lambda found: bool((found.get("status") or {}).get("readyToUse")),
        )

    def forget(self, kind: str, *names: str, seconds: float = PATIENCE) -> None:
        """Delete objects and wait until they are gone."""
        for name in names:
            self.kube.delete(kind, name, self.namespace)
        for name in names:
            self.kube.wait_gone(kind, name, self.namespace, seconds)


def from_snapshot(name: str) -> Object:
    """Return the data source of a claim that restores a snapshot."""
    return {
        "apiGroup": "snapshot.storage.k8s.io",
        "kind": "VolumeSnapshot",
        "name": name,
    }


def from_claim(name: str) -> Object:
    """Return the data source of a claim that clones another."""
    return {"kind": "PersistentVolumeClaim", "name": name}


def _pod_spec(
    sources: list[Object], *, block: bool, script: str, mount: Object
) -> Object:
    """Return the spec of a pod with volumes of any source."""
    volumes, places = [], []
    for number, source in enumerate(sources):
        volume = f"volume-{number}"
        end = str(number or "")
        volumes.append({"name": volume, **source})
        path = {
            "devicePath" if block else "mountPath": (DEVICE if block else DATA) + end
        }
        places.append({"name": volume, **path, **mount})
    container = {
        "name": "main",
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", script],
        "volumeDevices" if block else "volumeMounts": places,
    }
    return {
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
        "volumes": volumes,
    }


def _is_bound(claim: Object) -> bool:
    return bool(claim["status"].get("phase") == "Bound")
