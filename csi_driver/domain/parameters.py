# SPDX-License-Identifier: Apache-2.0
"""The parameters of storage and snapshot classes, checked before anything is made.

Names and meaning follow ceph-csi's RBD driver where it has them, so that its
users find what they know.  An unknown name is an error: a misspelt
`encrypted` must not end in a plaintext volume.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any
from typing import Final
from typing import Self

from csi_driver.domain import json_fields as read
from csi_driver.domain.access import DEFAULT_FILESYSTEM
from csi_driver.domain.access import Filesystem
from csi_driver.domain.access import parse_filesystem
from csi_driver.domain.class_secrets import without_secrets
from csi_driver.domain.described import REQUIRED
from csi_driver.domain.described import Described
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.flattening import HARD_DEPTH
from csi_driver.domain.flattening import SOFT_DEPTH
from csi_driver.domain.flattening import FlattenPolicy
from csi_driver.domain.sizes import RawSize
from csi_driver.domain.sizes import Striping

FSTYPE: Final = "csi.storage.k8s.io/fstype"
METADATA: Final = {
    "csi.storage.k8s.io/pvc/name": "pvc.name",
    "csi.storage.k8s.io/pvc/namespace": "pvc.namespace",
    "csi.storage.k8s.io/pv/name": "pv.name",
}
_SNAPSHOT_METADATA: Final = (
    "csi.storage.k8s.io/volumesnapshot/name",
    "csi.storage.k8s.io/volumesnapshot/namespace",
    "csi.storage.k8s.io/volumesnapshotcontent/name",
)
DEFAULT_FEATURES: Final = ("layering", "exclusive-lock", "object-map", "fast-diff")
PARAMETERS: Final = (
    Described("clusterID", "which cluster of the cluster config", REQUIRED),
    Described("pool", "which pool; must be one of the driver's", REQUIRED),
    Described(
        "dataPool",
        "pool for the data, an erasure-coded one for example; must be one of the"
        " driver's",
    ),
    Described("radosNamespace", "RADOS namespace in the pool"),
    Described(
        "imageFeatures",
        "features of the RBD image, with commas; the first two cannot be left out",
        f"`{','.join(DEFAULT_FEATURES)}`",
    ),
    Described("objectSize", "bytes of one RADOS object, as in `rbd create`", "4194304"),
    Described(
        "stripeUnit",
        "bytes, as in `rbd create`; below `objectSize` only for plaintext volumes",
        "`objectSize`",
    ),
    Described("stripeCount", "objects in a stripe, as in `rbd create`", "1"),
    Described("mkfsOptions", "further options of mkfs; those that discard are refused"),
    Described("encrypted", '`"false"` makes a plaintext volume', '`"true"`'),
    Described(
        "flattenPolicy",
        f"when clones are flattened: `never`, `depth` (from {SOFT_DEPTH} images below"
        f" on; none beyond {HARD_DEPTH}) or `always`",
        "`never`",
    ),
    Described(
        "passphraseSecretName",
        "a Secret that the driver reads itself; `${pvc.name}`, `${pvc.namespace}` and"
        " `${pv.name}` are filled in",
    ),
    Described("passphraseSecretNamespace", "that Secret's namespace, filled in alike"),
    Described(FSTYPE, "`ext4` or `xfs`", f"`{DEFAULT_FILESYSTEM.value}`"),
)
KNOWN: Final = tuple(each.name for each in PARAMETERS)
_REFUSED_FEATURES: Final = {
    "deep-flatten": (
        "a flatten of an encrypted clone would leave its snapshots unreadable"
    ),
    "journaling": "librbd does not load encryption on a journaled image",
}
_NEEDED_FEATURES: Final = ("layering", "exclusive-lock")
_TEMPLATE: Final = re.compile(r"\$\{([^}]*)\}")
_PASSPHRASE: Final = ("passphraseSecretName", "passphraseSecretNamespace")


@dataclasses.dataclass(frozen=True, slots=True)
class SecretRef:
    """A Kubernetes Secret by namespace and name; never its content."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    def to_json_object(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"namespace": self.namespace, "name": self.name}

    @classmethod
    def from_json_object(cls, fields: Mapping[str, Any]) -> Self:
        """Read the JSON form; TypeError or LookupError if it is damaged."""
        return cls(read.string(fields, "namespace"), read.string(fields, "name"))


@dataclasses.dataclass(frozen=True, slots=True)
class VolumeParameters:
    """A checked set of class parameters."""

    cluster: str
    pool: str
    data_pool: str = ""
    namespace: str = ""
    features: tuple[str, ...] = DEFAULT_FEATURES
    striping: Striping = dataclasses.field(default_factory=Striping)
    mkfs_options: str = ""
    filesystem: Filesystem | None = None
    encrypted: bool = True
    secret: SecretRef | None = None
    pv_name: str = ""
    flatten_policy: FlattenPolicy = FlattenPolicy.NEVER

    def require_possible(self, raw: RawSize) -> None:
        """Refuse an image size that librbd would refuse (SizeError)."""
        if "object-map" in self.features:
            self.striping.require_mappable(raw)

    def to_json_object(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "cluster": self.cluster,
            "pool": self.pool,
            "dataPool": self.data_pool,
            "namespace": self.namespace,
            "features": list(self.features),
            "objectSize": self.striping.object_size,
            "stripeUnit": self.striping.stripe_unit,
            "stripeCount": self.striping.stripe_count,
            "mkfsOptions": self.mkfs_options,
            "filesystem": self.filesystem.value if self.filesystem else None,
            "encrypted": self.encrypted,
            "secret": self.secret.to_json_object() if self.secret else None,
            "pvName": self.pv_name,
            "flattenPolicy": self.flatten_policy.value,
        }

    @classmethod
    def from_json_object(cls, fields: Mapping[str, Any]) -> Self:
        """Read the JSON form; TypeError, ValueError or LookupError if damaged."""
        secret = read.optional(fields, "secret")
        filesystem = fields["filesystem"]
        return cls(
            cluster=read.string(fields, "cluster"),
            pool=read.string(fields, "pool"),
            data_pool=read.string(fields, "dataPool"),
            namespace=read.string(fields, "namespace"),
            features=read.strings(fields, "features"),
            striping=Striping(
                read.integer(fields, "objectSize"),
                read.integer(fields, "stripeUnit"),
                read.integer(fields, "stripeCount"),
            ),
            mkfs_options=read.string(fields, "mkfsOptions"),
            filesystem=None if filesystem is None else Filesystem(filesystem),
            encrypted=read.truth(fields, "encrypted"),
            secret=None if secret is None else SecretRef.from_json_object(secret),
            pv_name=read.string(fields, "pvName"),
            flatten_policy=FlattenPolicy(fields["flattenPolicy"]),
        )


def parse_parameters(given: Mapping[str, str]) -> VolumeParameters:
    """Check class parameters; InvalidRequestError names what is wrong."""
    unknown = sorted(set(given) - set(KNOWN) - set(METADATA))
    if unknown:
        message = (
            f"unknown parameter {', '.join(map(repr, unknown))};"
            f" known are {', '.join(KNOWN)}"
        )
        raise InvalidRequestError(message)
    for name in ("clusterID", "pool"):
        if not given.get(name):
            message = f"parameter {name} is missing"
            raise InvalidRequestError(message)
    encrypted = _boolean("encrypted", given.get("encrypted", "true"))
    striping = _striping(given)
    if encrypted and not striping.encryptable:
        message = (
            f"stripeUnit {striping.stripe_unit} below objectSize"
            f" {striping.object_size} is refused for encrypted volumes: librbd"
            " would mix up their blocks; leave stripeUnit out"
        )
        raise InvalidRequestError(message)
    return VolumeParameters(
        cluster=given["clusterID"],
        pool=given["pool"],
        data_pool=given.get("dataPool", ""),
        namespace=given.get("radosNamespace", ""),
        features=_features(given.get("imageFeatures", "")),
        striping=striping,
        mkfs_options=given.get("mkfsOptions", ""),
        filesystem=parse_filesystem(given.get(FSTYPE, "")),
        encrypted=encrypted,
        secret=_secret(given),
        pv_name=given.get("csi.storage.k8s.io/pv/name", ""),
        flatten_policy=_policy(given.get("flattenPolicy", "")),
    )


def without_claim(given: Mapping[str, str]) -> dict[str, str]:
    """Return of class parameters what can be understood without any claim.

    csi-provisioner keeps the Secrets that it brings along from CreateVolume, but
    hands GetCapacity the class as it is, when there is no claim yet whose name
    could be filled in.
    """
    own = without_secrets(given)
    return {name: text for name, text in own.items() if name not in _PASSPHRASE}


def parse_secret_ref(given: Mapping[str, str]) -> SecretRef | None:
    """Read `passphraseSecretName` and `-Namespace` of a class or a PV."""
    name = given.get("passphraseSecretName", "")
    namespace = given.get("passphraseSecretNamespace", "")
    if bool(name) != bool(namespace):
        message = (
            "passphraseSecretName and passphraseSecretNamespace are given"
            " together or not at all"
        )
        raise InvalidRequestError(message)
    return SecretRef(namespace, name) if name else None


def check_snapshot_parameters(given: Mapping[str, str]) -> None:
    """Check the parameters of a VolumeSnapshotClass, of which there are none.

    What csi-snapshotter adds with --extra-create-metadata is no parameter and
    means nothing here.  InvalidRequestError names everything else.
    """
    unknown = sorted(set(given) - set(_SNAPSHOT_METADATA))
    if unknown:
        message = (
            f"unknown snapshot parameter {', '.join(map(repr, unknown))}: a"
            " VolumeSnapshotClass of this driver has no parameters but its Secret"
        )
        raise InvalidRequestError(message)


def _secret(given: Mapping[str, str]) -> SecretRef | None:
    """Fill in `${pvc.name}` and the like from the provisioner's metadata."""
    values = {word: given[key] for key, word in METADATA.items() if key in given}

    def fill(match: re.Match[str]) -> str:
        word = match.group(1)
        if word not in values:
            message = (
                f"${{{word}}} in a passphraseSecret parameter cannot be filled"
                f" in; at hand are {', '.join(sorted(values)) or 'no values'}"
                " (csi-provisioner needs --extra-create-metadata)"
            )
            raise InvalidRequestError(message)
        return values[word]

    ref = parse_secret_ref(given)
    if ref is None:
        return None
    return SecretRef(
        _TEMPLATE.sub(fill, ref.namespace),
        _TEMPLATE.sub(fill, ref.name),
    )


def _features(text: str) -> tuple[str, ...]:
    if not text:
        return DEFAULT_FEATURES
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name in _REFUSED_FEATURES:
            message = f"image feature {name} is refused: {_REFUSED_FEATURES[name]}"
            raise InvalidRequestError(message)
        if name not in DEFAULT_FEATURES:
            message = (
                f"unknown image feature {name!r};"
                f" known are {', '.join(DEFAULT_FEATURES)}"
            )
            raise InvalidRequestError(message)
    missing = [name for name in _NEEDED_FEATURES if name not in names]
    if missing:
        message = f"image features {', '.join(missing)} cannot be left out"
        raise InvalidRequestError(message)
    if "fast-diff" in names and "object-map" not in names:
        message = "image feature fast-diff needs object-map"
        raise InvalidRequestError(message)
    return tuple(name for name in DEFAULT_FEATURES if name in names)


def _policy(text: str) -> FlattenPolicy:
    try:
        return FlattenPolicy(text) if text else FlattenPolicy.NEVER
    except ValueError:
        known = ", ".join(each.value for each in FlattenPolicy)
        message = f"parameter flattenPolicy must be one of {known}, not {text!r}"
        raise InvalidRequestError(message) from None


def _striping(given: Mapping[str, str]) -> Striping:
    object_size = _number("objectSize", given.get("objectSize", ""), 4 << 20)
    unit = _number("stripeUnit", given.get("stripeUnit", ""), object_size)
    return Striping(
        object_size=object_size,
        stripe_unit=unit,
        stripe_count=_number("stripeCount", given.get("stripeCount", ""), 1),
    )


def _number(name: str, text: str, default: int) -> int:
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > len(str(1 << 63)):
        message = f"parameter {name} must be a number, {text!r} is not"
        raise InvalidRequestError(message)
    return int(text)


def _boolean(name: str, text: str) -> bool:
    if text not in {"true", "false"}:
        message = f'parameter {name} must be "true" or "false", not {text!r}'
        raise InvalidRequestError(message)
    return text == "true"
