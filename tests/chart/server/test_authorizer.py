# SPDX-License-Identifier: Apache-2.0
"""What the API server itself lets each service account do."""

from __future__ import annotations

import pytest

from tests.chart.server.conftest import Place


@pytest.fixture
def installed(place: Place) -> Place:
    place.helm("install")
    return place


def test_secrets_are_read_by_the_controller_and_only_where_it_may(
    installed: Place,
) -> None:
    api, space = installed.api, installed.namespace
    controller = f"{installed.account}-controller"
    assert api.allows(controller, "get", "secrets", space)
    assert not api.allows(controller, "list", "secrets", space)
    assert not api.allows(controller, "watch", "secrets", space)
    assert not api.allows(controller, "create", "secrets", space)
    assert not api.allows(controller, "get", "secrets", "default")
    assert not api.allows(controller, "get", "secrets", "kube-system")
    for account in ("node", "datapath"):
        for where in (space, "default"):
            assert not api.allows(
                f"{installed.account}-{account}", "get", "secrets", where
            )


def test_names_narrow_what_the_controller_reads(place: Place) -> None:
    place.helm("install", "--set", "secrets.names={rbdcrypt-passphrase}")
    controller = f"{place.account}-controller"
    for name, wanted in (("rbdcrypt-passphrase", True), ("another", False)):
        allowed = place.api.allows(
            controller, "get", f"secrets/{name}", place.namespace
        )
        assert allowed is wanted


def test_the_node_service_looks_up_volumes_and_writes_events(installed: Place) -> None:
    api, account = installed.api, f"{installed.account}-node"
    assert api.allows(account, "get", "persistentvolumes", "")
    assert api.allows(account, "create", "events", "default")
    assert not api.allows(account, "list", "persistentvolumes", "")
    assert not api.allows(account, "get", "pods", "default")
    assert not api.allows(account, "get", "nodes", "")


def test_the_datapath_may_do_nothing(installed: Place) -> None:
    api, account = installed.api, f"{installed.account}-datapath"
    for resource in ("persistentvolumes", "events", "secrets", "configmaps", "pods"):
        for verb in ("get", "list", "create"):
            assert not api.allows(account, verb, resource, installed.namespace)


def test_nobody_changes_what_is_not_the_driver_s(installed: Place) -> None:
    api = installed.api
    for component in ("controller", "node"):
        account = f"{installed.account}-{component}"
        for verb, resource in (
            ("create", "pods"),
            ("delete", "pods"),
            ("delete", "persistentvolumeclaims"),
            ("update", "nodes"),
            ("create", "clusterrolebindings.rbac.authorization.k8s.io"),
            ("create", "serviceaccounts/token"),
        ):
            assert not api.allows(account, verb, resource, "default"), (verb, resource)
