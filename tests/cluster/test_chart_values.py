# SPDX-License-Identifier: Apache-2.0
"""Chart values that make no sense never reach the cluster: helm names their path."""

from __future__ import annotations

import json
from typing import Final

import pytest

from tests.cluster.release import CHART
from tests.cluster.release import RELEASE
from tests.cluster.release import helm
from tests.cluster.release import try_helm
from tests.cluster.release import values

_KEEP: Final = ("keep it",)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("controller.replicas=none", ("'/controller/replicas'", "got string")),
        ("controler.replicas=1", ("'controler'", "not allowed")),
        ("deviceMethod=nbd", ("'/deviceMethod'", "'auto', 'kernel', 'fuse'")),
        (
            "storageClasses[0].parameters.encryptd=x",
            ("'/storageClasses/0/parameters'", "'encryptd'"),
        ),
        (
            "storageClasses[0].parameters.pool=nowhere",
            ("storageClasses.0.parameters.pool", '"nowhere"', "which are rbd"),
        ),
        ("node.httpPort=9682", ("datapath.httpPort", "9682", "node.httpPort")),
        # What only the cluster knows: how the release is installed.
        ("driverName=csi.example.org", ("driverName", "csi.rbdcrypt.io", *_KEEP)),
        ("paths.run=/run/elsewhere", ("paths.run", "/run/rbdcrypt-csi", *_KEEP)),
    ],
)
def test_an_upgrade_is_refused_with_the_path(
    setting: str, said: tuple[str, ...]
) -> None:
    before = _revision()
    given = ("upgrade", RELEASE, str(CHART), *values(), "--set", setting)
    done = try_helm(*given)
    assert done.returncode != 0, done.stdout
    assert [each for each in said if each not in done.stderr] == [], done.stderr
    assert _revision() == before


def _revision() -> tuple[str, str]:
    """Return the release's revision and status."""
    (found,) = json.loads(helm("list", "--all", "--output", "json"))
    return str(found["revision"]), str(found["status"])
