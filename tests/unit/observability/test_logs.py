# SPDX-License-Identifier: Apache-2.0
"""What a log line looks like, and what can never be in it."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from csi_driver.observability import logs


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def configured(form: str = "json", level: str = "info") -> io.StringIO:
    stream = io.StringIO()
    logs.configure(form=form, level=level, stream=stream)
    return stream


def test_a_json_line() -> None:
    stream = configured()
    structlog.get_logger("here").info("staged", volume="v1", seconds=0.1)
    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "staged",
        "volume": "v1",
        "seconds": 0.1,
        "logger": "here",
        "level": "info",
    }


def test_a_console_line_has_no_colours() -> None:
    stream = configured("console")
    structlog.get_logger("here").warning("staged", volume="v1")
    assert "staged" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_the_level_holds_for_all_libraries() -> None:
    stream = configured(level="warning")
    structlog.get_logger("here").info("quiet")
    logging.getLogger("other").info("quiet")
    logging.getLogger("other").warning("loud %s", 1)
    assert [line["event"] for line in lines(stream)] == ["loud 1"]


def test_warnings_become_lines() -> None:
    stream = configured()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logs.configure(form="json", level="info", stream=stream)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert "DeprecationWarning: old" in lines(stream)[0]["event"]


@pytest.mark.parametrize(
    "name",
    [
        "passphrase",
        "encryptionPassphrase",
        "encryptionPassphrase.1",
        "sourceEncryptionKey",
        "encryption_key",
        "userKey",
        "secret",
        "secrets",
        "dek",
        "KEK",
        "password",
    ],
)
def test_secrets_by_name_are_blank_at_every_depth(name: str) -> None:
    stream = configured()
    structlog.get_logger().info(
        "call",
        **{name: "canary"},
        request={"deep": [{name: "canary"}, {"er": {name: {"kept": "canary"}}}]},
    )
    assert "canary" not in stream.getvalue()
    assert lines(stream)[0]["request"]["deep"][1]["er"][name] == {"kept": "***"}


@pytest.mark.parametrize(
    "name", ["passphraseSecretName", "volume", "key_file", "secretNamespace", "keys"]
)
def test_names_of_places_stay(name: str) -> None:
    stream = configured()
    structlog.get_logger().info("call", **{name: "here"})
    assert lines(stream)[0][name] == "here"


def test_context_is_in_every_line() -> None:
    stream = configured()
    with structlog.contextvars.bound_contextvars(rpc="Probe"):
        structlog.get_logger().info("one")
        logging.getLogger("library").warning("two")
    assert [line["rpc"] for line in lines(stream)] == ["Probe", "Probe"]


def test_a_traceback_shows_no_local_variables() -> None:
    def fails(passphrase: str) -> None:
        message = "went wrong"
        raise ValueError(message)

    for form in ("json", "console"):
        stream = configured(form)
        given = "canary"
        try:
            fails(given)
        except ValueError:
            structlog.get_logger().exception("odd")
        assert "ValueError: went wrong" in stream.getvalue()
        assert "canary" not in stream.getvalue()
