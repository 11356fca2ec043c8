# SPDX-License-Identifier: Apache-2.0
"""The Secrets that a StorageClass names for Kubernetes to bring along.

The sidecars and kubelet read these parameters, fill in their templates and hand
the Secret's content to the driver; the driver never sees the names.  Here they
are known for the documentation and for `rbdcrypt-csi doctor`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Final

from csi_driver.domain.described import REQUIRED
from csi_driver.domain.described import Described

PREFIX: Final = "csi.storage.k8s.io/"
PROVISION: Final = "provisioner-secret"
STAGE: Final = "node-stage-secret"
PUBLISH: Final = "node-publish-secret"

USED: Final = (
    Described(
        PROVISION,
        "the Secret with which volumes of this class are made; csi-provisioner reads"
        " it",
        f"{REQUIRED} for encrypted volumes, unless there is `passphraseSecretName`",
    ),
    Described(
        STAGE,
        "the Secret with which a node opens them, which has to be the same one;"
        " kubelet reads it",
        f"{REQUIRED} as `{PROVISION}`",
    ),
    Described(
        PUBLISH,
        "the same Secret once more: with it kubelet can have a volume opened again"
        " whose datapath died, without staging it anew",
    ),
)
"""Each stands for two parameters, which end in -name and -namespace."""

_UNUSED: Final = (
    "controller-publish-secret",
    "controller-expand-secret",
    "controller-modify-secret",
    "node-expand-secret",
    "secret",
)
"""What the sidecars and kubelet know as well and this driver has no use for."""

_WORD: Final = re.compile(r"\$\{([^}]*)\}")
_ANNOTATION: Final = re.compile(r"pvc\.annotations\['[^']*'\]")
_NAMESPACE_WORDS: Final = ("pv.name", "pvc.namespace")
_NAME_WORDS: Final = (*_NAMESPACE_WORDS, "pvc.name")


@dataclasses.dataclass(frozen=True, slots=True)
class SecretTemplate:
    """One Secret of a class, for one purpose; name and namespace may be templates."""

    purpose: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def fixed(self) -> bool:
        """True if every volume of the class has this very Secret."""
        return bool(self.fixed_namespace and self.fixed_name)

    @property
    def fixed_namespace(self) -> str:
        """The namespace, if every volume's Secret is in this one; else ""."""
        return "" if _WORD.search(self.namespace) else self.namespace

    @property
    def fixed_name(self) -> str:
        """The name, if every volume's Secret has this one; else ""."""
        return "" if _WORD.search(self.name) else self.name

    def faults(self) -> Iterator[str]:
        """Go through what no sidecar can fill in."""
        for text, known in (
            (self.namespace, _NAMESPACE_WORDS),
            (self.name, _NAME_WORDS),
        ):
            what = "namespace" if text is self.namespace else "name"
            if not text:
                yield f"{self.purpose} has no {what}"
            for word in _WORD.findall(text):
                noted = what == "name" and _ANNOTATION.fullmatch(word)
                if word not in known and not noted:
                    choice = ", ".join(f"${{{each}}}" for each in known)
                    yield (
                        f"{self.purpose}-{what} has the template ${{{word}}}, which"
                        f" nobody fills in; there are {choice}"
                    )


def templates(parameters: Mapping[str, str]) -> tuple[SecretTemplate, ...]:
    """Return the Secrets that a class names for Kubernetes to bring along."""
    found = []
    for purpose in (*(each.name for each in USED), *_UNUSED):
        keys = f"{PREFIX}{purpose}-namespace", f"{PREFIX}{purpose}-name"
        if any(key in parameters for key in keys):
            namespace, name = (parameters.get(key, "") for key in keys)
            found.append(SecretTemplate(purpose, namespace, name))
    return tuple(found)


def without_secrets(parameters: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters that csi-provisioner hands on to the driver."""
    brought = {
        f"{PREFIX}{purpose}-{end}"
        for purpose in (*(each.name for each in USED), *_UNUSED)
        for end in ("name", "namespace")
    }
    return {name: text for name, text in parameters.items() if name not in brought}
