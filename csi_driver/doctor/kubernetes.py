# SPDX-License-Identifier: Apache-2.0
"""What the API server says: to this process's credentials, rights and objects.

A right that is lacking for the look itself is a warning that says who can look.
Judging what objects say is left to `judging`.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import threading
import urllib.parse
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any
from typing import Final
from typing import Protocol

from csi_driver.doctor import judging
from csi_driver.doctor.check import Check
from csi_driver.doctor.check import Examination
from csi_driver.doctor.check import Topic
from csi_driver.domain.class_secrets import PROVISION
from csi_driver.domain.class_secrets import SecretTemplate
from csi_driver.domain.clusters import Clusters
from csi_driver.domain.errors import CredentialsError
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import ForbiddenError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.parameters import SecretRef
from csi_driver.keys.material import find_key_source
from csi_driver.kube.contract import SecretReader
from csi_driver.kube.examined import Examined
from csi_driver.kube.examined import Right

SKEW: Final = 5.0
"""Seconds that two clocks may differ; the server tells its own in whole ones."""

_STORAGE: Final = "/apis/storage.k8s.io/v1"
_SNAPSHOT_GROUP: Final = "snapshot.storage.k8s.io"
_SNAPSHOTS: Final = f"/apis/{_SNAPSHOT_GROUP}/v1"
_SNAPSHOT_KINDS: Final = frozenset(
    {"volumesnapshots", "volumesnapshotclasses", "volumesnapshotcontents"}
)
_CRDS: Final = (
    "install all of external-snapshotter's CRDs and its snapshot-controller, then run"
    " `helm upgrade` for the classes; no pod has to be restarted"
)
_CLAIMS: Final = "/api/v1/persistentvolumeclaims"
_PAGE: Final = 250
_PAGES: Final = 20
"""How many claims are asked for at once, and how often: 5000 are enough to know."""

NOT_LOOKED_AT: Final = "not looked at"
_OUTSIDE: Final = "`kubectl rbdcrypt doctor` looks with the rights of its user"


type _Json = Mapping[str, Any]


class Api(Examined, SecretReader, Protocol):
    """All that is asked of the API server here."""


@dataclasses.dataclass(frozen=True, slots=True)
class Cluster:
    """One API server as one role of the driver sees it.

    `namespace` is the driver's own, "" outside of a pod; `token_ends` tells when
    the token in use ends, None where that is not known.
    """

    api: Api
    driver: str
    clusters: Clusters | None = None
    namespace: str = ""
    token_ends: Callable[[], dt.datetime | None] = lambda: None
    now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC)
    _reached: threading.Event = dataclasses.field(default_factory=threading.Event)

    def for_controller(self) -> Iterator[Examination]:
        """Go through what the controller and its sidecars rest on."""
        yield Examination(Topic("api-server"), self._server)
        if not self._reached.is_set():
            return  # nothing else would be answered, and each would wait for it
        yield Examination(Topic("rights"), self._rights)
        for name, look in (
            ("csi-driver", self._csi_driver),
            ("storage-class", self._storage_classes),
            ("snapshot-class", self._snapshot_classes),
            ("attributes-class", self._attributes_classes),
        ):
            topic = Topic(name, self.driver if name == "csi-driver" else "")
            yield Examination(topic, functools.partial(_permitted, topic, look))

    def for_node(self, node: str) -> Iterator[Examination]:
        """Go through what the node service rests on."""
        yield Examination(Topic("api-server"), self._server)
        if not self._reached.is_set():
            return
        yield Examination(Topic("rights"), self._rights)
        topic = Topic("csi-node", node)
        look = functools.partial(self._csi_node, node)
        yield Examination(topic, functools.partial(_permitted, topic, look))

    def _server(self) -> Iterator[Check]:
        topic = Topic("api-server")
        try:
            found = self.api.server()
        except CredentialsError as error:
            yield topic.failed(str(error), self._token_advice())
            return
        self._reached.set()
        yield topic.ok(f"answers, version {found.version}; the credentials are valid")
        if found.date is not None:
            yield _skew((self.now() - found.date).total_seconds())

    def _token_advice(self) -> str:
        ends = self.token_ends()
        if ends is not None and ends <= self.now():
            return (
                f"the token expired at {ends:%Y-%m-%d %H:%M:%S} UTC: kubelet renews it"
                " in the pod, so look whether this node's kubelet runs, or restart the"
                " pod"
            )
        if ends is None:
            return ""  # the message itself speaks of kubeconfigs
        return (
            "the token's time is not over: its ServiceAccount was deleted, or made anew"
            " since the pod started; make it again (`helm upgrade`) and delete the pod,"
            " whose successor gets a new token"
        )

    def _rights(self) -> Iterator[Check]:
        wanted = {
            Right("get", "persistentvolumes"): (
                "a clone finds no Secret of its source, and Events find no claim"
            ),
            Right("create", "events"): "no Event is posted on claims and pods",
            Right("patch", "events"): "repeated Events are not counted",
        }
        missing = [each for each in wanted if not self.api.may(each)]
        for right in missing:
            yield Topic("rights", str(right)).warning(
                f"is not given: {wanted[right]}",
                "upgrade the chart, or bind a ClusterRole to the ServiceAccount",
            )
        if not missing:
            yield Topic("rights").ok(", ".join(map(str, wanted)))

    def _csi_driver(self) -> Iterator[Check]:
        found = self._object("csidrivers", self.driver, f"CSIDriver {self.driver}")
        yield from judging.csi_driver(found, self.driver, self.namespace)

    def _csi_node(self, node: str) -> Iterator[Check]:
        found = self._object("csinodes", node, f"CSINode {node}")
        yield judging.csi_node(found, self.driver, node)

    def _object(self, resource: str, name: str, title: str) -> _Json | None:
        """Return an object of the storage group, None without it."""
        try:
            return self.api.look_at(f"{_STORAGE}/{resource}/{name}", title)
        except NotFoundError:
            return None

    def _storage_classes(self) -> Iterator[Check]:
        classes = self._ours("storageclasses", "provisioner")
        for each in classes:
            yield from judging.storage_class(each, self.clusters)
        yield from self._secrets(classes)
        if not classes:
            yield Topic("storage-class").warning(
                f"no StorageClass has the provisioner {self.driver}",
                "make one, or let the chart do so: docs/parameters.md",
            )

    def _secrets(self, classes: Iterable[_Json]) -> Iterator[Check]:
        """Look whether whoever has to read the classes' Secrets may, and they exist."""
        named: dict[SecretTemplate, set[str]] = {}
        for each in classes:
            name = str(each.get("metadata", {}).get("name", ""))
            for secret in judging.named_secrets(each):
                if secret.purpose in {PROVISION, judging.PASSPHRASE}:
                    named.setdefault(secret, set()).add(name)
        for secret, names in named.items():
            if secret.fixed_namespace:
                yield self._secret(secret)
            else:
                yield self._secret_everywhere(secret, names)

    def _secret(self, secret: SecretTemplate) -> Check:
        """Look at one Secret, or at the right to read those of one namespace."""
        topic, reader = Topic("secret", str(secret)), _reader(secret)
        if not self._may_read(secret, secret.namespace):
            return topic.failed(
                f"{reader} may not read Secrets in namespace {secret.namespace}, where"
                " the class has them",
                f"add {secret.namespace} to secrets.namespaces of the chart",
            )
        if not secret.fixed:
            return topic.ok(f"{reader} may read Secrets in {secret.namespace}")
        try:
            values = self.api.read_secret(SecretRef(secret.namespace, secret.name))
            if find_key_source(values) is None:
                return topic.failed(
                    "it holds neither encryptionPassphrase nor encryptionKey",
                    "set one of them: docs/parameters.md",
                )
        except DriverError as error:
            return topic.failed(str(error))
        return topic.ok("exists and holds a passphrase or key")

    def _secret_everywhere(self, secret: SecretTemplate, classes: set[str]) -> Check:
        """Look at the right to read Secrets in the namespaces of a class's claims."""
        topic, reader = Topic("secret", str(secret)), _reader(secret)
        if self._may_read(secret, ""):
            return topic.ok(f"{reader} may read Secrets in every namespace")
        spaces = sorted(self._namespaces_of(classes))
        missing = [each for each in spaces if not self._may_read(secret, each)]
        if missing:
            return topic.failed(
                f"{reader} may not read Secrets in {', '.join(missing)}, where claims"
                " of the class are",
                f"add {', '.join(missing)} to secrets.namespaces of the chart",
            )
        where = f"in {', '.join(spaces)}, where claims are, and " if spaces else ""
        return topic.ok(
            f"{reader} may read Secrets {where}in no other namespaces than those of"
            " secrets.namespaces"
        )

    def _may_read(self, secret: SecretTemplate, namespace: str) -> bool:
        name = secret.fixed_name
        return self.api.may(Right("get", "secrets", namespace=namespace, name=name))

    def _namespaces_of(self, classes: set[str]) -> set[str]:
        """Return the namespaces with claims of some classes, of the first claims."""
        found: set[str] = set()
        token = ""
        for _ in range(_PAGES):
            path = f"{_CLAIMS}?limit={_PAGE}"
            if token:
                path += f"&continue={urllib.parse.quote(token)}"
            answer = self.api.look_at(path, "persistentvolumeclaims")
            for each in answer.get("items") or ():
                if each.get("spec", {}).get("storageClassName") in classes:
                    found.add(str(each["metadata"]["namespace"]))
            token = str(answer.get("metadata", {}).get("continue") or "")
            if not token:
                break
        return found

    def _snapshot_classes(self) -> Iterator[Check]:
        topic = Topic("snapshot-class")
        missing = self._missing_snapshot_kinds()
        if missing == _SNAPSHOT_KINDS:
            yield topic.warning(
                "the cluster has no VolumeSnapshots: their CRDs are missing",
                f"{_CRDS}; where none are wanted, this may stay so",
            )
            return
        if missing:
            named = ", ".join(f"{each}.{_SNAPSHOT_GROUP}" for each in sorted(missing))
            yield topic.failed(
                f"of the CRDs for VolumeSnapshots {named} is missing, so that none can"
                " be made or used",
                _CRDS,
            )
            return
        classes = self._ours("volumesnapshotclasses", "driver", _SNAPSHOTS)
        yield topic.ok(f"the cluster has VolumeSnapshots; {_count(classes)} of ours")
        for each in classes:
            yield judging.snapshot_class(each)

    def _missing_snapshot_kinds(self) -> frozenset[str]:
        """Return the resources that snapshots need and the API server lacks."""
        try:
            found = self.api.look_at(_SNAPSHOTS, f"the API group {_SNAPSHOT_GROUP}")
        except NotFoundError:
            return _SNAPSHOT_KINDS
        resources = found.get("resources") or ()
        return _SNAPSHOT_KINDS - {str(each.get("name")) for each in resources}

    def _attributes_classes(self) -> Iterator[Check]:
        try:
            classes = self._ours("volumeattributesclasses", "driverName")
        except NotFoundError:
            yield Topic("attributes-class").warning(
                "the cluster has no VolumeAttributesClasses, which Kubernetes 1.34 has"
            )
            return
        for each in classes:
            yield judging.attributes_class(each)

    def _ours(self, resource: str, field: str, group: str = _STORAGE) -> list[_Json]:
        items = self.api.look_at(f"{group}/{resource}", resource).get("items")
        found = items if isinstance(items, list) else []
        return [each for each in found if each.get(field) == self.driver]


def _skew(seconds: float) -> Check:
    topic = Topic("clock")
    if abs(seconds) <= SKEW:
        return topic.ok(f"at most {SKEW:g} s from the API server's")
    way = "behind" if seconds < 0 else "ahead of"
    return topic.warning(
        f"{abs(seconds):.0f} s {way} the API server's: certificates, tokens and Ceph's"
        " tickets may be refused",
        "let this node's clock be set (chrony, systemd-timesyncd)",
    )


def _reader(secret: SecretTemplate) -> str:
    """Return who reads this Secret with the controller's ServiceAccount."""
    return "the driver" if secret.purpose == judging.PASSPHRASE else "csi-provisioner"


def _permitted(topic: Topic, look: Callable[[], Iterable[Check]]) -> Iterator[Check]:
    """Look, and say who can where these credentials do not allow it."""
    try:
        yield from look()
    except ForbiddenError as error:
        title = str(error).partition(":")[0]
        yield topic.warning(f"{NOT_LOOKED_AT}: {title}", _OUTSIDE)


def _count(found: list[_Json]) -> str:
    classes = "class" if len(found) == 1 else "classes"
    return f"{len(found)} {classes}"
