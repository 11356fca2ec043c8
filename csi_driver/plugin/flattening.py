# SPDX-License-Identifier: Apache-2.0
"""`kubectl rbdcrypt flatten`: a long command in a pod, with a Secret and Ctrl-C.

kubectl runs in a session of its own, so that Ctrl-C does not end it at once: its
stdin is closed instead, which the command in the pod takes for Ctrl-C, and what
it says then is still read.  The other side is `csi_driver.commands.attended`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from collections.abc import Mapping
from typing import IO
from typing import Any
from typing import Final

from csi_driver.commands import output
from csi_driver.domain import json_fields as read
from csi_driver.domain.errors import CancelledError
from csi_driver.domain.errors import ForbiddenError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.parameters import SecretRef
from csi_driver.plugin.driver import COMMAND
from csi_driver.plugin.driver import QUIETLY
from csi_driver.plugin.driver import Driver
from csi_driver.plugin.failures import remote_status
from csi_driver.plugin.kubectl import Ended
from csi_driver.plugin.kubectl import Kubectl
from csi_driver.plugin.objects import at
from csi_driver.plugin.objects import text_at

_NEEDED: Final = ("encryptionPassphrase", "encryptionKey")
"""Beginnings of the Secret's keys that open a volume; no others leave this process."""

type Progress = Callable[[int, int], None]
"""Told (done, total) in objects."""


def secret_line(kubectl: Kubectl, reference: SecretRef | None) -> str:
    """Return what opens a volume as one line for the driver, "" without a Secret.

    Read with the user's own rights; its values stay base64.  ForbiddenError or
    NotFoundError name the Secret; PreconditionError if it has no such values.
    """
    if reference is None:
        return ""
    title = f"Secret {reference}"
    try:
        found = kubectl.get("secret", reference.name, namespace=reference.namespace)
    except NotFoundError as error:
        raise NotFoundError(
            f"{title}, which opens the volume, does not exist: create it again with"
            " the content that the volume was made with"
        ) from error
    except ForbiddenError as error:
        raise ForbiddenError(
            f"you may not read {title}, which opens the volume: have somebody flatten"
            " it who may, or ask for the verb get on this Secret"
        ) from error
    data = at(found, "data")
    values = data if isinstance(data, Mapping) else {}
    chosen = {name: text_at(values, name) for name in values if _opens(name)}
    if not chosen:
        raise PreconditionError(
            f"{title} holds neither {' nor '.join(_NEEDED)}: it opens no volume"
        )
    return json.dumps({"kind": "Secret", "data": chosen})


def _opens(name: str) -> bool:
    return name in _NEEDED or name.startswith(f"{_NEEDED[0]}.")


def flatten(driver: Driver, volume_id: str, secret: str, progress: Progress) -> int:
    """Flatten a volume and return how many images lie below it then.

    CancelledError after Ctrl-C; the driver's own refusals are PreconditionError.
    """
    words = [COMMAND, "volume", "flatten", volume_id, "--attended", *QUIETLY]
    if secret:
        words.append("--secret-file=-")
    command = driver.kubectl.exec_words(driver.pod.container, words, stdin=True)
    with subprocess.Popen(
        driver.kubectl.command(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    ) as process:
        return _Remote(driver, process, progress).run(secret)


class _Remote:
    """A command in a pod, while it runs."""

    def __init__(
        self, driver: Driver, process: subprocess.Popen[str], progress: Progress
    ) -> None:
        self._driver = driver
        self._process = process
        self._progress = progress
        self._errors: list[str] = []
        self._result: dict[str, Any] | None = None
        self._interrupted = False

    def run(self, secret: str) -> int:
        """Give the Secret, follow the work to its end, return its result."""
        relay = threading.Thread(target=self._relay, name="stderr", daemon=True)
        relay.start()
        try:
            self._follow(secret)
            status = self._process.wait()
        except KeyboardInterrupt:
            # Its session has helpers that kubectl started, and nothing else.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            raise CancelledError(
                "given up: the command in the pod may still be at work; it ends by"
                " itself, and nothing is lost"
            ) from None
        relay.join()
        if status == 0 and self._result is not None:
            text = json.dumps(self._result)
            return self._driver.read(lambda e: read.natural(e, "ancestors"), text)
        if self._interrupted:
            raise CancelledError(
                "interrupted: the volume is as usable as before, and the same command"
                " goes on with what is left"
            )
        raise self._driver.failure(Ended(status, "", "\n".join(self._errors)))

    def _follow(self, secret: str) -> None:
        """Read lines to the end; the first Ctrl-C asks the command to let go."""
        try:
            if secret:
                self._give(secret)
            self._read_lines()
        except KeyboardInterrupt:
            self._interrupted = True
            output.tell("asking the command in the pod to let go of the volume")
            self._hang_up()
            self._read_lines()

    def _give(self, secret: str) -> None:
        # If kubectl has failed already, its own words tell why.
        with contextlib.suppress(BrokenPipeError):
            stdin = _pipe(self._process.stdin)
            stdin.write(f"{secret}\n")
            stdin.flush()

    def _hang_up(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            _pipe(self._process.stdin).close()

    def _read_lines(self) -> None:
        for line in _pipe(self._process.stdout):
            found = _object(line)
            step = found.get("progress")
            if isinstance(step, dict):
                self._progress(int(step.get("done", 0)), int(step.get("total", 0)))
            elif found:
                self._result = found

    def _relay(self) -> None:
        """Show what the command says on its way; its last words come at the end."""
        for line in _pipe(self._process.stderr):
            text = line.rstrip()
            self._errors.append(text)
            spoken = text and not text.startswith(f"{COMMAND}: ")
            if spoken and remote_status(text) is None and not _aborted(text):
                output.tell(text)


def _aborted(text: str) -> bool:
    """Tell whether this is only how a command names its own end by Ctrl-C."""
    return text.rstrip(".!") == "Aborted"


def _pipe(found: IO[str] | None) -> IO[str]:
    if found is None:
        raise PreconditionError("kubectl was started without its pipes")
    return found


def _object(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
