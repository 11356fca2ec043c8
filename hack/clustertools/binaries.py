# SPDX-License-Identifier: Apache-2.0
"""The programs of the cluster, compiled from their Go modules.

One module of ours, hack/kubernetes, pins all versions, so that client-go is
compiled once for all of them.  What comes out is kept by a hash of that module.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from labtools import gotools
from labtools import places
from labtools import shell

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MODULE = places.REPO / "hack/kubernetes"

_SIDECARS = "github.com/kubernetes-csi"
_KUBERNETES = "k8s.io/kubernetes"
_SNAPSHOTTER = f"{_SIDECARS}/external-snapshotter/v8"
_SNAPSHOT_CLIENT = f"{_SIDECARS}/external-snapshotter/client/v8"

PACKAGES = {
    "kube-apiserver": f"{_KUBERNETES}/cmd/kube-apiserver",
    "kube-controller-manager": f"{_KUBERNETES}/cmd/kube-controller-manager",
    "kube-scheduler": f"{_KUBERNETES}/cmd/kube-scheduler",
    "kubelet": f"{_KUBERNETES}/cmd/kubelet",
    "kubectl": f"{_KUBERNETES}/cmd/kubectl",
    "etcd": "go.etcd.io/etcd/server/v3",
    "helm": "helm.sh/helm/v3/cmd/helm",
    "csi-provisioner": f"{_SIDECARS}/external-provisioner/v6/cmd/csi-provisioner",
    "csi-attacher": f"{_SIDECARS}/external-attacher/v4/cmd/csi-attacher",
    "csi-resizer": f"{_SIDECARS}/external-resizer/v2/cmd/csi-resizer",
    "csi-snapshotter": f"{_SNAPSHOTTER}/cmd/csi-snapshotter",
    "snapshot-controller": f"{_SNAPSHOTTER}/cmd/snapshot-controller",
    "pause": "./pause",
}
"""Programs by name, and the packages that they are built from."""

_E2E = {
    "agnhost": f"{_KUBERNETES}/test/images/agnhost",
    "e2e.test": f"{_KUBERNETES}/test/e2e",
}
"""What only the upstream storage suite needs."""


def versions() -> dict[str, str]:
    """Return the version of each module that hack/kubernetes requires."""
    text = (MODULE / "go.mod").read_text()
    required = text.partition("require (")[2].partition(")")[0]
    return dict(re.findall(r"^\s*(\S+) (v\S+)", required, re.MULTILINE))


def kubernetes_version() -> str:
    """Return the version of Kubernetes, as v1.36.3."""
    return versions()[_KUBERNETES]


def ensure() -> Path:
    """Return the directory of all programs; `snapshots` has CRDs and RBAC of those."""
    script = [_compile(name, package) for name, package in PACKAGES.items()]
    script += [
        'mkdir "$OUT/snapshots"',
        "cd $(go list -m -f '{{.Dir}}' " + _SNAPSHOT_CLIENT + ")/config/crd",
        'cp snapshot.storage*.yaml "$OUT/snapshots"',
        'cd "$MODULE"',
        "cd $(go list -m -f '{{.Dir}}' " + _SNAPSHOTTER + ")/deploy/kubernetes",
        'cp snapshot-controller/rbac*.yaml "$OUT/snapshots"',
    ]
    return _made("kubernetes", script)


def ensure_e2e() -> Path:
    """Return the directory of the upstream storage suite and its test program."""
    suite, package = "e2e.test", _E2E["e2e.test"]
    compile_suite = 'go test -c -vet=off -trimpath -ldflags "$LDFLAGS"'
    return _made(
        "kubernetes-e2e",
        (
            _compile("agnhost", _E2E["agnhost"]),
            f'{compile_suite} -o "$OUT/{suite}" {package}',
        ),
    )


def _compile(name: str, package: str) -> str:
    return f'go build -trimpath -ldflags "$LDFLAGS" -o "$OUT/{name}" {package}'


def _flags() -> str:
    """Return linker flags: sidecars look at the version that the server tells."""
    version = kubernetes_version()
    major, minor, _ = version.removeprefix("v").split(".")
    settings = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    stamps = [
        f"-X k8s.io/{package}/version.{name}={text}"
        for package in ("component-base", "client-go/pkg")
        for name, text in settings.items()
    ]
    helm = "helm.sh/helm/v3"
    stamps.append(f"-X {helm}/internal/version.version={versions()[helm]}")
    # The version that `helm template` and `helm lint` render for.
    for package in ("chartutil", "lint/rules"):
        place = f"{helm}/pkg/{package}.k8sVersion"
        stamps += [f"-X {place}Major={major}", f"-X {place}Minor={minor}"]
    return " ".join(["-s", "-w", *stamps])


def _made(name: str, script: Iterable[str]) -> Path:
    lines = list(script)
    sources = [MODULE / "go.mod", MODULE / "go.sum", MODULE / "pause/main.go"]
    cache = places.cache_dir()
    target = cache / "go" / f"{name}-{places.digest(*sources, *lines)}"
    with places.locked(cache / "locks" / name):
        if target.exists():
            return target
        shell.say(f"compiling {name} (once, minutes)")
        begin = time.monotonic()
        with places.fresh_dir(target) as directory:
            # What differs from clone to clone is no part of the key.
            head = [f"MODULE={MODULE}", f"OUT={directory}", 'cd "$MODULE"']
            lines = [*head, f"LDFLAGS='{_flags()}'", *lines]
            gotools.run("\n".join(lines), cache / "log" / f"{name}.log")
        shell.say(f"{name} compiled in {time.monotonic() - begin:.0f} s")
    return target
