# SPDX-License-Identifier: Apache-2.0
"""One call per volume, deadlines, and guards that outlast their callers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from csi_driver.rpc.stubs import csi_pb2
from csi_driver.rpc.workers import Patience
from csi_driver.rpc.workers import Workers

MODE = csi_pb2.VolumeCapability.AccessMode
ID = "v1:memory:1::abc"
OTHER = "v1:memory:1::def"


class Gate:
    """Holds work up until it is opened."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()

    def __call__(self) -> None:
        self.entered.release()
        assert self.open.wait(20)


def create(name: str) -> csi_pb2.CreateVolumeRequest:
    writer = csi_pb2.VolumeCapability(
        block=csi_pb2.VolumeCapability.BlockVolume(),
        access_mode=MODE(mode=MODE.SINGLE_NODE_WRITER),
    )
    return csi_pb2.CreateVolumeRequest(name=name, volume_capabilities=[writer])


def delete(volume_id: str) -> csi_pb2.DeleteVolumeRequest:
    return csi_pb2.DeleteVolumeRequest(volume_id=volume_id)


def code_of(call: Callable[[], Any]) -> str:
    try:
        call()
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def gate() -> Gate:
    return Gate()


def test_a_second_call_on_the_volume_is_aborted_at_once(
    serving: Any, gate: Gate
) -> None:
    serving.provisioner.before = gate
    first = serving.controller.DeleteVolume.future(delete(ID))
    assert gate.entered.acquire(timeout=10)
    begin = time.monotonic()
    with pytest.raises(grpc.RpcError) as caught:
        serving.controller.DeleteVolume(delete(ID))
    assert caught.value.code() is grpc.StatusCode.ABORTED
    assert "DeleteVolume" in (caught.value.details() or "")
    assert time.monotonic() - begin < 2
    gate.open.set()
    first.result()
    serving.controller.DeleteVolume(delete(ID))


def test_other_volumes_names_and_reads_go_on(serving: Any, gate: Gate) -> None:
    serving.provisioner.before = gate
    first = serving.controller.DeleteVolume.future(delete(ID))
    assert gate.entered.acquire(timeout=10)
    serving.provisioner.before = lambda: None
    serving.controller.DeleteVolume(delete(OTHER))
    serving.controller.CreateVolume(create(ID))
    serving.controller.ListVolumes(csi_pb2.ListVolumesRequest())
    get = csi_pb2.ControllerGetVolumeRequest(volume_id=ID)
    assert code_of(lambda: serving.controller.ControllerGetVolume(get)) == "NOT_FOUND"
    gate.open.set()
    first.result()


def test_create_is_guarded_by_its_name(serving: Any, gate: Gate) -> None:
    serving.provisioner.before = gate
    first = serving.controller.CreateVolume.future(create("pvc-1"))
    assert gate.entered.acquire(timeout=10)
    assert code_of(lambda: serving.controller.CreateVolume(create("pvc-1"))) == (
        "ABORTED"
    )
    gate.open.set()
    assert first.result().volume.volume_id


def snapshot(volume_id: str, name: str) -> csi_pb2.CreateSnapshotRequest:
    return csi_pb2.CreateSnapshotRequest(source_volume_id=volume_id, name=name)


def test_a_snapshot_is_guarded_by_its_name_and_volume(serving: Any, gate: Gate) -> None:
    made = serving.controller.CreateVolume(create("pvc-1")).volume.volume_id
    other = serving.controller.CreateVolume(create("pvc-2")).volume.volume_id
    serving.provisioner.before = gate
    take = serving.controller.CreateSnapshot
    first = take.future(snapshot(made, "pvc-3"))
    assert gate.entered.acquire(timeout=10)
    assert code_of(lambda: take(snapshot(made, "pvc-3"))) == "ABORTED"
    assert len(serving.server.in_flight.keys()) == 1
    serving.provisioner.before = lambda: None
    take(snapshot(made, "snap-2"))
    take(snapshot(other, "snap-3"))
    serving.controller.CreateVolume(create("pvc-3"))  # a volume's name is no snapshot's
    serving.controller.ListSnapshots(csi_pb2.ListSnapshotsRequest())
    gate.open.set()
    assert first.result().snapshot.snapshot_id
    assert not serving.server.in_flight.keys()


def test_deleting_a_snapshot_is_guarded_by_its_id(serving: Any, gate: Gate) -> None:
    serving.provisioner.before = gate
    delete_snapshot = serving.controller.DeleteSnapshot
    one = csi_pb2.DeleteSnapshotRequest(snapshot_id="s1:memory:1::abc:1")
    two = csi_pb2.DeleteSnapshotRequest(snapshot_id="s1:memory:1::abc:2")
    first = delete_snapshot.future(one)
    assert gate.entered.acquire(timeout=10)
    assert code_of(lambda: delete_snapshot(one)) == "ABORTED"
    serving.provisioner.before = lambda: None
    delete_snapshot(two)
    serving.controller.DeleteVolume(delete(ID))
    get = csi_pb2.GetSnapshotRequest(snapshot_id=one.snapshot_id)
    assert code_of(lambda: serving.controller.GetSnapshot(get)) == "NOT_FOUND"
    gate.open.set()
    first.result()


def test_modifying_is_guarded_like_any_change_of_the_volume(
    serving: Any, gate: Gate
) -> None:
    serving.provisioner.before = gate
    first = serving.controller.DeleteVolume.future(delete(ID))
    assert gate.entered.acquire(timeout=10)
    modify = csi_pb2.ControllerModifyVolumeRequest(
        volume_id=ID, mutable_parameters={"iops": "1"}
    )
    call = serving.controller.ControllerModifyVolume
    assert code_of(lambda: call(modify)) == "ABORTED"
    gate.open.set()
    first.result()
    assert code_of(lambda: call(modify)) == "NOT_FOUND"


def test_a_field_that_is_missing_guards_nothing(serving: Any) -> None:
    for request in (snapshot("", "snap-1"), snapshot(ID, "")):
        call = serving.controller.CreateSnapshot
        assert code_of(lambda: call(request)) == "INVALID_ARGUMENT"  # noqa: B023  # called at once
    assert not serving.server.in_flight.keys()


def test_a_call_gives_up_at_its_deadline_and_its_guard_stays(
    serving: Any, gate: Gate
) -> None:
    serving.provisioner.before = gate
    with pytest.raises(grpc.RpcError) as caught:
        serving.controller.DeleteVolume(delete(ID), timeout=0.8)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "goes on" in (caught.value.details() or "")
    wait_until(lambda: serving.counted.now_stuck == 1)
    assert code_of(lambda: serving.controller.DeleteVolume(delete(ID))) == "ABORTED"
    assert serving.server.in_flight.keys()
    gate.open.set()
    wait_until(lambda: not serving.server.in_flight.keys())
    serving.controller.DeleteVolume(delete(ID))
    assert serving.counted.now_stuck == 0
    assert serving.counted.most_stuck == 1


def test_a_call_without_a_deadline_ends_at_the_server_s_own(
    serve: Any, gate: Gate
) -> None:
    serving = serve(longest_call=0.3)
    serving.provisioner.before = gate
    with pytest.raises(grpc.RpcError) as caught:
        serving.controller.DeleteVolume(delete(ID))
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "DeleteVolume has not ended" in (caught.value.details() or "")
    gate.open.set()


def test_a_caller_that_leaves_frees_its_thread_but_not_its_guard(
    serving: Any, gate: Gate
) -> None:
    serving.provisioner.before = gate
    call = serving.controller.DeleteVolume.future(delete(ID))
    assert gate.entered.acquire(timeout=10)
    call.cancel()
    wait_until(lambda: ("DeleteVolume", "CANCELLED") in serving.counted.calls)
    assert code_of(lambda: serving.controller.DeleteVolume(delete(ID))) == "ABORTED"
    gate.open.set()
    wait_until(lambda: not serving.server.in_flight.keys())


def test_too_much_stuck_work_refuses_new_calls_but_not_probe(
    serve: Any, gate: Gate
) -> None:
    serving = serve(most_stuck=2)
    serving.provisioner.before = gate
    for name in ("a", "b"):
        call = serving.controller.CreateVolume
        assert code_of(lambda: call(create(name), timeout=0.5)) == "DEADLINE_EXCEEDED"  # noqa: B023  # called at once
    wait_until(lambda: serving.counted.now_stuck == 2)
    with pytest.raises(grpc.RpcError) as caught:
        serving.controller.CreateVolume(create("c"))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "stuck" in (caught.value.details() or "")
    assert not serving.identity.Probe(csi_pb2.ProbeRequest()).ready.value
    gate.open.set()
    wait_until(lambda: serving.counted.now_stuck == 0)
    serving.controller.CreateVolume(create("c"))


def test_calls_beyond_the_threads_wait_for_their_turn(serve: Any, gate: Gate) -> None:
    serving = serve(most_running=1)
    serving.provisioner.before = gate
    first = serving.controller.CreateVolume.future(create("a"))
    assert gate.entered.acquire(timeout=10)
    second = serving.controller.CreateVolume.future(create("b"))
    assert code_of(
        lambda: serving.controller.CreateVolume(create("c"), timeout=0.5)
    ) == ("DEADLINE_EXCEEDED")
    assert len(serving.provisioner.asked) == 1
    gate.open.set()
    assert first.result().volume.volume_id
    assert second.result().volume.volume_id
    assert {"a", "b"} == set(serving.provisioner.volumes)
    wait_until(lambda: not serving.server.in_flight.keys())


def test_work_gives_its_guard_back_before_the_caller_reads_the_answer() -> None:
    workers, ended = Workers(), threading.Event()
    assert workers.run("x", lambda: 1, patience=Patience(5), ended=ended.set) == 1
    assert ended.is_set()
    assert workers.running == 0


def test_a_failure_of_the_work_is_the_failure_of_the_call() -> None:
    workers, ended = Workers(), threading.Event()
    with pytest.raises(ZeroDivisionError):
        workers.run("x", lambda: 1 // 0, patience=Patience(5), ended=ended.set)
    assert ended.is_set()


def test_work_that_is_never_begun_gives_its_guard_back() -> None:
    workers, ended = Workers(), threading.Event()
    begun: list[int] = []
    with pytest.raises(Exception, match="not begun"):
        workers.run("x", lambda: begun.append(1), patience=Patience(0), ended=ended.set)
    assert ended.is_set()
    assert not begun


def test_stopping_waits_for_work_and_takes_the_socket_away(
    serving: Any, gate: Gate
) -> None:
    serving.provisioner.before = gate
    call = serving.controller.DeleteVolume.future(delete(ID))
    assert gate.entered.acquire(timeout=10)
    threading.Timer(0.2, gate.open.set).start()
    assert serving.server.stop(10)
    call.result()
    assert not serving.socket.exists()


def test_stopping_gives_up_on_work_that_does_not_end(serving: Any, gate: Gate) -> None:
    serving.provisioner.before = gate
    call = serving.controller.DeleteVolume.future(delete(ID))
    assert gate.entered.acquire(timeout=10)
    assert not serving.server.stop(0.1)
    assert code_of(call.result) != "OK"
    gate.open.set()
