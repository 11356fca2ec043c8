# SPDX-License-Identifier: Apache-2.0
"""One stage: made from nothing, judged whether it still stands, taken down.

A failed stage is undone, so that its retry starts clean; what could not be
undone stays remembered for the next call.  The first stage of a clone has the
clone to itself.  Where a stage is shown to pods is left to `stager` and
`publishing`.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import structlog

from csi_driver.datapath.client import Datapath
from csi_driver.devices import hold
from csi_driver.devices import mounts
from csi_driver.devices.device import Device
from csi_driver.domain.access import Capability
from csi_driver.domain.errors import AlreadyExistsError
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.notices import Notices
from csi_driver.images.port import Pool
from csi_driver.staging import content
from csi_driver.staging import publishing
from csi_driver.staging import telling
from csi_driver.staging.opening import Credentials
from csi_driver.staging.opening import Opener
from csi_driver.staging.opening import Prepared
from csi_driver.staging.requests import StageRequest
from csi_driver.staging.state import NodeState
from csi_driver.staging.state import NodeStates

_log = structlog.get_logger(__name__)


class Stages:
    """The stages of this node: what is remembered, served and mounted."""

    def __init__(
        self,
        states: NodeStates,
        datapath: Datapath,
        opener: Opener,
        notices: Notices,
    ) -> None:
        self._notices = notices
        self._states = states
        self._datapath = datapath
        self._opener = opener

    def stands(self, present: NodeState, request: StageRequest) -> bool:
        """Tell whether a stage has nothing to do; AlreadyExistsError if it differs.

        What is stale, unfinished, dead or unmounted is no stage to build on.
        """
        if self.is_stale(present):
            return False
        same = (present.staging_path, present.capability) == (
            request.staging_path,
            request.capability,
        )
        if not same:
            message = (
                f"volume {request.volume_id} is staged at {present.staging_path} for"
                f" {_describe(present.capability)}; unstage it there before it is"
                f" staged at {request.staging_path} for"
                f" {_describe(request.capability)}"
            )
            raise AlreadyExistsError(message)
        if present.device is None or self.loss(present) is not None:
            return False
        if present.filesystem is None:
            return True
        return publishing.shows(present.staging_path, present.device)

    def make(self, request: StageRequest) -> None:
        """Stage from nothing, and leave nothing behind on failure."""
        with telling.failures_told(self._notices, request.volume_id):
            self._make(request)

    def _make(self, request: StageRequest) -> None:
        volume_id = request.volume_id
        read_only = request.capability.mode.read_only
        mounts.check_flags(request.capability.mount_flags)
        credentials = Credentials(request.context, request.secrets)
        begun = NodeState(
            volume_id=volume_id,
            boot_id=self._opener.boot_id,
            staging_path=request.staging_path,
            capability=request.capability,
            read_only=read_only,
        )
        with self._opener.prepared(
            volume_id,
            credentials,
            read_only=read_only,
        ) as prepared:
            self._states.store(begun)
            try:
                with self._first_come(prepared):
                    if read_only and not prepared.recovered:
                        self._recover(begun, prepared)
                    device = self._open(prepared, read_only=read_only)
                done = self._settled(begun, device)
            except BaseException as error:
                self._undo(begun, error)
                raise
        self._states.store(done)
        _log.info(
            "staged",
            volume=str(volume_id),
            device=str(device.path),
            filesystem=done.filesystem.value if done.filesystem else "none",
            read_only=read_only,
        )

    def _open(self, prepared: Prepared, *, read_only: bool) -> Device:
        """Have the volume opened; tell of who had to be fenced for it."""
        opened = prepared.open_by(self._datapath, read_only=read_only)
        volume = prepared.volume
        telling.tell_fenced(
            self._notices, volume.volume_id, volume.node_id, opened.fenced
        )
        return opened.device

    def _settled(self, begun: NodeState, device: Device) -> NodeState:
        """Give the attached device its content and place."""
        with self._placed(begun, device) as (pool, place):
            filesystem = content.settle(pool, place)
        return dataclasses.replace(begun, device=device, filesystem=filesystem)

    def _recover(self, begun: NodeState, prepared: Prepared) -> None:
        """Bring a clone up to date, writable for a moment, before it is only read.

        It is marked when it is closed again: whoever comes earlier finds it
        unrecovered, and is told to come again.
        """
        volume_id = begun.volume_id
        device = self._open(prepared, read_only=False)
        with self._placed(begun, device) as (pool, place):
            content.recover(pool, dataclasses.replace(place, read_only=False))
        self._datapath.close(volume_id)
        with self._opener.connections.pool_at(volume_id.location) as pool:
            content.mark_recovered(pool, volume_id.image_id)
        _log.info("clone recovered before it is read", volume=str(volume_id))

    @contextlib.contextmanager
    def _placed(
        self, begun: NodeState, device: Device
    ) -> Iterator[tuple[Pool, content.Place]]:
        """Keep the device ours, and say where its content goes."""
        place = content.Place(
            image_id=begun.volume_id.image_id,
            device=device.path,
            staging_path=begun.staging_path,
            capability=begun.capability,
            read_only=begun.read_only,
        )
        with (
            hold.held(device),
            self._opener.connections.pool_at(begun.volume_id.location) as pool,
        ):
            yield pool, place

    @contextlib.contextmanager
    def _first_come(self, prepared: Prepared) -> Iterator[None]:
        """Let a clone's first stage end before another node's begins.

        Who holds an unrecovered clone is staging it for the first time, and
        soon done.
        """
        try:
            yield
        except InUseError as error:
            if prepared.recovered:
                raise
            message = (
                f"volume {prepared.volume.volume_id} is a clone that is being staged"
                " for the first time elsewhere: it can be staged when that is done"
                f" ({error})"
            )
            raise PendingError(message) from error

    def _undo(self, begun: NodeState, reason: BaseException) -> None:
        """Take a failed stage down; its own error stays the one reported."""
        try:
            self.take_down(begun)
        except DriverError as error:
            # The state stays, so that the next call tries again.
            reason.add_note(f"cleaning up failed too: {error}")
            _log.warning(
                "a failed stage was not undone",
                volume=str(begun.volume_id),
                error=str(error),
            )

    def take_down(self, state: NodeState) -> None:
        """Unmount, detach, close and forget; each step may be done already."""
        volume_id = state.volume_id
        if not self.is_stale(state):
            paths = [*(each.path for each in state.targets), state.staging_path]
            if any(mounts.at(mounts.read_mounts(), path) for path in paths):
                device = self.device_of(volume_id, state)
                for path in paths:
                    publishing.hide(path, device, lambda: not self.alive(volume_id))
        self._datapath.close(volume_id)
        self._states.remove(volume_id)

    def take_down_unknown(self, volume_id: VolumeId, staging_path: Path) -> None:
        """Unstage what the node does not remember, if the datapath does."""
        status = self._datapath.status(volume_id)
        if status is not None:
            publishing.hide(staging_path, status.device, lambda: not status.alive)
            self._datapath.close(volume_id)

    def is_stale(self, state: NodeState) -> bool:
        """Tell whether a state speaks of an earlier boot of this machine."""
        return state.boot_id != self._opener.boot_id

    def wholly(self, volume_id: VolumeId) -> NodeState | None:
        """Return the state of a volume that is wholly staged since this boot."""
        state = self._states.load(volume_id)
        if state is None or self.is_stale(state) or state.device is None:
            return None
        return state

    def device_of(self, volume_id: VolumeId, state: NodeState | None) -> Device | None:
        """Return the volume's device, as remembered or as the datapath knows it."""
        if state is not None and state.device is not None:
            return state.device
        status = self._datapath.status(volume_id)
        return None if status is None else status.device

    def loss(self, state: NodeState) -> str | None:
        """Return why the export is dead, None if it is alive."""
        status = self._datapath.status(state.volume_id)
        if status is None:
            return "the datapath does not serve it any more"
        return None if status.alive else status.reason

    def alive(self, volume_id: VolumeId) -> bool:
        """Tell whether the volume's export answers."""
        status = self._datapath.status(volume_id)
        return status is not None and status.alive


def _describe(capability: Capability) -> str:
    kind = "block access" if capability.block else "a filesystem"
    flags = f", mount flags {','.join(capability.mount_flags)}"
    return f"{kind}, {capability.mode.value}{flags if capability.mount_flags else ''}"
