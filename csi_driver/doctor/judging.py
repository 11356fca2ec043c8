# SPDX-License-Identifier: Apache-2.0
"""What Kubernetes objects have to say for this driver to work with them.

Pure functions over JSON; classes go through the driver's own parser.  Reading the
objects is left to `kubernetes`, and for what an administrator alone may see to the
kubectl plugin.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any
from typing import Final

from csi_driver.doctor.check import Check
from csi_driver.doctor.check import Topic
from csi_driver.domain.class_secrets import PROVISION
from csi_driver.domain.class_secrets import STAGE
from csi_driver.domain.class_secrets import SecretTemplate
from csi_driver.domain.class_secrets import templates
from csi_driver.domain.class_secrets import without_secrets
from csi_driver.domain.clusters import Clusters
from csi_driver.domain.errors import DriverError
from csi_driver.domain.limits import NO_LIMITS
from csi_driver.domain.parameters import METADATA
from csi_driver.domain.parameters import VolumeParameters
from csi_driver.domain.parameters import check_snapshot_parameters
from csi_driver.domain.parameters import parse_parameters

type Json = Mapping[str, Any]

PASSPHRASE: Final = "passphraseSecret"  # noqa: S105  # a purpose
RELEASE_NAMESPACE: Final = "meta.helm.sh/release-namespace"

_EXPECTED: Final[Mapping[str, tuple[object, str]]] = {
    "fsGroupPolicy": ("File", "pods with an fsGroup may be refused their files"),
    "podInfoOnMount": (True, "Events name no pods"),
    "seLinuxMount": (True, "labels are written to every file at each start of a pod"),
    "storageCapacity": (False, "pods wait for capacities that nobody publishes"),
    "requiresRepublish": (False, "kubelet publishes again and again for nothing"),
    "volumeLifecycleModes": (
        ["Persistent"],
        "inline volumes are offered, which this driver does not have",
    ),
}
"""Fields of a CSIDriver, what they have to be, and what comes of another value."""


def csi_driver(found: Json | None, name: str, own_namespace: str) -> Iterator[Check]:
    """Judge the CSIDriver object; None is one that does not exist.

    `own_namespace` is the driver's, "" if it is not known.
    """
    topic = Topic("csi-driver", name)
    if found is None:
        yield topic.failed(
            "there is no CSIDriver of this name",
            "install the chart; without it volumes are attached by default rules",
        )
        return
    spec = _mapping(found.get("spec"))
    if spec.get("attachRequired", True) is not True:
        yield topic.failed(
            "attachRequired is false, so that two nodes may be given one volume",
            "delete the object, which nothing else can change, and upgrade the chart",
        )
    for field, (wanted, consequence) in _EXPECTED.items():
        value = spec.get(field, wanted)
        if value != wanted:
            yield topic.warning(
                f"{field} is {value!r}, this version expects {wanted!r}: {consequence}",
                "upgrade the chart together with the driver",
            )
    metadata = _mapping(found.get("metadata"))
    holder = _mapping(metadata.get("annotations")).get(RELEASE_NAMESPACE)
    if own_namespace and holder and holder != own_namespace:
        yield topic.failed(
            f"it belongs to a Helm release in namespace {holder}, this driver runs in"
            f" {own_namespace}: two drivers have one name",
            "remove one of them, or give it another driverName",
        )
    else:
        yield topic.ok("exists, and attachment is required of every node")


def csi_node(found: Json | None, name: str, node: str) -> Check:
    """Judge a CSINode object: whether kubelet knows the driver."""
    topic = Topic("csi-node", node)
    drivers = _mapping(found.get("spec") if found else None).get("drivers") or []
    entry = next((each for each in drivers if each.get("name") == name), None)
    if entry is None:
        return topic.failed(
            f"kubelet has not registered {name} on this node",
            "look at the logs of the node's pod and of kubelet: the registration"
            " socket has to be in kubelet's plugins_registry",
        )
    known = entry.get("nodeID")
    if known != node:
        return topic.failed(
            f"kubelet knows the node as {known!r}, the driver as {node!r}",
            "set RBDCRYPT_NODE_ID to spec.nodeName",
        )
    return topic.ok(f"kubelet has registered {name}")


def storage_class(found: Json, clusters: Clusters | None) -> Iterator[Check]:
    """Judge a StorageClass of this driver; without `clusters` its places are not."""
    topic = Topic("storage-class", _name(found))
    given = _parameters(found)
    secrets = templates(given)
    faults = [fault for each in secrets for fault in each.faults()]
    parsed: VolumeParameters | None = None
    try:
        # What --extra-create-metadata adds is at hand when a volume is made.
        metadata = dict.fromkeys(METADATA, "x")
        parsed = parse_parameters({**metadata, **without_secrets(given)})
        if clusters is not None:
            _require_places(parsed, clusters)
    except DriverError as error:
        faults.append(str(error))
    if parsed is not None:
        faults += _lacking(parsed, secrets)
    for fault in faults:
        yield topic.failed(
            fault, "parameters cannot be changed: delete the class and make it anew"
        )
    if parsed is not None and not faults:
        yield topic.ok(_described(parsed, secrets))
        if found.get("allowVolumeExpansion") is not True:
            yield topic.warning(
                "claims of this class cannot grow",
                "set allowVolumeExpansion: true, which can be changed",
            )


def snapshot_class(found: Json) -> Check:
    """Judge a VolumeSnapshotClass of this driver."""
    topic = Topic("snapshot-class", _name(found))
    given = {
        name: text
        for name, text in _parameters(found).items()
        if not name.startswith("csi.storage.k8s.io/snapshotter-")
    }
    try:
        check_snapshot_parameters(given)
    except DriverError as error:
        return topic.failed(str(error), "delete the class and make it anew")
    return topic.ok("its parameters are known")


def attributes_class(found: Json) -> Check:
    """Judge a VolumeAttributesClass of this driver."""
    topic = Topic("attributes-class", _name(found))
    try:
        limits = NO_LIMITS.changed_by(_parameters(found))
    except DriverError as error:
        return topic.failed(str(error), "delete the class and make it anew")
    return topic.ok(f"iops {limits.iops}, bandwidth {limits.bandwidth} (0: no limit)")


def named_secrets(found: Json) -> list[SecretTemplate]:
    """Return every Secret that a StorageClass names, for whatever purpose."""
    given = _parameters(found)
    named = list(templates(given))
    own = SecretTemplate(
        PASSPHRASE,
        given.get("passphraseSecretNamespace", ""),
        given.get("passphraseSecretName", ""),
    )
    if own.namespace and own.name:
        named.append(own)
    return named


def _require_places(parsed: VolumeParameters, clusters: Clusters) -> None:
    config = clusters.get(parsed.cluster)
    config.require(parsed.pool, parsed.namespace)
    if parsed.data_pool:
        config.require_data_pool(parsed.data_pool)


def _lacking(
    parsed: VolumeParameters, secrets: tuple[SecretTemplate, ...]
) -> Iterator[str]:
    """Go through what an encrypted class has to name and does not."""
    by_purpose = {each.purpose: each for each in secrets}
    fallback = by_purpose.get("secret")
    if not parsed.encrypted or parsed.secret is not None or fallback is not None:
        return
    for purpose in (PROVISION, STAGE):
        if purpose not in by_purpose:
            yield f"it makes encrypted volumes and names no {purpose}"
    if {PROVISION, STAGE} <= by_purpose.keys():
        made, opened = by_purpose[PROVISION], by_purpose[STAGE]
        if str(made) != str(opened):
            yield (
                f"volumes are made with Secret {made} and opened with {opened}: they"
                " have to be the same"
            )


def _described(parsed: VolumeParameters, secrets: tuple[SecretTemplate, ...]) -> str:
    place = f"{parsed.pool}/{parsed.namespace}".rstrip("/")
    kind = "encrypted" if parsed.encrypted else "plaintext"
    staged = next((each for each in secrets if each.purpose == STAGE), None)
    secret = parsed.secret or staged
    named = f", Secret {secret}" if secret and parsed.encrypted else ""
    return f"{kind} volumes in {parsed.cluster}:{place}{named}"


def _name(found: Json) -> str:
    return str(_mapping(found.get("metadata")).get("name", ""))


def _parameters(found: Json) -> dict[str, str]:
    given = _mapping(found.get("parameters"))
    return {str(name): str(text) for name, text in given.items()}


def _mapping(found: object) -> Json:
    return found if isinstance(found, dict) else {}
