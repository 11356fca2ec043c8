# SPDX-License-Identifier: Apache-2.0
"""The demo's story on Kubernetes: what a tenant does with kubectl, each step checked.

Runs on the node of hack/cluster.  The first step that does not hold ends the
story with its reason and exit status 1.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any
from typing import Final

from cluster import PoolBytes
from telling import MARKER
from telling import Story

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from clustertools import inside
from labtools import places
from labtools import shell

NAMESPACE: Final = "demo"
IMAGE: Final = "localhost/rbdcrypt-lab:latest"
PASSPHRASE: Final = "correct horse battery staple"  # noqa: S105  # the demo's own
OTHER_PASSPHRASE: Final = "another team, another secret"  # noqa: S105  # the same
WRITTEN: Final = MARKER.decode().strip()

type Object = dict[str, Any]


class Tenant:
    """kubectl in one namespace."""

    def __init__(self) -> None:
        self.kubectl = inside.kubectl(places.current_lab(places.CLUSTER))

    def apply(self, *objects: Object) -> None:
        """Create or change objects of the namespace."""
        for each in objects:
            each["metadata"]["namespace"] = NAMESPACE
        self.kubectl.apply(*objects)

    def run(self, *words: str) -> str:
        """Run kubectl and return what it prints."""
        return self.kubectl.run("--namespace", NAMESPACE, *words)

    def ready(self, pod: str) -> None:
        """Wait until a pod runs."""
        self.run("wait", "--for=condition=Ready", f"pod/{pod}", "--timeout=120s")

    def shell(self, pod: str, script: str) -> str:
        """Run a shell script in a pod."""
        return self.run("exec", pod, "--", "sh", "-c", script)

    def event(self, pod: str, word: str) -> str:
        """Wait for an Event of a pod that has a word in it, and return its text."""
        selector = f"involvedObject.name={pod}"
        until = time.monotonic() + 60
        while time.monotonic() < until:
            found = self.run(
                "get", "events", "-o", "json", "--field-selector", selector
            )
            for each in json.loads(found)["items"]:
                if word in each["message"]:
                    return str(each["message"])
            time.sleep(0.3)
        raise shell.LabError(f"no Event of pod {pod} says {word!r}")


def secret(name: str, passphrase: str) -> Object:
    """Return a Secret with a passphrase."""
    data = {"encryptionPassphrase": passphrase}
    head = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}}
    return {**head, "stringData": data}


def claim(name: str, size: str, source: Object | None = None) -> Object:
    """Return a claim whose Secret is called as itself."""
    spec: Object = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "rbdcrypt-per-pvc",
        "resources": {"requests": {"storage": size}},
    }
    if source is not None:
        spec["dataSource"] = source
    head = {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
    return {**head, "metadata": {"name": name}, "spec": spec}


def pod(name: str, claimed: str) -> Object:
    """Return a pod with a claim at /data."""
    container = {
        "name": "main",
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "command": ["sleep", "infinity"],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": claimed}}
    spec = {
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
        "volumes": [volume],
    }
    head = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}}
    return {**head, "spec": spec}


def claim_chapter(story: Story, tenant: Tenant, pool: PoolBytes) -> None:
    """Tell of a claim, its Secret, and a pod that writes."""
    tenant.apply(secret("files", PASSPHRASE), claim("files", "1Gi"))
    tenant.apply(pod("writer", "files"))
    tenant.ready("writer")
    story.told("Secret, PersistentVolumeClaim, pod: bound, encrypted, mounted, running")
    tenant.shell(
        "writer", f"yes '{WRITTEN}' | head -c 8M > /data/file; sync /data/file"
    )
    story.check(pool.data_bytes() > 8 << 20, "the file's bytes on Ceph")
    story.check(pool.find(WRITTEN.encode()) == [], "no plaintext in any RADOS object")
    story.check(pool.find(PASSPHRASE.encode()) == [], "no passphrase on Ceph")
    story.told("8 MiB written; no plaintext and no passphrase in any RADOS object")


def secret_chapter(story: Story, tenant: Tenant) -> None:
    """Tell of a wrong Secret, and of the right one."""
    tenant.run("delete", "pod", "writer")
    tenant.apply(secret("files", "a typing mistake"), pod("reader", "files"))
    message = tenant.event("reader", "fingerprint")
    story.told(f"wrong Secret, says kubectl describe: {message}")
    tenant.apply(secret("files", PASSPHRASE))
    tenant.ready("reader")
    story.check(WRITTEN in tenant.shell("reader", "head -c 200 /data/file"), "the file")
    story.told("Secret corrected: the pod started by itself, the file is there")


def clone_chapter(story: Story, tenant: Tenant) -> None:
    """Tell of a snapshot that becomes a claim under another Secret, and grows."""
    tenant.apply(
        {
            "apiVersion": "snapshot.storage.k8s.io/v1",
            "kind": "VolumeSnapshot",
            "metadata": {"name": "moment"},
            "spec": {"source": {"persistentVolumeClaimName": "files"}},
        }
    )
    ready = "--for=jsonpath={.status.readyToUse}=true"
    tenant.run("wait", ready, "volumesnapshot/moment", "--timeout=60s")
    source = {
        "apiGroup": "snapshot.storage.k8s.io",
        "kind": "VolumeSnapshot",
        "name": "moment",
    }
    tenant.apply(secret("copy", OTHER_PASSPHRASE), claim("copy", "1Gi", source))
    tenant.apply(pod("copier", "copy"))
    tenant.ready("copier")
    story.check(WRITTEN in tenant.shell("copier", "head -c 200 /data/file"), "the file")
    story.told("VolumeSnapshot, restored under another Secret: the file is there")
    request = {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
    tenant.run("patch", "pvc", "copy", "--patch", json.dumps(request))
    grown = "--for=jsonpath={.status.capacity.storage}=2Gi"
    tenant.run("wait", grown, "pvc/copy", "--timeout=120s")
    blocks = int(tenant.shell("copier", "echo $(($(stat -f -c '%b * %S' /data)))"))
    story.check(blocks > 1900 << 20, "a filesystem of 2 GiB")
    story.told("the copy expanded to 2 GiB while its pod runs")


def end_chapter(story: Story, tenant: Tenant, pool: PoolBytes) -> None:
    """Tell that deleting takes all of it away, the Secrets first."""
    tenant.run("delete", "secret", "files", "copy")
    tenant.kubectl.run("delete", "namespace", NAMESPACE, "--timeout=120s")
    until = time.monotonic() + 60
    while any(name.startswith("rbd_header.") for name in pool.objects()):
        story.check(time.monotonic() < until, "an empty pool")
        time.sleep(0.3)
    story.told("Secrets deleted, then the namespace: no image is left in the pool")


def main() -> int:
    """Tell the story; return the exit status."""
    os.environ.setdefault("CEPH_POOL", "rbd")
    story, tenant, pool = Story(), Tenant(), PoolBytes()
    tenant.kubectl.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    )
    try:
        claim_chapter(story, tenant, pool)
        secret_chapter(story, tenant)
        clone_chapter(story, tenant)
        end_chapter(story, tenant, pool)
    except (AssertionError, shell.LabError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    finally:
        pool.close()
    story.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
