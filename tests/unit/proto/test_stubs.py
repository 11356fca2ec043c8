# SPDX-License-Identifier: Apache-2.0
"""The stubs on the import path are those that proto/*.proto makes."""

from __future__ import annotations

import importlib.util
import re
import shutil
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from google.protobuf import descriptor_pb2

from csi_driver.rpc.stubs import csi_pb2
from csi_driver.rpc.stubs import csi_pb2_grpc
from csi_driver.rpc.stubs import pluginregistration_pb2
from csi_driver.rpc.stubs import pluginregistration_pb2_grpc

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "hatch_build", ROOT / "hatch_build.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_stubs_are_current(generator: ModuleType, tmp_path: Path) -> None:
    fresh = generator.generate(ROOT, tmp_path)
    installed = Path(csi_pb2.__file__).parent
    stale = [
        name
        for name, content in fresh.items()
        if (installed / name).read_bytes() != content
    ]
    assert stale == [], "run `python hatch_build.py`"


def test_generation_is_repeatable(generator: ModuleType, tmp_path: Path) -> None:
    for scratch in (tmp_path / "a", tmp_path / "b"):
        scratch.mkdir()
    once = generator.generate(ROOT, tmp_path / "a")
    assert generator.generate(ROOT, tmp_path / "b") == once
    assert set(once) == set(generator.NAMES)


def test_refresh_repairs_and_otherwise_leaves_alone(
    generator: ModuleType, tmp_path: Path
) -> None:
    shutil.copytree(ROOT / "proto", tmp_path / "proto")
    stubs = tmp_path / generator.STUBS
    stubs.mkdir(parents=True)
    (stubs / "csi_pb2.py").write_text("stale", encoding="utf-8")
    generator.refresh(tmp_path)
    stamps = {name: (stubs / name).stat().st_mtime_ns for name in generator.NAMES}
    assert (stubs / "csi_pb2.py").read_text(encoding="utf-8") != "stale"
    generator.refresh(tmp_path)
    assert {n: (stubs / n).stat().st_mtime_ns for n in generator.NAMES} == stamps


def test_every_service_has_a_servicer() -> None:
    file = descriptor_pb2.FileDescriptorProto()
    csi_pb2.DESCRIPTOR.CopyToProto(file)
    services = {service.name for service in file.service}
    assert services == {
        "Controller",
        "GroupController",
        "Identity",
        "Node",
        "SnapshotMetadata",
    }
    for service in file.service:
        servicer = getattr(csi_pb2_grpc, f"{service.name}Servicer")
        assert all(hasattr(servicer, method.name) for method in service.method)


def test_kubelet_s_interface_has_a_servicer_too() -> None:
    (service,) = pluginregistration_pb2.DESCRIPTOR.services_by_name.values()
    servicer = pluginregistration_pb2_grpc.RegistrationServicer
    assert service.full_name == "pluginregistration.Registration"
    assert all(hasattr(servicer, method.name) for method in service.methods)


def test_every_proto_is_made_and_shipped(generator: ModuleType) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (pattern,) = project["tool"]["hatch"]["build"]["artifacts"]
    found = {path.stem for path in (ROOT / "proto").glob("*.proto")}
    assert found == set(generator.PROTOS)
    for name in generator.NAMES:
        assert (generator.STUBS / name).match(pattern)


def test_pins_agree_with_each_other_and_with_the_stubs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    building = project["build-system"]["requires"]
    assert sorted(building) == sorted(project["dependency-groups"]["proto"])
    bounds = dict(
        re.split(">=", requirement.split(",")[0], maxsplit=1)
        for requirement in project["project"]["dependencies"]
    )
    assert bounds["grpcio"] == csi_pb2_grpc.GRPC_GENERATED_VERSION
    assert f"grpcio-tools=={bounds['grpcio']}" in building
    stub = Path(csi_pb2.__file__).read_text(encoding="utf-8")
    generated = re.search(r"Protobuf Python Version: ([0-9.]+)", stub)
    assert generated is not None
    assert bounds["protobuf"] == generated.group(1)
