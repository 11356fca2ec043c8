# SPDX-License-Identifier: Apache-2.0
"""Which settings of pip a build of an image takes over."""

from __future__ import annotations

import configparser
from pathlib import Path
from typing import Final

import pytest

from tests.unit.container_image.imagetools import module

trust: Final = module("trust")

_FIRST: Final = """
[global]
index-url = https://index.example/simple
cert = /etc/own.pem
timeout = 60
[install]
find-links = /opt/wheels
"""
_SECOND: Final = """
[global]
timeout = 90
trusted-host = one.example
    two.example
"""


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Return two configuration files, and one that does not exist."""
    paths = [tmp_path / "first", tmp_path / "missing", tmp_path / "second"]
    paths[0].write_text(_FIRST)
    paths[2].write_text(_SECOND)
    return paths


def _read(text: str) -> dict[str, str]:
    parser = configparser.RawConfigParser()
    parser.read_string(text)
    return dict(parser.items("global"))


def test_the_index_is_taken_over_and_no_path_of_the_machine(files: list[Path]) -> None:
    text = trust.pip_settings(files, {"PIP_FIND_LINKS": "/opt/x", "PIP_CERT": "/x"})
    found = _read(text)
    assert found["index-url"] == "https://index.example/simple"
    assert set(found) == {"index-url", "timeout", "trusted-host"}


def test_later_files_win_and_variables_win_over_files(files: list[Path]) -> None:
    assert _read(trust.pip_settings(files, {}))["timeout"] == "90"
    assert _read(trust.pip_settings(files, {"PIP_TIMEOUT": "5"}))["timeout"] == "5"


def test_several_values_stay_several(files: list[Path]) -> None:
    found = _read(trust.pip_settings(files, {}))["trusted-host"]
    assert found.split() == ["one.example", "two.example"]


def test_without_settings_nothing_is_set() -> None:
    assert _read(trust.pip_settings([], {})) == {}
