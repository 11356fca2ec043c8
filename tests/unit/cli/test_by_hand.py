# SPDX-License-Identifier: Apache-2.0
"""`rbdcrypt-csi volume …` before it reaches Ceph, and how it writes results."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from csi_driver.commands import output
from csi_driver.commands.choosing import SecretSource
from csi_driver.commands.choosing import parse_reference
from csi_driver.commands.output import Output
from csi_driver.commands.volumes import as_json
from csi_driver.commands.volumes import as_table
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.ids import Location
from csi_driver.domain.parameters import SecretRef
from csi_driver.images.directory import Entry
from csi_driver.provisioning.overview import Filed
from csi_driver.provisioning.overview import Place
from csi_driver.settings import ClusterSettings
from csi_driver.settings import load
from tests.unit.cli.test_commands import rbdcrypt
from tests.unit.domain.strategies import a_record

COMMANDS = ("list", "show", "check", "flatten", "shrink", "collect", "adopt")
PLACE = Place("lab", "rbd", "tenant")


def filed(name: str = "pvc-1", problem: str = "") -> Filed:
    record = dataclasses.replace(a_record(), name=name)
    found = Filed(
        PLACE, Location("lab", 1), Entry(name, "image", "10ab"), deleted=False
    )
    return dataclasses.replace(
        found, record=None if problem else record, problem=problem
    )


def test_help_names_every_command() -> None:
    done = rbdcrypt("volume", "--help")
    assert done.returncode == 0
    for command in COMMANDS:
        assert command in done.stdout.split()


@pytest.mark.parametrize("command", [each for each in COMMANDS if each != "adopt"])
def test_every_command_writes_json(command: str) -> None:
    done = rbdcrypt("volume", command, "--help")
    assert "--output FORMAT" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["check"], "or --all"),
        (["check", "x", "--all"], "or --all"),
        (["list", "--output", "xml"], "table, json"),
        (["flatten", "x", "--attended", "--secret", "a/b"], "from stdin alone"),
        (["shrink", "x", "--size", "10G"], "is not a size"),
        (["flatten", "x", "--secret", "y"], "NAMESPACE/NAME"),
        (["flatten", "x", "--secret", "a/b", "--secret-file", "c"], "not both"),
        (["flatten", "x", "--secret-file", "/none/such"], "cannot be read from"),
        (["flatten", "x", "--secret", "a/b"], "no Kubernetes API server"),
    ],
)
def test_what_is_asked_wrongly_is_one_line(words: list[str], text: str) -> None:
    done = rbdcrypt("volume", *words, "--log-format", "console")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("rbdcrypt-csi: ")
    assert text in last
    assert "Traceback" not in done.stderr


def test_secrets_come_from_a_file(tmp_path: Path) -> None:
    settings = load(ClusterSettings, {})
    file = tmp_path / "secret.yaml"
    file.write_text("encryptionPassphrase: hunter2\n")
    assert SecretSource(str(file)).read(settings) == {"encryptionPassphrase": "hunter2"}
    assert SecretSource().read(settings) == {}
    file.write_bytes(b"\xff\xfehunter2")
    with pytest.raises(SecretError) as caught:
        SecretSource(str(file)).read(settings)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(InvalidRequestError, match="not both"):
        SecretSource(str(file), "a/b").read(settings)


def test_secrets_come_from_kubernetes_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(PreconditionError, match="--secret-file"):
        SecretSource(reference="a/b").read(load(ClusterSettings, {}))
    assert parse_reference("a/b") == SecretRef("a", "b")
    for text in ("a", "/b", "a/", "a/b/c"):
        with pytest.raises(InvalidRequestError, match="NAMESPACE/NAME"):
            parse_reference(text)


def test_what_is_no_terminal_gets_plain_whole_lines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    long = "n" * 120
    output.show(as_table([filed(long), filed("broken", "its record is [bold]gone[/]")]))
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.startswith("NAME")
    assert long in first
    assert "v1:lab:1::10ab" in first
    assert "its record is [bold]gone[/]" in second
    assert "\x1b" not in first


def test_the_list_for_programs() -> None:
    found = json.loads(json.dumps(as_json(filed())))
    assert found["id"] == "v1:lab:1::10ab"
    assert (found["cluster"], found["pool"], found["namespace"]) == (
        "lab",
        "rbd",
        "tenant",
    )
    assert isinstance(found["bytes"], int)
    broken = as_json(filed("x", "damaged"))
    assert broken["problem"] == "damaged"
    assert "bytes" not in broken


def test_characters_that_steer_a_terminal_are_taken_out() -> None:
    assert output.clean("a\x1b[2Jb\rc\u202ed") == "a�[2Jb�c�d"
    assert output.clean("größe ☂") == "größe ☂"


def test_progress_is_silent_where_nobody_looks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with output.progress("flattening [x]") as update:
        update(0, 0)
        update(3, 10)
    assert capsys.readouterr() == ("", "")


def test_formats_by_name() -> None:
    assert output.parse_output("json") is Output.JSON
    with pytest.raises(InvalidRequestError, match="table, json"):
        output.parse_output("yaml")
