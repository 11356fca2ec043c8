# SPDX-License-Identifier: Apache-2.0
"""When a pod's service account token ends, read from the token itself.

A JSON Web Token is three parts of base64; the middle one has the time in clear.
Nothing is verified: that is the API server's business.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import json
from pathlib import Path
from typing import Final

ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where kubelet puts a pod's token and the name of its namespace."""

_PARTS: Final = 3


def ending(token: str) -> dt.datetime | None:
    """Return when a token ends; None if it does not say."""
    parts = token.strip().split(".")
    if len(parts) != _PARTS:
        return None
    with contextlib.suppress(ValueError, TypeError, KeyError, OverflowError):
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=="))
        return dt.datetime.fromtimestamp(int(claims["exp"]), tz=dt.UTC)
    return None


def own_ending(account: Path = ACCOUNT) -> dt.datetime | None:
    """Return when this pod's token ends; None outside of a pod."""
    try:
        return ending((account / "token").read_text(encoding="ascii", errors="replace"))
    except OSError:
        return None


def own_namespace(account: Path = ACCOUNT) -> str:
    """Return this pod's namespace, "" outside of a pod."""
    try:
        return (account / "namespace").read_text(encoding="utf-8").strip()
    except OSError:
        return ""
