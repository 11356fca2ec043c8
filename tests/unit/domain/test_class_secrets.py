# SPDX-License-Identifier: Apache-2.0
"""The Secrets that a class names: templates, what is fixed, what cannot be filled."""

from __future__ import annotations

import pytest

from csi_driver.domain.class_secrets import templates
from csi_driver.domain.class_secrets import without_secrets

PREFIX = "csi.storage.k8s.io/"


def named(purpose: str, namespace: str, name: str) -> dict[str, str]:
    return {
        f"{PREFIX}{purpose}-namespace": namespace,
        f"{PREFIX}{purpose}-name": name,
    }


def test_secrets_are_told_from_parameters() -> None:
    own = {"pool": "rbd", f"{PREFIX}fstype": "xfs"}
    given = own | named("node-stage-secret", "${pvc.namespace}", "key")
    given |= named("provisioner-secret", "vault", "key")
    assert without_secrets(given) == own
    first, second = templates(given)
    assert (first.purpose, str(first)) == ("provisioner-secret", "vault/key")
    assert (first.fixed, first.fixed_namespace) == (True, "vault")
    assert (second.fixed, second.fixed_namespace) == (False, "")
    assert second.fixed_name == "key"
    assert templates(own) == ()


def test_a_name_of_every_claim_in_a_fixed_namespace() -> None:
    (found,) = templates(named("node-stage-secret", "vault", "${pvc.name}"))
    assert (found.fixed, found.fixed_namespace) == (False, "vault")
    assert not found.fixed_name
    assert list(found.faults()) == []


@pytest.mark.parametrize(
    ("namespace", "name", "text"),
    [
        ("${pvc.name}", "key", "secret-namespace has the template ${pvc.name}"),
        ("${pvc.annotations['a']}", "key", "there are ${pv.name}, ${pvc.namespace}"),
        ("vault", "${pvc.uid}", "secret-name has the template ${pvc.uid}"),
        ("vault", "", "has no name"),
        ("", "key", "has no namespace"),
    ],
)
def test_what_nobody_can_fill_in(namespace: str, name: str, text: str) -> None:
    (found,) = templates(named("node-stage-secret", namespace, name))
    (fault,) = found.faults()
    assert text in fault


def test_what_sidecars_fill_in() -> None:
    name = "${pvc.namespace}-${pvc.name}-${pv.name}-${pvc.annotations['team/key']}"
    (found,) = templates(named("node-stage-secret", "${pv.name}", name))
    assert list(found.faults()) == []


def test_half_a_reference_is_a_fault() -> None:
    (found,) = templates({f"{PREFIX}node-stage-secret-name": "key"})
    assert list(found.faults()) == ["node-stage-secret has no namespace"]
