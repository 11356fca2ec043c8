# SPDX-License-Identifier: Apache-2.0
"""What is told of a flatten, in which order, and how often."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_driver.domain.flatten_news import FlattenNews
from csi_driver.domain.ids import Location
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.notices import Happening
from csi_driver.domain.notices import Notice

VOLUME = VolumeId(Location("lab", 3), "a1b2")


class Heard:
    """Keeps what is told."""

    def __init__(self) -> None:
        self.notices: list[Notice] = []

    def tell(self, notice: Notice) -> None:
        self.notices.append(notice)

    @property
    def reasons(self) -> list[str]:
        return [each.what.value for each in self.notices]


def test_a_flatten_is_told_from_start_to_end() -> None:
    heard = Heard()
    news = FlattenNews(heard, VOLUME)
    news.progressed(0, 0)
    for done in range(101):
        news.progressed(done, 100)
    news.ended()
    assert heard.reasons == [
        "FlattenStarted",
        *["FlattenProgress"] * 3,
        "Flattened",
    ]
    assert [each.message[:2] for each in heard.notices[1:4]] == ["25", "50", "75"]
    assert {each.about for each in heard.notices} == {VOLUME}


def test_it_has_started_with_the_first_word_of_it() -> None:
    news = FlattenNews(Heard(), VOLUME)
    assert not news.started
    another = FlattenNews(Heard(), VOLUME)
    another.progressed(0, 0)
    assert another.started


def test_of_several_quarters_at_once_the_last_is_told() -> None:
    heard = Heard()
    news = FlattenNews(heard, VOLUME)
    news.progressed(60, 100)
    news.progressed(60, 100)
    assert [each.message[:2] for each in heard.notices[1:]] == ["50"]


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), max_size=50))
def test_progress_only_grows_and_nothing_is_told_twice(
    looks: list[tuple[int, int]],
) -> None:
    heard = Heard()
    news = FlattenNews(heard, VOLUME)
    for done, total in looks:
        news.progressed(done, total)
    assert heard.reasons.count("FlattenStarted") == bool(looks)
    told = [
        int(each.message.split()[0])
        for each in heard.notices
        if each.what is Happening.FLATTEN_PROGRESS
    ]
    assert told == sorted(set(told))
    assert set(told) <= {25, 50, 75}


def test_what_was_noted_is_not_told() -> None:
    heard = Heard()
    news = FlattenNews(heard, VOLUME)
    news.note(55, 100)
    news.progressed(56, 100)
    assert heard.notices == []
    news.progressed(80, 100)
    assert heard.reasons == ["FlattenProgress"]


def test_anothers_flatten_is_told_as_a_warning_in_words() -> None:
    heard = Heard()
    FlattenNews(heard, VOLUME).progressed(1, 100, elsewhere=True)
    (started,) = heard.notices
    assert "do not take the volume away" in started.message


@pytest.mark.parametrize("reason", ["the pool is full", ""])
def test_a_failure_has_its_reason(reason: str) -> None:
    heard = Heard()
    FlattenNews(heard, VOLUME).failed(reason)
    (failed,) = heard.notices
    assert failed.what is Happening.FLATTEN_FAILED
    assert (reason or "the log") in failed.message
