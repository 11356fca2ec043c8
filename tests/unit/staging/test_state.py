# SPDX-License-Identifier: Apache-2.0
"""The node's memory: what is written is read back, whatever is in it."""

from __future__ import annotations

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
targets = st.builds(Target, paths, capabilities, st.booleans())
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
        assert NodeStates(Path(directory)).load(state.volume_id) == state
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
