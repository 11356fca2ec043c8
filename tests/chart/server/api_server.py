# SPDX-License-Identifier: Apache-2.0
"""A real API server with its etcd, on loopback, and nothing behind it.

It checks and keeps objects and decides who may do what; no controller and no
kubelet makes anything of them.  The programs are those that hack/cluster makes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path

import yaml
from charttools import rendering
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

START_SECONDS = 60.0
END_SECONDS = 20.0


def program(name: str) -> str:
    """Return the path of a program: its variable, beside helm, or in PATH."""
    variable = name.upper().replace("-", "_")
    beside = Path(rendering.helm()).parent / name
    found = os.environ.get(variable) or (str(beside) if beside.exists() else None)
    found = found or shutil.which(name)
    if not found:
        message = f"{name} is not here: set {variable}, or make it with hack/cluster"
        raise FileNotFoundError(message)
    return found


def snapshot_crds() -> Path:
    """Return the directory of external-snapshotter's CRDs, beside helm."""
    beside = Path(rendering.helm()).parent / "snapshots"
    found = Path(os.environ.get("SNAPSHOT_CRDS", beside))
    if not found.is_dir():
        message = (
            f"{found} does not exist: set SNAPSHOT_CRDS to client/config/crd of"
            " external-snapshotter, or have hack/cluster make it"
        )
        raise FileNotFoundError(message)
    return found


class ApiServer:
    """A running API server, and how its clients reach it."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self._helm = rendering.helm()
        self._kubectl = program("kubectl")

    def helm(self, *words: str) -> str:
        """Run helm; HelmError with what it says on stderr."""
        return rendering.run(self._helm, "--kubeconfig", str(self.kubeconfig), *words)

    def kubectl(self, *words: str, given: str = "") -> str:
        """Run kubectl with `given` as its input; AssertionError with what it says."""
        done = subprocess.run(
            [self._kubectl, "--kubeconfig", str(self.kubeconfig), *words],
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"kubectl {' '.join(words)}: {done.stderr}"
        return done.stdout

    def apply(self, *objects: object) -> None:
        """Make these objects."""
        text = yaml.safe_dump_all(objects)
        self.kubectl("apply", "--server-side", "--filename", "-", given=text)

    def names(self, kinds: str, namespace: str = "") -> set[str]:
        """Return the names, as `kind/name`, of all objects of these kinds."""
        where = ["--namespace", namespace] if namespace else []
        return set(self.kubectl("get", kinds, *where, "--output", "name").split())

    def allows(self, account: str, verb: str, resource: str, namespace: str) -> bool:
        """Ask the server's own authorizer; `account` is NAMESPACE:NAME."""
        done = subprocess.run(
            [
                *(self._kubectl, "--kubeconfig", str(self.kubeconfig)),
                *("auth", "can-i", verb, resource, "--namespace", namespace),
                *("--as", f"system:serviceaccount:{account}"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        answer = done.stdout.strip()
        assert answer in {"yes", "no"}, done.stderr
        return answer == "yes"


@contextlib.contextmanager
def running(place: Path) -> Iterator[ApiServer]:
    """Run one with its data in `place`; RuntimeError with its log if it does not."""
    etcd, peer, secure = _free_ports(3)
    keys = _write_keys(place)
    token = "made-up-for-this-server"
    (place / "tokens.csv").write_text(f'{token},admin,1,"system:masters"\n')
    store = f"http://127.0.0.1:{etcd}"
    with contextlib.ExitStack() as ends:
        ends.enter_context(
            _process(
                place / "etcd.log",
                program("etcd"),
                f"--data-dir={place / 'etcd'}",
                f"--listen-client-urls={store}",
                f"--advertise-client-urls={store}",
                f"--listen-peer-urls=http://127.0.0.1:{peer}",
                "--unsafe-no-fsync",
                "--log-level=error",
            )
        )
        server = ends.enter_context(
            _process(
                place / "apiserver.log",
                program("kube-apiserver"),
                f"--etcd-servers={store}",
                "--bind-address=127.0.0.1",
                f"--secure-port={secure}",
                f"--cert-dir={place / 'certificates'}",
                f"--token-auth-file={place / 'tokens.csv'}",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={keys}",
                f"--service-account-signing-key-file={keys}",
                "--authorization-mode=RBAC",
                "--allow-privileged=true",
                "--service-cluster-ip-range=10.96.0.0/24",
                "--endpoint-reconciler-type=none",
                "--disable-admission-plugins=ServiceAccount",
            )
        )
        kubeconfig = place / "kubeconfig"
        kubeconfig.write_text(_kubeconfig(secure, token))
        api = ApiServer(kubeconfig)
        _wait_until_ready(api, server, place / "apiserver.log")
        yield api


def _free_ports(count: int) -> Sequence[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _write_keys(place: Path) -> Path:
    """Write what signs the tokens of service accounts."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    path = place / "accounts.key"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    return path


def _kubeconfig(port: int, token: str) -> str:
    server = {"server": f"https://127.0.0.1:{port}", "insecure-skip-tls-verify": True}
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": server}],
            "users": [{"name": "admin", "user": {"token": token}}],
            "contexts": [
                {"name": "test", "context": {"cluster": "test", "user": "admin"}}
            ],
            "current-context": "test",
        }
    )


@contextlib.contextmanager
def _process(log: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        child = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _wait_until_ready(
    api: ApiServer, server: subprocess.Popen[bytes], log: Path
) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(AssertionError):
            api.kubectl("get", "--raw", "/readyz")
            return
        if server.poll() is not None or time.monotonic() > deadline:
            end = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
            message = f"the API server does not serve; end of {log}:\n{end}"
            raise RuntimeError(message)
        time.sleep(0.2)
