# SPDX-License-Identifier: Apache-2.0
"""Clusters, monitors and pools, on the fake and on sockets of this test."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
from collections.abc import Iterator

import pytest

from csi_driver.doctor.check import Check
from csi_driver.doctor.check import Status
from csi_driver.doctor.check import examine
from csi_driver.doctor.storage import Storage
from csi_driver.doctor.storage import monitors
from csi_driver.doctor.storage import parse_addresses
from csi_driver.domain.clusters import CephUser
from csi_driver.domain.clusters import ClusterConfig
from csi_driver.domain.clusters import Clusters
from csi_driver.domain.clusters import OwnedPool
from csi_driver.domain.secrets import SecretBytes
from csi_driver.images.directory import DIRECTORY
from csi_driver.testing.ceph_fake import FakeConnector
from csi_driver.testing.ceph_fake_store import FakeStore


def config(*pools: OwnedPool, monitors: tuple[str, ...] = ("x:1",)) -> ClusterConfig:
    return ClusterConfig("lab", monitors, "rbdcrypt", "/key", pools)


@pytest.fixture
def store() -> FakeStore:
    return FakeStore(("lab",), {"rbd": ("", "tenant"), "ec": ("",)})


def looked(
    store: FakeStore, cluster: ClusterConfig, *, write: bool = False
) -> list[Check]:
    """Return what is found of a cluster, without its monitors."""
    work = Storage(
        Clusters({"lab": cluster}),
        FakeConnector(store),
        write,
        lambda _: CephUser("rbdcrypt", SecretBytes(b"key")),
    )
    _, second = work.examinations()
    return list(examine([second]).checks)


def test_a_cluster_in_order(store: FakeStore) -> None:
    found = looked(
        store,
        dataclasses.replace(
            config(OwnedPool("rbd", ("", "tenant"))), data_pools=("ec",)
        ),
    )
    assert [(each.name, each.subject, each.status) for each in found] == [
        ("ceph-cluster", "lab", "ok"),
        ("ceph-pool", "lab:rbd", "ok"),
        ("ceph-pool", "lab:rbd/tenant", "ok"),
        ("ceph-data-pool", "lab:ec", "ok"),
    ]
    assert "may be read and written" in found[1].found


def content(store: FakeStore) -> dict[str, dict[str, str]]:
    pool = store.clusters["lab"].pools[1]
    return {name: dict(omap) for name, omap in pool.namespaces[""].omaps.items()}


@pytest.mark.parametrize("write", [False, True])
def test_nothing_is_left_behind(store: FakeStore, write: bool) -> None:
    pool = FakeConnector(store).connect("lab").pool("rbd")
    pool.swap_entries(DIRECTORY, expect={}, put={"v.x": "y"})
    before = content(store)
    _, check = looked(store, config(OwnedPool("rbd")), write=write)
    assert ("was written and removed" in check.found) is write
    assert content(store) == before


@pytest.mark.parametrize(
    ("pool", "found", "remedy"),
    [
        (OwnedPool("backup"), "has no pool 'backup'", "ceph osd lspools"),
        (
            OwnedPool("rbd", ("shop",)),
            "there is no RADOS namespace 'shop'",
            "rbd namespace create rbd/shop",
        ),
    ],
)
def test_a_place_that_is_not_there(
    store: FakeStore, pool: OwnedPool, found: str, remedy: str
) -> None:
    _, check = looked(store, config(pool))
    assert check.status is Status.FAILED
    assert found in check.found
    assert remedy in check.remedy


def test_one_bad_place_does_not_hide_the_others(store: FakeStore) -> None:
    found = looked(store, config(OwnedPool("backup"), OwnedPool("rbd")))
    assert [each.status for each in found] == ["ok", "failed", "ok"]


def test_a_data_pool_that_is_not_there(store: FakeStore) -> None:
    cluster = dataclasses.replace(config(OwnedPool("rbd")), data_pools=("gone",))
    check = looked(store, cluster)[-1]
    assert (check.name, check.status) == ("ceph-data-pool", Status.FAILED)
    assert "rbdcrypt.dataPools" in check.remedy


def test_a_full_pool_is_a_warning(store: FakeStore) -> None:
    store.clusters["lab"].pools[1].capacity = 0
    _, check = looked(store, config(OwnedPool("rbd")))
    assert check.status is Status.WARNING
    assert "no volume can be made" in check.remedy


@pytest.mark.parametrize("switch", ["unreachable", "key_refused"])
def test_a_cluster_that_lets_nobody_in(store: FakeStore, switch: str) -> None:
    setattr(store.clusters["lab"], switch, True)
    (check,) = looked(store, config(OwnedPool("rbd")))
    assert (check.name, check.status) == ("ceph-cluster", Status.FAILED)


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("192.0.2.1", [("192.0.2.1", 6789)]),
        ("192.0.2.1:3300", [("192.0.2.1", 3300)]),
        ("mon.example.com:6789", [("mon.example.com", 6789)]),
        ("v2:192.0.2.1:3300", [("192.0.2.1", 3300)]),
        ("v2:192.0.2.1:3300/0", [("192.0.2.1", 3300)]),
        (
            "[v2:192.0.2.1:3300/0,v1:192.0.2.1:6789/0]",
            [("192.0.2.1", 3300), ("192.0.2.1", 6789)],
        ),
        (
            "[v2:[2001:db8::1]:3300,v1:[2001:db8::1]:6789]",
            [("2001:db8::1", 3300), ("2001:db8::1", 6789)],
        ),
        ("[2001:db8::1]:3300", [("2001:db8::1", 3300)]),
        ("a, b:3300", [("a", 6789), ("b", 3300)]),
        ("", []),
        ("a b", []),
    ],
)
def test_addresses_as_librados_takes_them(
    text: str, addresses: list[tuple[str, int]]
) -> None:
    assert parse_addresses(text) == addresses


@contextlib.contextmanager
def listening() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def silent() -> str:
    """Return an address at which nobody listens."""
    with listening() as address:
        return address


def test_monitors_are_looked_at_one_by_one() -> None:
    with listening() as good:
        (check,) = monitors(config(monitors=(good,)))
        assert check.status is Status.OK
        bad = silent()
        (check,) = monitors(config(monitors=(good, bad)))
    assert check.status is Status.WARNING
    assert f"1 of 2 addresses accept connections; not {bad}" in check.found
    (check,) = monitors(config(monitors=(bad,)))
    assert check.status is Status.FAILED
    assert "Connection refused" in check.found


def test_addresses_that_nobody_understands() -> None:
    (check,) = monitors(config(monitors=("a b",)))
    assert check.status is Status.WARNING
    assert "a b" in check.found


def test_a_monitor_that_says_nothing_is_given_two_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def connect(address: tuple[str, int], seconds: float) -> None:
        asked.append(seconds)
        message = "timed out"
        raise TimeoutError(message)

    monkeypatch.setattr(socket, "create_connection", connect)
    (check,) = monitors(config(monitors=("192.0.2.1",)))
    assert "192.0.2.1:6789 (timed out)" in check.found
    assert asked == [2.0]
