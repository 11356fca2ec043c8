# SPDX-License-Identifier: Apache-2.0
"""Which volume a command means, and with which Secret."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from csi_driver.commands import composition
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.parameters import SecretRef
from csi_driver.images.directory import Directory
from csi_driver.kube.secret_texts import LONGEST
from csi_driver.kube.secret_texts import parse_secret
from csi_driver.provisioning.overview import Place
from csi_driver.provisioning.overview import places
from csi_driver.settings import ClusterSettings

_ID: Final = "v1:"
_STDIN: Final = "-"


@dataclasses.dataclass(frozen=True, slots=True)
class Named:
    """A CSI id, or a volume's name; what is given beside it narrows the search."""

    text: str
    cluster: str | None = None
    pool: str | None = None
    namespace: str | None = None

    def _admits(self, place: Place) -> bool:
        return (
            self.cluster in {None, place.cluster}
            and self.pool in {None, place.pool}
            and self.namespace in {None, place.namespace}
        )

    def find(self, storage: composition.Ceph) -> VolumeId:
        """Return the id of the volume.

        NotFoundError if no place has the name; InvalidRequestError if several
        have it.
        """
        if self.text.startswith(_ID):
            return VolumeId.parse(self.text)
        searched = [each for each in places(storage.clusters) if self._admits(each)]
        if not searched:
            message = "no place of the cluster config fits --cluster, --pool and"
            raise InvalidRequestError(f"{message} --namespace")
        found: list[VolumeId] = []
        for each in searched:
            with storage.connections.pool(
                each.cluster, each.pool, each.namespace
            ) as pool:
                entry = Directory(pool).find(self.text)
                if entry is not None and entry.image_id:
                    found.append(VolumeId(pool.location, entry.image_id))
        if not found:
            where = ", ".join(map(str, searched))
            message = f"no volume is called {self.text!r} in {where}"
            raise NotFoundError(message)
        if len(found) > 1:
            ids = ", ".join(map(str, found))
            message = (
                f"{len(found)} volumes are called {self.text!r}: give one of {ids}"
            )
            raise InvalidRequestError(message)
        return found[0]


@dataclasses.dataclass(frozen=True, slots=True)
class SecretSource:
    """Where a Secret is: a file, `-` for stdin, or NAMESPACE/NAME in Kubernetes."""

    file: str = ""
    reference: str = ""

    def read(self, settings: ClusterSettings) -> Mapping[str, str]:
        """Return the Secret's values; nothing if none was given."""
        if self.file and self.reference:
            message = "give --secret-file or --secret, not both"
            raise InvalidRequestError(message)
        if self.file:
            title = "stdin" if self.file == _STDIN else self.file
            return parse_secret(_text(self.file), title)
        reference = parse_reference(self.reference)
        if reference is None:
            return {}
        reader = composition.kubernetes_api(settings)
        if reader is None:
            message = (
                f"Secret {reference} cannot be read: no Kubernetes API server is"
                " known here; give --kubeconfig, or the Secret with --secret-file"
            )
            raise PreconditionError(message)
        return reader.read_secret(reference)


def parse_reference(text: str) -> SecretRef | None:
    """Read NAMESPACE/NAME; None for ""."""
    if not text:
        return None
    namespace, _, name = text.partition("/")
    if not namespace or not name or "/" in name:
        message = f"--secret {text!r} is not NAMESPACE/NAME"
        raise InvalidRequestError(message)
    return SecretRef(namespace, name)


def _text(file: str) -> str:
    # A decoding error would carry the text along.
    data = b""
    try:
        if file == _STDIN:
            data = sys.stdin.buffer.read(LONGEST + 1)
        else:
            with Path(file).open("rb") as opened:
                data = opened.read(LONGEST + 1)
    except OSError as error:
        message = f"the Secret cannot be read from {file}: {error.strerror}"
        raise SecretError(message) from None
    return data.decode("utf-8", "replace")
