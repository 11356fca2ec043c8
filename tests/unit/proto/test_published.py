# SPDX-License-Identifier: Apache-2.0
"""The files in proto/ are, on the wire and in every option, the published ones.

Those are CSI 1.13 and kubelet's plugin registration v1.  They come as Go modules
at test time and are never stored here: from the folders in CSI_SPEC_DIR and
KUBELET_API_DIR, or by `go mod download`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf import unknown_fields
from google.protobuf.descriptor_pb2 import FieldDescriptorProto
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import Message

ROOT: Final = Path(__file__).parents[3]


@dataclasses.dataclass(frozen=True)
class Source:
    """One of our files, and where its publisher has it."""

    ours: str
    module: str
    variable: str
    published: str

    @property
    def help(self) -> str:
        """Say how to get it."""
        return (
            f"the published {self.ours} is needed: install Go, or unpack the Go module"
            f" {self.module} and name its folder in {self.variable}"
        )


CSI: Final = Source(
    "csi.proto",
    "github.com/container-storage-interface/spec@v1.13.0",
    "CSI_SPEC_DIR",
    "csi.proto",
)
KUBELET: Final = Source(
    "pluginregistration.proto",
    "k8s.io/kubelet@v0.36.3",
    "KUBELET_API_DIR",
    "pkg/apis/pluginregistration/v1/api.proto",
)

type Facts = dict[str, str]
"""One line of a descriptor: where it is -> what it says."""


def published_folder(source: Source) -> Path:
    """Return the folder of the published module."""
    named = os.environ.get(source.variable)
    if named:
        return Path(named)
    go = shutil.which("go")
    if go is None:
        pytest.fail(source.help)
    done = subprocess.run(
        [go, "mod", "download", "-json", source.module],
        capture_output=True,
        check=False,
        cwd="/",
        text=True,
        timeout=100,
    )
    if done.returncode != 0:
        pytest.fail(f"{source.help}; go said: {done.stdout}{done.stderr}")
    return Path(json.loads(done.stdout)["Dir"])


def compiled(source: Path, scratch: Path) -> FileDescriptorProto:
    """Compile `source` with protoc into its descriptor."""
    if not source.is_file():
        pytest.fail(f"{source} is missing")
    target = scratch / "set.pb"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{source.parent}"]
    subprocess.run([*command, f"-o{target}", source.name], check=True)
    found = descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes())
    return found.file[0]


def flat(file: FileDescriptorProto) -> Facts:
    """Return all that the wire, the generators and the options depend on.

    Left out is what carries no meaning: the order of declarations, comments,
    and the JSON names that protoc derives from the names.
    """
    facts = {"file package": file.package, "file syntax": file.syntax}
    facts["file imports"] = ", ".join(sorted(file.dependency))
    facts |= options("file", file.options)
    for extension in file.extension:
        facts |= field_facts(f"extension {extension.extendee}", extension, [])
    for message in file.message_type:
        facts |= message_facts(message.name, message)
    for enum in file.enum_type:
        facts |= enum_facts(enum.name, enum)
    for service in file.service:
        where = f"service {service.name}"
        facts[where] = "present"
        facts |= options(where, service.options)
        for method in service.method:
            facts |= method_facts(f"rpc {service.name}.{method.name}", method)
    return facts


def message_facts(name: str, message: descriptor_pb2.DescriptorProto) -> Facts:
    """Return the facts of one message and of everything inside it."""
    where = f"message {name}"
    facts = {where: "present"} | options(where, message.options)
    facts[f"{where} reserved"] = reserved(message)
    facts[f"{where} extension ranges"] = str([str(r) for r in message.extension_range])
    oneofs = [oneof.name for oneof in message.oneof_decl]
    for oneof in message.oneof_decl:
        facts[f"{where} oneof {oneof.name}"] = "present"
        facts |= options(f"{where} oneof {oneof.name}", oneof.options)
    for field in [*message.field, *message.extension]:
        facts |= field_facts(where, field, oneofs)
    for inner in message.nested_type:
        facts |= message_facts(f"{name}.{inner.name}", inner)
    for enum in message.enum_type:
        facts |= enum_facts(f"{name}.{enum.name}", enum)
    return facts


def field_facts(where: str, field: FieldDescriptorProto, oneofs: list[str]) -> Facts:
    """Return the facts of one field or extension."""
    here = f"{where} field {field.name}"
    facts = {
        f"{here} number": str(field.number),
        f"{here} type": FieldDescriptorProto.Type.Name(field.type),
        f"{here} type name": field.type_name,
        f"{here} label": FieldDescriptorProto.Label.Name(field.label),
        f"{here} default": field.default_value,
        f"{here} optional": str(field.proto3_optional),
        f"{here} oneof": oneofs[field.oneof_index]
        if field.HasField("oneof_index")
        else "none",
    }
    return facts | options(here, field.options)


def enum_facts(name: str, enum: descriptor_pb2.EnumDescriptorProto) -> Facts:
    """Return the facts of one enum and its values."""
    where = f"enum {name}"
    facts = {where: "present", f"{where} reserved": reserved(enum)}
    facts |= options(where, enum.options)
    for value in enum.value:
        facts[f"{where} value {value.name}"] = str(value.number)
        facts |= options(f"{where} value {value.name}", value.options)
    return facts


def method_facts(where: str, method: descriptor_pb2.MethodDescriptorProto) -> Facts:
    """Return the facts of one RPC."""
    streams = (method.client_streaming, method.server_streaming)
    facts = {where: f"{method.input_type} -> {method.output_type}"}
    facts[f"{where} streams (client, server)"] = str(streams)
    return facts | options(where, method.options)


def reserved(
    holder: descriptor_pb2.DescriptorProto | descriptor_pb2.EnumDescriptorProto,
) -> str:
    """Return freed numbers and names in one comparable line."""
    numbers = sorted((r.start, r.end) for r in holder.reserved_range)
    return f"numbers {numbers}, names {sorted(holder.reserved_name)}"


def options(where: str, message: Message) -> Facts:
    """Return all options, custom ones by number whether known here or not."""
    plain = type(message).FromString(message.SerializeToString())
    facts = {f"{where} option {f.name}": str(v) for f, v in plain.ListFields()}
    custom = unknown_fields.UnknownFieldSet(plain)
    for field in (custom[index] for index in range(len(custom))):
        facts[f"{where} option {field.field_number}"] = str(field.data)
    return facts


def differences(published: Mapping[str, str], ours: Mapping[str, str]) -> list[str]:
    """Return one readable line for each fact that is not the same."""
    return [
        f"{where}: published {published.get(where, 'absent')!r},"
        f" ours {ours.get(where, 'absent')!r}"
        for where in sorted(published.keys() | ours.keys())
        if published.get(where) != ours.get(where)
    ]


@pytest.fixture
def ours(tmp_path: Path) -> FileDescriptorProto:
    return compiled(ROOT / "proto" / "csi.proto", tmp_path)


@pytest.mark.parametrize("source", [CSI, KUBELET], ids=lambda each: each.ours)
def test_equal_to_published(source: Source, tmp_path: Path) -> None:
    ours = compiled(ROOT / "proto" / source.ours, tmp_path)
    published = compiled(published_folder(source) / source.published, tmp_path)
    found = differences(flat(published), flat(ours))
    assert not found, "\n".join([f"proto/{source.ours} differs:", *found])


def a_message(file: FileDescriptorProto, name: str) -> descriptor_pb2.DescriptorProto:
    """Return a top-level message by name."""
    return next(m for m in file.message_type if m.name == name)


def renumber(file: FileDescriptorProto) -> None:
    a_message(file, "Volume").field[1].number = 9


def retype(file: FileDescriptorProto) -> None:
    a_message(file, "Volume").field[0].type = FieldDescriptorProto.TYPE_UINT64


def repeat(file: FileDescriptorProto) -> None:
    a_message(file, "Volume").field[1].label = FieldDescriptorProto.LABEL_REPEATED


def unmark_secret(file: FileDescriptorProto) -> None:
    fields = a_message(file, "DeleteVolumeRequest").field
    next(f for f in fields if f.name == "secrets").ClearField("options")


def leave_oneof(file: FileDescriptorProto) -> None:
    a_message(file, "VolumeCapability").field[0].ClearField("oneof_index")


def free_number(file: FileDescriptorProto) -> None:
    a_message(file, "Volume").reserved_range.add(start=7, end=8)


def unstream(file: FileDescriptorProto) -> None:
    service = next(s for s in file.service if s.name == "SnapshotMetadata")
    service.method[0].server_streaming = False


def drop_method(file: FileDescriptorProto) -> None:
    del file.service[0].method[0]


def rename_value(file: FileDescriptorProto) -> None:
    file.enum_type[0].value[1].name = "OTHER"


def stabilise(file: FileDescriptorProto) -> None:
    a_message(file, "VolumeHealth").ClearField("options")


def change_package(file: FileDescriptorProto) -> None:
    file.options.go_package = "elsewhere"


def renumber_extension(file: FileDescriptorProto) -> None:
    file.extension[0].number = 1061


CHANGES: Final = (
    renumber,
    retype,
    repeat,
    unmark_secret,
    leave_oneof,
    free_number,
    unstream,
    drop_method,
    rename_value,
    stabilise,
    change_package,
    renumber_extension,
)
"""One change of each kind that the comparison has to notice."""


@pytest.mark.parametrize("change", CHANGES)
def test_comparison_notices(
    ours: FileDescriptorProto, change: Callable[[FileDescriptorProto], None]
) -> None:
    altered = FileDescriptorProto.FromString(ours.SerializeToString())
    change(altered)
    found = differences(flat(ours), flat(altered))
    assert found
    assert differences(flat(ours), flat(ours)) == []
