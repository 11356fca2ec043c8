# SPDX-License-Identifier: Apache-2.0
"""`volume flatten` on real Ceph: to the end, cancelled, killed, and refused."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest
import rbd

from csi_driver.domain.exports import ExportEntry
from csi_driver.domain.record import Record
from csi_driver.images.records import change_record
from tests.ceph.administration.flattens import LARGE
from tests.ceph.administration.flattens import OWN
from tests.ceph.administration.flattens import at_full_speed
from tests.ceph.administration.flattens import await_progress
from tests.ceph.administration.flattens import family
from tests.ceph.administration.flattens import require_flat
from tests.ceph.administration.flattens import slow_down
from tests.ceph.administration.flattens import words
from tests.ceph.administration.making import SIZE
from tests.ceph.administration.making import Maker
from tests.ceph.administration.making import pattern

WRONG = base64.b64encode(bytes(range(65, 97))).decode()


def test_a_clone_becomes_flat_and_its_snapshots_stay(maker: Maker) -> None:
    clone, content = family(maker)
    taken = maker.snapshot(clone, "before")
    maker.write(clone, 0, OWN)
    done = maker.run(*words(maker, clone, "--output=json"))
    assert done.returncode == 0, done.stderr
    volume_id = str(maker.volume_id(clone))
    assert json.loads(done.stdout) == {"id": volume_id, "ancestors": 0}
    require_flat(maker, clone, OWN + content[len(OWN) :])
    assert maker.content(clone, taken.number) == content
    done = maker.run(*words(maker, clone))
    assert done.returncode == 1
    assert "nothing to flatten" in done.stderr


def test_a_plaintext_clone(maker: Maker) -> None:
    source = maker.volume("source", encrypted=False)
    clone = maker.clone(source, "clone")
    maker.write(clone, 8192, OWN)
    done = maker.run("flatten", "clone")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "clone: flattened; it has no parent any more\n"
    content = pattern("source", SIZE)
    require_flat(maker, clone, content[:8192] + OWN + content[8192 + len(OWN) :])


def test_without_or_with_the_wrong_secret_nothing_changes(maker: Maker) -> None:
    clone, content = family(maker)
    before = maker.record(clone)
    done = maker.run("flatten", "clone")
    assert done.returncode == 1
    assert "no Secret was given" in done.stderr
    wrong = json.dumps({"encryptionKey": WRONG})
    done = maker.run("flatten", "clone", "--secret-file=-", stdin=wrong)
    assert done.returncode == 1
    assert "fingerprint" in done.stderr
    assert WRONG not in done.stderr
    assert maker.record(clone) == before
    assert maker.content(clone) == content


def test_a_staged_volume_is_refused(maker: Maker) -> None:
    clone, _ = family(maker)
    with maker.rbd_image(clone) as image:
        image.lock_acquire(rbd.RBD_LOCK_MODE_EXCLUSIVE)
        (owner,) = image.lock_get_owners()
        export = ExportEntry("node-1", "boot", owner["owner"], read_only=False)
        before = maker.change(clone.image_id, exports=(export,))
        done = maker.run(*words(maker, clone))
        assert done.returncode == 1
        assert "staged on node node-1" in done.stderr
        assert "flattenPolicy" in done.stderr
        # Read-only as well, where no lock is held.
        image.lock_release()
        before = maker.change(
            clone.image_id, exports=(dataclasses.replace(export, read_only=True),)
        )
        done = maker.run(*words(maker, clone))
        assert done.returncode == 1
        assert "staged on node node-1" in done.stderr
    assert maker.record(clone) == before


def test_the_window_in_which_the_magic_is_flat_already(maker: Maker) -> None:
    clone, content = family(maker)
    with maker.rbd_image(clone) as image:
        image.write(b"LUKS", 0)
        image.write(b"SKUL", 16384)
    assert maker.content(clone) == content
    done = maker.run(*words(maker, clone))
    assert done.returncode == 0, done.stderr
    require_flat(maker, clone, content)


def test_a_flatten_that_ended_before_the_record_knew(maker: Maker) -> None:
    clone, content = family(maker)
    before = maker.record(clone)
    assert maker.run(*words(maker, clone)).returncode == 0
    change_record(maker.pool, clone.image_id, lambda _: before)
    assert maker.findings(clone).keys() == {"flatten-unrecorded"}
    assert maker.run(*words(maker, clone)).returncode == 0
    require_flat(maker, clone, content)


@pytest.fixture
def slow(maker: Maker) -> Iterator[tuple[Record, bytes, subprocess.Popen[str]]]:
    """Give a clone whose flatten by hand takes a while and is under way."""
    clone, content = family(maker, LARGE, object_size=65536)
    slow_down(maker, clone)
    process = subprocess.Popen(
        maker.command(*words(maker, clone)),
        env=maker.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    await_progress(maker, clone, process)
    yield clone, content, process
    process.kill()
    process.communicate()


def test_a_stage_gets_the_volume_within_two_seconds(
    maker: Maker, slow: tuple[Record, bytes, subprocess.Popen[str]]
) -> None:
    clone, content, process = slow
    assert maker.check(clone)["setting-inherited"]
    work = maker.record(clone).flatten
    assert work is not None
    maker.change(clone.image_id, flatten=dataclasses.replace(work, cancel=True))
    asked = time.monotonic()
    with maker.rbd_image(clone) as image:
        while True:
            try:
                image.lock_acquire(rbd.RBD_LOCK_MODE_EXCLUSIVE)
                break
            except rbd.ReadOnlyImage:
                assert time.monotonic() < asked + 10
                time.sleep(0.02)
        assert time.monotonic() < asked + 2
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "a stage took the volume" in errors
    found = maker.record(clone)
    assert found.flatten is None
    assert found.layers == clone.layers
    assert maker.content(clone) == content
    at_full_speed(maker, clone)
    assert maker.run(*words(maker, clone)).returncode == 0
    require_flat(maker, clone, content)


def test_killed_in_the_middle_it_is_repeated(
    maker: Maker, slow: tuple[Record, bytes, subprocess.Popen[str]]
) -> None:
    clone, content, process = slow
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=20)
    assert maker.content(clone) == content
    done = maker.run(*words(maker, clone))
    assert done.returncode == 0, done.stderr
    assert "waiting for" in done.stderr
    at_full_speed(maker, clone)
    require_flat(maker, clone, content)


def test_ctrl_c_lets_go(
    maker: Maker, slow: tuple[Record, bytes, subprocess.Popen[str]]
) -> None:
    clone, content, process = slow
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode
    assert maker.record(clone).flatten is None
    assert maker.content(clone) == content
    with maker.rbd_image(clone) as image:
        assert not list(image.lock_get_owners())
