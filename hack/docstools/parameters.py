# SPDX-License-Identifier: Apache-2.0
"""docs/parameters.md: every name that users write, as the code describes it."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Final

from csi_driver import settings
from csi_driver.domain import class_secrets
from csi_driver.domain import limits
from csi_driver.domain import parameters
from csi_driver.domain.ids import ID_PARTS
from csi_driver.domain.ids import Location
from csi_driver.domain.ids import SnapshotId
from csi_driver.domain.ids import VolumeId
from csi_driver.keys.material import SECRET_KEYS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Iterator
    from collections.abc import Sequence

    from pydantic.fields import FieldInfo

    from csi_driver.domain.described import Described

PAGE: Final = Path("docs/parameters.md")

_COMMANDS: Final[dict[str, type[settings.Settings]]] = {
    "controller": settings.ControllerSettings,
    "node": settings.NodeSettings,
    "datapath": settings.DatapathSettings,
    "volume": settings.ClusterSettings,
    "doctor": settings.DoctorSettings,
}

_HEAD: Final = """# Parameters

Every name that is written into a class, a Secret or a setting, as the driver's own
code describes it. This page is made by `hack/docs parameters`; a test compares it
with the code.
"""

_CLASS: Final = """## StorageClass

An unknown parameter is an error: a misspelt `encrypted` must not end in a plaintext
volume.
"""

_SECRETS: Final = f"""### The Secret of a class

Kubernetes brings the Secret along with each call. Each of these stands for two
parameters, which begin with `{class_secrets.PREFIX}` and end in `-name` and
`-namespace`. In a name, `${{pvc.name}}`, `${{pvc.namespace}}`, `${{pv.name}}` and
`${{pvc.annotations['KEY']}}` are filled in, in a namespace `${{pvc.namespace}}` and
`${{pv.name}}`.
"""

_EXAMPLE: Final = """```yaml
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: rbdcrypt
provisioner: csi.rbdcrypt.io
allowVolumeExpansion: true
parameters:
  clusterID: lab
  pool: rbd
  csi.storage.k8s.io/fstype: xfs
  csi.storage.k8s.io/provisioner-secret-name: rbdcrypt-passphrase
  csi.storage.k8s.io/provisioner-secret-namespace: ${pvc.namespace}
  csi.storage.k8s.io/node-stage-secret-name: rbdcrypt-passphrase
  csi.storage.k8s.io/node-stage-secret-namespace: ${pvc.namespace}
  csi.storage.k8s.io/node-publish-secret-name: rbdcrypt-passphrase
  csi.storage.k8s.io/node-publish-secret-namespace: ${pvc.namespace}
```
"""
"""A test gives it to the driver's own parser."""

_SNAPSHOTS: Final = """## VolumeSnapshotClass

It has no parameters, and needs no Secret: a snapshot belongs to its volume's key.
"""

_ATTRIBUTES: Final = """## VolumeAttributesClass

What it does not name stays as it is. A change is obeyed by a volume that is in use,
within a second.
"""

_KEYS: Final = """## Secret

Other keys in the same Secret are left alone. No value of a Secret is ever logged.
"""

_SETTINGS: Final = """## Settings

A flag wins over its variable. An empty variable is as good as none.
"""


def page() -> str:
    """Return the whole page."""
    parts = [
        _HEAD,
        _CLASS,
        _described("parameter", parameters.PARAMETERS),
        _SECRETS,
        _described("parameters", class_secrets.USED),
        _EXAMPLE,
        _SNAPSHOTS,
        _ATTRIBUTES,
        _described("parameter", limits.PARAMETERS),
        _KEYS,
        _described("key", SECRET_KEYS),
        _SETTINGS,
        _table(("flag", "variable", "commands", "default", "meaning"), _settings()),
        _ids(),
    ]
    return "\n".join(parts)


def _described(title: str, rows: Iterable[Described]) -> str:
    return _table(
        (title, "default", "meaning"),
        ((_code(each.name), each.default or "none", each.meaning) for each in rows),
    )


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join(f"| {' | '.join(map(_cell, each))} |\n" for each in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _code(text: str) -> str:
    return ", ".join(each if each == "…" else f"`{each}`" for each in text.split(", "))


def _settings() -> Iterator[tuple[str, ...]]:
    """Return one row for each setting, whichever commands take it."""
    takers: dict[str, list[str]] = {}
    fields: dict[str, FieldInfo] = {}
    for command, kind in _COMMANDS.items():
        for name, field in kind.model_fields.items():
            takers.setdefault(name, []).append(command)
            # What a service needs, the doctor may do without.
            fields.setdefault(name, field)
    for name, commands in takers.items():
        yield (
            f"`--{name.replace('_', '-')}`",
            f"`{settings.variable(name)}`",
            "all" if len(commands) == len(_COMMANDS) else ", ".join(commands),
            _default(fields[name]),
            fields[name].description or "",
        )


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if isinstance(value, enum.Enum):
        value = value.value
    return f"`{value}`" if value not in {None, ""} else "none"


def _ids() -> str:
    volume = VolumeId(Location("lab", 2, "tenant"), "101234c6629d")
    snapshot = SnapshotId(volume, 7)
    parts = _table(
        ("part", "meaning"), ((each.name, each.meaning) for each in ID_PARTS)
    )
    return f"""## Volume id

What a PersistentVolume calls `volumeHandle`, and a VolumeSnapshotContent
`snapshotHandle`: `{volume}`, `{snapshot}`.

{parts}"""
