# SPDX-License-Identifier: Apache-2.0
"""The cluster config: ceph-csi's form, the driver's own part, and its mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_driver.domain.clusters import CephUser
from csi_driver.domain.clusters import OwnedPool
from csi_driver.domain.clusters import parse_clusters
from csi_driver.domain.clusters import parse_monitors
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
        ([config(rbdcrypt=None)], "cluster 0 .'lab'.*no JSON object"),
        ([{"clusterID": "a", "monitors": ["m"]}], "'a'.*it has no 'rbdcrypt'"),
        ([own(userIDFile="/etc/id")], "'lab'.*one of userID and userIDFile.*both"),
        ([own(userID=1)], "userID"),
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


def without(*names: str, **changes: Any) -> dict[str, Any]:
    """Return a config whose `rbdcrypt` lacks some keys and has others."""
    own = {**config()["rbdcrypt"], **changes}
    kept = {name: value for name, value in own.items() if name not in names}
    return config(rbdcrypt=kept)


def test_the_user_s_id_may_stand_in_a_file() -> None:
    entry = without("userID", userIDFile="/etc/ceph/userID")
    assert parse_clusters(json.dumps([entry])).get("lab").user_id == Path(
        "/etc/ceph/userID"
    )


def test_a_user_without_an_id_is_named_with_its_cluster() -> None:
    with pytest.raises(InvalidRequestError, match=r"'lab'.*userIDFile.*neither"):
        parse_clusters(json.dumps([without("userID")]))


ROOK = [
    {"clusterID": "new", "monitors": []},
    {
        "clusterID": "rook-ceph",
        "monitors": ["10.1.0.1:6789", "10.1.0.2:6789"],
        "namespace": "rook-ceph",
        "rbd": {"radosNamespace": "x", "netNamespaceFilePath": ""},
        "readAffinity": {"enabled": False},
    },
    {"clusterID": "rook-ceph", "monitors": ["10.9.9.9"]},
    {"clusterID": "old", "monitors": None},
]


def borrowing(cluster: str) -> str:
    entry = config(clusterID=cluster)
    del entry["monitors"]
    return json.dumps([entry, config()])


def test_monitors_are_borrowed_from_ceph_csi_where_there_are_none() -> None:
    monitors = parse_monitors(json.dumps(ROOK))
    clusters = parse_clusters(borrowing("rook-ceph"), monitors)
    found = clusters.get("rook-ceph")
    assert found.monitors == ("10.1.0.1:6789", "10.1.0.2:6789")
    assert found.borrowed
    own = clusters.get("lab")
    assert own.monitors == ("10.0.0.1:6789", "m2"), "its own come first"
    assert not own.borrowed


@pytest.mark.parametrize(
    ("cluster", "rook", "why"),
    [
        ("new", ROOK, "'new'.*no 'monitors', and ceph-csi's config has none for it"),
        ("old", ROOK, "'old'.*none for it either"),
        ("gone", ROOK, "'gone'.*only knows 'new', 'old', 'rook-ceph'"),
        ("gone", [], "'gone'.*is empty"),
        ("gone", None, "'gone'.*no config of ceph-csi is named"),
    ],
)
def test_a_cluster_without_monitors_is_named(
    cluster: str, rook: object, why: str
) -> None:
    borrowed = None if rook is None else parse_monitors(json.dumps(rook))
    with pytest.raises(InvalidRequestError, match=why):
        parse_clusters(borrowing(cluster), borrowed)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("nonsense", "ceph-csi's config is not JSON"),
        ("{}", "ceph-csi's config must be"),
        ("[1]", "cluster 0 of ceph-csi's config"),
        ('[{"monitors": ["m"]}]', "cluster 0 of ceph-csi's config: it has no 'clus"),
        ('[{"clusterID": "a", "monitors": "m"}]', "0 .'a'. of ceph-csi's.*monitors"),
        ('[{"clusterID": "a", "monitors": [1]}]', "0 .'a'. of ceph-csi's.*monitors"),
    ],
)
def test_mistakes_in_ceph_csi_s_config_are_pointed_at(text: str, why: str) -> None:
    with pytest.raises(InvalidRequestError, match=why):
        parse_monitors(text)


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
