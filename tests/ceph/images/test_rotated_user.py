# SPDX-License-Identifier: Apache-2.0
"""The driver's Ceph user replaced under a running process, as Rook does it."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from csi_driver.domain.errors import SecretError
from csi_driver.images.ceph import CephConnector
from csi_driver.images.cluster_files import read_clusters
from csi_driver.images.connections import SharedConnections
from tests.ceph.images.conftest import Lab
from tests.contract.images.worlds import POOL


def ceph(*words: str) -> str:
    done = subprocess.run(
        ["ceph", *words], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class Installation:
    """An installed ceph-csi: its config, and its user's Secret as files."""

    def __init__(self, directory: Path, monitors: list[str]) -> None:
        self.directory = directory
        self.users: list[str] = []
        self.own = directory / "config.json"
        self.theirs = directory / "ceph-csi.json"
        user = {
            "userIDFile": str(directory / "userID"),
            "keyFile": str(directory / "userKey"),
            "pools": [{"name": POOL}],
        }
        self.own.write_text(json.dumps([{"clusterID": "rook", "rbdcrypt": user}]))
        entry = {"clusterID": "rook", "monitors": monitors, "rbd": {}}
        self.theirs.write_text(json.dumps([entry]))
        self.new_user()

    def new_user(self) -> None:
        """Make a user of another name and put it into the Secret."""
        name = f"csi-{uuid.uuid4().hex[:8]}"
        self.users.append(name)
        caps = ("mon", "profile rbd", "mgr", "profile rbd", "osd", "profile rbd")
        ceph("auth", "get-or-create", f"client.{name}", *caps)
        for file, content in (
            ("userID", name),
            ("userKey", ceph("auth", "print-key", f"client.{name}")),
        ):
            (self.directory / file).write_text(content)

    def remove(self, name: str) -> None:
        ceph("auth", "rm", f"client.{name}")


@pytest.fixture
def installation(lab: Lab, tmp_path: Path) -> Iterator[Installation]:
    config = json.loads((lab.world.conf.parent / "config.json").read_text())
    made = Installation(tmp_path, config[0]["monitors"])
    yield made
    for name in made.users:
        made.remove(name)


def test_the_user_of_an_installed_ceph_csi_is_taken_and_followed(
    installation: Installation,
) -> None:
    clusters = read_clusters(installation.own, installation.theirs)
    connector = CephConnector(clusters)
    shared = SharedConnections(connector, clusters)
    try:
        with shared.pool("rook", POOL) as first:
            assert first.find_image("no such image") is None
        with shared.pool("rook", POOL) as pool:
            assert pool is first, "the same connection"
        installation.new_user()
        installation.remove(installation.users[0])
        with shared.pool("rook", POOL) as pool:
            assert pool is not first
            assert pool.find_image("no such image") is None
        connection = connector.connect("rook")
        connection.close()
    finally:
        shared.close()


def test_a_user_that_ceph_does_not_have_is_named(installation: Installation) -> None:
    (installation.directory / "userID").write_text("nobody")
    clusters = read_clusters(installation.own, installation.theirs)
    with pytest.raises(SecretError, match=r"'rook'.*client\.nobody"):
        CephConnector(clusters).connect("rook")
