# SPDX-License-Identifier: Apache-2.0
"""What every long-lived process does at its start."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator

import pytest
import structlog

from csi_driver import settings
from csi_driver.commands import service


@pytest.fixture
def quiet_afterwards(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


@pytest.mark.usefixtures("quiet_afterwards")
def test_a_thread_that_dies_is_a_line_in_the_log(
    capsys: pytest.CaptureFixture[str],
) -> None:
    service.start_logging(settings.load(settings.Settings, {}))

    def dies() -> None:
        message = "unforeseen"
        raise RuntimeError(message)

    thread = threading.Thread(target=dies, name="collector")
    thread.start()
    thread.join()
    (line,) = capsys.readouterr().err.splitlines()
    found = json.loads(line)
    assert found["event"] == "a thread has died"
    assert found["thread"] == "collector"
    assert "RuntimeError: unforeseen" in found["exception"]
