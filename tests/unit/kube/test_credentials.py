# SPDX-License-Identifier: Apache-2.0
"""Which credentials the client uses, and whom it trusts."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
import subprocess
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from kubernetes.config import incluster_config

from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.parameters import SecretRef
from csi_driver.kube.api import KubernetesApi

if TYPE_CHECKING:
    from tests.unit.kube.conftest import ApiServer
    from tests.unit.kube.conftest import MakeApi

TOKEN = "canary-api-token"
KEYS = SecretRef("tenant-a", "volume-keys")


@pytest.mark.parametrize(
    "content",
    [None, "", "{", f"users: [{TOKEN}]", "apiVersion: v1", f"\t{TOKEN}: :", "\0"],
)
def test_an_unusable_kubeconfig_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "broken"
    if content is not None:
        path.write_text(content)
    with pytest.raises(PreconditionError, match="broken cannot be used") as caught:
        KubernetesApi(path).read_secret(KEYS)
    assert TOKEN not in "".join(traceback.format_exception(caught.value))


def test_outside_of_a_pod_there_is_no_service_account(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(PreconditionError, match="service account cannot be used"):
        KubernetesApi().read_secret(KEYS)


def test_the_package_is_imported_only_when_it_is_needed() -> None:
    program = (
        "import sys; from csi_driver.kube.api import KubernetesApi;"
        " KubernetesApi(); print('kubernetes' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, timeout=60
    )
    assert done.stdout == b"False\n"


def _certificate(folder: Path) -> tuple[Path, Path]:
    """Write a certificate for 127.0.0.1 that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "api")])
    now = dt.datetime.now(dt.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    certificate_path, key_path = folder / "api.crt", folder / "api.key"
    certificate_path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate_path, key_path


@pytest.fixture
def authority(server: ApiServer, tmp_path: Path) -> Path:
    """Put the server behind TLS and return its certificate."""
    certificate, key = _certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    server.will({"body": b'{"data": {"a": "eA=="}}'})
    return certificate


def test_tls_is_checked_against_the_authority(
    server: ApiServer, make_api: MakeApi, authority: Path
) -> None:
    url = f"https://127.0.0.1:{server.server_port}"
    assert make_api(url, authority).read_secret(KEYS) == {"a": "x"}
    with pytest.raises(UnavailableError, match="certificate authority"):
        make_api(url).read_secret(KEYS)
    assert len(server.requests) == 1


def test_in_a_pod_the_service_account_serves(
    server: ApiServer,
    authority: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    account = tmp_path / "token"
    account.write_text("first")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.server_port))
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(account))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(authority))
    api = KubernetesApi()
    assert api.read_secret(KEYS) == {"a": "x"}

    def let_the_token_expire() -> None:
        hook = api._exchange._made.configuration.refresh_api_key_hook
        (loader,) = [cell.cell_contents for cell in hook.__closure__]
        loader.token_expires_at = dt.datetime.min  # noqa: DTZ901

    account.write_text("second")
    let_the_token_expire()
    assert api.read_secret(KEYS) == {"a": "x"}
    assert [sent for _, sent in server.requests] == ["bearer first", "bearer second"]

    account.unlink()
    let_the_token_expire()
    with pytest.raises(PreconditionError, match="token cannot be read again"):
        api.read_secret(KEYS)
    api.close()
