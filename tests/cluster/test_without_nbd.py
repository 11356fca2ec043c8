# SPDX-License-Identifier: Apache-2.0
"""A node whose kernel has no nbd, where nothing else is allowed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from csi_driver.doctor.check import Status
from tests.cluster import doctor
from tests.cluster import parts
from tests.cluster import release
from tests.cluster.kube import Kube
from tests.cluster.tenant import XFS
from tests.cluster.tenant import Tenant


@pytest.fixture
def kernel_alone(kube: Kube) -> Iterator[None]:
    """Let the driver use the kernel's nbd and nothing else, while a test runs."""
    try:
        release.install("--set", "deviceMethod=kernel")
        parts.replace(kube, "datapath")
        yield
    finally:
        release.install()
        for component in ("controller", "node"):
            parts.wait_until_ready(kube, component)
        parts.replace(kube, "datapath")


def test_doctor_and_event_say_what_to_load_and_a_pod_starts_once_it_may_do_without(
    tenant: Tenant, kernel_alone: None
) -> None:
    found = doctor.wait_for("datapath", "device-method", lambda _: True)
    assert found.subject == "kernel"
    tenant.claim("files", XFS)
    tenant.pod("app", "files")
    if found.status is Status.OK:
        # Where the cluster's machine has nbd, the doctor is to be taken at its word.
        tenant.ready("app")
        return
    assert found.status is Status.FAILED
    said = (
        *("no way to attach a device on this node", "this kernel offers no nbd"),
        *(
            "`modprobe nbd`",
            "of node and datapath to auto",
            "delete the datapath's pod",
        ),
    )
    assert [each for each in said if each not in found.found] == []
    tenant.kube.wait_event("app", tenant.namespace, "FailedMount", *said)
    # As it says.
    release.install()
    parts.replace(tenant.kube, "datapath")
    tenant.ready("app")


def test_with_the_method_auto_the_doctor_says_what_is_used_instead(kube: Kube) -> None:
    alone = doctor.in_pod(kube, "datapath", RBDCRYPT_DEVICE_METHOD="kernel")
    offered = doctor.the(alone, "device-method").status is Status.OK
    found = doctor.the(doctor.in_pod(kube, "datapath"), "device-method")
    assert found.subject == "auto"
    if offered:
        assert (found.status, found.found) == (Status.OK, "the kernel's own nbd")
    else:
        assert found.status is Status.WARNING
        assert found.found.startswith("nbdfuse and loop devices, since this kernel")
        assert "`modprobe nbd`" in found.remedy
