# SPDX-License-Identifier: Apache-2.0
"""Where keys are while a volume is staged, and where they are afterwards.

The memory of every process of the driver is read, as root can.  Python and
gRPC keep copies of a request's text until they use that memory again, so the
Secret itself may be found in the service that was given it; what unlocks the
volume without the record (the KEK, the DEK, the volume key) may not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from csi_driver.rpc.stubs import csi_pb2
from tests.ceph.end_to_end import secrets_of
from tests.ceph.end_to_end import traces
from tests.ceph.end_to_end.client import block
from tests.ceph.end_to_end.parts import Part
from tests.ceph.end_to_end.traces import Canaries
from tests.ceph.end_to_end.world import World
from tests.ceph.end_to_end.world import eventually

VOLUME_KEY = {"the volume key's first half", "the volume key's second half"}


def in_memory(pid: int, canaries: Canaries) -> set[str]:
    """Return the names of the secrets that a process has in its memory."""
    found: set[str] = set()
    for piece in traces.memory(pid):
        found |= canaries.within(piece)
    return found


def parts(world: World) -> Iterator[Part]:
    yield world.controller_part
    yield world.first.service
    yield world.first.datapath


def holders(world: World, canaries: Canaries) -> dict[str, set[str]]:
    """Return which process has which secrets; processes without any are left out."""
    found: dict[str, set[str]] = {}
    for part in parts(world):
        for pid in part.pids():
            if names := in_memory(pid, canaries):
                found[f"{part.name} {pid}"] = names
    return found


@pytest.mark.parametrize("mode", secrets_of.MODES)
def test_keys_live_in_one_worker_from_stage_to_unstage(world: World, mode: str) -> None:
    secret = secrets_of.new_secret(mode)
    first = world.first
    volume = world.create(secret, capability=block())
    keys = Canaries(secrets_of.derived(world.record(volume), secret))
    assert holders(world, keys) == {}, "keys that were needed to create"

    target = first.stage(volume, secret, block())
    write_block(volume, target)
    worker = first.worker_pid(volume)
    staged = holders(world, keys)
    # It needs the volume key for every block; the DEK was for loading only.
    assert set(staged) == {f"datapath {worker}"}
    assert staged.popitem()[1] == VOLUME_KEY
    text = Canaries(secrets_of.given(secret))
    for pid in first.datapath.pids():
        assert not in_memory(pid, text), "the Secret itself never reaches it"

    first.unstage(volume)
    eventually("the worker's end", lambda: worker not in traces.all_pids(), 5)
    assert holders(world, keys) == {}
    for pid in first.datapath.pids():
        assert not in_memory(pid, text)


def test_the_keys_of_a_clones_layers_live_no_longer(world: World) -> None:
    """Making it needs the source's Secret, flattening it all that staging needs."""
    secret, own = secrets_of.new_secret("key"), secrets_of.new_secret("passphrase")
    first = world.first
    source = world.create(secret, capability=block())
    clone = world.clone(own | secrets_of.as_source(secret), source, capability=block())
    opened = {
        "source": secrets_of.derived(world.record(source), secret),
        "clone": secrets_of.derived(world.record(clone), own),
    }
    canaries = Canaries(
        {
            f"{whose}: {name}": key
            for whose, keys in opened.items()
            for name, key in keys.items()
        }
    )
    assert holders(world, canaries) == {}, "keys that were needed to clone"

    target = first.stage(clone, own, block())
    write_block(clone, target)
    assert set(holders(world, canaries)) == {f"datapath {first.worker_pid(clone)}"}
    world.flatten(clone)
    write_block(clone, target)
    assert set(holders(world, canaries)) == {f"datapath {first.worker_pid(clone)}"}
    first.unstage(clone)
    assert holders(world, canaries) == {}


def write_block(volume: csi_pb2.Volume, target: os.PathLike[str]) -> None:
    with open(target, "r+b", buffering=0) as device:  # noqa: PTH123  # unbuffered
        device.write(bytes(4096))
        os.fsync(device.fileno())


def test_a_failed_stage_leaves_no_key(world: World) -> None:
    """The worker had the DEK already when a mount option was refused."""
    secret = secrets_of.new_secret("passphrase")
    first = world.first
    volume = world.create(secret)
    keys = Canaries(secrets_of.derived(world.record(volume), secret))
    capability = csi_pb2.VolumeCapability()
    capability.mount.fs_type = "ext4"
    capability.mount.mount_flags.append("no-such-flag-of-ext4")
    capability.access_mode.mode = csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_WRITER
    with pytest.raises(Exception, match="no-such-flag-of-ext4"):
        first.client.stage(volume, first.staging(volume), secret, capability)
    assert first.control.list() == ()
    assert holders(world, keys) == {}
