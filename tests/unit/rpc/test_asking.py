# SPDX-License-Identifier: Apache-2.0
"""Asking a CSI socket how its process is."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import pytest

from csi_driver.domain.errors import PendingError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import UnavailableError
from csi_driver.rpc.asking import require_answer
from csi_driver.rpc.asking import require_ready


def broken() -> None:
    message = "this machine's librbd lacks LUKS"
    raise UnavailableError(message)


def test_a_process_lives_before_it_is_ready(serving: Any) -> None:
    require_answer(serving.socket, 3)
    with pytest.raises(PendingError, match="starting"):
        require_ready(serving.socket, 3)
    serving.health.check(lambda: None)
    require_ready(serving.socket, 3)


def test_a_process_that_cannot_work_lives_and_says_why(serving: Any) -> None:
    serving.health.check(broken)
    require_answer(serving.socket, 3)
    with pytest.raises(PreconditionError, match="lacks LUKS"):
        require_ready(serving.socket, 3)


def test_a_socket_that_is_gone_from_its_path_answers_nobody(serving: Any) -> None:
    require_answer(serving.socket, 3)
    serving.socket.unlink()
    for question in (require_answer, require_ready):
        with pytest.raises(UnavailableError, match=str(serving.socket)):
            question(serving.socket, 3)


def test_a_process_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "csi.sock"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        begin = time.monotonic()
        with pytest.raises(UnavailableError, match="DEADLINE_EXCEEDED"):
            require_answer(path, 0.3)
        assert time.monotonic() - begin < 2
