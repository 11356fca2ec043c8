# SPDX-License-Identifier: Apache-2.0
"""A process that flattens a clone and kills itself somewhere in between.

    python flattening.py < order.json

The order names the RADOS namespace, the image, the keys by their headers' UUIDs,
after how many objects (`after`) and how many seconds later (`delay`) to die.
Standard output gets one line with this client's address and, if the flatten came
to its end, another with the seconds from the last report to there.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from typing import Any

from csi_driver.domain.secrets import SecretBytes
from csi_driver.testing.crash import real_connector
from tests.ceph.clones.making import Making


def main() -> None:
    """Carry out one order from standard input."""
    order: dict[str, Any] = json.load(sys.stdin)
    ceph = real_connector().connect("lab")
    making = Making(ceph.pool(order["pool"], order["namespace"]))
    for header, key in order["keys"].items():
        making.keys[header] = SecretBytes(bytes.fromhex(key))
    last = time.monotonic()
    dying = threading.Event()

    def report(done: int, _total: int) -> bool:
        nonlocal last
        last = time.monotonic()
        if done >= order["after"] and not dying.is_set():
            dying.set()
            kill = (os.getpid(), signal.SIGKILL)
            threading.Timer(order["delay"], os.kill, kill).start()
        return True

    with making.open(order["image"]) as image:
        image.acquire_lock()
        _tell(ceph.address)
        image.flatten(report)
        _tell(str(time.monotonic() - last))
        if dying.is_set():
            signal.pause()


def _tell(line: str) -> None:
    # Not buffered: the next thing may be the end of this process.
    os.write(sys.stdout.fileno(), f"{line}\n".encode())


if __name__ == "__main__":
    main()
