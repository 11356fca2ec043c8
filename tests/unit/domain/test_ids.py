# SPDX-License-Identifier: Apache-2.0
"""Volume ids and names: round trips, limits, and whatever else may arrive."""

from __future__ import annotations

import contextlib
import uuid

import pytest
from hypothesis import example
from hypothesis import given
from hypothesis import strategies as st

from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.ids import LONGEST_ID
from csi_driver.domain.ids import Location
from csi_driver.domain.ids import SnapshotId
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.ids import check_snapshot_name
from csi_driver.domain.ids import check_volume_name
from csi_driver.domain.ids import directory_key
from csi_driver.domain.ids import new_image_name

ANY_TEXT = st.text(alphabet=st.characters())  # lone surrogates included
IMAGE_IDS = st.from_regex(r"[0-9a-zA-Z]{1,64}", fullmatch=True)
LOCATIONS = st.builds(
    Location,
    cluster=st.text(min_size=1, max_size=40),
    pool_id=st.integers(1, 10**18),
    namespace=st.text(max_size=40),
)
SOME = VolumeId(Location("c", 3, "n"), "10ab")


def build(location: Location, image_id: str) -> VolumeId | None:
    """Make an id, None if it would be too long."""
    with contextlib.suppress(InvalidRequestError):
        return VolumeId(location, image_id)
    return None


@given(LOCATIONS, IMAGE_IDS)
@example(Location("a:b%3A/ä", 1, "ns:%"), "1")
def test_an_id_comes_back_as_it_was(location: Location, image_id: str) -> None:
    volume_id = build(location, image_id)
    if volume_id is None:
        return
    text = str(volume_id)
    assert text.isascii()
    assert len(text) <= LONGEST_ID
    assert VolumeId.parse(text) == volume_id


@given(LOCATIONS, LOCATIONS, IMAGE_IDS)
def test_different_places_have_different_ids(
    one: Location,
    other: Location,
    image_id: str,
) -> None:
    ids = [build(one, image_id), build(other, image_id)]
    if None not in ids and one != other:
        assert str(ids[0]) != str(ids[1])


@given(ANY_TEXT | st.text().map("v1:c:1::".__add__))
@example("")
@example("v1:c:1:")
@example("v1:c:1::")
@example("v1::1::10ab")
@example("v1:c:0::10ab")
@example("v1:c:01::10ab")
@example("v1:c:+1::10ab")
@example("v1:c:\u0661::10ab")
@example("v1:c:9999999999999999999999::10ab")
@example("v1:%63:1::10ab")
@example("v1:%c3:1::10ab")
@example("v1:%zz:1::10ab")
@example("v1:\ud800:1::10ab")
@example("v1:c:1::../../etc")
@example("v1:c:1::10ab\n")
@example("v2:c:1::10ab")
@example("V1:c:1::10ab")
@example("x" * 100_000)
def test_whatever_arrives_is_an_id_of_ours_or_not_found(text: str) -> None:
    with contextlib.suppress(NotFoundError):
        assert str(VolumeId.parse(text)) == text


def test_a_long_id_does_not_fill_the_log() -> None:
    with pytest.raises(NotFoundError) as caught:
        VolumeId.parse("x" * 100_000)
    assert len(str(caught.value)) < 300


@given(st.data())
def test_an_altered_id_is_never_the_same_volume(data: st.DataObject) -> None:
    text = str(SOME)
    at = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.characters(exclude_characters=text[at]))
    with contextlib.suppress(NotFoundError):
        assert VolumeId.parse(text[:at] + letter + text[at + 1 :]) != SOME


def test_the_longest_id_just_fits() -> None:
    room = LONGEST_ID - len(str(VolumeId(Location("c", 1, ""), "a")))
    assert len(str(VolumeId(Location("c" + "x" * room, 1, ""), "a"))) == LONGEST_ID
    with pytest.raises(InvalidRequestError, match="129"):
        VolumeId(Location("c" + "x" * (room + 1), 1, ""), "a")


@given(LOCATIONS, IMAGE_IDS, st.integers(1, 10**19 - 1))
@example(Location("a:b%3A/ä", 1, "ns:%"), "1", 1)
def test_a_snapshot_id_comes_back_as_it_was(
    location: Location,
    image_id: str,
    number: int,
) -> None:
    volume = build(location, image_id)
    if volume is None:
        return
    try:
        snapshot = SnapshotId(volume, number)
    except InvalidRequestError:
        assert len(f"{volume}:{number}") > LONGEST_ID
        return
    text = str(snapshot)
    assert text.isascii()
    assert len(text) <= LONGEST_ID
    assert SnapshotId.parse(text) == snapshot
    # Neither kind of id passes for the other.
    with pytest.raises(NotFoundError):
        VolumeId.parse(text)
    with pytest.raises(NotFoundError):
        SnapshotId.parse(str(volume))


@given(ANY_TEXT | st.text().map("s1:c:1::10ab:".__add__))
@example("")
@example("s1:c:1::10ab")
@example("s1:c:1::10ab:")
@example("s1:c:1::10ab:0")
@example("s1:c:1::10ab:01")
@example("s1:c:1::10ab:+1")
@example("s1:c:1::10ab:1_0")
@example("s1:c:1::10ab:\u0661")
@example("s1:c:1::10ab:99999999999999999999")
@example("s1:c:1::10ab:4\n")
@example("s1:c:1::10ab:4:5")
@example("s1:c:0::10ab:4")
@example("s1::1::10ab:4")
@example("s1:%63:1::10ab:4")
@example("s1:%zz:1::10ab:4")
@example("s1:\ud800:1::10ab:4")
@example("v1:c:1::10ab:4")
@example("x" * 100_000)
def test_whatever_arrives_is_a_snapshot_of_ours_or_not_found(text: str) -> None:
    with contextlib.suppress(NotFoundError):
        assert str(SnapshotId.parse(text)) == text


@pytest.mark.parametrize("number", [0, -1, 10**19])
def test_what_is_no_number_of_a_snapshot_is_refused(number: int) -> None:
    with pytest.raises(InvalidRequestError, match="number"):
        SnapshotId(SOME, number)


def test_a_long_snapshot_id_is_refused() -> None:
    room = LONGEST_ID - len(str(VolumeId(Location("c", 1, ""), "a")))
    volume = VolumeId(Location("c" + "x" * room, 1, ""), "a")
    with pytest.raises(InvalidRequestError, match="snapshot"):
        SnapshotId(volume, 1)


@pytest.mark.parametrize("image_id", ["", "a b", "ä", "a/b", "a:b", "x" * 65])
def test_what_is_no_image_id_is_refused(image_id: str) -> None:
    with pytest.raises(InvalidRequestError):
        VolumeId(Location("c", 1), image_id)


def test_text_that_is_not_unicode_makes_no_id() -> None:
    with pytest.raises(InvalidRequestError, match="Unicode"):
        VolumeId(Location("\ud800", 1), "10ab")


@pytest.mark.parametrize(
    "name",
    ["a", "pvc-1", "../../etc/passwd", "ä" * 64, "x" * 128, "a b", "名前", "."],
)
def test_names_that_csi_allows(name: str) -> None:
    assert check_volume_name(name) == name
    assert check_snapshot_name(name) == name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "missing"),
        ("x" * 129, "129 bytes"),
        ("ä" * 65, "130 bytes"),
        ("a\0b", "control"),
        ("a\n", "control"),
        ("\x7f", "control"),
        ("\x85", "control"),
        ("\ud800", "control"),
    ],
)
def test_names_that_csi_does_not_allow(name: str, why: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"volume name.*{why}"):
        check_volume_name(name)
    with pytest.raises(InvalidRequestError, match=f"snapshot name.*{why}"):
        check_snapshot_name(name)


@given(st.text(min_size=1), st.text(min_size=1))
def test_a_name_has_one_key_of_fixed_length(one: str, other: str) -> None:
    assert directory_key(one) == directory_key(one)
    assert str(uuid.UUID(directory_key(one))) == directory_key(one)
    assert (directory_key(one) == directory_key(other)) == (one == other)


def test_directory_keys_never_change() -> None:
    """They are stored: another value would lose every volume."""
    assert directory_key("pvc-1") == "56285888-90f8-5def-a22f-acf2af76aa8f"


def test_image_names_are_fresh() -> None:
    names = {new_image_name() for _ in range(100)}
    assert len(names) == 100
    assert all(name.startswith("csi-vol-") for name in names)
