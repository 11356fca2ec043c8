# SPDX-License-Identifier: Apache-2.0
"""A notice as an Event of Kubernetes (core/v1): its JSON and its clean text.

Pure functions.  What is posted when, and where, is left to `events`.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
import uuid
from collections.abc import Mapping
from typing import Any
from typing import Final

from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.notices import Claim
from csi_driver.domain.notices import Happening
from csi_driver.domain.notices import Pod
from csi_driver.kube.objects import require_name

LONGEST_MESSAGE: Final = 1024
"""Characters that Kubernetes takes."""

COMPONENT: Final = "rbdcrypt-csi"

_CUT: Final = "..."
_BLANK: Final = "***"
_STRANGE: Final = "?"
_KEY_LIKE: Final = re.compile(r"[A-Za-z0-9+/_-]{37,}={1,2}")
"""Base64 of 28 bytes or more, padded: a cephx key and a 32-byte key look so."""


@dataclasses.dataclass(frozen=True, slots=True)
class Reporter:
    """Who reports: the driver's name, and the node or pod where it runs."""

    driver: str
    instance: str


@dataclasses.dataclass(frozen=True, slots=True)
class Occurrence:
    """One thing that happened to one object, however often.

    Two of them are one Event, with a count, if they are equal.
    """

    about: Claim | Pod
    what: Happening
    message: str


def clean(text: str) -> str:
    """Return a text as it may be shown: one line, no control characters, no key.

    Messages hold no secret in the first place; what is spelt like a key is blanked
    all the same.
    """
    line = " ".join(text.split())
    line = "".join(each if each.isprintable() else _STRANGE for each in line)
    line = _KEY_LIKE.sub(_BLANK, line)
    if len(line) > LONGEST_MESSAGE:
        line = line[: LONGEST_MESSAGE - len(_CUT)] + _CUT
    return line


def event_name(about: Claim | Pod, when: dt.datetime) -> str:
    """Return a name that no other Event has, as client-go makes it.

    A UUID where the object's name leaves no room.
    """
    name = f"{about.name}.{int(when.timestamp() * 1e9):x}{uuid.uuid4().hex[:4]}"
    try:
        require_name(name)
    except InvalidRequestError:
        return str(uuid.uuid4())
    return name


def event_object(
    name: str,
    seen: Occurrence,
    reporter: Reporter,
    *,
    first: dt.datetime,
    last: dt.datetime,
    count: int,
) -> dict[str, Any]:
    """Return the JSON of a new Event.

    Without `eventTime`, as client-go's recorder still writes them: such an Event
    has a count that grows.
    """
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": seen.about.namespace},
        "involvedObject": _reference(seen.about),
        "reason": seen.what.value,
        "message": seen.message,
        "type": "Warning" if seen.what.alarming else "Normal",
        "source": {"component": COMPONENT, "host": reporter.instance},
        "reportingComponent": reporter.driver,
        "reportingInstance": reporter.instance,
        "firstTimestamp": _spelt(first),
        "lastTimestamp": _spelt(last),
        "count": count,
    }


def event_change(*, last: dt.datetime, count: int) -> Mapping[str, Any]:
    """Return what changes when it happens again."""
    return {"lastTimestamp": _spelt(last), "count": count}


def _reference(about: Claim | Pod) -> dict[str, str]:
    kind = "Pod" if isinstance(about, Pod) else "PersistentVolumeClaim"
    found = {
        "apiVersion": "v1",
        "kind": kind,
        "namespace": about.namespace,
        "name": about.name,
    }
    if about.uid:
        found["uid"] = about.uid
    return found


def _spelt(when: dt.datetime) -> str:
    """Spell a time as Kubernetes does, which knows whole seconds here."""
    return when.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
