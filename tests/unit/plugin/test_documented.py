# SPDX-License-Identifier: Apache-2.0
"""docs/kubectl.md names every field of every document, and no others."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from csi_driver.doctor.check import Topic
from tests.unit.plugin.answers import FIRST
from tests.unit.plugin.answers import FLATTENING
from tests.unit.plugin.answers import SECOND
from tests.unit.plugin.answers import TAKEN_ID
from tests.unit.plugin.answers import THIRD
from tests.unit.plugin.answers import export
from tests.unit.plugin.answers import listed
from tests.unit.plugin.answers import shown
from tests.unit.plugin.cluster import CONTROLLER
from tests.unit.plugin.cluster import ROOT
from tests.unit.plugin.cluster import Cluster
from tests.unit.plugin.test_checking import DAMAGE
from tests.unit.plugin.test_checking import answer
from tests.unit.plugin.test_doctoring import report

PAGE = ROOT / "docs/kubectl.md"


def documented(kind: str) -> set[str]:
    """Return the fields in the table of a kind."""
    text = PAGE.read_text(encoding="utf-8")
    (section,) = re.findall(rf"### {kind}\n(.*?)(?=\n##|\Z)", text, re.DOTALL)
    cells = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    return {field for cell in cells for field in re.findall(r"`([^`]+)`", cell)}


def fields(found: Any, path: str = "") -> Iterator[str]:
    """Go through the paths of everything in a document that has a value."""
    if isinstance(found, dict):
        for name, value in found.items():
            yield from fields(value, f"{path}.{name}" if path else name)
    elif isinstance(found, list):
        for each in found:
            yield from fields(each, f"{path}[]")
    else:
        yield path


def known(found: dict[str, Any]) -> set[str]:
    paths = set(fields(found)) - {"apiVersion", "kind"}
    # Layers of a snapshot are those of a volume.
    inner = "snapshots[].layers[]"
    paths = {inner if each.startswith(inner) else each for each in paths}
    # A null where another item has an object says nothing about its fields.
    return {p for p in paths if not any(each.startswith(f"{p}.") for each in paths)}


@pytest.fixture
def whole(cluster: Cluster) -> Cluster:
    """Give a cluster in which a volume has everything that can be told of it."""
    cluster.claim("first", FIRST)
    volume = cluster.claim("clone", SECOND)
    cluster.claim("third", THIRD, namespace="bank")
    cluster.add(
        "VolumeSnapshotContent",
        "snapcontent-1",
        spec={"volumeSnapshotRef": {"namespace": "shop", "name": "friday"}},
        status={"snapshotHandle": TAKEN_ID},
    )
    cluster.add(
        "VolumeAttachment",
        "csi-1",
        spec={"source": {"persistentVolumeName": volume}, "nodeName": "worker-1"},
        status={"attached": True},
    )
    used = {"name": "data", "persistentVolumeClaim": {"claimName": "clone"}}
    spec = {"volumes": [used], "nodeName": "worker-1"}
    cluster.add("Pod", "till", "shop", spec=spec, status={"phase": "Running"})
    return cluster


def test_fields_of_a_list(whole: Cluster) -> None:
    exports = (export("worker-1"),)
    row = listed(SECOND, "pvc-2", flatten=FLATTENING, exports=exports)
    whole.answers("volume list", [row])
    found = json.loads(whole.run("list", "-o", "json").stdout)
    assert known(found) == documented("VolumeList")


def test_fields_of_a_volume(whole: Cluster) -> None:
    whole.answers(f"volume show {SECOND}", shown(flatten=FLATTENING))
    found = json.loads(whole.run("show", "clone", "-o", "json").stdout)
    assert known(found) == documented("Volume")


def test_fields_of_a_check(whole: Cluster) -> None:
    whole.answers("volume check", [answer(SECOND, DAMAGE)], status=1)
    found = json.loads(whole.run("check", "clone", "-o", "json").stdout)
    assert known(found) == documented("CheckList")


def test_fields_of_a_flatten(whole: Cluster) -> None:
    whole.answers("volume flatten", {"id": SECOND, "ancestors": 0})
    found = json.loads(whole.run("flatten", "clone", "-o", "json").stdout)
    assert known(found) == documented("FlattenResult")


def test_fields_of_a_diagnosis(whole: Cluster) -> None:
    whole.answers("doctor", report(), pod=CONTROLLER)
    found = json.loads(whole.run("doctor", "-o", "json").stdout)
    assert known(found) == documented("DoctorReport")


def test_every_check_of_the_doctor_is_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    sources = [
        *(ROOT / "csi_driver/doctor").glob("*.py"),
        ROOT / "csi_driver/plugin/outside.py",
        ROOT / "csi_driver/commands/doctoring.py",
    ]
    names = {name for each in sources for name in _names(each)}
    assert {"storage-class", "leader-election", "run-dir"} <= names
    # `version` says nothing that could be wrong.
    missing = {each for each in names - {"version"} if f"`{each}`" not in text}
    assert not missing
    assert Topic("storage-class").ok("x").name in names


def _names(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    yield from re.findall(r'(?:Topic|_here)\(\s*"([a-z0-9-]+)"', text)
    yield from re.findall(r'\(?"([a-z]+-[a-z]+)", (?:settings|self)\.', text)
