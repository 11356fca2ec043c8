# SPDX-License-Identifier: Apache-2.0
"""What the interceptors tell about calls; who counts them is no concern here."""

from __future__ import annotations

from typing import Protocol


class Recorder(Protocol):
    """Receives one number per answered call; must be quick and thread-safe."""

    def answered(self, method: str, code: str, seconds: float) -> None:
        """Note that a call was answered after so many seconds."""

    def stuck(self, count: int) -> None:
        """Note how much given-up work is still running."""


class NoRecorder:
    """For processes that serve no metrics."""

    def answered(self, method: str, code: str, seconds: float) -> None:
        """Note nothing."""

    def stuck(self, count: int) -> None:
        """Note nothing."""
