# SPDX-License-Identifier: Apache-2.0
"""`volume flatten --attended`: Secret, Ctrl-C and progress over three pipes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from csi_driver.domain.record import Record
from tests.ceph.administration.flattens import LARGE
from tests.ceph.administration.flattens import at_full_speed
from tests.ceph.administration.flattens import await_progress
from tests.ceph.administration.flattens import family
from tests.ceph.administration.flattens import require_flat
from tests.ceph.administration.flattens import slow_down
from tests.ceph.administration.making import Maker
from tests.unit.provisioning.worlds import SECRET


@contextmanager
def attended(
    maker: Maker, record: Record, *words: str
) -> Iterator[subprocess.Popen[str]]:
    command = maker.command("flatten", str(maker.volume_id(record)), "--attended")
    with subprocess.Popen(
        [*command, *words],
        env=maker.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


def give(process: subprocess.Popen[str], line: str) -> None:
    """Write a line and leave stdin open, as a person who stays does."""
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def test_the_secret_is_a_line_and_progress_comes_in_lines(maker: Maker) -> None:
    clone, content = family(maker)
    with attended(maker, clone, "--secret-file=-") as process:
        give(process, json.dumps({"kind": "Secret", "stringData": SECRET}))
        assert process.stdout is not None
        *steps, result = [json.loads(line) for line in process.stdout]
        assert process.wait(timeout=20) == 0
    volume_id = str(maker.volume_id(clone))
    assert result == {"id": volume_id, "ancestors": 0}
    assert steps
    for step in steps:
        assert 0 <= step["progress"]["done"] <= step["progress"]["total"]
    require_flat(maker, clone, content)


def test_the_end_of_stdin_lets_go_as_ctrl_c_does(maker: Maker) -> None:
    clone, content = family(maker, LARGE, object_size=65536)
    slow_down(maker, clone)
    with attended(maker, clone, "--secret-file=-") as process:
        give(process, json.dumps(SECRET))
        await_progress(maker, clone, process)
        process.communicate(timeout=20)  # closes stdin
        assert process.returncode
    assert maker.record(clone).flatten is None
    assert maker.content(clone) == content
    with maker.rbd_image(clone) as image:
        assert not list(image.lock_get_owners())
    at_full_speed(maker, clone)
    with attended(maker, clone, "--secret-file=-") as process:
        give(process, json.dumps(SECRET))
        assert process.wait(timeout=60) == 0
    require_flat(maker, clone, content)


def test_a_plaintext_clone_needs_no_line(maker: Maker) -> None:
    source = maker.volume("source", encrypted=False)
    clone = maker.clone(source, "clone")
    with attended(maker, clone) as process:
        assert process.wait(timeout=60) == 0
    assert maker.record(clone).ancestors == 0


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("", "stdin ended before the Secret's line did"),
        ("hunter2", "stdin ended before the Secret's line did"),
        ("hunter2\n", "neither a Secret"),
        ("x" * (1 << 20) + "hunter2", "more than 1048576 bytes"),
    ],
    ids=["nothing", "half a line", "no Secret", "too long"],
)
def test_a_secret_that_is_none_is_one_line(maker: Maker, given: str, text: str) -> None:
    record = maker.volume("volume")
    words = ("flatten", str(maker.volume_id(record)), "--attended", "--secret-file=-")
    done = maker.run(*words, stdin=given)
    assert done.returncode == 1
    assert text in done.stderr.splitlines()[-1]
    assert "hunter2" not in done.stderr
    assert not done.stdout


def test_a_secret_from_elsewhere_is_refused(maker: Maker) -> None:
    done = maker.run("flatten", "x", "--attended", "--secret-file", str(maker.secret))
    assert done.returncode == 1
    assert "from stdin alone" in done.stderr
