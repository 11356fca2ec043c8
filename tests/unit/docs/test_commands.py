# SPDX-License-Identifier: Apache-2.0
"""Commands that pages show exist, with the flags that they are shown with."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from typing import Final

import pytest
import typer
import typer.core

from csi_driver import cli
from csi_driver.plugin import main as plugin
from tests.unit.docs.pages import ROOT
from tests.unit.docs.pages import Page
from tests.unit.docs.pages import pages

_PROGRAMS: Final = {
    "rbdcrypt-csi": typer.main.get_command(cli.app),
    "kubectl rbdcrypt": typer.main.get_command(plugin.app),
}
_START: Final = re.compile(
    r"(?:^|(?<=\s-- )|(?<=&& )|(?<=\$ )|(?<=hack/cluster )|(?<=env ))"
    r"(rbdcrypt-csi|kubectl rbdcrypt|hack/[a-z]+)(?= )(.*)"
)
_END: Final = re.compile(r" \| | > | && |; |\)| # |$")
_PASSED_ON: Final = ("exec", "kubectl", "helm")
"""Sub-commands of hack/ whose words are another program's."""
_NAMES: Final = re.compile(r"[a-z][a-z-]*(\|[a-z][a-z-]*)*")
"""A word of a command's own, or several to choose from; not one in its place."""
_CHOICES: Final = re.compile(r"\{([a-z,-]+)\}|TIER +((?:[a-z]+,\s+)+[a-z]+)")


def _lines(page: Page) -> Iterator[str]:
    """Go through everything that may be a command."""
    yield from page.inline()
    for fence in page.fences():
        if fence.language in {"", "sh", "console"}:
            joined = fence.text.replace("\\\n", " ")
            yield from (line.strip() for line in joined.splitlines())


def commands(page: Page) -> Iterator[tuple[str, list[str]]]:
    """Go through the commands of a page: the program, and its words."""
    for line in _lines(page):
        found = _START.search(line)
        if found is None:
            continue
        program, rest = found.groups()
        if "[" in rest:  # a synopsis
            rest = re.sub(r"[\[\]]| \| ", " ", rest)
        else:
            rest = rest[: _END.search(rest).start()]  # type: ignore[union-attr]
        yield program, rest.split()


def fault(program: str, words: list[str]) -> str:
    """Return what is wrong with a command, "" if nothing is."""
    if program in _PROGRAMS:
        return _fault_of_click(_PROGRAMS[program], words)
    return _fault_of_script(program, words)


def _fault_of_click(command: Any, words: list[str]) -> str:
    for number, word in enumerate(words):
        if word.startswith("-"):
            known = {"--help"}
            for parameter in command.params:
                known |= {*parameter.opts, *parameter.secondary_opts}
            if word.partition("=")[0] not in known:
                return f"{command.name} has no {word}"
        elif isinstance(command, typer.core.TyperGroup) and _NAMES.fullmatch(word):
            names = word.split("|")
            unknown = [each for each in names if each not in command.commands]
            if unknown:
                return f"{command.name} has no {unknown[0]}"
            rest = words[number + 1 :]
            faults = [_fault_of_click(command.commands[each], rest) for each in names]
            return next(filter(None, faults), "")
    return ""


def _fault_of_script(program: str, words: list[str]) -> str:
    if not (ROOT / program).is_file():
        return f"{program} does not exist"
    text = _help(program)
    subs: list[str] = []
    for word in words:
        if word.startswith("-"):
            own = "".join(_help(program, each) for each in subs if each in text)
            if not re.search(rf"{re.escape(word.partition('=')[0])}\b", text + own):
                return f"{program} has no {word}"
        elif not subs and _NAMES.fullmatch(word):
            subs = word.split("|")
            known = {
                name
                for found in _CHOICES.findall(text)
                for name in re.split(r",\s*", "".join(found))
            }
            unknown = [each for each in subs if known and each not in known]
            if unknown:
                return f"{program} has no {unknown[0]}"
            if subs[0] in _PASSED_ON:
                return ""
    return ""


@functools.cache
def _help(program: str, *words: str) -> str:
    path = ROOT / program
    first = path.read_text().partition("\n")[0]
    shell = ["bash"] if "bash" in first else [sys.executable]
    done = subprocess.run(
        [*shell, str(path), *words, "--help"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("page", pages(), ids=str)
def test_every_command_exists(page: Page) -> None:
    faults = [
        f"{program} {' '.join(words)}: {wrong}"
        for program, words in commands(page)
        if (wrong := fault(program, words))
    ]
    assert faults == []


def test_commands_are_found() -> None:
    found = [program for page in pages() for program, _ in commands(page)]
    assert found.count("rbdcrypt-csi") > 20
    assert found.count("kubectl rbdcrypt") > 20
    assert {"hack/cluster", "hack/lab", "hack/test", "hack/demo"} <= set(found)


@pytest.mark.parametrize(
    ("program", "words", "wrong"),
    [
        ("rbdcrypt-csi", "volume collect --dry-run", ""),
        ("rbdcrypt-csi", "volume collect --dryrun", "collect has no --dryrun"),
        ("rbdcrypt-csi", "volume list|shew", "volume has no shew"),
        ("kubectl rbdcrypt", "show PVC -n team-a -o yaml", ""),
        ("kubectl rbdcrypt", "show PVC --names", "show has no --names"),
        ("kubectl rbdcrypt", "lists", "has no lists"),
        ("hack/cluster", "up --nodes 2 --no-driver", ""),
        ("hack/cluster", "up --node 2", "hack/cluster has no --node"),
        ("hack/cluster", "stop", "hack/cluster has no stop"),
        ("hack/cluster", "exec ls --anything", ""),
        ("hack/test", "unit --pytest=-k", ""),
        ("hack/test", "units", "hack/test has no units"),
        ("hack/demo", "--kubernetes", ""),
        ("hack/nothing", "up", "hack/nothing does not exist"),
    ],
)
def test_what_does_not_exist_is_told_from_what_does(
    program: str, words: str, wrong: str
) -> None:
    assert fault(program, words.split()).endswith(wrong)
    assert bool(fault(program, words.split())) is bool(wrong)
