# SPDX-License-Identifier: Apache-2.0
"""Show a protobuf message in a log without its secrets.

What is secret is decided by the option `csi_secret` in the message's own
descriptor and by nothing else: no list of field names has to be kept in step
with the specification.  Fields that this build does not know are left out, for
a newer peer may have put a secret there.  Where and when to log is left to the
interceptors.
"""

from __future__ import annotations

from typing import Any
from typing import Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from csi_driver.rpc.stubs import csi_pb2

type Shown = str | int | float | bool | list[Shown] | dict[str, Shown]
"""What a log renderer gets: plain values, ready for JSON."""

REDACTED: Final = "***"
"""Stands for every secret value, whatever its type or length."""


def redact(message: Message) -> dict[str, Shown]:
    """Return the populated fields of `message` by name, secrets replaced.

    Of a secret map the keys stay, since they tell a forgotten Secret key from
    a misspelt one; of every other secret nothing stays.  Enum values are shown
    by name, bytes by their number.
    """
    return {
        field.name: _secret(field, value) if _is_secret(field) else _plain(field, value)
        for field, value in message.ListFields()
    }


def _is_secret(field: FieldDescriptor) -> bool:
    return bool(field.GetOptions().Extensions[csi_pb2.csi_secret])


def _map_value(field: FieldDescriptor) -> FieldDescriptor | None:
    """Return the field that a map's values fill, or None if it is no map."""
    entry = field.message_type
    if entry is None or not entry.GetOptions().map_entry:
        return None
    return entry.fields_by_name["value"]


def _secret(field: FieldDescriptor, value: Any) -> Shown:
    if _map_value(field) is None:
        return REDACTED
    return {str(key): REDACTED for key in value}


def _plain(field: FieldDescriptor, value: Any) -> Shown:
    content = _map_value(field)
    if content is not None:
        return {str(key): _single(content, value[key]) for key in value}
    if field.is_repeated:
        return [_single(field, item) for item in value]
    return _single(field, value)


def _single(field: FieldDescriptor, value: Any) -> Shown:
    if isinstance(value, Message):
        return redact(value)
    if field.enum_type is not None:
        named = field.enum_type.values_by_number.get(value)
        return str(value) if named is None else named.name
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, str | int | float):
        return value
    kind = type(value).__name__
    message = f"field {field.full_name} holds a {kind}, which is no protobuf scalar"
    raise TypeError(message)
