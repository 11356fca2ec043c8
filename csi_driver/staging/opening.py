# SPDX-License-Identifier: Apache-2.0
"""From a request's secrets to what the datapath needs to open a volume.

Everything that can be refused without touching a tenant's bytes is refused
here: a volume that is not ready, another encryption mode than the one the
volume was made with, a Secret that is not the volume's.  Keys exist while the
`with` statement of `Opener.prepared` runs, and are overwritten at its end.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Final

import structlog

from csi_driver.datapath.client import Datapath
from csi_driver.datapath.messages import OpenedVolume
from csi_driver.datapath.messages import OpenVolume
from csi_driver.domain.clusters import Clusters
from csi_driver.domain.context import ENCRYPTION
from csi_driver.domain.errors import CephKeyError
from csi_driver.domain.errors import HeaderError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.parameters import parse_secret_ref
from csi_driver.domain.record import EncryptionMode
from csi_driver.domain.record import Record
from csi_driver.images.connections import SharedConnections
from csi_driver.images.records import read_record
from csi_driver.images.users import own_user
from csi_driver.keys.material import newline_hint
from csi_driver.keys.material import parse_ceph_user
from csi_driver.kube.choice import choose_secrets
from csi_driver.kube.contract import SecretReader
from csi_driver.staging.unlocking import Unlocked
from csi_driver.staging.unlocking import unlock

_log = structlog.get_logger(__name__)

_MODES: Final = ", ".join(mode.value for mode in EncryptionMode)


@dataclasses.dataclass(frozen=True, slots=True)
class Credentials:
    """What a request brings to open a volume; `secrets` never shows in repr."""

    context: Mapping[str, str]
    secrets: Mapping[str, str] = dataclasses.field(repr=False)

    def suffice(self) -> bool:
        """Tell whether there is any prospect of opening the volume with them."""
        return (
            bool(self.secrets)
            or parse_secret_ref(self.context) is not None
            or expected_mode(self.context) is EncryptionMode.NONE
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Prepared:
    """A volume that can be opened while `Opener.prepared` runs."""

    volume: OpenVolume
    connections: SharedConnections
    unlocked: Unlocked

    @property
    def recovered(self) -> bool:
        """Whether a first stage has brought a clone up to date."""
        return self.unlocked.record.recovered

    def open_by(self, datapath: Datapath, *, read_only: bool) -> OpenedVolume:
        """Have it opened; once more if Ceph shows another chain than the record.

        What the datapath raises; the keys are this node's own until the end.
        """
        volume = dataclasses.replace(self.volume, read_only=read_only)
        try:
            return datapath.open(volume)
        except (HeaderError, SecretError) as error:
            if isinstance(error, CephKeyError):
                raise
            with self.connections.pool_at(volume.volume_id.location) as pool:
                specs = self.unlocked.anew(pool)
            if specs is None:
                raise
            _log.warning(
                "the record names other layers than the image has",
                volume=str(volume.volume_id),
                layers=len(specs.layers),
                error=str(error),
            )
            return datapath.open(dataclasses.replace(volume, specs=specs))


@dataclasses.dataclass(frozen=True, slots=True)
class Opener:
    """Prepares opening on this node, over the driver's own connections.

    `secrets` is None where no Kubernetes API is configured; `method` is the
    kind of device that the datapath shall make.
    """

    connections: SharedConnections
    clusters: Clusters
    secrets: SecretReader | None
    node_id: str
    boot_id: str
    method: str

    @contextlib.contextmanager
    def prepared(
        self,
        volume_id: VolumeId,
        credentials: Credentials,
        *,
        read_only: bool,
    ) -> Iterator[Prepared]:
        """Yield what opens the volume; its secrets are wiped afterwards.

        NotFoundError without the volume; InvalidRequestError or
        PreconditionError when `encryption` of the volume context is absent or
        differs from the record; HeaderError when an encrypted volume lacks its
        header, or a clone its parent; SecretError for a Secret that is not the
        volume's, before anything was opened for data.
        """
        mode = expected_mode(credentials.context)
        with contextlib.ExitStack() as wiping:
            with self.connections.pool_at(volume_id.location) as pool:
                record = read_record(pool, volume_id.image_id).require_ready()
                _require_mode(record, mode)
                secrets = self._secrets(mode, credentials)
                unlocked = unlock(pool, record, secrets, wiping)
                pool_name = pool.pool_name
            config = self.clusters.get(volume_id.location.cluster)
            user = parse_ceph_user(secrets) or own_user(config)
            wiping.callback(user.key.wipe)
            volume = OpenVolume(
                volume_id=volume_id,
                monitors=config.monitors,
                user_id=user.user_id,
                key=user.key,
                pool_name=pool_name,
                specs=unlocked.specs,
                mode=mode,
                read_only=read_only,
                node_id=self.node_id,
                boot_id=self.boot_id,
                method=self.method,
            )
            with _hint(volume):
                yield Prepared(volume, self.connections, unlocked)

    def _secrets(
        self,
        mode: EncryptionMode,
        credentials: Credentials,
    ) -> Mapping[str, str]:
        if not mode.encrypted:
            return credentials.secrets
        named = parse_secret_ref(credentials.context)
        return choose_secrets(credentials.secrets, named, self.secrets)


def expected_mode(context: Mapping[str, str]) -> EncryptionMode:
    """Read the encryption mode that the volume was made with.

    InvalidRequestError if the volume context does not carry it.
    """
    text = context.get(ENCRYPTION, "")
    try:
        return EncryptionMode(text)
    except ValueError:
        found = f"{text!r} is none" if text else "it is missing"
        message = (
            f"volume_context has to carry {ENCRYPTION!r}, one of {_MODES}; {found}:"
            " set volumeAttributes of the PersistentVolume as `volume adopt` or"
            " the provisioner wrote them"
        )
        raise InvalidRequestError(message) from None


def _require_mode(record: Record, expected: EncryptionMode) -> None:
    """Refuse a record that says something else than the volume context."""
    if record.mode is expected:
        return
    message = (
        f"volume {record.name!r} was made with encryption mode {expected.value!r}, its"
        f" record now says {record.mode.value!r}: it is not staged, since one of"
        " the two was altered"
    )
    raise PreconditionError(message)


@contextlib.contextmanager
def _hint(volume: OpenVolume) -> Iterator[None]:
    """Add a word on a newline at the end when a person's passphrase is refused."""
    try:
        yield
    except SecretError as error:
        layers = volume.specs.layers if volume.specs else ()
        hint = newline_hint([layer.passphrase for layer in layers])
        if isinstance(error, CephKeyError) or not hint:
            raise
        if volume.mode is not EncryptionMode.PASSPHRASE:
            raise
        message = f"{error}; {hint}"
        raise SecretError(message) from error
