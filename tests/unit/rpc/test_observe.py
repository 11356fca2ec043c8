# SPDX-License-Identifier: Apache-2.0
"""What a call leaves in the log and the metrics, and what it does not."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
import structlog

from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import SecretError
from csi_driver.rpc.scrub import scrub
from csi_driver.rpc.stubs import csi_pb2

MODE = csi_pb2.VolumeCapability.AccessMode
ID = "v1:memory:1::abc"
SNAPSHOT = "s1:memory:1::abc:1"
CANARY = "canary-7f3a\\'\"\tpassphrase"


def create(**more: Any) -> csi_pb2.CreateVolumeRequest:
    writer = csi_pb2.VolumeCapability(
        block=csi_pb2.VolumeCapability.BlockVolume(),
        access_mode=MODE(mode=MODE.SINGLE_NODE_WRITER),
    )
    return csi_pb2.CreateVolumeRequest(
        name="pvc-1",
        volume_capabilities=[writer],
        secrets={"encryptionPassphrase": CANARY, "userID": "tenant"},
        **more,
    )


def raiser(error: Exception) -> Any:
    def run() -> None:
        raise error

    return run


def test_a_call_leaves_one_line_with_its_request_and_no_secret(serving: Any) -> None:
    serving.controller.CreateVolume(create(parameters={"pool": "rbd"}))
    lines = [line for line in serving.lines() if line["event"] == "call"]
    assert len(lines) == 1
    line = lines[0]
    assert line["rpc"] == "CreateVolume"
    assert line["volume"] == "pvc-1"
    assert line["code"] == "OK"
    assert line["level"] == "info"
    assert line["seconds"] >= 0
    assert line["timestamp"].endswith("Z")
    assert line["request"]["parameters"] == {"pool": "rbd"}
    assert line["request"]["secrets"] == {
        "encryptionPassphrase": "***",
        "userID": "***",
    }
    assert "canary" not in serving.log.getvalue()


SECRETS = {"encryptionPassphrase": CANARY, "sourceEncryptionPassphrase": CANARY}


@pytest.mark.parametrize(
    ("method", "given", "subject"),
    [
        (
            "CreateSnapshot",
            {"source_volume_id": ID, "name": "snap-1"},
            {"volume": ID, "snapshot": "snap-1"},
        ),
        ("DeleteSnapshot", {"snapshot_id": SNAPSHOT}, {"snapshot": SNAPSHOT}),
        ("GetSnapshot", {"snapshot_id": SNAPSHOT}, {"snapshot": SNAPSHOT}),
        (
            "ListSnapshots",
            {"snapshot_id": SNAPSHOT, "source_volume_id": ID},
            {"volume": ID, "snapshot": SNAPSHOT},
        ),
        ("ListSnapshots", {}, {}),
        (
            "ControllerModifyVolume",
            {"volume_id": ID, "mutable_parameters": {"iops": "1"}},
            {"volume": ID},
        ),
    ],
    ids=["create", "delete", "get", "list one", "list all", "modify"],
)
def test_snapshot_calls_are_logged_by_their_subject_without_secrets(
    serving: Any, method: str, given: dict[str, Any], subject: dict[str, str]
) -> None:
    serving.provisioner.before = raiser(ValueError(f"cannot parse {CANARY!r}"))
    request = getattr(csi_pb2, f"{method}Request")(**given, secrets=SECRETS)
    with pytest.raises(grpc.RpcError):
        getattr(serving.controller, method)(request)
    (line,) = (line for line in serving.lines() if line["event"] == "call")
    assert line["rpc"] == method
    assert line["code"] == "INTERNAL"
    shown = {key: line[key] for key in ("volume", "snapshot") if key in line}
    assert shown == subject
    assert line["request"]["secrets"] == dict.fromkeys(SECRETS, "***")
    assert "canary" not in serving.log.getvalue()


def test_the_work_logs_under_its_call(serving: Any) -> None:
    log = structlog.get_logger("work")
    serving.provisioner.before = lambda: log.info("inside")
    serving.controller.CreateVolume(create())
    inside, call = (
        line for line in serving.lines() if line["event"] in {"inside", "call"}
    )
    assert inside["call"] == call["call"]
    assert inside["volume"] == "pvc-1"


def test_a_failure_is_a_warning_with_its_message(serving: Any) -> None:
    serving.provisioner.before = raiser(InUseError("volume pvc-1 is open on node-2"))
    with pytest.raises(grpc.RpcError) as caught:
        serving.controller.CreateVolume(create())
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert caught.value.details() == "volume pvc-1 is open on node-2"
    assert caught.value.trailing_metadata() == ()
    line = serving.lines()[-1]
    assert line["level"] == "warning"
    assert line["code"] == "FAILED_PRECONDITION"
    assert line["error"] == "volume pvc-1 is open on node-2"


def test_a_bug_is_internal_with_its_traceback_in_the_log_only(serving: Any) -> None:
    serving.provisioner.before = raiser(ValueError(f"cannot parse {CANARY!r}"))
    with pytest.raises(grpc.RpcError) as caught:
        serving.controller.CreateVolume(create())
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    details = caught.value.details() or ""
    incident = next(
        line for line in serving.lines() if line["event"] == "unexpected failure"
    )
    assert incident["incident"] in details
    assert "ValueError" in incident["traceback"]
    assert "raise error" in incident["traceback"]
    for text in (details, serving.log.getvalue()):
        assert "canary" not in text
        assert 'passphrase"' not in text


def test_a_secret_of_the_exception_chain_is_scrubbed_too(serving: Any) -> None:
    def run() -> None:
        try:
            int(CANARY)
        except ValueError as error:
            raise RuntimeError(CANARY) from error

    serving.provisioner.before = run
    with pytest.raises(grpc.RpcError):
        serving.controller.CreateVolume(create())
    assert "canary" not in serving.log.getvalue()


def test_scrubbing_keeps_public_names() -> None:
    assert scrub("client.tenant sent pa", create()) == "client.tenant sent pa"
    assert scrub(f"sent {CANARY}", create()) == "sent ***"


def test_calls_are_counted_by_method_and_code(serving: Any) -> None:
    serving.controller.CreateVolume(create())
    serving.provisioner.before = raiser(SecretError("no"))
    with pytest.raises(grpc.RpcError):
        serving.controller.CreateVolume(create())
    serving.identity.Probe(csi_pb2.ProbeRequest())
    assert serving.counted.calls == [
        ("CreateVolume", "OK"),
        ("CreateVolume", "UNAUTHENTICATED"),
        ("Probe", "OK"),
    ]


def test_calls_that_come_all_the_time_are_debug_lines(serving: Any) -> None:
    serving.identity.Probe(csi_pb2.ProbeRequest())
    assert serving.lines()[-1]["level"] == "debug"


@pytest.mark.parametrize(
    "raw", [b"\x0a\x02\xff\xfe", b"\x0a\x7fshort", b"\xff" * 30], ids=repr
)
def test_what_is_no_message_is_an_invalid_argument(serving: Any, raw: bytes) -> None:
    call = serving.channel.unary_unary(
        "/csi.v1.Controller/CreateVolume",
        request_serializer=lambda given: given,
        response_deserializer=lambda given: given,
    )
    with pytest.raises(grpc.RpcError) as caught:
        call(raw)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "UTF-8" in (caught.value.details() or "")


def test_a_service_that_is_not_served_is_unimplemented(serving: Any) -> None:
    call = serving.channel.unary_unary(
        "/csi.v1.GroupController/GroupControllerGetCapabilities",
        request_serializer=lambda given: given,
        response_deserializer=lambda given: given,
    )
    with pytest.raises(grpc.RpcError) as caught:
        call(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
