# SPDX-License-Identifier: Apache-2.0
"""Secrets as text: what `kubectl get secret -o json` prints, or what made one.

No message quotes a value, and no parser's error is passed on: it would show the
line that it stumbled over.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Mapping
from typing import Final

import yaml

from csi_driver.domain.errors import SecretError

_SHOWN: Final = 60
_DATA: Final = "data"
_PLAIN: Final = "stringData"
LONGEST: Final = 1 << 20
"""Bytes of such a text; Kubernetes allows a Secret of 1 MiB."""


def parse_secret(text: str, title: str) -> dict[str, str]:
    """Return the values of a Secret, or of a flat mapping of names to strings.

    `title` names the source in messages.  SecretError if it is neither.
    """
    found = _loaded(text, title)
    if found.get("kind") != "Secret" and not {_DATA, _PLAIN} & found.keys():
        return {str(name): _string(found, name, title) for name in found}
    encoded = _mapping(found.get(_DATA), title)
    plain = _mapping(found.get(_PLAIN), title)
    return {
        **{str(name): _decoded(encoded, name, title) for name in encoded},
        **{str(name): _string(plain, name, title) for name in plain},
    }


def _loaded(text: str, title: str) -> Mapping[object, object]:
    value: object = None
    # JSON is not quite YAML: there, two escapes make one letter beyond U+FFFF.
    for parse, refusal in ((json.loads, ValueError), (yaml.safe_load, yaml.YAMLError)):
        if value is None and len(text) <= LONGEST:
            with contextlib.suppress(refusal, RecursionError, ValueError):
                value = parse(text)
    if not isinstance(value, dict) or not value:
        raise SecretError(
            f"{title} is neither a Secret, as `kubectl get secret -o json` prints"
            " it, nor a mapping of names to strings in JSON or YAML"
        )
    return value


def _mapping(value: object, title: str) -> Mapping[object, object]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise SecretError(f"{title}: {_DATA} or {_PLAIN} is not a mapping")
    return value


def _string(fields: Mapping[object, object], name: object, title: str) -> str:
    value = fields[name]
    if not isinstance(value, str):
        raise SecretError(
            f"{title}: the value of {str(name)[:_SHOWN]} is not a string: quote it"
        )
    return value


def _decoded(fields: Mapping[object, object], name: object, title: str) -> str:
    encoded = _string(fields, name, title)
    decoded = None
    # ValueError is bad base64 and bad UTF-8 alike, and may carry the value.
    with contextlib.suppress(ValueError):
        decoded = base64.b64decode(encoded, validate=True).decode("utf-8")
    if decoded is None:
        raise SecretError(
            f"{title}: the value of {str(name)[:_SHOWN]} is not base64 of UTF-8 text"
        )
    return decoded
