# SPDX-License-Identifier: Apache-2.0
"""When a token ends, and where a pod keeps what it is told of itself."""

from __future__ import annotations

import base64
import datetime as dt
import json
from pathlib import Path

import pytest

from csi_driver.kube.tokens import ending
from csi_driver.kube.tokens import own_ending
from csi_driver.kube.tokens import own_namespace

MOMENT = dt.datetime(2026, 11, 26, 12, 0, 0, tzinfo=dt.UTC)


def token(claims: object) -> str:
    parts = (json.dumps({"alg": "none"}).encode(), json.dumps(claims).encode(), b"x")
    coded = (base64.urlsafe_b64encode(each).decode().rstrip("=") for each in parts)
    return ".".join(coded)


def test_a_token_says_when_it_ends() -> None:
    assert ending(token({"exp": int(MOMENT.timestamp())})) == MOMENT


@pytest.mark.parametrize(
    "text",
    [
        *("", "opaque", "a.b.c", "a.!.c", token([]), token({})),
        *(token({"exp": "soon"}), token({"exp": 10**30})),
    ],
)
def test_a_token_that_does_not_say(text: str) -> None:
    assert ending(text) is None


def test_a_pods_own(tmp_path: Path) -> None:
    assert own_ending(tmp_path) is None
    assert not own_namespace(tmp_path)
    (tmp_path / "token").write_text(token({"exp": int(MOMENT.timestamp())}) + "\n")
    (tmp_path / "namespace").write_text("rbdcrypt\n")
    assert own_ending(tmp_path) == MOMENT
    assert own_namespace(tmp_path) == "rbdcrypt"
