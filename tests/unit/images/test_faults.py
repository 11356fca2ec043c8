# SPDX-License-Identifier: Apache-2.0
"""The fault wrappers strike where they are told to, and nowhere else."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import RawSize
from csi_driver.domain.sizes import Striping
from csi_driver.images.port import Connector
from csi_driver.images.values import NewImage
from csi_driver.testing.ceph_fake import FakeConnector
from csi_driver.testing.ceph_fake_store import FakeStore
from csi_driver.testing.crash import Arguments
from csi_driver.testing.crash import Crash
from csi_driver.testing.crash import WorkFailedError
from csi_driver.testing.crash import crash_at
from csi_driver.testing.crash import run_until_no_crash
from csi_driver.testing.faults import Fault
from csi_driver.testing.faults import FaultyConnector
from csi_driver.testing.faults import Steps
from csi_driver.testing.faults import When

HERE = Path(__file__).parent / "crash_work.py"
FAKE = f"{HERE}:fake_connector"
NAMES = ["connect", "ceph.pool", "pool.swap_entries", "pool.read_entry", "ceph.close"]
IMAGE = NewImage("i", RawSize(MIB), Striping(), ("layering", "exclusive-lock"))


def make_image(connector: Connector) -> None:
    ceph = connector.connect("fake")
    pool = ceph.pool("rbd")
    pool.create_image(IMAGE)
    image_id = pool.find_image("i")
    assert image_id is not None
    with pool.open_raw(image_id) as image:
        assert image.name == "i"
        image.acquire_lock()
        image.erase_header(4096)
    ceph.close()


def test_every_call_is_a_step() -> None:
    steps = Steps(Fault(0))
    make_image(FaultyConnector(FakeConnector(FakeStore()), steps))
    assert steps.names == [
        "connect",
        "ceph.pool",
        "pool.create_image",
        "pool.find_image",
        "pool.open_raw",
        "image.acquire_lock",
        "image.erase_header",
        "image.close",
        "ceph.close",
    ]


@pytest.mark.parametrize("when", When)
def test_an_error_is_raised_before_or_after_the_effect(when: When) -> None:
    store = FakeStore()
    error = UnavailableError("struck")
    steps = Steps(Fault(3, when, error))
    with pytest.raises(UnavailableError) as caught:
        make_image(FaultyConnector(FakeConnector(store), steps))
    assert caught.value is error
    assert steps.names[-1] == "pool.create_image"
    there = FakeConnector(store).connect("fake").pool("rbd").find_image("i")
    assert (there is not None) == (when is When.AFTER)


def test_errors_of_ceph_pass_through() -> None:
    store = FakeStore()
    store.clusters["fake"].unreachable = True
    with pytest.raises(UnavailableError):
        FaultyConnector(FakeConnector(store), Steps(Fault(0))).connect("fake")


def test_work_is_killed_around_each_of_its_steps(tmp_path: Path) -> None:
    numbers = itertools.count()
    seen: list[tuple[Crash, str]] = []

    def arguments() -> Arguments:
        return {"trace": str(tmp_path / str(next(numbers)))}

    def check(crash: Crash, given: Arguments) -> None:
        trace = Path(given["trace"])
        seen.append((crash, trace.read_text() if trace.exists() else ""))

    count = run_until_no_crash(f"{HERE}:work", arguments, check, connector=FAKE)
    assert count == 2 * len(NAMES)
    expected = [
        (Crash(number, name, when), trace)
        for when, traces in (
            (When.BEFORE, ["", "", "pool\n", "pool\n", "pool\nentry\n"]),
            (When.AFTER, ["", "", "pool\n", "pool\n", "pool\nentry\n"]),
        )
        for number, (name, trace) in enumerate(zip(NAMES, traces, strict=True), 1)
    ]
    assert seen == expected


def test_work_that_fails_by_itself_is_no_crash() -> None:
    with pytest.raises(WorkFailedError, match="nowhere"):
        crash_at(f"{HERE}:fail", {"cluster": "nowhere"}, Fault(9), connector=FAKE)


def test_raising_needs_no_process() -> None:
    with pytest.raises(ValueError, match="no process"):
        crash_at(f"{HERE}:work", {}, Fault(1, error=UnavailableError("x")))
