# SPDX-License-Identifier: Apache-2.0
"""`kubectl rbdcrypt check`: the driver's findings under the claims' names."""

from __future__ import annotations

import json
from typing import Any

import pytest

from csi_driver.plugin.checking import MOST_NAMED
from tests.unit.plugin.answers import FIRST
from tests.unit.plugin.answers import SECOND
from tests.unit.plugin.answers import THIRD
from tests.unit.plugin.cluster import Cluster

DAMAGE = {
    "code": "header-missing",
    "wrong": True,
    "meaning": "no LUKS header stands on the image",
    "remedy": "a backup of the header is needed",
}
NOTE = {**DAMAGE, "code": "snapshot-unfinished", "wrong": False}


def answer(volume_id: str, *found: dict[str, Any]) -> dict[str, Any]:
    ok = not any(each["wrong"] for each in found)
    return {"id": volume_id, "name": "pvc-x", "ok": ok, "findings": list(found)}


def test_a_volume_in_order(cluster: Cluster) -> None:
    cluster.claim("data", FIRST)
    cluster.answers(f"volume check {FIRST}", [answer(FIRST, NOTE)])
    done = cluster.run("check", "data")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == [
        "shop/data: in order",
        "  note snapshot-unfinished",
    ]
    assert len(cluster.execs) == 1


def test_something_wrong_is_exit_status_1_in_every_form(cluster: Cluster) -> None:
    cluster.claim("data", FIRST)
    cluster.answers(f"volume check {FIRST}", [answer(FIRST, DAMAGE)], status=1)
    done = cluster.run("check", "data")
    assert done.returncode == 1
    assert not done.stderr
    assert done.stdout.splitlines() == [
        "shop/data: 1 thing is wrong",
        "  WRONG header-missing",
        "    no LUKS header stands on the image.",
        "    What can be done: a backup of the header is needed.",
    ]
    done = cluster.run("check", "data", "-o", "json")
    assert done.returncode == 1
    assert json.loads(done.stdout) == {
        "apiVersion": "kubectl.rbdcrypt.io/v1",
        "kind": "CheckList",
        "items": [
            {
                "namespace": "shop",
                "claim": "data",
                "persistentVolume": "pvc-shop-data",
                "volumeID": FIRST,
                "ok": False,
                "findings": [DAMAGE],
            }
        ],
    }


def test_all_claims_of_a_namespace_are_one_command(cluster: Cluster) -> None:
    cluster.claim("a", FIRST)
    cluster.claim("b", SECOND)
    cluster.claim("c", THIRD, namespace="bank")
    cluster.claim("d", "v1:x", driver="rbd.csi.ceph.com")
    cluster.pending("waiting")
    cluster.answers("volume check", [answer(FIRST), answer(SECOND)])
    done = cluster.run("check", "--all")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["shop/a: in order", "shop/b: in order"]
    (command,) = cluster.execs
    assert command[1:5] == ["volume", "check", FIRST, SECOND]


def test_everywhere_volumes_without_a_claim_are_checked_too(cluster: Cluster) -> None:
    cluster.claim("a", FIRST)
    cluster.claim("c", THIRD, namespace="bank")
    found = [answer(SECOND, DAMAGE), answer(FIRST), answer(THIRD)]
    cluster.answers("volume check --all", found, status=1)
    done = cluster.run("check", "--all", "-A", "-o", "json")
    assert done.returncode == 1
    items = json.loads(done.stdout)["items"]
    assert [(each["claim"], each["volumeID"], each["ok"]) for each in items] == [
        ("c", THIRD, True),
        ("a", FIRST, True),
        (None, SECOND, False),
    ]
    assert "pvc-x: 1 thing is wrong" in cluster.run("check", "--all", "-A").stdout


def test_what_only_kubernetes_can_tell_is_found_as_well(cluster: Cluster) -> None:
    cluster.pending("lost", volume="pvc-gone", phase="Lost")
    cluster.claim("odd", "--secret-file=/etc/passwd")
    done = cluster.run("check", "--all", "-o", "json")
    assert done.returncode == 1, done.stderr
    codes = {
        each["claim"]: [finding["code"] for finding in each["findings"]]
        for each in json.loads(done.stdout)["items"]
    }
    assert codes == {"lost": ["claim-lost"], "odd": ["volume-missing"]}
    # What is no volume id never becomes a word of a command.
    assert "exec" not in [word for call in cluster.calls for word in call]


def test_very_many_claims_are_asked_for_with_all(cluster: Cluster) -> None:
    ids = [f"v1:lab:1::{number:04x}" for number in range(MOST_NAMED + 1)]
    for number, volume_id in enumerate(ids):
        cluster.claim(f"data-{number}", volume_id)
    others = [answer(SECOND, DAMAGE)]
    cluster.answers("volume check --all", [*map(answer, ids), *others], status=1)
    done = cluster.run("check", "--all")
    # Only what the namespace has counts.
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(ids)


def test_a_namespace_without_claims(cluster: Cluster) -> None:
    done = cluster.run("check", "--all")
    assert (done.returncode, done.stdout) == (
        0,
        "no claim of this driver is here; try -A\n",
    )


@pytest.mark.parametrize("field", ["id", "name", "ok", "findings"])
def test_each_field_is_needed(cluster: Cluster, field: str) -> None:
    cluster.claim("data", FIRST)
    whole = answer(FIRST)
    del whole[field]
    cluster.answers("volume check", [whole])
    done = cluster.run("check", "data")
    assert done.returncode == 1
    assert f"lacks the field {field!r}" in done.stderr
