# SPDX-License-Identifier: Apache-2.0
"""The log of a worker: JSON lines on standard error, which the supervisor's is."""

from __future__ import annotations

import sys

import structlog


def configure() -> None:
    """Send structlog to standard error."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.ExceptionRenderer(),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
