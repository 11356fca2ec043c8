# SPDX-License-Identifier: Apache-2.0
"""The cluster's API server as a test sees it: objects as dicts, and patience.

The dynamic client of the package `kubernetes` does the talking.  What a test
waits for is asked again a few times a second; when it does not come, the error
shows the object and its Events, which is what a person would look at.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable
from typing import Any
from typing import Final

import pytest
import urllib3.exceptions
from kubernetes import client
from kubernetes import config
from kubernetes import dynamic
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic.exceptions import NotFoundError

type Object = dict[str, Any]

_PAUSE: Final = 0.25
PATIENCE: Final = 180.0
"""Seconds that are waited for what takes seconds: the machine may be busy."""
_VERSIONS: Final = {
    "CustomResourceDefinition": "apiextensions.k8s.io/v1",
    "ClusterRole": "rbac.authorization.k8s.io/v1",
    "DaemonSet": "apps/v1",
    "Deployment": "apps/v1",
    "StatefulSet": "apps/v1",
    "CSIDriver": "storage.k8s.io/v1",
    "CSINode": "storage.k8s.io/v1",
    "StorageClass": "storage.k8s.io/v1",
    "VolumeAttachment": "storage.k8s.io/v1",
    "VolumeAttributesClass": "storage.k8s.io/v1",
    "VolumeSnapshot": "snapshot.storage.k8s.io/v1",
    "VolumeSnapshotClass": "snapshot.storage.k8s.io/v1",
    "VolumeSnapshotContent": "snapshot.storage.k8s.io/v1",
}
"""Of the kinds that are not in core/v1."""


class Kube:
    """One connection to the API server, as its administrator."""

    def __init__(self) -> None:
        path = os.environ.get("KUBECONFIG")
        if not path:
            pytest.fail("no cluster: run this through `hack/test cluster`")
        settings = client.Configuration()
        config.load_kube_config(  # type: ignore[no-untyped-call]
            path, client_configuration=settings
        )
        self._client = client.ApiClient(settings)
        self._dynamic = dynamic.DynamicClient(self._client)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Disconnect."""
        self._client.close()  # type: ignore[no-untyped-call]

    def apply(self, wanted: Object) -> None:
        """Create an object, or change it to what is wanted."""
        self._kind(wanted["kind"]).server_side_apply(
            body=wanted,
            name=wanted["metadata"]["name"],
            namespace=wanted["metadata"].get("namespace"),
            field_manager="tests",
            force_conflicts=True,
        )

    def find(self, kind: str, name: str, namespace: str = "") -> Object | None:
        """Return an object; None if there is none."""
        try:
            found = self._kind(kind).get(name=name, namespace=namespace or None)
        except NotFoundError:
            return None
        return dict(found.to_dict())

    def get(self, kind: str, name: str, namespace: str = "") -> Object:
        """Return an object that has to be there."""
        found = self.find(kind, name, namespace)
        assert found is not None, f"{kind} {namespace}/{name} is not there"
        return found

    def all(self, kind: str, namespace: str = "", **selectors: str) -> list[Object]:
        """Return all objects of a kind, in one namespace or in all."""
        found = self._kind(kind).get(namespace=namespace or None, **selectors)
        return list(found.to_dict()["items"])

    def patch(self, kind: str, name: str, namespace: str, change: Object) -> None:
        """Merge a change into an object."""
        self._kind(kind).patch(
            name=name,
            namespace=namespace or None,
            body=change,
            content_type="application/merge-patch+json",
        )

    def delete(self, kind: str, name: str, namespace: str = "") -> None:
        """Ask for an object to be deleted; it may be gone already."""
        with contextlib.suppress(NotFoundError):
            self._kind(kind).delete(name=name, namespace=namespace or None, body={})

    def kill(self, pod: str, namespace: str) -> None:
        """Delete a pod without any grace: its processes end by SIGKILL."""
        with contextlib.suppress(NotFoundError):
            self._kind("Pod").delete(
                name=pod, namespace=namespace, body={"gracePeriodSeconds": 0}
            )

    def wait(
        self,
        kind: str,
        name: str,
        namespace: str,
        holds: Callable[[Object], bool],
        seconds: float = PATIENCE,
    ) -> Object:
        """Wait until `holds` of an object, and return it."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.find(kind, name, namespace)
            if found is not None and holds(found):
                return found
            if time.monotonic() > deadline:
                shown = "is not there" if found is None else _shown(found)
                events = "\n".join(self.events(name, namespace))
                message = f"{kind} {namespace}/{name} after {seconds} s: {shown}"
                raise AssertionError(f"{message}\nevents:\n{events}")
            time.sleep(_PAUSE)

    def wait_gone(
        self, kind: str, name: str, namespace: str = "", seconds: float = PATIENCE
    ) -> None:
        """Wait until an object is not there any more."""
        deadline = time.monotonic() + seconds
        while (found := self.find(kind, name, namespace)) is not None:
            if time.monotonic() > deadline:
                events = "\n".join(self.events(name, namespace))
                message = f"{kind} {namespace}/{name} is there after {seconds} s"
                raise AssertionError(f"{message}: {_shown(found)}\nevents:\n{events}")
            time.sleep(_PAUSE)

    def events(self, name: str, namespace: str = "") -> list[str]:
        """Return the Events of the object of a name: `Reason: message`."""
        found = self.all(
            "Event", namespace, field_selector=f"involvedObject.name={name}"
        )
        return [f"{each.get('reason')}: {each.get('message')}" for each in found]

    def events_on(self, kind: str, name: str, namespace: str) -> list[Object]:
        """Return the Events that are on one object of a kind."""
        selector = f"involvedObject.kind={kind},involvedObject.name={name}"
        return self.all("Event", namespace, field_selector=selector)

    def wait_reason(
        self,
        kind: str,
        name: str,
        namespace: str,
        reason: str,
        seconds: float = PATIENCE,
    ) -> Object:
        """Wait for an Event of a reason on one object, and return it."""
        deadline = time.monotonic() + seconds
        while True:
            seen = self.events_on(kind, name, namespace)
            for each in seen:
                if each["reason"] == reason:
                    return each
            if time.monotonic() > deadline:
                listed = "\n".join(f"{it['reason']}: {it['message']}" for it in seen)
                message = f"no Event {reason} on {kind} {namespace}/{name} among:"
                raise AssertionError(f"{message}\n{listed}")
            time.sleep(_PAUSE)

    def wait_event(
        self, name: str, namespace: str, *parts: str, seconds: float = PATIENCE
    ) -> str:
        """Wait for an Event that contains all parts, and return it."""
        deadline = time.monotonic() + seconds
        while True:
            seen = self.events(name, namespace)
            for each in seen:
                if all(part in each for part in parts):
                    return each
            if time.monotonic() > deadline:
                listed = "\n".join(seen)
                message = f"no Event of {namespace}/{name} with {parts} among:"
                raise AssertionError(f"{message}\n{listed}")
            time.sleep(_PAUSE)

    def run(self, pod: str, namespace: str, script: str, container: str = "") -> str:
        """Run a shell script in a pod; return its output, which may be stderr's."""
        status, output = self.try_run(pod, namespace, script, container)
        assert status == 0, f"{namespace}/{pod}: {script}\nexit {status}: {output}"
        return output

    def try_run(
        self, pod: str, namespace: str, script: str, container: str = ""
    ) -> tuple[int, str]:
        """Run a shell script in a pod; return its exit status and output."""
        return self._exec(pod, namespace, ["sh", "-c", script], container=container)

    def feed(self, pod: str, namespace: str, command: list[str], text: str) -> str:
        """Run a command in a pod with one line of text as its input."""
        status, output = self._exec(pod, namespace, command, text=text)
        assert status == 0, f"{namespace}/{pod}: exit {status}: {output}"
        return output

    def _exec(
        self,
        pod: str,
        namespace: str,
        command: list[str],
        *,
        container: str = "",
        text: str = "",
    ) -> tuple[int, str]:
        # kubectl, because the package's websocket client leaves sockets open.
        words = ["kubectl", "exec", "--namespace", namespace, pod, "--quiet"]
        words += ["--stdin"] if text else []
        words += ["--container", container] if container else []
        done = subprocess.run(
            [*words, "--", *command],
            input=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=180,
            check=False,
        )
        return done.returncode, done.stdout

    def logs(self, pod: str, namespace: str, container: str) -> str:
        """Return what a container has written."""
        api = client.CoreV1Api(self._client)
        return str(api.read_namespaced_pod_log(pod, namespace, container=container))

    def serving(self) -> bool:
        """Tell whether the API server answers."""
        try:
            self._client.call_api("/readyz", "GET", _request_timeout=2)
        except (ApiException, urllib3.exceptions.HTTPError):
            return False
        return True

    def _kind(self, kind: str) -> Any:
        version = _VERSIONS.get(kind, "v1")
        return self._dynamic.resources.get(api_version=version, kind=kind)


def _shown(found: Object) -> str:
    head = {**found["metadata"], "managedFields": None}
    kept = {"metadata": head, "spec": found.get("spec"), "status": found.get("status")}
    return json.dumps(kept, indent=1)


def without_identity(found: Object) -> Object:
    """Return what has to be applied for an object that was deleted to be back."""
    given = ("uid", "resourceVersion", "creationTimestamp", "generation")
    dropped = {*given, "managedFields", "deletionTimestamp", "selfLink"}
    metadata = {
        name: each for name, each in found["metadata"].items() if name not in dropped
    }
    kept = {name: each for name, each in found.items() if name != "status"}
    return {**kept, "metadata": metadata}


def containers_ready(pod: Object) -> bool:
    """Tell whether all containers of a pod are ready."""
    conditions = pod.get("status", {}).get("conditions") or []
    return any(
        each["type"] == "Ready" and each["status"] == "True" for each in conditions
    )
