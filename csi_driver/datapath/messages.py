# SPDX-License-Identifier: Apache-2.0
"""What is said to and within the datapath: requests, replies, and what is open.

The first part is for users of the datapath, the second for its supervisor and
workers among themselves.  Every message is a frozen dataclass; `VERSION` grows
with any change to one.  The node service is replaced before the datapath of its
node, or rolled back, so that each understands the version before its own, too: a
new field is declared by `codec.added`, with a default that means what it was
before.  How versions are told apart is left to `envelope`.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from csi_driver.datapath import codec
from csi_driver.datapath.flatten_status import FlattenStatus
from csi_driver.devices.device import Device
from csi_driver.domain import errors
from csi_driver.domain.chain import LoadSpecs
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.record import EncryptionMode
from csi_driver.domain.secrets import SecretBytes
from csi_driver.domain.sizes import EffectiveSize

VERSION: Final = 3

MIN_VERSION: Final = 2
"""The lowest version that is spoken, to a process that knows no other."""

METHODS: Final = ("auto", "kernel", "fuse")

# ------------------------------------------------------------- what is spoken of


@dataclasses.dataclass(frozen=True, slots=True)
class OpenVolume:
    """What it takes to open a volume.

    `monitors` as in the cluster config, `user_id` without "client.", `key` the
    base64 text of its cephx key.  `specs` is None with mode NONE and only then:
    InvalidRequestError otherwise.  `method` chooses the kind of device; "auto"
    leaves it to the datapath.
    """

    volume_id: VolumeId
    monitors: tuple[str, ...]
    user_id: str
    key: SecretBytes
    pool_name: str
    specs: LoadSpecs | None
    mode: EncryptionMode
    read_only: bool
    node_id: str
    boot_id: str
    method: str = "auto"

    def __post_init__(self) -> None:
        """Refuse what would open an encrypted volume raw, or a plain one loaded."""
        if self.mode.encrypted is (self.specs is None):
            message = (
                f"volume {self.volume_id} of encryption mode {self.mode.value!r}"
                f" {'needs' if self.mode.encrypted else 'takes no'} passphrases"
            )
            raise InvalidRequestError(message)
        if self.method not in METHODS:
            message = f"device method {self.method!r} is not {', '.join(METHODS)}"
            raise InvalidRequestError(message)

    def wipe(self) -> None:
        """Overwrite every secret in it."""
        self.key.wipe()
        for layer in self.specs.layers if self.specs else ():
            layer.passphrase.wipe()


@dataclasses.dataclass(frozen=True, slots=True)
class Fenced:
    """Who held a volume and was fenced when it was opened, since it was dead.

    `node_id` is "" for a Ceph client that was no export of this driver.
    """

    node_id: str
    client_address: str


@dataclasses.dataclass(frozen=True, slots=True)
class OpenedVolume:
    """An open volume: its device, its exported bytes, and its Ceph client.

    `fenced` is told by the call that opened it, and by no later one.
    """

    device: Device
    size: EffectiveSize
    client_address: str
    fenced: Fenced | None = dataclasses.field(default=None, metadata=codec.added(3))


@dataclasses.dataclass(frozen=True, slots=True)
class Counters:
    """What an export has done since it was opened, and its fate on Ceph.

    `flatten` is None for what was opened as no writable clone.
    """

    reads: int
    read_bytes: int
    writes: int
    written_bytes: int
    flushes: int
    errors: int
    rejected: int
    in_flight: int
    connections: int
    fenced: bool
    flatten: FlattenStatus | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class ExportStatus:
    """How an open volume is.

    When it is not `alive`, `reason` says why: its I/O fails, and it has to be
    closed and opened again.  `counters` is None for a dead export, and while
    the worker is busy.  `worker_pid` is 0 when there is none.
    """

    volume_id: VolumeId
    alive: bool
    reason: str
    device: Device | None
    size: EffectiveSize
    read_only: bool
    worker_pid: int
    counters: Counters | None


# --------------------------------------------------------------- to the supervisor


@dataclasses.dataclass(frozen=True, slots=True)
class Open:
    """Open a volume and attach a device; answered by Opened."""

    volume: OpenVolume


@dataclasses.dataclass(frozen=True, slots=True)
class Close:
    """Take a volume's device and worker away; answered by Done."""

    volume_id: VolumeId


@dataclasses.dataclass(frozen=True, slots=True)
class Grow:
    """Bring image and device to the record's desired size; answered by Sized."""

    volume_id: VolumeId


@dataclasses.dataclass(frozen=True, slots=True)
class Flatten:
    """Begin to flatten an open clone, whatever its policy; answered by Done."""

    volume_id: VolumeId


@dataclasses.dataclass(frozen=True, slots=True)
class Status:
    """Ask about one volume, or about all without one; answered by Statuses."""

    volume_id: VolumeId | None


@dataclasses.dataclass(frozen=True, slots=True)
class Ping:
    """Ask whether the other side answers; answered by Done."""


@dataclasses.dataclass(frozen=True, slots=True)
class Opened:
    """The volume is open."""

    volume: OpenedVolume


@dataclasses.dataclass(frozen=True, slots=True)
class Sized:
    """Exported bytes."""

    size: EffectiveSize


@dataclasses.dataclass(frozen=True, slots=True)
class Statuses:
    """The exports asked for; empty if there is none."""

    exports: tuple[ExportStatus, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Done:
    """It was done."""


@dataclasses.dataclass(frozen=True, slots=True)
class Failed:
    """It failed, as one of the driver's errors."""

    error: str
    message: str

    @classmethod
    def of(cls, error: BaseException) -> Failed:
        """Write an exception down; what no rule foresees becomes InternalError."""
        if isinstance(error, DriverError):
            return cls(type(error).__name__, str(error))
        text = f"the datapath met an unforeseen {type(error).__name__}: see its log"
        return cls(InternalError.__name__, text)

    def to_error(self) -> DriverError:
        """Return the exception to raise."""
        kind = getattr(errors, self.error, None)
        if isinstance(kind, type) and issubclass(kind, DriverError):
            return kind(self.message)
        return InternalError(f"{self.error}: {self.message}")


# ------------------------------------------------------- supervisor and its worker


@dataclasses.dataclass(frozen=True, slots=True)
class Predecessor:
    """What the supervisor knows of this volume's last worker on this node.

    `gone` is true only if every such process has provably ended; `addresses`
    are the Ceph clients they had, as far as known.
    """

    addresses: tuple[str, ...] = ()
    gone: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Ready:
    """A worker has started; `warnings` tell what the machine does not permit."""

    warnings: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Prepare:
    """Connect to a cluster ahead of the volume to come; answered by Done."""

    cluster: str
    monitors: tuple[str, ...]
    user_id: str
    key: SecretBytes


@dataclasses.dataclass(frozen=True, slots=True)
class OpenImage:
    """Open, load, lock, register, and be ready to serve.

    With `socket_path` the export is served there too, and announced with
    `ceiling` bytes if that is not 0.
    """

    volume: OpenVolume
    predecessor: Predecessor
    socket_path: str
    ceiling: int


@dataclasses.dataclass(frozen=True, slots=True)
class Connected:
    """First answer to OpenImage, before the lock is taken: the Ceph client."""

    client_address: str


@dataclasses.dataclass(frozen=True, slots=True)
class Proceed:
    """The client's address is written down; take the lock."""


@dataclasses.dataclass(frozen=True, slots=True)
class Serving:
    """Second answer to OpenImage; `flags` are NBD's transmission flags."""

    size: EffectiveSize
    flags: int
    fenced: Fenced | None = dataclasses.field(default=None, metadata=codec.added(3))


@dataclasses.dataclass(frozen=True, slots=True)
class TakeSocket:
    """One byte with a connected socket follows: serve it; answered by Done."""


@dataclasses.dataclass(frozen=True, slots=True)
class GrowImage:
    """Bring the image and the export to the desired size; answered by Sized."""


@dataclasses.dataclass(frozen=True, slots=True)
class ConfirmSize:
    """The device has the size too: record it; answered by Done."""

    size: EffectiveSize


@dataclasses.dataclass(frozen=True, slots=True)
class FlattenImage:
    """Begin to flatten the image beside its I/O; answered by Done."""


@dataclasses.dataclass(frozen=True, slots=True)
class Count:
    """Ask for the counters; answered by Counters."""


@dataclasses.dataclass(frozen=True, slots=True)
class CloseImage:
    """Stop serving, unregister, unlock, close, end; answered by Done or Staying."""


@dataclasses.dataclass(frozen=True, slots=True)
class Staying:
    """The worker does not close yet, and goes on; `reason` says why."""

    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Release:
    """Take back what a dead worker of this node holds on Ceph; then end.

    `monitors`, `user_id` and `key` are the driver's own.  Answered by Done.
    """

    volume_id: VolumeId
    monitors: tuple[str, ...]
    user_id: str
    key: SecretBytes
    node_id: str
    boot_id: str
    predecessor: Predecessor


type Message = (
    Open
    | Close
    | Grow
    | Flatten
    | Status
    | Ping
    | Opened
    | Sized
    | Statuses
    | Done
    | Failed
    | Ready
    | Prepare
    | OpenImage
    | Connected
    | Proceed
    | Serving
    | TakeSocket
    | GrowImage
    | ConfirmSize
    | FlattenImage
    | Count
    | Counters
    | CloseImage
    | Staying
    | Release
)
