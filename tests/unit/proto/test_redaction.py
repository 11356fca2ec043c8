# SPDX-License-Identifier: Apache-2.0
"""No secret survives redaction, whatever message carries it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf import descriptor_pool
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from csi_driver.rpc.redaction import REDACTED
from csi_driver.rpc.redaction import redact
from csi_driver.rpc.stubs import csi_pb2

MARK = "Kanarienvogel"


def every_message(of: dict[str, Descriptor]) -> Iterator[Descriptor]:
    """Yield all message types below `of`, map entries left out."""
    for found in of.values():
        if not found.GetOptions().map_entry:
            yield found
            yield from every_message(dict(found.nested_types_by_name))


MESSAGES = list(every_message(dict(csi_pb2.DESCRIPTOR.message_types_by_name)))


def is_map(entry: Any) -> bool:
    """Tell the entries of maps from other messages and from no message."""
    return entry is not None and bool(entry.GetOptions().map_entry)


def fill(message: Message, canary: str, chosen: list[bool]) -> int:
    """Fill the chosen fields at every depth; return the number of canaries.

    Secret maps get the canary as each value, all other strings are harmless.
    """
    planted = 0
    for field in message.DESCRIPTOR.fields:
        wanted = chosen.pop() if chosen else True
        if not wanted:
            continue
        target: Any = getattr(message, field.name)
        if is_map(field.message_type):
            secret = field.GetOptions().Extensions[csi_pb2.csi_secret]
            target["first"] = canary if secret else "harmless"
            target["second"] = target["first"] + target["first"]
            planted += 2 * int(secret)
        elif field.message_type is not None:
            inner = target.add() if field.is_repeated else target
            inner.SetInParent()
            planted += fill(inner, canary, chosen)
        elif field.is_repeated:
            target.extend(["harmless", "harmless too"])
        elif field.enum_type is not None or field.cpp_type != field.CPPTYPE_STRING:
            setattr(message, field.name, 1)
        else:
            setattr(message, field.name, "harmless")
    return planted


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.full_name)
@given(
    canary=st.text(alphabet="abcXYZ0189", max_size=40).map(lambda tail: MARK + tail),
    chosen=st.lists(st.booleans(), max_size=12),
)
def test_no_canary_in_any_message(
    kind: Descriptor, canary: str, chosen: list[bool]
) -> None:
    message = message_factory.GetMessageClass(kind)()
    planted = fill(message, canary, list(chosen))
    shown = json.dumps(redact(message))
    assert MARK not in shown
    # Both ways: what was planted is really there, and is shown as hidden.
    assert shown.count(json.dumps(REDACTED)) == planted
    assert (MARK.encode() in message.SerializeToString()) == (planted > 0)


def test_every_request_with_secrets_is_covered() -> None:
    marked = {
        field.full_name
        for kind in MESSAGES
        for field in kind.fields
        if field.GetOptions().Extensions[csi_pb2.csi_secret]
    }
    named = {
        f.full_name for kind in MESSAGES for f in kind.fields if "secret" in f.name
    }
    assert marked == named
    assert len(marked) == 22


def test_what_is_shown() -> None:
    request = csi_pb2.CreateVolumeRequest(
        name="pvc-1",
        capacity_range=csi_pb2.CapacityRange(required_bytes=1 << 30),
        volume_capabilities=[
            csi_pb2.VolumeCapability(
                mount=csi_pb2.VolumeCapability.MountVolume(mount_flags=["noatime"]),
                access_mode=csi_pb2.VolumeCapability.AccessMode(
                    mode=csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_WRITER
                ),
            )
        ],
        parameters={"pool": "rbd"},
        secrets={"encryptionPassphrase": "open sesame", "userID": "me"},
    )
    assert redact(request) == {
        "name": "pvc-1",
        "capacity_range": {"required_bytes": 1 << 30},
        "volume_capabilities": [
            {
                "mount": {"mount_flags": ["noatime"]},
                "access_mode": {"mode": "SINGLE_NODE_WRITER"},
            }
        ],
        "parameters": {"pool": "rbd"},
        "secrets": {"encryptionPassphrase": REDACTED, "userID": REDACTED},
    }


def test_the_message_itself_stays_as_it_is() -> None:
    request = csi_pb2.DeleteVolumeRequest(volume_id="v", secrets={"k": MARK})
    before = request.SerializeToString(deterministic=True)
    redact(request)
    assert request.SerializeToString(deterministic=True) == before


def test_unknown_enum_value_is_shown_as_its_number() -> None:
    mode = csi_pb2.VolumeCapability.AccessMode.FromString(b"\x08\x63")
    assert redact(mode) == {"mode": "99"}


def test_unknown_fields_are_left_out() -> None:
    # Field 200, length-delimited: what a newer CO could send.
    tail = bytes([0xC2, 0x0C, len(MARK)]) + MARK.encode()
    known = csi_pb2.DeleteVolumeRequest(volume_id="v").SerializeToString()
    request = csi_pb2.DeleteVolumeRequest.FromString(known + tail)
    assert MARK.encode() in request.SerializeToString()
    assert redact(request) == {"volume_id": "v"}


def other_kinds_of_secrets() -> type[Message]:
    """Make a message type with secrets that are no maps, and with bytes."""
    file = descriptor_pb2.FileDescriptorProto(
        name="tests/redaction.proto", package="tests.redaction", syntax="proto3"
    )
    file.dependency.append(csi_pb2.DESCRIPTOR.name)
    kind = file.message_type.add(name="Odd")
    optional = FieldDescriptorProto.LABEL_OPTIONAL
    repeated = FieldDescriptorProto.LABEL_REPEATED
    fields = (
        ("text", FieldDescriptorProto.TYPE_STRING, optional, True),
        ("texts", FieldDescriptorProto.TYPE_STRING, repeated, True),
        ("raw", FieldDescriptorProto.TYPE_BYTES, optional, False),
        ("inner", FieldDescriptorProto.TYPE_MESSAGE, optional, True),
        ("open", FieldDescriptorProto.TYPE_MESSAGE, repeated, False),
    )
    for number, (name, type_, label, secret) in enumerate(fields, start=1):
        field = kind.field.add(name=name, number=number, type=type_, label=label)
        if type_ == FieldDescriptorProto.TYPE_MESSAGE:
            field.type_name = ".tests.redaction.Odd"
        field.options.Extensions[csi_pb2.csi_secret] = secret
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    found = pool.FindMessageTypeByName("tests.redaction.Odd")
    return message_factory.GetMessageClass(found)


def test_secrets_that_are_no_maps() -> None:
    make: Any = other_kinds_of_secrets()
    message = make(
        text=MARK,
        texts=[MARK, MARK],
        raw=b"1234",
        inner=make(raw=MARK.encode()),
        open=[make(text=MARK, raw=b"5")],
    )
    assert redact(message) == {
        "text": REDACTED,
        "texts": REDACTED,
        "raw": "4 bytes",
        "inner": REDACTED,
        "open": [{"text": REDACTED, "raw": "1 bytes"}],
    }
