# SPDX-License-Identifier: Apache-2.0
"""The record: what is written is read, and nothing else passes for a record."""

from __future__ import annotations

import dataclasses
import itertools
import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.errors import RecordError
from csi_driver.domain.exports import ExportEntry
from csi_driver.domain.record import LONGEST_RECORD
from csi_driver.domain.record import EncryptionMode
from csi_driver.domain.record import Record
from csi_driver.domain.record import VolumeState
from csi_driver.domain.sizes import RawSize
from csi_driver.domain.snapshots import SnapshotState
from tests.unit.domain.strategies import RECORDS
from tests.unit.domain.strategies import a_record

type Fields = dict[str, Any]
TEXT = a_record().to_json()
SECRET = '"secret":{"name":"secret","namespace":"ns"}'


def spelt(fields: Fields) -> str:
    """Write fields down as the driver does."""
    return json.dumps(fields, ensure_ascii=True, separators=(",", ":"), sort_keys=True)


@given(RECORDS)
def test_a_record_comes_back_as_it_was(record: Record) -> None:
    text = record.to_json()
    assert text.isascii()
    assert "\0" not in text
    assert Record.from_json(text) == record
    assert Record.from_json(text).to_json() == text


def test_the_spelling_above_is_the_drivers() -> None:
    assert spelt(json.loads(TEXT)) == TEXT


def test_every_altered_byte_is_noticed_or_is_another_record() -> None:
    """No altered text passes for the record that was stored."""
    original = a_record()
    for at, letter in itertools.product(range(len(TEXT)), '0a"{}[],:\\x'):
        if TEXT[at] == letter:
            continue
        altered = TEXT[:at] + letter + TEXT[at + 1 :]
        try:
            found = Record.from_json(altered)
        except RecordError:
            continue
        assert found != original
        assert found.to_json() == altered


@given(st.data())
def test_cut_and_extended_texts_are_refused(data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(TEXT) - 1))
    with pytest.raises(RecordError):
        Record.from_json(TEXT[:cut])
    with pytest.raises(RecordError):
        Record.from_json(TEXT + data.draw(st.text(min_size=1)))


@given(st.text(alphabet=st.characters()))
def test_arbitrary_text_is_no_record(text: str) -> None:
    with pytest.raises(RecordError):
        Record.from_json(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(st.sampled_from(sorted(json.loads(TEXT))), JSON)
def test_a_field_of_any_other_type_is_refused_or_kept(name: str, value: Any) -> None:
    altered = spelt({**json.loads(TEXT), name: value})
    try:
        found = Record.from_json(altered)
    except RecordError:
        return
    assert found.to_json() == altered


@given(st.sampled_from(sorted(json.loads(TEXT)["parameters"])), JSON)
def test_a_parameter_of_any_other_type_is_refused_or_kept(
    name: str,
    value: Any,
) -> None:
    fields = json.loads(TEXT)
    fields["parameters"][name] = value
    altered = spelt(fields)
    try:
        found = Record.from_json(altered)
    except RecordError:
        return
    assert found.to_json() == altered


@pytest.mark.parametrize("version", [0, 1, 3, -1, "2", None, 2.0, True, [2], {}])
def test_other_versions_are_refused(version: object) -> None:
    with pytest.raises(RecordError):
        Record.from_json(spelt({**json.loads(TEXT), "version": version}))


def test_an_unknown_version_says_what_to_do() -> None:
    text = spelt({"version": 3, "anything": "else"})
    with pytest.raises(RecordError, match=r"version 3.*driver version that wrote it"):
        Record.from_json(text)


@pytest.mark.parametrize(
    "path",
    [
        (),
        ("parameters",),
        ("parameters", "secret"),
        ("exports", 0),
        ("ring",),
        ("origin",),
        ("snapshots", 0),
        ("children", 0),
        ("flatten",),
        ("limits",),
        ("nodeSecret",),
    ],
)
def test_unknown_and_absent_fields_are_refused(path: tuple[str | int, ...]) -> None:
    def changed(change: Callable[[Fields], object]) -> str:
        fields = json.loads(TEXT)
        inner = fields
        for step in path:
            inner = inner[step]
        change(inner)
        return spelt(fields)

    target = json.loads(TEXT)
    for step in path:
        target = target[step]
    with pytest.raises(RecordError):
        Record.from_json(changed(lambda inner: inner.update(surprise=1)))
    for name in target:
        text = changed(lambda inner, name=name: inner.pop(name))  # type: ignore[misc]
        with pytest.raises(RecordError):
            Record.from_json(text)


@pytest.mark.parametrize(
    "altered",
    [
        TEXT.replace('"desired":', '"desired":1,"desired":', 1),
        TEXT.replace(",", ", ", 1),
        TEXT + "\n",
        " " + TEXT,
        "[" * 100_000,
        TEXT.replace('"actual":1073741824', f'"actual":{"9" * 5000}'),
        TEXT.replace('"actual":1073741824', '"actual":NaN'),
        TEXT.replace('"actual":1073741824', '"actual":-1'),
        TEXT.replace('"reserve":16777216', '"reserve":-1'),
        TEXT.replace('"objectSize":4194304', '"objectSize":3'),
        TEXT.replace(SECRET, '"secret":{"namespace":"ns"}'),
        TEXT.replace(SECRET, '"secret":"ns"'),
        TEXT.replace('"ancestors":2', '"ancestors":-1'),
        TEXT.replace('"layers":["', '"layers":[1,"', 1),
        TEXT.replace('"state":"making"', '"state":"fine"'),
        TEXT.replace('"flattenPolicy":"depth"', '"flattenPolicy":"soft"'),
        "x" * (LONGEST_RECORD + 1),
        "null",
        "[]",
        '"text"',
        "",
    ],
    ids=range(21),
)
def test_what_resembles_a_record_is_refused(altered: str) -> None:
    assert altered != TEXT
    with pytest.raises(RecordError):
        Record.from_json(altered)


def test_the_state_only_moves_forward() -> None:
    order = list(VolumeState)
    for old, new in itertools.product(order, order):
        record = dataclasses.replace(a_record(), state=old)
        given_up = (old, new) == (VolumeState.CREATING, VolumeState.DELETED)
        if given_up or order.index(new) == order.index(old) + 1:
            assert record.moved_to(new) == dataclasses.replace(record, state=new)
        else:
            with pytest.raises(RecordError, match=f"{old.value}.*{new.value}"):
                record.moved_to(new)


@pytest.mark.parametrize(
    ("state", "error"),
    [
        (VolumeState.CREATING, PendingError),
        (VolumeState.DELETED, NotFoundError),
        (VolumeState.COLLECTING, NotFoundError),
    ],
)
def test_only_a_ready_volume_is_used(
    state: VolumeState,
    error: type[Exception],
) -> None:
    with pytest.raises(error):
        dataclasses.replace(a_record(), state=state).require_ready()
    ready = a_record()
    assert ready.require_ready() is ready


def entry(node: str, *, read_only: bool) -> ExportEntry:
    return ExportEntry(node, "boot", "127.0.0.1:0/1", read_only)


def test_one_writer_or_many_readers() -> None:
    empty = dataclasses.replace(a_record(), exports=())
    readers = empty.with_export(entry("n1", read_only=True))
    readers = readers.with_export(entry("n2", read_only=True))
    assert [each.node_id for each in readers.exports] == ["n1", "n2"]
    with pytest.raises(InUseError, match="n1"):
        readers.with_export(entry("n3", read_only=False))
    with pytest.raises(InUseError, match="n2"):
        readers.with_export(entry("n1", read_only=False))
    writer = empty.with_export(entry("n1", read_only=False))
    for read_only in (True, False):
        with pytest.raises(InUseError, match="writable on node 'n1'"):
            writer.with_export(entry("n2", read_only=read_only))


@pytest.mark.parametrize("read_only", [True, False])
def test_a_node_replaces_its_own_entry(read_only: bool) -> None:
    old = dataclasses.replace(a_record(), exports=(entry("n", read_only=False),))
    new = ExportEntry("n", "next boot", "127.0.0.1:0/2", read_only)
    assert old.with_export(new).exports == (new,)
    assert old.without_export("n").exports == ()
    assert old.without_export("other") == old


def test_the_raw_size_follows_what_was_verified() -> None:
    assert a_record().raw_size == RawSize((1 << 30) + (16 << 20))


def test_which_modes_are_encrypted() -> None:
    assert [mode for mode in EncryptionMode if not mode.encrypted] == [
        EncryptionMode.NONE,
    ]


def test_entries_of_nodes_that_watch_no_more_are_dropped() -> None:
    gone = ExportEntry("gone", "boot", "127.0.0.1:0/1", read_only=True)
    reader = ExportEntry("reader", "boot", "127.0.0.1:0/2", True, "127.0.0.1:0/3")
    writer = ExportEntry("writer", "boot", "127.0.0.1:0/4", read_only=False)
    own = ExportEntry("own", "boot", "127.0.0.1:0/5", read_only=False)
    record = dataclasses.replace(a_record(), exports=(gone, reader, writer, own))
    watching = {"127.0.0.1:0/2", "127.0.0.1:0/3", "127.0.0.1:0/4"}
    assert record.without_dead_exports("own", watching).exports == (reader, writer, own)
    watching = {"127.0.0.1:0/2"}  # the reader's I/O client does not watch
    assert record.without_dead_exports("own", watching).exports == (own,)


def test_a_snapshot_is_found_by_name_and_by_number() -> None:
    record = a_record()
    ready, making = record.snapshots
    assert record.snapshot_named(ready.name) is ready
    assert record.snapshot_numbered(ready.number) is ready
    assert making.internal
    assert making.number == 0
    # One that nobody named, or that is still being made, is not found by that.
    assert record.snapshot_named("") is None
    assert record.snapshot_numbered(0) is None
    assert record.snapshot_named("other") is None


def test_a_snapshot_changes_or_goes_by_its_rbd_name() -> None:
    record = a_record()
    ready, making = record.snapshots
    changed = dataclasses.replace(making, number=9, state=SnapshotState.READY)
    assert record.with_snapshot(making.rbd_name, changed).snapshots == (ready, changed)
    assert record.with_snapshot(ready.rbd_name, None).snapshots == (making,)
    new = dataclasses.replace(ready, rbd_name="csi-snap-new")
    assert record.with_snapshot("csi-snap-new", new).snapshots == (ready, making, new)


def test_the_intent_to_make_a_child_is_there_once() -> None:
    record = a_record()
    (child,) = record.children
    assert record.with_child(child) == record
    other = dataclasses.replace(child, image_name="csi-vol-other", snapshot="s")
    both = record.with_child(other)
    assert both.children_of("s") == (other,)
    assert both.children_of(child.snapshot) == (child,)
    assert both.without_child(other.image_name) == record
    assert record.without_child("csi-vol-unknown") == record


def test_a_flattened_volume_needs_its_own_key_and_those_of_its_snapshots() -> None:
    own, parent = (str(uuid.UUID(int=number)) for number in (7, 8))
    record = a_record()
    assert record.layers == (own, parent)
    flat = record.flattened()
    assert flat.layers == (own,)
    assert (flat.ancestors, flat.flatten) == (0, None)
    assert flat.ring is not None
    assert [key.header_uuid for key in flat.ring.entries] == [own, parent]
    assert flat.snapshots == record.snapshots
    alone = dataclasses.replace(record, snapshots=()).flattened()
    assert alone.ring is not None
    assert [key.header_uuid for key in alone.ring.entries] == [own]
    plain = dataclasses.replace(record, ring=None, layers=())
    assert plain.flattened() == dataclasses.replace(plain, ancestors=0, flatten=None)


@given(RECORDS)
def test_only_keys_that_nobody_needs_are_dropped(record: Record) -> None:
    kept = record.with_needed_keys()
    assert kept.with_needed_keys() == kept
    assert dataclasses.replace(kept, ring=record.ring) == record
    if record.ring is None or kept.ring is None or not record.layers:
        assert kept == record  # what the head needs is not known
        return
    needed = {*record.layers, *(key for s in record.snapshots for key in s.layers)}
    assert kept.ring.entries == tuple(
        entry for entry in record.ring.entries if entry.header_uuid in needed
    )
