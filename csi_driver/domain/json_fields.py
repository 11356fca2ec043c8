# SPDX-License-Identifier: Apache-2.0
"""Reading typed fields of the record's JSON: another type is a TypeError.

`Record.from_json` turns every such error into one that a person can read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def string(fields: Mapping[str, Any], name: str) -> str:
    """Return a field that has to be a string."""
    value = fields[name]
    if not isinstance(value, str):
        message = f"{name} is not a string"
        raise TypeError(message)
    return value


def strings(fields: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Return a field that has to be a list of strings."""
    value = fields[name]
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        message = f"{name} is not a list of strings"
        raise TypeError(message)
    return tuple(value)


def integer(fields: Mapping[str, Any], name: str) -> int:
    """Return a field that has to be an integer."""
    value = fields[name]
    if not isinstance(value, int) or isinstance(value, bool):
        message = f"{name} is not an integer"
        raise TypeError(message)
    return value


def natural(fields: Mapping[str, Any], name: str) -> int:
    """Return a field that has to be an integer of at least 0."""
    value = integer(fields, name)
    if value < 0:
        message = f"{name} is negative"
        raise ValueError(message)
    return value


def truth(fields: Mapping[str, Any], name: str) -> bool:
    """Return a field that has to be true or false."""
    value = fields[name]
    if not isinstance(value, bool):
        message = f"{name} is not true or false"
        raise TypeError(message)
    return value


def optional(fields: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """Return a field that has to be an object or null."""
    value = fields[name]
    if value is not None and not isinstance(value, dict):
        message = f"{name} is neither an object nor null"
        raise TypeError(message)
    return value


def objects(fields: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """Return a field that has to be a list of objects."""
    value = fields[name]
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        message = f"{name} is not a list of objects"
        raise TypeError(message)
    return value
