# SPDX-License-Identifier: Apache-2.0
"""The node's memory: what is written is read back, whatever is in it."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_driver.devices.device import Device
from csi_driver.devices.device import DeviceKind
from csi_driver.devices.device import ProcessMark
from csi_driver.domain.access import AccessMode
from csi_driver.domain.access import Capability
from csi_driver.domain.access import Filesystem
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.ids import Location
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.notices import Pod
from csi_driver.staging.state import NodeState
from csi_driver.staging.state import NodeStates
from csi_driver.staging.state import Target

text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
paths = text.map(lambda name: Path("/") / name)
ids = st.builds(
    VolumeId,
    st.builds(
        Location,
        st.text(st.characters(codec="ascii"), min_size=1, max_size=8),
        st.integers(1, 1 << 40),
        st.text(st.characters(codec="ascii"), max_size=8),
    ),
    st.from_regex(r"[0-9a-f]{1,16}", fullmatch=True),
)
capabilities = st.builds(
    Capability,
    st.sampled_from(AccessMode),
    st.booleans(),
    st.none() | st.sampled_from(Filesystem),
    st.lists(text, max_size=3).map(tuple),
)
devices = st.builds(
    Device,
    paths,
    st.sampled_from(DeviceKind),
    text,
    st.booleans(),
    st.none() | st.builds(ProcessMark, st.integers(1), st.integers(0)),
)
pods = st.builds(Pod, text, text, text)
targets = st.builds(Target, paths, capabilities, st.booleans(), st.none() | pods)
states = st.builds(
    NodeState,
    ids,
    text,
    paths,
    capabilities,
    st.booleans(),
    st.none() | devices,
    st.none() | st.sampled_from(Filesystem),
    st.lists(targets, max_size=3).map(tuple),
)

STATE = NodeState(
    VolumeId(Location("a.cluster", 1, "name/space"), "10ab"),
    "boot-1",
    Path("/staging"),
    Capability(AccessMode.SINGLE_NODE_WRITER),
    read_only=False,
)


@given(states)
def test_what_is_stored_is_loaded(state: NodeState) -> None:
    with tempfile.TemporaryDirectory() as directory:
        store = NodeStates(Path(directory))
        store.store(state)
        found = NodeStates(Path(directory)).load(state.volume_id)
        assert found == state
        assert [each.pod for each in found.targets] == [
            each.pod for each in state.targets
        ]
        store.remove(state.volume_id)
        store.remove(state.volume_id)
        assert store.load(state.volume_id) is None
        assert not list(Path(directory).iterdir())


@given(states, states)
def test_volumes_do_not_disturb_each_other(one: NodeState, two: NodeState) -> None:
    with tempfile.TemporaryDirectory() as directory:
        store = NodeStates(Path(directory))
        store.store(one)
        store.store(two)
        assert store.load(two.volume_id) == two
        if one.volume_id != two.volume_id:
            assert store.load(one.volume_id) == one


def test_a_crash_while_writing_leaves_the_old_state(tmp_path: Path) -> None:
    store = NodeStates(tmp_path)
    store.store(STATE)
    (path,) = tmp_path.iterdir()
    path.with_suffix(".new").write_text("half")
    assert store.load(STATE.volume_id) == STATE
    store.store(STATE)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_the_files_are_for_root_alone(tmp_path: Path) -> None:
    store = NodeStates(tmp_path / "deep" / "states")
    store.store(STATE)
    directory = tmp_path / "deep" / "states"
    assert directory.stat().st_mode & 0o077 == 0
    (path,) = directory.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600


@given(st.binary(max_size=200))
def test_anything_else_is_refused_with_its_path(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        store = NodeStates(Path(directory))
        store.store(STATE)
        (path,) = Path(directory).iterdir()
        path.write_bytes(content)
        with pytest.raises(PreconditionError, match=r"10ab\.json"):
            store.load(STATE.volume_id)


def test_a_state_under_another_volumes_name(tmp_path: Path) -> None:
    store = NodeStates(tmp_path)
    store.store(STATE)
    (path,) = tmp_path.iterdir()
    other = VolumeId(STATE.volume_id.location, "20cd")
    path.rename(path.with_name(f"{other}.json"))
    with pytest.raises(PreconditionError, match="another volume"):
        store.load(other)


def test_targets_come_and_go() -> None:
    one = Target(Path("/one"), STATE.capability, read_only=False)
    two = Target(Path("/two"), STATE.capability, read_only=True)
    state = STATE.with_target(one).with_target(two)
    assert state.target_at(Path("/two")) == two
    assert state.without_target(Path("/one")).targets == (two,)
    assert state.without_target(Path("/three")) == state


def published_for(*pods: Pod | None, boot: str = "boot-1") -> NodeState:
    targets = tuple(
        Target(Path(f"/pods/{number}"), STATE.capability, read_only=False, pod=pod)
        for number, pod in enumerate(pods)
    )
    return dataclasses.replace(STATE, targets=targets, boot_id=boot)


def test_published_is_what_has_a_target_in_this_boot(tmp_path: Path) -> None:
    store = NodeStates(tmp_path)
    assert store.published("boot-1") == {}
    store.store(STATE)
    assert store.published("boot-1") == {}
    pods = Pod("tenant", "web-0", "1"), Pod("tenant", "web-1", "2")
    store.store(published_for(pods[0], None, pods[1]))
    assert store.published("boot-1") == {STATE.volume_id: pods}
    assert store.published("boot-2") == {}
    store.store(published_for(None))
    assert store.published("boot-1") == {STATE.volume_id: ()}


def test_a_damaged_state_hides_no_other_one(tmp_path: Path) -> None:
    store = NodeStates(tmp_path)
    store.store(published_for(None))
    (tmp_path / "damaged.json").write_text("{")
    (tmp_path / "strange.json").write_text('{"version": 2, "state": []}')
    assert list(store.published("boot-1")) == [STATE.volume_id]


def test_a_pod_makes_no_target_another_one() -> None:
    (one,) = published_for(Pod("tenant", "web-0", "1")).targets
    (other,) = published_for(None).targets
    assert one == other


def test_a_state_of_before_pods_were_noted_is_read(tmp_path: Path) -> None:
    store = NodeStates(tmp_path)
    store.store(published_for(None))
    (path,) = tmp_path.glob("*.json")
    content = json.loads(path.read_text())
    assert content["version"] == 1, "what an earlier node service can read is written"
    assert set(content["state"]["targets"][0]) == {"path", "capability", "read_only"}
    assert store.load(STATE.volume_id) == published_for(None)


def test_only_a_state_with_a_pod_needs_the_version_that_knows_pods(
    tmp_path: Path,
) -> None:
    store = NodeStates(tmp_path)
    for state, version in (
        (STATE, 1),
        (published_for(None, Pod("tenant", "web-0", "1")), 2),
        (published_for(None), 1),
    ):
        store.store(state)
        (path,) = tmp_path.glob("*.json")
        assert json.loads(path.read_text())["version"] == version
        found = store.load(STATE.volume_id)
        assert found == state
        assert [each.pod for each in found.targets] == [
            each.pod for each in state.targets
        ]


def test_a_state_of_an_unknown_version_is_refused_and_kept(tmp_path: Path) -> None:
    NodeStates(tmp_path).store(STATE)
    (path,) = tmp_path.glob("*.json")
    foreign = path.read_text().replace('"version": 1', '"version": 3')
    path.write_text(foreign)
    restarted = NodeStates(tmp_path)
    assert restarted.published("boot-1") == {}
    with pytest.raises(PreconditionError, match=r"version is 3.*version that wrote it"):
        restarted.load(STATE.volume_id)
    assert path.read_text() == foreign
