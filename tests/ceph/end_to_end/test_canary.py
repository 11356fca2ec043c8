# SPDX-License-Identifier: Apache-2.0
"""Secrets are followed through a volume's whole life and must leave no trace.

Searched are all that Ceph keeps, every log and state file, the command line
and environment of every process while calls run, every answer to a call, and
the place where a core file would be; each for many spellings of each secret.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from csi_driver.rpc.stubs import csi_pb2
from tests.ceph.end_to_end import secrets_of
from tests.ceph.end_to_end import traces
from tests.ceph.end_to_end.client import MIB
from tests.ceph.end_to_end.client import block
from tests.ceph.end_to_end.client import mount
from tests.ceph.end_to_end.client import refused
from tests.ceph.end_to_end.parts import COMMAND
from tests.ceph.end_to_end.traces import Canaries
from tests.ceph.end_to_end.world import Machine
from tests.ceph.end_to_end.world import World
from tests.ceph.end_to_end.world import eventually
from tests.ceph.end_to_end.world import sync

PLAINTEXT = b"the tenant's own words, which nobody on the cluster shall read"


class Sampler:
    """Looks at every process all the time, until told."""

    def __init__(self) -> None:
        self.seen: dict[bytes, str] = {}
        self.rounds = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._end.set()
            self._thread.join()

    def _run(self) -> None:
        while not self._end.is_set():
            for place, content in traces.of_processes(traces.all_pids()):
                self.seen.setdefault(content, place)
            self.rounds += 1

    def places(self) -> Iterator[tuple[str, bytes]]:
        for content, place in self.seen.items():
            yield place, content


@dataclasses.dataclass
class Story:
    """What was seen of a volume while it lived."""

    canaries: Canaries
    sampler: Sampler
    answers: list[bytes] = dataclasses.field(default_factory=list)

    def places_of_answers(self) -> Iterator[tuple[str, bytes]]:
        for number, answer in enumerate(self.answers):
            yield f"answer {number}", answer


def test_the_search_finds_what_is_there() -> None:
    """Each spelling is found, or all the other tests would prove nothing."""
    canaries = Canaries({"it": b"a secret of some length \xc3\xbc"})
    for form in traces.forms(canaries.secrets["it"]):
        assert canaries.found_in([("here", b"x" + form + b"y")]) == {"here": {"it"}}
    text = "a secret of some length ü"
    for encoding in ("utf-16-le", "utf-16-be"):
        assert canaries.within(text.encode(encoding))
    assert not canaries.within(b"another secret of some length")


def refusals(
    world: World, machine: Machine, volume: csi_pb2.Volume, secret: dict[str, str]
) -> Iterator[str]:
    """Provoke errors with the secret in the request; yield their messages."""
    (text,) = secret.values()
    phrase, key = "encryptionPassphrase", "encryptionKey"
    staging = machine.staging(volume)
    wrong: list[dict[str, str]] = [
        {phrase: text + " wrong"},
        {phrase: text + "\n"},
        {phrase: text + "\0"},
        {phrase: text, key: text},
        {key: text + "="},
        {key: text[:-1]},
        {"userID": "nobody", "userKey": text, **secret},
    ]
    for each in wrong:
        with refused(
            grpc.StatusCode.UNAUTHENTICATED,
            grpc.StatusCode.PERMISSION_DENIED,
            grpc.StatusCode.INVALID_ARGUMENT,
        ) as refusal:
            machine.client.stage(volume, staging, each)
        yield refusal[0].message
    for each in wrong[1:6]:
        with refused(
            grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.INVALID_ARGUMENT
        ) as refusal:
            world.controller.create(world.new_name(), each)
        yield refusal[0].message
    request = csi_pb2.NodeStageVolumeRequest(
        volume_id=volume.volume_id,
        staging_target_path="/",
        volume_capability=mount(),
        secrets=secret,
    )
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as refusal:
        machine.client.stub.NodeStageVolume(request)
    yield refusal[0].message


@pytest.mark.parametrize("mode", secrets_of.MODES)
def test_a_volumes_life_leaves_no_trace_of_its_secrets(world: World, mode: str) -> None:
    secret = secrets_of.new_secret(mode)
    first = world.first
    sampler = Sampler()
    with sampler.at_work():
        volume = world.create(secret, size=304 * MIB, capability=mount("xfs"))
        secrets = secrets_of.given(secret)
        secrets |= secrets_of.derived(world.record(volume), secret)
        story = Story(Canaries(secrets), sampler)
        messages = refusals(world, first, volume, secret)
        story.answers += [message.encode() for message in messages]
        target = first.stage(volume, secret, mount("xfs"))
        (target / "file").write_bytes(PLAINTEXT * 1000)
        sync(target)
        world.controller.expand(volume, 608 * MIB, secret)
        first.client.expand(volume, target, 608 * MIB)
        staged = traces_of(world, first)
        assert story.canaries.found_in(staged) == {}
        assert_nothing_in_ceph(story.canaries)
        # The Secret again, on calls that need not have it.
        first.client.stage(volume, first.staging(volume), secret, mount("xfs"))
        first.unstage(volume)
        story.answers.append(volume.SerializeToString())
        world.forget(volume)
        world.controller.stub.DeleteVolume(
            csi_pb2.DeleteVolumeRequest(volume_id=volume.volume_id, secrets=secret)
        )
    assert sampler.rounds > 5
    assert any(b"cryptsetup" in content for content in sampler.seen)
    assert any(b"mkfs.xfs" in content for content in sampler.seen)
    assert story.canaries.found_in(sampler.places()) == {}
    assert story.canaries.found_in(story.places_of_answers()) == {}
    assert story.canaries.found_in(traces_of(world, first)) == {}
    assert_nothing_in_ceph(story.canaries)


def refused_clones(
    world: World,
    source: csi_pb2.Snapshot,
    secret: dict[str, str],
    clones_secret: dict[str, str],
) -> Iterator[str]:
    """Provoke errors with both Secrets in the request; yield their messages."""
    (text,) = secret.values()
    phrase, key = "sourceEncryptionPassphrase", "sourceEncryptionKey"
    wrong: list[dict[str, str]] = [
        {},
        {phrase: text + " wrong"},
        {phrase: text + "\0"},
        {phrase: text, key: text},
        {key: text + "="},
        secrets_of.as_source(clones_secret),
    ]
    for each in wrong:
        with refused(
            grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.INVALID_ARGUMENT
        ) as refusal:
            world.clone({**clones_secret, **each}, source)
        yield refusal[0].message
    with refused(grpc.StatusCode.OUT_OF_RANGE) as refusal:
        right = clones_secret | secrets_of.as_source(secret)
        world.clone(right, source, size=4 * MIB)
    yield refusal[0].message


@pytest.mark.parametrize("mode", secrets_of.MODES)
def test_a_clones_life_leaves_no_trace_of_either_secret(
    world: World, mode: str
) -> None:
    """Snapshot, clone and both ways to flatten; the source's Secret is brought."""
    (other,) = set(secrets_of.MODES) - {mode}
    secret, own = secrets_of.new_secret(mode), secrets_of.new_secret(other)
    first = world.first
    sampler = Sampler()
    with sampler.at_work():
        volume = world.create(secret)
        target = first.stage(volume, secret)
        (target / "file").write_bytes(PLAINTEXT * 1000)
        sync(target)
        snapshot = world.snapshot(volume, secret)
        refusals = list(refused_clones(world, snapshot, secret, own))
        clones = [
            world.clone(own | secrets_of.as_source(secret), snapshot) for _ in range(2)
        ]
        secrets = dict(secrets_of.all_of(world.record(volume), secret, "source"))
        for number, clone in enumerate(clones):
            secrets |= secrets_of.all_of(world.record(clone), own, f"clone {number}")
        story = Story(Canaries(secrets), sampler)
        story.answers += [message.encode() for message in refusals]
        story.answers += [each.SerializeToString() for each in (snapshot, *clones)]
        target = first.stage(clones[0], own)
        assert (target / "file").read_bytes().startswith(PLAINTEXT)
        (target / "another").write_bytes(PLAINTEXT * 1000)
        sync(target)
        assert_nothing_in_ceph(story.canaries)
        world.flatten(clones[0])
        flatten_by_hand(story, clones[1], own)
        assert story.canaries.found_in(traces_of(world, first)) == {}
        assert_nothing_in_ceph(story.canaries)
        for each in (clones[0], volume):
            first.unstage(each)
    assert sampler.rounds > 5
    assert any(b"volume\0flatten" in content for content in sampler.seen)
    assert story.canaries.found_in(sampler.places()) == {}
    assert story.canaries.found_in(story.places_of_answers()) == {}
    assert story.canaries.found_in(traces_of(world, first)) == {}


def flatten_by_hand(
    story: Story, volume: csi_pb2.Volume, secret: dict[str, str]
) -> None:
    """Flatten a clone that is not staged, its Secret in a file as docs say."""
    with tempfile.TemporaryDirectory(prefix="secret-") as directory:
        file = Path(directory) / "secret"
        file.write_text(json.dumps(secret))
        file.chmod(0o600)
        words = [COMMAND, "volume", "flatten", volume.volume_id]
        done = subprocess.run(
            [*words, "--secret-file", str(file)], capture_output=True, check=False
        )
    assert done.returncode == 0, done.stderr
    story.answers += [done.stdout, done.stderr]


def traces_of(world: World, machine: Machine) -> Iterator[tuple[str, bytes]]:
    """Yield all logs, the driver's and Ceph's, and all that lies on the node."""
    logs = Path(os.environ["CEPH_CONF"]).parents[1] / "log"
    yield from traces.files_below(machine.directory, logs)
    temporary = Path(tempfile.gettempdir())
    for path in temporary.glob("tmp*"):
        yield from traces.files_below(path)


def assert_nothing_in_ceph(canaries: Canaries) -> None:
    """Search data, attributes and omap of all objects."""
    plain = Canaries({**canaries.secrets, "the data": PLAINTEXT})
    for pool in ("rbd", "rbd2"):
        for namespace in ("", "tenant"):
            conf = os.environ["CEPH_CONF"]
            with traces.pool_at(conf, pool, namespace) as context:
                places = [("the pool", b"."), *traces.of_pool(context)]
            assert plain.found_in(places) == {}


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT])
def test_a_crash_with_the_key_in_memory_leaves_no_core_file(
    world: World, number: signal.Signals
) -> None:
    secret = secrets_of.new_secret("key")
    source = world.create(secret, capability=block())
    # A clone, since its worker has the keys of two layers.
    volume = world.clone(secret, source, capability=block())
    first = world.first
    first.stage(volume, secret, block())
    worker = first.worker_pid(volume)
    for pid in (worker, *world.controller_part.pids(), *first.service.pids()):
        limits = Path(f"/proc/{pid}/limits").read_text()
        (core,) = (line for line in limits.splitlines() if "core file" in line)
        assert core.split()[4:6] == ["0", "0"], core
    before = core_files(first)
    os.kill(worker, number)
    eventually("noticing", lambda: not first.alive(volume), 10)
    os.kill(first.service.pid, number)
    assert first.service.process is not None
    status = os.waitid(os.P_PID, first.service.pid, os.WEXITED | os.WNOWAIT)
    assert status is not None
    assert status.si_code == os.CLD_KILLED, "CLD_DUMPED would be a core file"
    first.service.process.wait()
    first.service.start()
    time.sleep(0.5)
    assert core_files(first) == before
    first.unstage(volume)


def core_files(machine: Machine) -> set[Path]:
    """Return what could be core files, where this kernel would put them."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    places = {Path("/"), Path.cwd(), machine.directory}
    if pattern.startswith("/"):
        places.add(Path(pattern).parent)
    return {path for place in places for path in place.glob("*core*")}
