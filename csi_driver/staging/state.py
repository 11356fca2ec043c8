# SPDX-License-Identifier: Apache-2.0
"""What the node remembers of each volume, so that every call can be repeated.

One small JSON file per volume, replaced in one step and synced, which a
restarted node service finds again.  It holds no secret.  The boot id tells
whether it still speaks of this machine's running kernel: after a reboot
nothing is attached or mounted any more, whatever the file says.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from typing import Final

from csi_driver.datapath import codec
from csi_driver.devices.device import Device
from csi_driver.domain.access import Capability
from csi_driver.domain.access import Filesystem
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.notices import Pod

STATE_VERSION: Final = 2

_WITHOUT_PODS: Final = 1
"""The version whose targets do not say for which pod they are."""

_SUFFIX: Final = ".json"
_MODE: Final = 0o600
_DAMAGE: Final = (ValueError, TypeError, KeyError, InvalidRequestError)


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """One path at which the volume is published, and how it was asked for.

    `pod` is for whom, where kubelet said so; it makes no target another one.
    """

    path: Path
    capability: Capability
    read_only: bool
    pod: Pod | None = dataclasses.field(default=None, compare=False)


@dataclasses.dataclass(frozen=True, slots=True)
class NodeState:
    """One staged volume.

    `device` is None from the begin of a stage until it has succeeded: such a
    state only says that something may have to be cleaned up.  `filesystem` is
    what is mounted at the staging path, None for a block volume.
    """

    volume_id: VolumeId
    boot_id: str
    staging_path: Path
    capability: Capability
    read_only: bool
    device: Device | None = None
    filesystem: Filesystem | None = None
    targets: tuple[Target, ...] = ()

    def target_at(self, path: Path) -> Target | None:
        """Return what is published at a path."""
        return next((each for each in self.targets if each.path == path), None)

    def with_target(self, target: Target) -> NodeState:
        """Return the state with one more target; its path is not among them."""
        return dataclasses.replace(self, targets=(*self.targets, target))

    def without_target(self, path: Path) -> NodeState:
        """Return the state without the target at a path."""
        kept = tuple(each for each in self.targets if each.path != path)
        return dataclasses.replace(self, targets=kept)


type Published = Callable[[], Mapping[VolumeId, tuple[Pod, ...]]]
"""Tells which volumes are published on this node, and for which pods."""


class NodeStates:
    """The files of all volumes of this node, in a directory for root alone."""

    def __init__(self, directory: Path) -> None:
        """Make the directory if it is missing."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory

    def load(self, volume_id: VolumeId) -> NodeState | None:
        """Return a volume's state, None without one.

        PreconditionError names a file that cannot be read: guessing what is
        mounted and attached could take a device away from another volume.
        """
        path = self._path(volume_id)
        try:
            state = _parse(path.read_bytes())
        except FileNotFoundError:
            return None
        except _DAMAGE as error:
            message = (
                f"the node's state of volume {volume_id} in {path} cannot be read"
                f" ({error}): use the driver version that wrote it, or unmount the"
                " volume by hand and remove the file"
            )
            raise PreconditionError(message) from error
        if state.volume_id != volume_id:
            message = f"{path} holds the state of another volume, {state.volume_id}"
            raise PreconditionError(message)
        return state

    def published(self, boot_id: str) -> dict[VolumeId, tuple[Pod, ...]]:
        """Return the volumes published in this boot, with the pods that are known.

        What cannot be read is left out: the next call on it says so.
        """
        found = {}
        for path in self._directory.glob(f"*{_SUFFIX}"):
            try:
                state = _parse(path.read_bytes())
            except (OSError, *_DAMAGE):
                continue
            if state.targets and state.boot_id == boot_id:
                pods = (each.pod for each in state.targets)
                found[state.volume_id] = tuple(each for each in pods if each)
        return found

    def store(self, state: NodeState) -> None:
        """Write a volume's state, whole or not at all.

        It gets the lowest version that can express it, so that an earlier node
        service, after a rollback, can unstage as many volumes as possible.

        The directory is not synced, which on a busy disk would double the time:
        only a crash of the machine forgets its last change, and after that the
        boot id says that nothing is staged any more.
        """
        content = _written(state)
        target = self._path(state.volume_id)
        temporary = target.with_suffix(".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with os.fdopen(os.open(temporary, flags, _MODE), "w") as file:
            json.dump(content, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)

    def remove(self, volume_id: VolumeId) -> None:
        """Forget a volume."""
        self._path(volume_id).unlink(missing_ok=True)

    def _path(self, volume_id: VolumeId) -> Path:
        # An id has at most 128 bytes, and no slash: its parts are quoted.
        return self._directory / f"{volume_id}{_SUFFIX}"


def _written(state: NodeState) -> dict[str, Any]:
    fields = codec.to_json(state, [])
    if any(target.pod for target in state.targets):
        return {"version": STATE_VERSION, "state": fields}
    for target in fields["targets"]:
        del target["pod"]
    return {"version": _WITHOUT_PODS, "state": fields}


def _parse(text: bytes) -> NodeState:
    content: Any = json.loads(text)
    if content["version"] == _WITHOUT_PODS:
        for target in content["state"]["targets"]:
            target["pod"] = None
        content["version"] = STATE_VERSION
    if content["version"] != STATE_VERSION:
        message = f"its version is {content['version']!r}, not {STATE_VERSION}"
        raise ValueError(message)
    state: NodeState = codec.from_json(NodeState, content["state"], ())
    return state
