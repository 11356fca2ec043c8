# SPDX-License-Identifier: Apache-2.0
"""kubectl as a subprocess: objects as JSON, and commands in pods.

kubectl brings contexts, credentials and TLS, with the user's own rights.  What it
is asked, and what an answer means, is left to the others.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Final

from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import PreconditionError
from csi_driver.plugin.failures import explained

type Json = Mapping[str, Any]

_TOOL: Final = "kubectl"
_TIMEOUT: Final = "30s"
"""For one request of a `get`; a command in a pod may take as long as it takes."""


@dataclasses.dataclass(frozen=True, slots=True)
class Container:
    """One container of one pod, and the image it runs."""

    namespace: str
    pod: str
    name: str
    image: str = ""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.pod}"


@dataclasses.dataclass(frozen=True, slots=True)
class Ended:
    """A process that has ended; `errors` is what it and kubectl wrote to stderr."""

    status: int
    output: str
    errors: str


@dataclasses.dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl with the context and kubeconfig that the user chose."""

    context: str = ""
    kubeconfig: str = ""

    def get(self, kind: str, name: str, *, namespace: str | None = None) -> Json:
        """Return one object; `namespace` is None for the context's own.

        ForbiddenError, NotFoundError, UnavailableError; UnsupportedError if the
        cluster does not know the kind.
        """
        return self._get(f"{kind} {name}", [kind, name], namespace)

    def items(
        self, kind: str, *, selector: str = "", namespace: str | None = None
    ) -> list[Json]:
        """Return all objects of a kind, of all namespaces where that is "*"."""
        words = [kind, f"--selector={selector}"] if selector else [kind]
        found = self._get(kind, words, namespace).get("items")
        if not isinstance(found, list):
            raise PreconditionError(f"kubectl's answer to get {kind} is no list")
        return found

    def _get(self, what: str, words: Sequence[str], namespace: str | None) -> Json:
        flags = ["--output=json", f"--request-timeout={_TIMEOUT}"]
        if namespace == "*":
            flags.append("--all-namespaces")
        elif namespace is not None:
            flags.append(f"--namespace={namespace}")
        ended = self.run(["get", *words, *flags])
        if ended.status:
            raise explained(ended.errors, f"reading {what}")
        return _object(ended.output, what)

    def exec(self, where: Container, words: Sequence[str]) -> Ended:
        """Run a command in a container to its end, whatever its status."""
        return self.run(self.exec_words(where, words))

    def exec_words(
        self, where: Container, words: Sequence[str], *, stdin: bool = False
    ) -> list[str]:
        """Return the arguments with which kubectl runs a command in a container."""
        return [
            "exec",
            *(("--stdin",) if stdin else ()),
            f"--namespace={where.namespace}",
            where.pod,
            f"--container={where.name}",
            "--",
            *words,
        ]

    def run(self, words: Sequence[str]) -> Ended:
        """Run kubectl to its end.

        It gets no stdin: where it would ask for a name and a password, which
        nobody could see, it fails.
        """
        done = subprocess.run(
            self.command(words),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        return Ended(
            done.returncode,
            done.stdout.decode(errors="replace"),
            done.stderr.decode(errors="replace"),
        )

    def command(self, words: Sequence[str]) -> list[str]:
        """Return the command line; InvalidRequestError without a kubectl."""
        tool = shutil.which(_TOOL)
        if tool is None:
            raise InvalidRequestError(
                "kubectl is not on PATH: install it, or run this as `kubectl rbdcrypt`"
            )
        chosen = []
        if self.context:
            chosen.append(f"--context={self.context}")
        if self.kubeconfig:
            chosen.append(f"--kubeconfig={self.kubeconfig}")
        return [tool, *chosen, *words]


def _object(text: str, what: str) -> Json:
    # Not quoted: it may be a Secret.
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise PreconditionError(f"kubectl's answer to get {what} is no JSON object")
    return found
