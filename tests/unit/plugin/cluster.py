# SPDX-License-Identifier: Apache-2.0
"""A cluster in files, as the fake kubectl shows it, and the plugin run against it."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[3]
_FAKE: Final = Path(__file__).with_name("fake_kubectl.py")

DRIVER: Final = "csi.rbdcrypt.io"
HOME: Final = "rbdcrypt"
"""The driver's own namespace."""
IMAGE: Final = "ghcr.io/rbdcrypt/rbdcrypt-csi:0.1.0"
CONTROLLER: Final = "rbdcrypt-controller-0"


class Cluster:
    """What the API server and the pods answer; `run` asks through the plugin."""

    def __init__(self, directory: Path) -> None:
        self._home = directory / "cluster"
        self._bin = directory / "bin"
        self._home.mkdir()
        self._bin.mkdir()
        tool = self._bin / "kubectl"
        tool.write_text(f'#!/bin/sh\nexec {sys.executable} {_FAKE} "$@"\n')
        tool.chmod(0o755)
        self.objects: list[dict[str, Any]] = []
        self.namespace = "shop"
        self.refuse: dict[str, str] = {}
        self.absent: list[str] = []
        self.pods: dict[str, dict[str, Any]] = {}

    def add(
        self, kind: str, name: str, namespace: str | None = None, **fields: Any
    ) -> dict[str, Any]:
        """Add an object."""
        metadata = {"name": name, **fields.pop("metadata", {})}
        if namespace is not None:
            metadata["namespace"] = namespace
        found = {"kind": kind, "metadata": metadata, **fields}
        self.objects.append(found)
        return found

    def driver_pod(
        self,
        name: str = CONTROLLER,
        component: str = "controller",
        *,
        namespace: str = HOME,
        release: str = "storage",
        ready: bool = True,
        state: Mapping[str, Any] | None = None,
        image: str = IMAGE,
        **spec: Any,
    ) -> dict[str, Any]:
        """Add a pod of the driver, with the labels that the chart gives it."""
        labels = {
            "app.kubernetes.io/name": "rbdcrypt-csi",
            "app.kubernetes.io/instance": release,
            "app.kubernetes.io/component": component,
        }
        status = {"name": component, "ready": ready}
        own = {"name": component, "image": image, "env": spec.pop("env", [])}
        return self.add(
            "Pod",
            name,
            namespace,
            metadata={"labels": labels},
            spec={"containers": [own, *spec.pop("others", [])], **spec},
            status={
                "phase": "Running",
                "containerStatuses": [{**status, "state": state or {"running": {}}}],
            },
        )

    def csi_driver(
        self,
        name: str = DRIVER,
        *,
        namespace: str = HOME,
        release: str = "storage",
        **spec: Any,
    ) -> None:
        """Add the object by which the driver is found; "" if Helm did not make it."""
        notes = {
            "meta.helm.sh/release-namespace": namespace,
            "meta.helm.sh/release-name": release,
        }
        self.add(
            "CSIDriver",
            name,
            metadata={
                "labels": {"app.kubernetes.io/name": "rbdcrypt-csi"},
                "annotations": notes if namespace else {},
            },
            spec={"attachRequired": True, **spec},
        )

    def remove(self, kind: str) -> None:
        """Take all objects of a kind away."""
        self.objects = [each for each in self.objects if each["kind"] != kind]

    def claim(
        self,
        name: str,
        handle: str,
        *,
        namespace: str = "shop",
        driver: str = DRIVER,
        secret: str = "",
        **csi: Any,
    ) -> str:
        """Add a bound claim with its PersistentVolume; return the latter's name."""
        volume = f"pvc-{namespace}-{name}"
        self.pending(name, namespace=namespace, volume=volume, phase="Bound")
        source = {"driver": driver, "volumeHandle": handle, **csi}
        if secret:
            source["nodeStageSecretRef"] = {"namespace": namespace, "name": secret}
        self.add(
            "PersistentVolume",
            volume,
            spec={
                "csi": source,
                "capacity": {"storage": "1Gi"},
                "storageClassName": "rbdcrypt",
                "claimRef": {"namespace": namespace, "name": name},
            },
        )
        return volume

    def pending(
        self,
        name: str,
        *,
        namespace: str = "shop",
        volume: str = "",
        phase: str = "Pending",
        driver: str = DRIVER,
    ) -> None:
        """Add a claim without its PersistentVolume."""
        self.add(
            "PersistentVolumeClaim",
            name,
            namespace,
            metadata={
                "annotations": {"volume.kubernetes.io/storage-provisioner": driver}
            },
            spec={
                "storageClassName": "rbdcrypt",
                "resources": {"requests": {"storage": "1Gi"}},
                **({"volumeName": volume} if volume else {}),
            },
            status={"phase": phase},
        )

    def secret(self, name: str, values: Mapping[str, str]) -> None:
        """Add a Secret of the namespace `shop`."""
        data = {
            key: base64.b64encode(value.encode()).decode()
            for key, value in values.items()
        }
        self.add("Secret", name, "shop", data=data)

    def answers(
        self, command: str, output: object = "", pod: str = "*", **rest: Any
    ) -> None:
        """Let a command of the driver answer that; the longest beginning first."""
        text = output if isinstance(output, str) else json.dumps(output)
        ending = self.pods.setdefault(pod, {"answers": {}})
        ending["answers"][command] = {"output": text, **rest}

    def run(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run `kubectl rbdcrypt`."""
        return subprocess.run(
            self.command(*words),
            env=self.environment | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )

    def command(self, *words: str) -> list[str]:
        """Write the cluster down, and return what runs the plugin."""
        names = ("objects", "namespace", "refuse", "absent", "pods")
        found = {name: getattr(self, name) for name in names}
        (self._home / "cluster.json").write_text(json.dumps(found))
        return [sys.executable, "-m", "csi_driver.plugin", *words]

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PATH": f"{self._bin}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "error",
            "COLUMNS": "200",
            "FAKE_KUBECTL": str(self._home),
        }

    @property
    def calls(self) -> list[list[str]]:
        """Return the words of every call of kubectl."""
        lines = (self._home / "calls.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    @property
    def execs(self) -> list[list[str]]:
        """Return the commands that were run in pods."""
        return [
            words[words.index("--") + 1 :] for words in self.calls if "exec" in words
        ]
