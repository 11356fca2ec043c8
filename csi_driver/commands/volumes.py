# SPDX-License-Identifier: Apache-2.0
"""`rbdcrypt-csi volume …`: volumes by hand, by the code of the services."""

from __future__ import annotations

import contextlib
import enum
import json
from collections.abc import Iterable

from csi_driver.commands import composition
from csi_driver.commands import service
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.parameters import SecretRef
from csi_driver.domain.record import Record
from csi_driver.provisioning.adopt import Adoption
from csi_driver.provisioning.adopt import adopt
from csi_driver.provisioning.adopt import manifest
from csi_driver.provisioning.requests import VolumeInfo
from csi_driver.settings import ClusterSettings

__all__ = ["Adoption", "Output", "adopt_image", "list_volumes", "parse_output"]


class Output(enum.StrEnum):
    """For people, or for programs."""

    TABLE = "table"
    JSON = "json"


def parse_output(text: str) -> Output:
    """Return a format by its name; InvalidRequestError lists the known ones."""
    try:
        return Output(text)
    except ValueError:
        message = f"--output {text!r} is not one of {', '.join(Output)}"
        raise InvalidRequestError(message) from None


def list_volumes(settings: ClusterSettings, output: Output) -> str:
    """Return all volumes of all configured pools, as a text to print."""
    service.start_logging(settings)
    volumes = composition.provisioning(settings).volumes
    found = volumes.list("", 0).volumes
    if output is Output.JSON:
        return json.dumps([_plain(info) for info in found], indent=2)
    return _table(found)


def adopt_image(
    settings: ClusterSettings,
    *,
    cluster: str,
    pool: str,
    namespace: str,
    asked: Adoption,
    secret: str,
) -> str:
    """Make a volume of an image that others made.

    Returns a PersistentVolume to give to kubectl, with the volume id in a
    comment before it.
    """
    service.start_logging(settings)
    reference = _reference(secret)
    storage = composition.ceph(settings)
    config = storage.clusters.get(cluster)
    with contextlib.closing(storage.connector.connect(cluster)) as ceph:
        place = ceph.pool(pool, namespace)
        record = adopt(place, config, asked)
        volume_id = VolumeId(place.location, record.image_id)
    return manifest_text(volume_id, record, settings.driver_name, reference)


def manifest_text(
    volume_id: VolumeId,
    record: Record,
    driver: str,
    secret: SecretRef | None,
) -> str:
    """Return the PersistentVolume of an adopted volume, with comments before it."""
    comments = [f"# volume id: {volume_id}"]
    if record.mode.encrypted and secret is None:
        comments.append(
            "# no --secret was given: set spec.csi.nodeStageSecretRef to the Secret"
            " with its passphrases"
        )
    # JSON is YAML, and YAML has comments.
    wanted = json.dumps(manifest(volume_id, record, driver, secret), indent=2)
    return "\n".join((*comments, wanted))


def _reference(text: str) -> SecretRef | None:
    if not text:
        return None
    namespace, _, name = text.partition("/")
    if not namespace or not name or "/" in name:
        message = f"--secret {text!r} is not NAMESPACE/NAME"
        raise InvalidRequestError(message)
    return SecretRef(namespace, name)


def _plain(info: VolumeInfo) -> dict[str, object]:
    return {
        "id": str(info.volume_id),
        "bytes": info.size.count,
        "context": dict(info.context),
        "nodes": list(info.nodes),
    }


def _table(found: Iterable[VolumeInfo]) -> str:
    rows = [("ID", "BYTES", "NODES")]
    rows += [
        (str(info.volume_id), str(info.size.count), ",".join(info.nodes) or "-")
        for info in found
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]}" for row in rows
    )
