# SPDX-License-Identifier: Apache-2.0
"""What a supervisor leaves for its successor: one small file per volume.

It names the worker's process, its Ceph client and the device, so that a
restarted supervisor, in another container perhaps, can clean up what a dead one
left.  It holds no secret and
says nothing that has to survive the machine: after a reboot the boot id differs
and the record on Ceph is enough.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from typing import Final

import structlog

from csi_driver.datapath import codec
from csi_driver.datapath.lives import UNKNOWN
from csi_driver.datapath.lives import Lives
from csi_driver.datapath.lives import WorkerMark
from csi_driver.devices.device import Device
from csi_driver.devices.process_space import INITIAL
from csi_driver.devices.process_space import boot_id
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.ids import VolumeId

STATE_VERSION: Final = 2

_ON_THE_HOST: Final = 1
"""The version of before containers: a worker is a process of the host's own."""

_SUFFIX: Final = ".json"
_DAMAGE: Final = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    InvalidRequestError,
)
_log = structlog.get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class SavedExport:
    """One volume as it was opened, or was about to be.

    `clients` are the Ceph clients of its workers that may still hold something
    there: the lock, or the entry in the record.  `size` is in exported bytes.
    """

    volume_id: VolumeId
    node_id: str
    boot_id: str
    read_only: bool
    size: int
    worker: WorkerMark | None
    clients: tuple[str, ...] = ()
    device: Device | None = None


def digest(volume_id: VolumeId) -> str:
    """Return a short name for files of a volume."""
    return hashlib.sha256(str(volume_id).encode()).hexdigest()[:32]


class StateDirectory:
    """The files of all volumes; every change replaces a file in one step."""

    def __init__(self, directory: Path) -> None:
        """Make the directory, for root alone."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self.lives = Lives(directory / "lives")

    def store(self, saved: SavedExport) -> None:
        """Write one volume's file."""
        content = {"version": STATE_VERSION, "export": codec.to_json(saved, [])}
        target = self._path(saved.volume_id)
        temporary = target.with_suffix(".new")
        temporary.write_text(json.dumps(content, indent=1))
        temporary.replace(target)

    def load(self, volume_id: VolumeId) -> SavedExport | None:
        """Return one volume's file, None without one or with a damaged one.

        PreconditionError for one of a version that is not known here: it is kept.
        """
        return _read(self._path(volume_id))

    def remove(self, volume_id: VolumeId) -> None:
        """Forget a volume."""
        self._path(volume_id).unlink(missing_ok=True)

    def all(self) -> Iterator[SavedExport]:
        """Yield every volume; a damaged file is logged and removed.

        One of a version that is not known here is logged and kept.
        """
        for path in sorted(self._directory.glob(f"*{_SUFFIX}")):
            try:
                saved = _read(path)
            except PreconditionError as error:
                _log.error("the state of a volume is not read", error=str(error))
                continue
            if saved is not None:
                yield saved

    def _path(self, volume_id: VolumeId) -> Path:
        return self._directory / f"{digest(volume_id)}{_SUFFIX}"


def current_boot_id() -> str:
    """Return the kernel's id of this boot."""
    return boot_id()


def _read(path: Path) -> SavedExport | None:
    try:
        content: Any = json.loads(path.read_text())
        version, export = content["version"], content.get("export")
        if version == _ON_THE_HOST:
            export = _with_namespace(export)
        elif version != STATE_VERSION:
            raise _foreign(path, version)
        saved: SavedExport = codec.from_json(SavedExport, export, ())
    except FileNotFoundError:
        return None
    except _DAMAGE as error:
        _log.warning("a state file is damaged", path=str(path), error=str(error))
        path.unlink(missing_ok=True)
        return None
    return saved


def _with_namespace(export: Any) -> Any:
    """Return an export of the first version in the form of this one."""
    worker = export["worker"]
    if worker is not None:
        worker = {"process": worker, "namespace": INITIAL, "life": UNKNOWN}
    return {**export, "worker": worker}


def _foreign(path: Path, version: object) -> PreconditionError:
    return PreconditionError(
        f"the datapath's state of a volume in {path} has version {version!r}, and this"
        f" datapath reads {_ON_THE_HOST} to {STATE_VERSION}. The file is kept: it alone"
        " tells which worker, Ceph client and device of this node the volume has. Run"
        " the version of the datapath that wrote it, or a later one, on this node:"
        " drain the node, then delete its datapath pod"
    )
