# SPDX-License-Identifier: Apache-2.0
"""From what an image is made, and when it is made anew."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any
from typing import Final

import pytest

from tests.unit.container_image.imagetools import REPO
from tests.unit.container_image.imagetools import module

recipe: Final = module("recipe")
images: Final = module("images")

_IGNORE: Final = """# comment
*
!LICENSE
!code
**/__pycache__
code/stubs/made*
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """Return a directory of which a part is copied."""
    for name in (
        *("LICENSE", "README", "code/a.py", "code/stubs/kept.py"),
        *("code/stubs/made.py", "code/__pycache__/a.pyc"),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / ".dockerignore").write_text(_IGNORE)
    return tmp_path


def _made(context: Path) -> Any:
    inputs = recipe.inputs(context)
    return recipe.Recipe("localhost/group/name:tag", "FROM x", context, inputs)


def test_inputs_are_what_the_dockerignore_lets_in(context: Path) -> None:
    found = [str(path.relative_to(context)) for path in recipe.inputs(context)]
    assert found == ["LICENSE", "code/a.py", "code/stubs/kept.py"]


def test_the_dockerfile_copies_exactly_what_is_let_in() -> None:
    copied = set()
    for line in (REPO / "Dockerfile").read_text().splitlines():
        words = line.split()
        if words[:1] == ["COPY"] and not words[1].startswith("--from"):
            copied |= set(words[1:-1])
    assert copied == set(recipe.copied(REPO))


def test_the_drivers_inputs_are_in_the_clone() -> None:
    found = {str(path.relative_to(REPO)) for path in images.driver().inputs}
    assert {"LICENSE", "uv.lock", "csi_driver/cli.py", "proto/csi.proto"} <= found
    assert not any("pycache" in name or "csi_pb2" in name for name in found)


@pytest.mark.parametrize("name", ["README", "code/stubs/made.py"])
def test_a_change_of_what_is_left_out_makes_no_other_image(
    context: Path, name: str
) -> None:
    before = _made(context).key()
    (context / name).write_text("changed")
    assert _made(context).key() == before


@pytest.mark.parametrize("change", ["content", "name", "new"])
def test_a_change_of_what_is_copied_makes_another_image(
    context: Path, change: str
) -> None:
    before = _made(context).key()
    if change == "content":
        (context / "code/a.py").write_text("changed")
    elif change == "name":
        (context / "code/a.py").rename(context / "code/b.py")
    else:
        (context / "code/c.py").touch()
    assert _made(context).key() != before


@pytest.mark.parametrize(
    "change",
    [
        {"containerfile": "FROM y"},
        {"reference": "localhost/group/name:other"},
        {"arguments": (("VERSION", "1"),)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_so_does_a_change_of_how_it_is_made(
    context: Path, change: dict[str, Any]
) -> None:
    made = _made(context)
    assert dataclasses.replace(made, **change).key() != made.key()


def test_an_archive_is_named_after_its_image(context: Path) -> None:
    assert _made(context).name == "name-tag"
