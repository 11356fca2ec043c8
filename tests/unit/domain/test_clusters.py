# SPDX-License-Identifier: Apache-2.0
"""The cluster config: ceph-csi's form, the driver's own part, and its mistakes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_driver.domain.clusters import CephUser
from csi_driver.domain.clusters import OwnedPool
from csi_driver.domain.clusters import parse_clusters
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.secrets import SecretBytes


def config(**changes: Any) -> dict[str, Any]:
    own = {
        "userID": "rbdcrypt",
        "keyFile": "/etc/key",
        "pools": [{"name": "rbd", "namespaces": ["", "tenant"]}, {"name": "rbd2"}],
    }
    entry: dict[str, Any] = {"clusterID": "lab", "monitors": ["10.0.0.1:6789", "m2"]}
    return {**entry, "rbdcrypt": own, **changes}


def own(**changes: Any) -> dict[str, Any]:
    return config(rbdcrypt={**config()["rbdcrypt"], **changes})


def test_a_config_is_read() -> None:
    extra = config(clusterID="other", cephFS={"subvolumeGroup": "csi"})
    clusters = parse_clusters(json.dumps([config(), extra]))
    lab = clusters.get("lab")
    assert lab.monitors == ("10.0.0.1:6789", "m2")
    assert (lab.user_id, lab.key_file) == ("rbdcrypt", "/etc/key")
    assert lab.pools == (OwnedPool("rbd", ("", "tenant")), OwnedPool("rbd2", ("",)))
    assert clusters.get("other").cluster == "other"


def test_an_unknown_cluster_lists_the_known_ones() -> None:
    clusters = parse_clusters(json.dumps([config(), config(clusterID="b")]))
    with pytest.raises(InvalidRequestError, match="known are b, lab"):
        clusters.get("c")


@pytest.mark.parametrize(
    ("pool", "namespace"),
    [("rbd", "other"), ("rbd2", "tenant"), ("nope", ""), ("", ""), ("RBD", "")],
)
def test_places_that_are_not_the_drivers(pool: str, namespace: str) -> None:
    lab = parse_clusters(json.dumps([config()])).get("lab")
    for owned in lab.pools:
        for each in owned.namespaces:
            lab.require(owned.name, each)
    with pytest.raises(InvalidRequestError, match="rbd, rbd/tenant, rbd2"):
        lab.require(pool, namespace)


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ([], "non-empty array"),
        ({}, "non-empty array"),
        (None, "non-empty array"),
        (["lab"], "cluster 0"),
        ([None], "cluster 0"),
        ([[]], "cluster 0"),
        ([config(), config()], "twice"),
        ([config(clusterID="")], "clusterID"),
        ([config(clusterID=7)], "clusterID"),
        ([config(clusterID="x" * 37)], "36 characters"),
        ([config(monitors=[])], "monitors"),
        ([config(monitors="10.0.0.1")], "monitors"),
        ([config(monitors=[""])], "monitors"),
        ([config(monitors=[1])], "monitors"),
        ([config(monitors=None)], "monitors"),
        ([config(rbdcrypt=None)], "cluster 0"),
        ([{"clusterID": "a", "monitors": ["m"]}], "rbdcrypt"),
        ([own(userID="")], "userID"),
        ([own(keyFile=None)], "keyFile"),
        ([own(pools=[])], "pools"),
        ([own(pools=["rbd"])], "cluster 0"),
        ([own(pools=[{}])], "name"),
        ([own(pools=[{"name": "rbd", "namespaces": "tenant"}])], "namespaces"),
        ([own(pools=[{"name": "rbd", "namespaces": []}])], "namespaces"),
        ([own(pools=[{"name": "rbd", "namespaces": [None]}])], "namespaces"),
    ],
)
def test_mistakes_are_pointed_at(entries: object, why: str) -> None:
    with pytest.raises(InvalidRequestError, match=why):
        parse_clusters(json.dumps(entries))


@given(st.text())
def test_what_is_no_json_is_said_to_be_none(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        parse_clusters(text)


def test_deep_nesting_is_no_json_either() -> None:
    with pytest.raises(InvalidRequestError, match="not JSON"):
        parse_clusters("[" * 200_000)


def test_a_users_key_is_not_shown() -> None:
    user = CephUser("admin", SecretBytes(b"canary"))
    assert "canary" not in f"{user} {user!r}"


def test_data_pools_stand_beside_the_others() -> None:
    lab = parse_clusters(json.dumps([own(dataPools=["ec"])])).get("lab")
    assert lab.data_pools == ("ec",)
    lab.require_data_pool("ec")
    lab.require_data_pool("rbd2")
    with pytest.raises(InvalidRequestError, match=r"'nvme'.*: ec, rbd, rbd2"):
        lab.require_data_pool("nvme")
    with pytest.raises(InvalidRequestError):
        lab.require("ec", "")  # not a place for volumes


@pytest.mark.parametrize("pools", ["ec", [], [1], None])
def test_malformed_data_pools(pools: Any) -> None:
    with pytest.raises(InvalidRequestError, match="dataPools"):
        parse_clusters(json.dumps([own(dataPools=pools)]))
