# SPDX-License-Identifier: Apache-2.0
"""Connecting as other users: wrong and malformed keys, and what is printed."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
from pathlib import Path

import pytest

from csi_driver.domain.clusters import CephUser
from csi_driver.domain.clusters import parse_clusters
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.secrets import SecretBytes
from csi_driver.images.ceph import CephConnector
from csi_driver.images.ceph import connect
from csi_driver.images.probe import probe_library
from csi_driver.images.users import own_user
from tests.ceph.images.cluster_settings import cluster_setting
from tests.ceph.images.conftest import Lab
from tests.contract.images.worlds import NAMESPACE
from tests.contract.images.worlds import POOL

STRANGER = base64.b64encode(bytes.fromhex("0100aaaaaaaa000000001000") + bytes(16))
KEYS = {
    "of somebody else": STRANGER,
    "cut": STRANGER[:-4],
    "longer": base64.b64encode(base64.b64decode(STRANGER) + b"xxxx"),
    "of another type": base64.b64encode(b"\x09" + base64.b64decode(STRANGER)[1:]),
    "no base64": b"this-is-not-a-key",
    "newline inside": STRANGER[:8] + b"\n" + STRANGER[8:],
    "no text": b"\xff\xfe\x00",
    "empty": b"",
}


@pytest.mark.parametrize("what", KEYS)
def test_a_key_that_does_not_open_is_a_secret_error(
    lab: Lab,
    what: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    text = (lab.world.conf.parent / "config.json").read_text()
    config = parse_clusters(text).get("lab")
    with pytest.raises(SecretError, match="key of client") as caught:
        connect(config, CephUser("rbdcrypt", SecretBytes(KEYS[what])))
    shown = "".join(capfd.readouterr()) + str(caught.value)
    if KEYS[what]:
        assert KEYS[what].decode("latin-1") not in shown


def test_operations_have_no_timeout_whatever_all_clients_are_told(lab: Lab) -> None:
    """A change that is told to have failed, and was carried out, misleads."""
    with cluster_setting("rados_osd_op_timeout", "1234") as administrator:
        assert administrator.conf_get("rados_osd_op_timeout") == "1234"
        text = (lab.world.conf.parent / "config.json").read_text()
        config = parse_clusters(text).get("lab")
        with contextlib.closing(connect(config, own_user(config))) as ceph:
            assert ceph._instance.conf_get("rados_osd_op_timeout") == "0"


def test_an_unknown_user_is_a_secret_error(lab: Lab) -> None:
    user = CephUser("nobody", SecretBytes(STRANGER))
    with pytest.raises(SecretError, match=r"client\.nobody"):
        lab.world.connector.connect("lab", user)


def test_a_missing_key_file_is_named(lab: Lab) -> None:
    clusters = parse_clusters((lab.world.conf.parent / "config.json").read_text())
    config = dataclasses.replace(clusters.get("lab"), key_file="/nonexistent/key")
    changed = dataclasses.replace(clusters, by_id={"lab": config})
    with pytest.raises(UnavailableError, match="/nonexistent/key"):
        CephConnector(changed).connect("lab")


def test_refused_connections_leave_no_threads(lab: Lab) -> None:
    before = _threads()
    for _ in range(3):
        with pytest.raises(DriverError):
            lab.world.connector.connect("lab", CephUser("x", SecretBytes(STRANGER)))
    assert _threads() <= before


def _threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def test_this_machines_librbd_is_good_enough() -> None:
    probe_library()


def test_a_long_lived_connection_opens_each_pool_once(lab: Lab) -> None:
    """The collector asks every few seconds, for months."""
    first = lab.ceph.pool(POOL, NAMESPACE)
    assert lab.ceph.pool(POOL, NAMESPACE) is first
    assert lab.ceph.pool_at(first.location) is first
    assert lab.ceph.pool(POOL) is not first
    assert lab.ceph.pool(POOL).location.namespace == ""
