# SPDX-License-Identifier: Apache-2.0
"""Tokens of ServiceAccounts, and one whose time is over, with the cluster's signature.

The API server gives out none that ends sooner than in ten minutes, so that one that
kubelet has not renewed is made here of a real one.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

_TIMES: Final = ("exp", "iat", "nbf")
_DAY: Final = 24 * 3600


def new(account: str, namespace: str) -> str:
    """Return a token that the API server accepts for an hour."""
    command = ["kubectl", "create", "token", account, "--namespace", namespace]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def expired(token: str) -> str:
    """Return the token as it was given out a day before."""
    head, body, _ = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    claims |= {name: claims[name] - _DAY for name in _TIMES}
    signed = f"{head}.{_encoded(json.dumps(claims).encode())}"
    path = Path(os.environ["KUBECONFIG"]).with_name("service-accounts.key")
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    assert isinstance(key, RSAPrivateKey)
    signature = key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{signed}.{_encoded(signature)}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
