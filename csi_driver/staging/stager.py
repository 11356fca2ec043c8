# SPDX-License-Identifier: Apache-2.0
"""The node's calls: stage, publish, and back, each one repeatable.

Every call first looks at what the node remembers (`state`), then at what is
really there, and goes on from wherever an earlier one was interrupted.  Calls
on one volume never overlap; the services' in-flight guard sees to that.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from csi_driver.datapath.client import Datapath
from csi_driver.devices import mounts
from csi_driver.devices import stats
from csi_driver.devices import targets
from csi_driver.devices.device import Device
from csi_driver.domain.access import Capability
from csi_driver.domain.clusters import Clusters
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import ExportLostError
from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SizeError
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.notices import Notices
from csi_driver.domain.notices import Pod
from csi_driver.domain.notices import Untold
from csi_driver.domain.notices import pod_of
from csi_driver.domain.record import Record
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.images.connections import SharedConnections
from csi_driver.images.records import read_record
from csi_driver.kube.contract import SecretReader
from csi_driver.staging import content
from csi_driver.staging import publishing
from csi_driver.staging.opening import Credentials
from csi_driver.staging.opening import Opener
from csi_driver.staging.requests import ExpandRequest
from csi_driver.staging.requests import PublishRequest
from csi_driver.staging.requests import StageRequest
from csi_driver.staging.requests import Usage
from csi_driver.staging.stages import Stages
from csi_driver.staging.state import NodeState
from csi_driver.staging.state import NodeStates
from csi_driver.staging.state import Target

_log = structlog.get_logger(__name__)

_REMEDY: Final = "delete the pod, so that kubelet stages the volume anew"


class NodeStager:
    """Implements `requests.Stager` over Ceph, the datapath and this node.

    `secrets` is None where no Kubernetes API is configured; `state_dir` has
    to survive restarts of the node service; `device_method` is "auto",
    "kernel" or "fuse".  `staged` is called after each stage.
    """

    def __init__(
        self,
        *,
        connections: SharedConnections,
        clusters: Clusters,
        datapath: Datapath,
        secrets: SecretReader | None,
        state_dir: Path,
        node_id: str,
        boot_id: str,
        device_method: str,
        notices: Notices | None = None,
        staged: Callable[[], None] = lambda: None,
    ) -> None:
        self._connections = connections
        self._datapath = datapath
        self._states = NodeStates(state_dir)
        opener = Opener(
            connections=connections,
            clusters=clusters,
            secrets=secrets,
            node_id=node_id,
            boot_id=boot_id,
            method=device_method,
        )
        self._boot_id = boot_id
        self._staged = staged
        self._stages = Stages(self._states, datapath, opener, notices or Untold())

    def stage(self, request: StageRequest) -> None:
        """Open, load, attach, make or check the filesystem, mount.

        NotFoundError without the volume; AlreadyExistsError if it is staged
        differently; SecretError before any data is touched; see `opening` and
        `content` for what else stands against it.
        """
        _require_offered(request.capability)
        present = self._states.load(request.volume_id)
        if present is not None and self._stages.stands(present, request):
            return
        if present is not None:
            self._stages.take_down(present)
        self._stages.make(request)
        self._staged()

    def published(self) -> dict[VolumeId, tuple[Pod, ...]]:
        """Return the volumes that are published here, with the pods that are known."""
        return self._states.published(self._boot_id)

    def unstage(self, volume_id: VolumeId, staging_path: Path) -> None:
        """Unmount, detach, close: the keys are gone when it returns.

        A volume that is not staged there is left as it is.  InUseError if the
        mount is busy; PreconditionError if something else is mounted there.
        """
        state = self._states.load(volume_id)
        if state is None:
            self._stages.take_down_unknown(volume_id, staging_path)
        elif self._stages.is_stale(state) or state.staging_path == staging_path:
            self._stages.take_down(state)
            _log.info("unstaged", volume=str(volume_id))

    def publish(self, request: PublishRequest) -> None:
        """Show the staged volume at the target path.

        PreconditionError if it is not staged at the staging path, or if its
        access mode allows no further target; AlreadyExistsError if the target
        is taken; ExportLostError if the export has died and the request
        brings nothing to open the volume again.
        """
        _require_offered(request.capability)
        state = self._stages.wholly(request.volume_id)
        if state is None or state.staging_path != request.staging_path:
            raise self._not_staged(request.volume_id, request.staging_path)
        target = Target(
            path=request.target_path,
            capability=request.capability,
            read_only=request.read_only,
            pod=pod_of(request.context),
        )
        publishing.require_allowed(state, target)
        lost = self._stages.loss(state)
        if lost is not None:
            state = self._stage_again(state, request, lost)
        added = state.target_at(target.path) is None
        if added:
            self._states.store(state.with_target(target))
        try:
            publishing.show(state, _device(state), target)
        except DriverError:
            if added:
                self._states.store(state)
            raise

    def unpublish(self, volume_id: VolumeId, target_path: Path) -> None:
        """Take the target path away; nothing there is success.

        NotFoundError if neither this node nor Ceph knows the volume;
        PreconditionError if the path holds something else, which stays.
        """
        state = self._states.load(volume_id)
        mounted = bool(mounts.at(mounts.read_mounts(), target_path))
        if state is None and not mounted and not os.path.lexists(target_path):
            self._record(volume_id)
            return
        if mounted:
            device = self._stages.device_of(volume_id, self._stages.wholly(volume_id))
            publishing.hide(
                target_path, device, lambda: not self._stages.alive(volume_id)
            )
        targets.remove_target(target_path)
        if state is not None and state.target_at(target_path) is not None:
            self._states.store(state.without_target(target_path))

    def stats(self, volume_id: VolumeId, volume_path: Path) -> tuple[Usage, ...]:
        """Measure the volume at that path.

        A mounted volume is measured in bytes and inodes, a block volume by its
        size alone.  NotFoundError if the volume is not at that path;
        ExportLostError if its device does not answer.
        """
        state = self._stages.wholly(volume_id)
        if state is None:
            message = f"volume {volume_id} is not staged on this node"
            raise NotFoundError(message)
        device = _device(state)
        try:
            if not publishing.shows(volume_path, device):
                message = f"volume {volume_id} is not at {volume_path}"
                raise NotFoundError(message)
            if state.filesystem is None:
                return (Usage("bytes", stats.device_size(device.path)),)
            return _usages(stats.filesystem_usage(volume_path))
        except OSError as error:
            message = (
                f"volume {volume_id} at {volume_path} cannot be measured"
                f" ({error.strerror}): its device does not answer; {_REMEDY}"
            )
            raise ExportLostError(message) from error

    def expand(self, request: ExpandRequest) -> EffectiveSize:
        """Grow image, device and filesystem to what the controller promised.

        NotFoundError without the volume; PreconditionError if it is not staged
        here, staged read-only, or its filesystem cannot grow now; SizeError
        beyond what the controller promised.
        """
        state = self._stages.wholly(request.volume_id)
        record = self._record(request.volume_id)
        if state is None:
            raise self._not_staged(request.volume_id, None)
        _require_promised(record, request)
        if state.read_only:
            message = (
                f"volume {record.name!r} is staged read-only and does not grow here;"
                " it grows at its next writable stage"
            )
            raise PreconditionError(message)
        size = self._datapath.grow(request.volume_id)
        if state.filesystem is not None:
            device = _device(state).path
            content.grow(device, state.filesystem, state.staging_path)
        _log.info("expanded", volume=str(request.volume_id), size=size.count)
        return size

    def _stage_again(
        self,
        state: NodeState,
        request: PublishRequest,
        lost: str,
    ) -> NodeState:
        """Stage a volume whose export died, with what the publish brings."""
        credentials = Credentials(request.context, request.secrets)
        if not credentials.suffice():
            message = (
                f"the export of volume {state.volume_id} has died ({lost}), and this"
                " call brings no secrets to open it again: " + _REMEDY
            )
            raise ExportLostError(message)
        _log.warning("staging again", volume=str(state.volume_id), reason=lost)
        again = StageRequest(
            volume_id=state.volume_id,
            staging_path=state.staging_path,
            capability=state.capability,
            context=request.context,
            secrets=request.secrets,
        )
        self._stages.take_down(state)
        self._stages.make(again)
        staged = self._stages.wholly(state.volume_id)
        if staged is None:
            message = f"volume {state.volume_id} is not staged after a stage"
            raise InternalError(message)
        self._staged()
        return staged

    def _record(self, volume_id: VolumeId) -> Record:
        with self._connections.pool_at(volume_id.location) as pool:
            return read_record(pool, volume_id.image_id).require_ready()

    def _not_staged(self, volume_id: VolumeId, path: Path | None) -> PreconditionError:
        """Return the error for a volume that is not staged; NotFoundError if none."""
        self._record(volume_id)
        where = f" at {path}" if path else ""
        message = (
            f"volume {volume_id} is not staged{where} on this node: stage it first"
        )
        return PreconditionError(message)


def _device(state: NodeState) -> Device:
    if state.device is None:
        message = f"volume {state.volume_id} is not staged"
        raise PreconditionError(message)
    return state.device


def _usages(found: stats.FilesystemUsage) -> tuple[Usage, ...]:
    return (
        Usage("bytes", found.total_bytes, found.used_bytes, found.available_bytes),
        Usage("inodes", found.total_inodes, found.used_inodes, found.available_inodes),
    )


def _require_offered(capability: Capability) -> None:
    refusal = capability.refusal()
    if refusal is not None:
        raise InvalidRequestError(refusal)


def _require_promised(record: Record, request: ExpandRequest) -> None:
    """Refuse a size that the controller did not promise."""
    wanted = request.capacity
    if wanted.required > record.desired.count:
        message = (
            f"volume {record.name!r} was promised {record.desired}, not"
            f" {wanted.required} bytes: expand it through the controller first"
        )
        raise SizeError(message)
    if not wanted.admits(record.desired):
        message = (
            f"volume {record.name!r} was promised {record.desired}, more than the"
            f" limit of {wanted.limit} bytes"
        )
        raise SizeError(message)
