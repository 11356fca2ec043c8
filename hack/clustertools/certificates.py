# SPDX-License-Identifier: Apache-2.0
"""Keys and certificates by which the parts of the cluster know each other."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING
from typing import Final

from labtools import shell

from clustertools import network
from clustertools import nodes

if TYPE_CHECKING:
    from pathlib import Path

_DAYS: Final = "365"
_SERVER_NAMES: Final = (
    "DNS:localhost",
    "DNS:kubernetes",
    "DNS:kubernetes.default",
    "DNS:kubernetes.default.svc",
    "DNS:kubernetes.default.svc.cluster.local",
    "IP:127.0.0.1",
    f"IP:{nodes.FIRST.address}",
    f"IP:{nodes.SERVICE_ADDRESS}",
)


@dataclasses.dataclass(frozen=True, slots=True)
class _Certificate:
    """Who somebody is: `/O=group/CN=user`, and for servers the names they have."""

    subject: str
    names: tuple[str, ...] = ()


_CERTIFICATES: Final = {
    "apiserver": _Certificate("/CN=kube-apiserver", _SERVER_NAMES),
    "apiserver-kubelet-client": _Certificate("/O=system:masters/CN=apiserver"),
    "front-proxy-client": _Certificate("/CN=front-proxy-client"),
    **{
        f"{node.name}-server": _Certificate(
            f"/O=system:nodes/CN=system:node:{node.name}",
            (f"DNS:{node.name}", f"IP:{node.address}"),
        )
        for node in nodes.NODES
    },
    **{
        node.name: _Certificate(f"/O=system:nodes/CN=system:node:{node.name}")
        for node in nodes.NODES
    },
    "controller-manager": _Certificate("/CN=system:kube-controller-manager"),
    "scheduler": _Certificate("/CN=system:kube-scheduler"),
    "admin": _Certificate("/O=system:masters/CN=lab-admin"),
}
_CLIENTS: Final = (
    "controller-manager",
    "scheduler",
    "admin",
    *(node.name for node in nodes.NODES),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Identities:
    """The directory of all keys, certificates and kubeconfigs."""

    directory: Path

    def certificate(self, name: str) -> Path:
        """Return the path of a certificate."""
        return self.directory / f"{name}.crt"

    def key(self, name: str) -> Path:
        """Return the path of a private key."""
        return self.directory / f"{name}.key"

    def kubeconfig(self, name: str) -> Path:
        """Return the path of the kubeconfig of one of the clients."""
        return self.directory / f"{name}.kubeconfig"

    def make(self) -> None:
        """Make all that are missing."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._make_authority()
        for name, wanted in _CERTIFICATES.items():
            self._issue(name, wanted)
        if not self.key("service-accounts").exists():
            shell.run("openssl", "genrsa", "-out", self.key("service-accounts"), "2048")
        for name in _CLIENTS:
            self._write_kubeconfig(name)

    def _make_authority(self) -> None:
        if self.certificate("ca").exists():
            return
        extensions = (
            "basicConstraints=critical,CA:TRUE",
            "keyUsage=critical,keyCertSign,cRLSign",
        )
        shell.run(
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes"),
            *("-days", _DAYS, "-subj", "/CN=lab-ca"),
            *("-keyout", self.key("ca"), "-out", self.certificate("ca")),
            *(word for each in extensions for word in ("-addext", each)),
        )

    def _issue(self, name: str, wanted: _Certificate) -> None:
        if self.certificate(name).exists():
            return
        request = self.directory / f"{name}.csr"
        shell.run(
            *("openssl", "req", "-newkey", "rsa:2048", "-nodes"),
            *("-subj", wanted.subject, "-keyout", self.key(name), "-out", request),
        )
        usage = "serverAuth" if wanted.names else "clientAuth"
        lines = [
            "keyUsage=critical,digitalSignature,keyEncipherment",
            "basicConstraints=CA:FALSE",
            f"extendedKeyUsage={usage}",
        ]
        if wanted.names:
            lines.append(f"subjectAltName={','.join(wanted.names)}")
        extensions = self.directory / f"{name}.ext"
        extensions.write_text("\n".join(lines) + "\n")
        shell.run(
            *("openssl", "x509", "-req", "-in", request, "-days", _DAYS),
            *("-CA", self.certificate("ca"), "-CAkey", self.key("ca")),
            *("-CAcreateserial", "-extfile", extensions),
            *("-out", self.certificate(name)),
        )

    def _write_kubeconfig(self, name: str) -> None:
        server = f"https://{nodes.FIRST.address}:{network.API_PORT}"
        authority = str(self.certificate("ca"))
        user = {
            "client-certificate": str(self.certificate(name)),
            "client-key": str(self.key(name)),
        }
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "lab",
                    "cluster": {"server": server, "certificate-authority": authority},
                }
            ],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": name}}],
            "current-context": "lab",
        }
        path = self.kubeconfig(name)
        path.write_text(json.dumps(config, indent=2) + "\n")
        path.chmod(0o600)
