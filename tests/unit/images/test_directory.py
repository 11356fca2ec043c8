# SPDX-License-Identifier: Apache-2.0
"""The directory: one name, one image; a repeated call finds its own work."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import HealthCheck
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from csi_driver.domain.errors import ConflictError
from csi_driver.domain.errors import RecordError
from csi_driver.domain.ids import directory_key
from csi_driver.images.directory import DIRECTORY
from csi_driver.images.directory import Directory
from csi_driver.images.directory import Entry
from csi_driver.images.port import Pool
from csi_driver.testing.ceph_fake import FakeConnector
from csi_driver.testing.ceph_fake_store import FakeStore

ENTRY = Entry("pvc-1", "csi-vol-1", "10ab")


@pytest.fixture
def pool() -> Pool:
    return FakeConnector(FakeStore()).connect("fake").pool("rbd")


@pytest.fixture
def directory(pool: Pool) -> Directory:
    return Directory(pool)


def test_a_name_is_claimed_once(directory: Directory) -> None:
    assert directory.find("pvc-1") is None
    directory.claim(ENTRY)
    assert directory.find("pvc-1") == ENTRY
    with pytest.raises(ConflictError):
        directory.claim(Entry("pvc-1", "csi-vol-2"))
    assert directory.find("pvc-1") == ENTRY


def test_an_entry_is_replaced_by_who_knows_it(directory: Directory) -> None:
    begun = dataclasses.replace(ENTRY, image_id="")
    directory.claim(begun)
    directory.replace(begun, ENTRY)
    with pytest.raises(ConflictError):
        directory.replace(begun, dataclasses.replace(ENTRY, image_id="other"))
    assert directory.find("pvc-1") == ENTRY


def test_a_deleted_volume_frees_its_name_and_is_remembered(
    directory: Directory,
) -> None:
    directory.claim(ENTRY)
    directory.bury(ENTRY)
    assert directory.find("pvc-1") is None
    assert directory.deleted("", 10) == [("10ab", ENTRY)]
    with pytest.raises(ConflictError):
        directory.bury(ENTRY)
    again = Entry("pvc-1", "csi-vol-2", "20cd")
    directory.claim(again)
    with pytest.raises(ConflictError):  # a late delete of the first volume
        directory.bury(ENTRY)
    assert directory.find("pvc-1") == again
    directory.forget(ENTRY)
    directory.forget(ENTRY)
    assert directory.deleted("", 10) == []
    assert directory.find("pvc-1") == again


def test_an_unfinished_volume_is_remembered_by_its_images_name(
    directory: Directory,
) -> None:
    begun = dataclasses.replace(ENTRY, image_id="")
    directory.claim(begun)
    directory.bury(begun)
    assert directory.deleted("", 10) == [("csi-vol-1", begun)]
    directory.forget(begun)
    assert directory.deleted("", 10) == []


def test_paging_shows_everything_once(directory: Directory) -> None:
    entries = [Entry(f"pvc-{number}", f"i{number}", f"{number}") for number in range(7)]
    for entry in entries:
        directory.claim(entry)
    directory.bury(entries[0])
    seen: list[Entry] = []
    after = ""
    while page := directory.volumes(after, 2):
        assert len(page) <= 2
        assert [key for key, _ in page] == [
            directory_key(each.name) for _, each in page
        ]
        seen += [entry for _, entry in page]
        after = page[-1][0]
    assert sorted(seen, key=lambda entry: entry.name) == entries[1:]
    assert [entry for _, entry in directory.deleted("", 10)] == [entries[0]]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(min_size=1, max_size=40))
def test_any_name_is_filed(name: str) -> None:
    directory = Directory(FakeConnector(FakeStore()).connect("fake").pool("rbd"))
    entry = Entry(name, "i", "1")
    directory.claim(entry)
    assert directory.find(name) == entry


@pytest.mark.parametrize(
    "text",
    ["x", "[]", "{}", '{"name":1,"image_name":"i"}', '{"name":"n"}', "[" * 99_999],
    ids=range(6),
)
def test_a_damaged_entry_is_said_to_be_damaged(pool: Pool, text: str) -> None:
    key = f"v.{directory_key('pvc-1')}"
    pool.swap_entries(DIRECTORY, expect={}, put={key: text})
    with pytest.raises(RecordError, match="damaged"):
        Directory(pool).find("pvc-1")


def test_an_entry_of_a_later_version_is_not_guessed_at(pool: Pool) -> None:
    entry = Entry("pvc-1", "i", "1")
    later = json.dumps({**json.loads(entry.to_json()), "version": 2})
    key = f"v.{directory_key('pvc-1')}"
    pool.swap_entries(DIRECTORY, expect={}, put={key: later})
    with pytest.raises(RecordError, match="version 2, this driver reads 1"):
        Directory(pool).find("pvc-1")


def test_an_entry_says_its_version() -> None:
    entry = Entry("pvc-1", "i", "1")
    fields = json.loads(entry.to_json())
    assert fields.pop("version") == 1
    with pytest.raises(RecordError, match="damaged"):
        Entry.from_json(json.dumps(fields))


def test_an_entry_names_the_source_of_a_clone_and_else_none() -> None:
    """What was filed before there were sources keeps its spelling."""
    assert "source" not in ENTRY.to_json()
    clone = dataclasses.replace(ENTRY, source="v1:lab:1::10ab")
    assert Entry.from_json(clone.to_json()) == clone
    assert Entry.from_json(ENTRY.to_json()) == ENTRY
    with pytest.raises(RecordError, match="damaged"):
        Entry.from_json(clone.to_json().replace('"v1:lab:1::10ab"', "1"))


@pytest.mark.parametrize("limit", [1, 2, 500])
def test_entries_that_cannot_be_read_hide_no_others(pool: Pool, limit: int) -> None:
    """A later version of the driver may file something that this one ignores."""
    directory = Directory(pool)
    entries = [Entry(f"n{n}", f"i{n}", f"{n:02d}ab") for n in range(6)]
    for entry in entries:
        directory.claim(entry)
        directory.bury(entry)
    later = '{"name": "g", "image_name": "i", "image_id": "", "kind": "group"}'
    keys = ("d.00", "d.02", "d.03a", "d.03b", "d.99")
    pool.swap_entries(DIRECTORY, expect={}, put=dict.fromkeys(keys, later))
    found: list[Entry] = []
    after = ""
    while page := directory.deleted(after, limit):
        found += [entry for _, entry in page]
        after = page[-1][0]
    assert found == entries
