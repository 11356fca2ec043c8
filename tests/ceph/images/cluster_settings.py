# SPDX-License-Identifier: Apache-2.0
"""What an administrator sets for all clients of a cluster, with `ceph config`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from tests.ceph.provisioning.real import administrator


@contextlib.contextmanager
def cluster_setting(name: str, value: str) -> Iterator[Any]:
    """Set an option for all clients; lend one that has come since.

    Others may run at the same time: it should do them no harm.
    """
    setting = {"who": "client", "name": name}
    with administrator() as cluster:
        _told(cluster, {"prefix": "config set", **setting, "value": value})
        try:
            with administrator() as later:
                yield later
        finally:
            _told(cluster, {"prefix": "config rm", **setting})


def _told(cluster: Any, command: dict[str, str]) -> None:
    status, _, text = cluster.mon_command(json.dumps(command), b"")
    assert status == 0, text
