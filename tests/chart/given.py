# SPDX-License-Identifier: Apache-2.0
"""Values for the tests that refuse some, as `helm --set-json` takes them."""

from __future__ import annotations

import json
from typing import Any

from tests.chart.rendered import Object

CLUSTER: Object = {
    "clusterID": "lab",
    "monitors": ["192.0.2.1:3300"],
    "secretName": "ceph",
    "pools": [{"name": "rbd"}],
}


def clusters(*changes: Object) -> str:
    """Return clusters as CLUSTER with these changes, without what is None."""
    found = [
        {key: each for key, each in {**CLUSTER, **change}.items() if each is not None}
        for change in changes
    ]
    return f"clusters={json.dumps(found)}"


def a_class(parameters: Object | None = None, **beside: Any) -> str:
    """Return a class with further parameters and other fields."""
    own = {"clusterID": "lab", "pool": "rbd", **(parameters or {})}
    return f"storageClasses={json.dumps([{'name': 'c', 'parameters': own, **beside}])}"
