# SPDX-License-Identifier: Apache-2.0
"""The driver's next version, as tests of rolling upgrades take it."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Final

import pytest

from csi_driver.datapath import codec
from csi_driver.datapath import messages
from tests.unit.container_image.imagetools import REPO
from tests.unit.container_image.imagetools import module

successor: Final = module("successor")
shell: Final = successor.shell
NOW: Final = (REPO / successor.MESSAGES).read_text()


def constants(text: str) -> dict[str, int]:
    found = re.findall(r"^(\w*VERSION): Final = (\d+)$", text, re.MULTILINE)
    return {name: int(value) for name, value in found}


def test_it_speaks_one_version_more_and_the_one_of_now() -> None:
    text = successor.one_version_on(NOW)
    later = {"VERSION": messages.VERSION + 1, "MIN_VERSION": messages.VERSION}
    assert constants(text) == later


def test_its_question_after_exports_has_a_field_that_is_not_known_now(
    tmp_path: Path,
) -> None:
    file = tmp_path / "later.py"
    file.write_text(successor.one_version_on(NOW))
    spec = importlib.util.spec_from_file_location(messages.__name__, file)
    assert spec is not None
    assert spec.loader is not None
    later = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(later)
    asked = later.Status(None)
    told = codec.to_json(asked, [])
    assert len(told) == 2
    assert codec.to_json(asked, [], messages.VERSION) == {"volume_id": None}
    status = codec.from_json(messages.Status, told, [], ahead=True)
    assert status == messages.Status(None)


def test_all_else_is_as_it_is_now(tmp_path: Path) -> None:
    context, target = tmp_path / "now", tmp_path / "later"
    for name in (str(successor.MESSAGES), "csi_driver/cli.py"):
        copy = context / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text((REPO / name).read_text())
    files = sorted(path for path in context.rglob("*") if path.is_file())
    copies = successor.write(context, files, target)
    assert [path.relative_to(target) for path in copies] == [
        path.relative_to(context) for path in files
    ]
    differ = [
        copy.relative_to(target)
        for copy, path in zip(copies, files, strict=True)
        if copy.read_text() != path.read_text()
    ]
    assert differ == [successor.MESSAGES]


@pytest.mark.parametrize("lost", ["VERSION: Final", "MIN_VERSION: Final", "Status:"])
def test_messages_that_look_otherwise_are_an_error(lost: str) -> None:
    with pytest.raises(shell.LabError, match=re.escape("messages.py")):
        successor.one_version_on(NOW.replace(lost, "ELSE: Final"))
