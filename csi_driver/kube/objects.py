# SPDX-License-Identifier: Apache-2.0
"""Names and JSON of Kubernetes objects, checked before anything trusts them.

Pure functions over bytes.  No message quotes a value of a Secret.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import Mapping
from typing import Any
from typing import Final

from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.notices import Claim
from csi_driver.domain.parameters import SecretRef
from csi_driver.kube.contract import CsiVolumeSource

_LONGEST_NAME: Final = 253
_LONGEST_LABEL: Final = 63
_SHOWN: Final = 60
_LABEL: Final = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_NAMESPACE: Final = re.compile(_LABEL)
_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")


def require_name(name: str) -> None:
    """InvalidRequestError unless this is a DNS subdomain name (RFC 1123).

    It goes into a path of the API: `..` and slashes must not get that far.
    """
    if len(name) > _LONGEST_NAME or not _NAME.fullmatch(name):
        raise InvalidRequestError(
            f"{name[:_SHOWN]!r} is not a name of a Kubernetes object: lower-case"
            f" letters, digits, '-' and '.', at most {_LONGEST_NAME}"
        )


def require_namespace(namespace: str) -> None:
    """InvalidRequestError unless this is a DNS label (RFC 1123)."""
    if len(namespace) > _LONGEST_LABEL or not _NAMESPACE.fullmatch(namespace):
        raise InvalidRequestError(
            f"{namespace[:_SHOWN]!r} is not a Kubernetes namespace: lower-case"
            f" letters, digits and '-', at most {_LONGEST_LABEL}"
        )


def secret_data(body: bytes, title: str) -> dict[str, str]:
    """Decode the data of a Secret.

    SecretError if a value is not UTF-8, InternalError if this is no Secret.
    """
    data = parsed(body, title).get("data")
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise InternalError(f"{title}: the API server's answer has malformed data")
    return {str(name): _value(value, str(name), title) for name, value in data.items()}


def csi_source(body: bytes, title: str) -> CsiVolumeSource:
    """Read the CSI part of a PersistentVolume.

    PreconditionError if it has none, InternalError if this is no volume.
    """
    spec = parsed(body, title).get("spec")
    csi = spec.get("csi") if isinstance(spec, dict) else None
    if not isinstance(spec, dict) or not isinstance(csi, dict):
        raise PreconditionError(f"{title} is not a CSI volume")
    reference = csi.get("nodeStageSecretRef")
    return CsiVolumeSource(
        driver=_text(csi, "driver", title),
        volume_handle=_text(csi, "volumeHandle", title),
        node_stage_secret=None if reference is None else _reference(reference, title),
        claim=_claim(spec.get("claimRef")),
    )


def _claim(value: object) -> Claim | None:
    """Return what a volume is bound to; None if it does not say so properly."""
    if not isinstance(value, dict):
        return None
    namespace, name, uid = (value.get(key) for key in ("namespace", "name", "uid"))
    if not isinstance(namespace, str) or not isinstance(name, str):
        return None
    try:
        require_namespace(namespace)
        require_name(name)
    except InvalidRequestError:
        return None
    return Claim(namespace, name, uid if isinstance(uid, str) else "")


def _reference(value: object, title: str) -> SecretRef:
    if not isinstance(value, dict):
        raise InternalError(f"{title} has a malformed nodeStageSecretRef")
    namespace = _text(value, "namespace", title)
    name = _text(value, "name", title)
    require_namespace(namespace)
    require_name(name)
    return SecretRef(namespace, name)


def _text(fields: Mapping[str, object], name: str, title: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value:
        raise PreconditionError(f"{title} has no {name}")
    return value


def parsed(body: bytes, title: str) -> Mapping[str, Any]:
    """Return an answer as a JSON object; InternalError if it is none."""
    # A decoding error carries the whole document, so it must not be the context
    # of what is raised here.
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InternalError(f"{title}: the API server's answer is not a JSON object")
    return value


def _value(value: object, name: str, title: str) -> str:
    decoded = None
    if isinstance(value, str):
        # ValueError is bad base64 and bad UTF-8 alike; the latter carries the
        # value along and must not be the context of what is raised here.
        with contextlib.suppress(ValueError):
            decoded = base64.b64decode(value, validate=True).decode("utf-8")
    if decoded is None:
        raise SecretError(
            f"{title}: the value of {name[:_SHOWN]} is not UTF-8 text; give random"
            " bytes as base64 in encryptionKey"
        )
    return decoded
