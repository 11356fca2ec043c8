# SPDX-License-Identifier: Apache-2.0
"""The driver as the plugin asks it: one command in one controller pod.

What a command in the pod writes is JSON; what fails there is one line on stderr
that begins with the driver's name.  Both are checked here, for the driver may be
older or newer than this plugin.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
from typing import Final

from csi_driver.commands.output import tell
from csi_driver.commands.version import version
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import UnavailableError
from csi_driver.plugin import installation
from csi_driver.plugin import pods
from csi_driver.plugin.failures import explained
from csi_driver.plugin.failures import remote_status
from csi_driver.plugin.failures import words_of
from csi_driver.plugin.kubectl import Ended
from csi_driver.plugin.kubectl import Kubectl
from csi_driver.plugin.pods import DriverPod

COMMAND: Final = "rbdcrypt-csi"
QUIETLY: Final = ("--log-level=error", "--log-format=console")
"""The pod's own logs are for others; here only the result counts."""

_FAILED: Final = f"{COMMAND}: "
_WRONG: Final = 1
"""Exit status of a check that found something, and of every failure."""
_USAGE: Final = 2
_NOT_FOUND: Final = (126, 127)
_ENDED_BY_SIGNAL: Final = 128


@dataclasses.dataclass(frozen=True, slots=True)
class Driver:
    """One installation, through one of its controller pods."""

    kubectl: Kubectl
    pod: DriverPod

    @property
    def name(self) -> str:
        """What PersistentVolumes and classes call this driver."""
        return self.pod.driver_name

    def ask[T](self, read: Callable[[Any], T], *words: str) -> T:
        """Run a command of the driver and read its JSON.

        `read` raises LookupError, TypeError or ValueError for what it does not
        find; that is a driver of another version.  The driver's own failures
        are PreconditionError with its sentence.
        """
        command = (COMMAND, *words, "--output=json", *QUIETLY)
        ended = self.kubectl.exec(self.pod.container, command)
        if not ended.status or remote_status(ended.errors) is not None:
            _relay(ended.errors)
        # A check that finds something wrong answers, and has status 1.
        if ended.status not in {0, _WRONG} or not ended.output.strip():
            raise self.failure(ended)
        return self.read(read, ended.output)

    def read[T](self, read: Callable[[Any], T], text: str) -> T:
        """Read what the driver wrote, which has to be as this plugin knows it."""
        try:
            return read(json.loads(text))
        except KeyError as error:
            lacking = f"lacks the field {error.args[0]!r}"
        except (LookupError, TypeError, ValueError, RecursionError) as error:
            lacking = f"is not what this plugin reads ({type(error).__name__})"
        raise self._other_version(f"its answer {lacking}")

    def failure(self, ended: Ended) -> DriverError:
        """Return why a command in the pod failed."""
        where = f"pod {self.pod.container}"
        if ended.status < 0:
            return UnavailableError(
                f"kubectl was ended by signal {-ended.status} while a command ran in"
                f" {where}; try again"
            )
        status = remote_status(ended.errors)
        if status is None:
            return explained(ended.errors, f"running a command in {where}")
        said = [e for e in words_of(ended.errors) if e.startswith(_FAILED)]
        if said:
            return PreconditionError(said[-1].removeprefix(_FAILED))
        return self._silent(status)

    def _silent(self, status: int) -> DriverError:
        """Return why a command ended that said nothing about it."""
        where = f"pod {self.pod.container}"
        if status == _USAGE:
            return self._other_version("it does not know this command or a flag of it")
        if status in _NOT_FOUND:
            return PreconditionError(
                f"{where} has no command {COMMAND} in its container"
                f" {self.pod.component!r} (image {self.pod.image}): it is no pod of"
                " this driver, or of a version that this plugin does not know"
            )
        if status > _ENDED_BY_SIGNAL:
            return UnavailableError(
                f"the command in {where} was ended by signal"
                f" {status - _ENDED_BY_SIGNAL}: the pod was stopped or ran out of"
                " memory; try again"
            )
        return PreconditionError(
            f"the command in {where} failed with exit status {status} and said"
            f" nothing; look at `kubectl logs --namespace {self.pod.namespace}"
            f" {self.pod.name}`"
        )

    def _other_version(self, found: str) -> PreconditionError:
        return PreconditionError(
            f"the driver in pod {self.pod.container} (image {self.pod.image}) is older"
            f" or newer than this plugin ({version()}): {found}; use the plugin of the"
            " driver's version, or upgrade the driver"
        )


def find(kubectl: Kubectl, namespace: str, release: str) -> Driver:
    """Find the driver; see `installation.find` for where, and for what may fail."""
    home = installation.find(kubectl, namespace, release)
    labels = pods.selector(pods.CONTROLLER, home.release)
    found = pods_of(kubectl, home.namespace, selector=labels)
    return Driver(kubectl, pods.choose(found, home.where))


def pods_of(kubectl: Kubectl, namespace: str, *, selector: str) -> Sequence[DriverPod]:
    """Return the pods that a label selector picks; "" searches all namespaces.

    Of another namespace than the installation's, they may be anybody's.
    """
    items = kubectl.items("pods", selector=selector, namespace=namespace or "*")
    return [DriverPod.of(each) for each in items]


def _relay(errors: str) -> None:
    """Show what a command said beside its result and its last words."""
    for line in words_of(errors):
        if not line.startswith(_FAILED) and remote_status(line) is None:
            tell(line)
