# SPDX-License-Identifier: Apache-2.0
"""What every long-lived process does at its start and its end."""

from __future__ import annotations

import logging
import os
import sys
import threading

import structlog

from csi_driver.commands.version import version
from csi_driver.keys.hygiene import harden
from csi_driver.observability import logs
from csi_driver.rpc.identity import Plugin
from csi_driver.settings import ServiceSettings
from csi_driver.settings import Settings


def start_logging(settings: Settings) -> None:
    """Send this process's logs where the settings say, dying threads included."""
    logs.configure(form=settings.log_format, level=settings.log_level)
    threading.excepthook = _log_dead_thread


def protect_keys() -> None:
    """Keep this process's keys out of core files, debuggers and swap."""
    for warning in harden().warnings:
        structlog.get_logger(__name__).warning("keys less protected", reason=warning)


def plugin(settings: ServiceSettings) -> Plugin:
    """Return what GetPluginInfo says."""
    return Plugin(name=settings.driver_name, version=version())


def _log_dead_thread(end: threading.ExceptHookArgs) -> None:
    structlog.get_logger(__name__).error(
        "a thread has died",
        thread=None if end.thread is None else end.thread.name,
        exc_info=end.exc_value,
    )


def leave(*, all_ended: bool) -> None:
    """End the process.

    Work stuck in librbd would block or crash the interpreter's own end, so
    then the process leaves without it.
    """
    if all_ended:
        return
    logging.shutdown()
    sys.stderr.flush()
    os._exit(0)
