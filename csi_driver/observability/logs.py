# SPDX-License-Identifier: Apache-2.0
"""Set up logging once per process: structlog, to stderr, JSON or readable.

Records of other libraries (grpc, urllib3, warnings) take the same way out.
The last processor before the renderer blanks every value whose key is named
like a secret.  That is a second line: secrets are kept out of log calls in the
first place, and requests are redacted by their descriptor in `rpc`.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any
from typing import Final
from typing import TextIO

import structlog
from structlog.typing import EventDict
from structlog.typing import Processor
from structlog.typing import WrappedLogger

BLANK: Final = "***"

_SEPARATORS: Final = re.compile(r"[^a-z]")
_SECRET_ENDINGS: Final = (
    "passphrase",
    "password",
    "secret",
    "secrets",
    "userkey",
    "encryptionkey",
    "privatekey",
    "dek",
    "kek",
    "token",
)
_QUIET: Final = ("urllib3", "kubernetes", "grpc", "asyncio")


def is_secret_name(name: object) -> bool:
    """Tell whether a key is named like a secret.

    Case, digits and punctuation do not count, so that `encryptionPassphrase.1`
    and `user_key` are found; `passphraseSecretName` names a place, not a secret.
    `starting_token` and `next_token` of listings are blanked too, at no loss.
    """
    return _SEPARATORS.sub("", str(name).lower()).endswith(_SECRET_ENDINGS)


def blank_secrets(
    _logger: WrappedLogger,
    _method: str,
    event: EventDict,
) -> EventDict:
    """Blank every value in the event whose key is named like a secret."""
    return {key: _blanked(key, value) for key, value in event.items()}


def configure(*, form: str, level: str, stream: TextIO | None = None) -> None:
    """Send all logs of this process to `stream` (stderr unless told).

    `form` is "json" or "console", `level` a name of the logging module in
    lower case.  Calling it again replaces what was configured before.
    """
    shared = _shared_processors()
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                blank_secrets,
                *_renderers(form),
            ],
        ),
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(capture=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(root.level, logging.WARNING))


def _shared_processors() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _renderers(form: str) -> Iterable[Processor]:
    if form == "json":
        return [structlog.processors.JSONRenderer(default=str, sort_keys=False)]
    return [structlog.dev.ConsoleRenderer(colors=False)]


def _blanked(key: object, value: Any) -> Any:
    if isinstance(value, Mapping):
        # The keys stay: they tell a forgotten key from a misspelt one.
        hide = is_secret_name(key)
        return {
            name: BLANK if hide else _blanked(name, each)
            for name, each in value.items()
        }
    if is_secret_name(key):
        return BLANK
    if isinstance(value, list | tuple):
        return [_blanked("", each) for each in value]
    return value
