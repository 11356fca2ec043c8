# SPDX-License-Identifier: Apache-2.0
"""Frozen dataclasses to JSON and back, strictly; secrets travel beside it.

A secret never enters the JSON text, where it would turn into strings that
nobody can overwrite: the text holds its index, the bytes follow the text in
their own part of the frame (`wire`).  Reading takes exactly the fields and
types of the dataclass and nothing else, with two exceptions for processes of
different versions: a field that was `added` later may be missing, and of a
sender that is `ahead` more fields than are known here are passed over.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from typing import Final

from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.secrets import SecretBytes

_INDEX: Final = "secret"
_SINCE: Final = "since"
_PLAIN: Final = (str, int, bool)


def added(since: int) -> dict[str, int]:
    """Return the metadata of a field that versions before `since` do not have.

    It needs a default, at which it stands in what they send; they are not told of it.
    """
    return {_SINCE: since}


def needed(value: object) -> int:
    """Return the lowest version that can express `value`, 0 if any can."""
    if isinstance(value, tuple):
        return max((needed(each) for each in value), default=0)
    if not dataclasses.is_dataclass(value):
        return 0
    found = 0
    for field in dataclasses.fields(value):
        content = getattr(value, field.name)
        since = field.metadata.get(_SINCE, 0)
        told = since if since and content != field.default else 0
        found = max(found, told, needed(content))
    return found


def to_json(
    value: object, secrets: list[SecretBytes], version: int | None = None
) -> Any:
    """Return JSON values for `value`; its secrets are appended to `secrets`.

    With a `version` without the fields that were added after it.
    """
    if value is None or (isinstance(value, str | int) and not _is_enum(value)):
        return value
    if isinstance(value, SecretBytes):
        secrets.append(value)
        return {_INDEX: len(secrets) - 1}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [to_json(each, secrets, version) for each in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: to_json(getattr(value, field.name), secrets, version)
            for field in dataclasses.fields(value)
            if version is None or field.metadata.get(_SINCE, 0) <= version
        }
    message = f"a {type(value).__name__} has no form in a message"
    raise TypeError(message)


def from_json(
    wanted: Any, found: Any, secrets: Sequence[SecretBytes], *, ahead: bool = False
) -> Any:
    """Return the value of type `wanted`; InvalidRequestError if it is not one."""
    if wanted in _PLAIN:
        if type(found) is not wanted:
            raise _mismatch(wanted, found)
        return found
    if wanted is SecretBytes:
        return _secret(found, secrets)
    origin = typing.get_origin(wanted)
    if origin in {types.UnionType, typing.Union}:
        return _optional(wanted, found, secrets, ahead=ahead)
    if origin is tuple:
        if not isinstance(found, list):
            raise _mismatch(wanted, found)
        (element, _) = typing.get_args(wanted)
        return tuple(from_json(element, each, secrets, ahead=ahead) for each in found)
    if isinstance(wanted, type):
        return _object(wanted, found, secrets, ahead=ahead)
    message = f"messages have no field of type {wanted!r}"
    raise TypeError(message)


def split(lengths: Any, raw: bytes | bytearray | memoryview) -> list[SecretBytes]:
    """Cut the secret part of a frame into its secrets; they are copies."""
    well_formed = isinstance(lengths, list) and all(
        type(each) is int and each >= 0 for each in lengths
    )
    if not well_formed or sum(lengths) != len(raw):
        message = "a message of the datapath has secrets of other lengths"
        raise InvalidRequestError(message)
    secrets = []
    begin = 0
    for length in lengths:
        with memoryview(raw)[begin : begin + length] as part:
            secrets.append(SecretBytes(bytearray(part)))
        begin += length
    return secrets


def _object(
    wanted: type, found: Any, secrets: Sequence[SecretBytes], *, ahead: bool
) -> Any:
    if issubclass(wanted, enum.Enum):
        try:
            return wanted(found)
        except ValueError:
            raise _mismatch(wanted, found) from None
    if issubclass(wanted, Path):
        return Path(from_json(str, found, secrets))
    if not dataclasses.is_dataclass(wanted):
        message = f"messages have no field of type {wanted!r}"
        raise TypeError(message)
    hints = _hints(wanted)
    if (
        not isinstance(found, dict)
        or not _always(wanted) <= found.keys()
        or not (ahead or found.keys() <= hints.keys())
    ):
        raise _mismatch(wanted, found)
    fields = {
        name: from_json(hint, found[name], secrets, ahead=ahead)
        for name, hint in hints.items()
        if name in found
    }
    return wanted(**fields)


def _optional(
    wanted: Any, found: Any, secrets: Sequence[SecretBytes], *, ahead: bool
) -> Any:
    if found is None:
        return None
    (inner,) = (each for each in typing.get_args(wanted) if each is not types.NoneType)
    return from_json(inner, found, secrets, ahead=ahead)


def _secret(found: Any, secrets: Sequence[SecretBytes]) -> SecretBytes:
    index = found.get(_INDEX) if isinstance(found, dict) and len(found) == 1 else None
    if type(index) is not int or not 0 <= index < len(secrets):
        raise _mismatch(SecretBytes, found)
    return secrets[index]


@functools.cache
def _hints(wanted: type) -> dict[str, Any]:
    hints = typing.get_type_hints(wanted)
    return {field.name: hints[field.name] for field in dataclasses.fields(wanted)}


@functools.cache
def _always(wanted: type) -> frozenset[str]:
    """Return the fields that every version has."""
    fields = dataclasses.fields(wanted)
    return frozenset(each.name for each in fields if _SINCE not in each.metadata)


def _is_enum(value: object) -> bool:
    return isinstance(value, enum.Enum)


def _mismatch(wanted: Any, found: Any) -> InvalidRequestError:
    """Say what was expected; of what was found only the type is safe to tell."""
    name = getattr(wanted, "__name__", str(wanted))
    return InvalidRequestError(
        f"a message of the datapath holds a {type(found).__name__} or other fields"
        f" where {name} belongs",
    )
