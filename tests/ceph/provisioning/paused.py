# SPDX-License-Identifier: Apache-2.0
"""The child's side of `test_paused`: it stops itself before one of its calls.

The order comes by standard input; what became of the work goes to standard output.
"""

from __future__ import annotations

import json
import os
import signal
import sys

from csi_driver.domain.errors import DriverError
from csi_driver.testing.faults import Fault
from csi_driver.testing.faults import FaultyConnector
from csi_driver.testing.faults import Steps
from tests.ceph.provisioning import work


def main() -> None:
    """Create, stop where the order says so, and tell how it ended."""
    order = json.load(sys.stdin)

    def stop(number: int, name: str) -> None:
        if number == order["at"]:
            print(name, flush=True)  # noqa: T201
            os.kill(os.getpid(), signal.SIGSTOP)

    steps = Steps(Fault(0), stop)
    connector = FaultyConnector(work.quick_connector(), steps)
    try:
        work.create(connector, order["arguments"])
    except DriverError as error:
        print(f"{type(error).__name__}: {error}", flush=True)  # noqa: T201
    else:
        print("made", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
