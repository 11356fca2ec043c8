# SPDX-License-Identifier: Apache-2.0
"""The cluster config in its files, while others change theirs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from csi_driver.domain.clusters import Clusters
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.images.cluster_files import read_clusters


class Files:
    """Our config with two clusters, one of which borrows its monitors."""

    def __init__(self, directory: Path) -> None:
        self.own = directory / "config.json"
        self.theirs = directory / "ceph-csi.json"
        user = {"userID": "u", "keyFile": "/k", "pools": [{"name": "rbd"}]}
        own = {"clusterID": "own", "monitors": ["m"], "rbdcrypt": user}
        self.own.write_text(json.dumps([own, {"clusterID": "rook", "rbdcrypt": user}]))
        self.tell("10.0.0.1")

    def tell(self, *monitors: str) -> None:
        """Replace ceph-csi's config, as a mounted ConfigMap is replaced."""
        entries = [{"clusterID": "rook", "monitors": list(monitors)}]
        new = self.theirs.with_suffix(".new")
        new.write_text(json.dumps(entries))
        new.replace(self.theirs)

    def read(self) -> Clusters:
        return read_clusters(self.own, self.theirs)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_monitors_are_followed(files: Files) -> None:
    clusters = files.read()
    assert clusters.get("rook").monitors == ("10.0.0.1",)
    files.tell("10.0.0.2", "10.0.0.3")
    assert clusters.get("rook").monitors == ("10.0.0.2", "10.0.0.3")
    assert clusters.get("own").monitors == ("m",)
    assert [each.cluster for each in clusters.by_id.values()] == ["own", "rook"]
    assert set(clusters.by_id) == {"own", "rook"}


def test_a_file_that_is_changed_in_place_is_followed_too(files: Files) -> None:
    clusters = files.read()
    text = files.theirs.read_text().replace("10.0.0.1", "10.0.0.10")
    files.theirs.write_text(text)
    assert clusters.get("rook").monitors == ("10.0.0.10",)


@pytest.mark.parametrize("damage", ["", "[]", "{}", None, '[{"clusterID": "rook"}]'])
def test_what_was_known_stays_while_the_file_is_unsound(
    files: Files, damage: str | None
) -> None:
    clusters = files.read()
    if damage is None:
        files.theirs.unlink()
    else:
        files.theirs.write_text(damage)
    for _ in range(2):
        assert clusters.get("rook").monitors == ("10.0.0.1",)
    files.tell("10.0.0.4")
    assert clusters.get("rook").monitors == ("10.0.0.4",)


def test_a_cluster_that_is_not_configured_stays_unknown(files: Files) -> None:
    clusters = files.read()
    with pytest.raises(InvalidRequestError, match="known are own, rook"):
        clusters.get("other")


def test_our_own_file_is_read_once(files: Files) -> None:
    clusters = files.read()
    files.own.unlink()
    assert clusters.get("own").monitors == ("m",)


def test_both_files_are_named_when_a_cluster_lacks_monitors(files: Files) -> None:
    files.tell()
    with pytest.raises(InvalidRequestError, match=r"'rook'.*none for it") as caught:
        files.read()
    assert str(files.own) in str(caught.value)
    assert str(files.theirs) in str(caught.value)


@pytest.mark.parametrize("name", ["own", "theirs"])
def test_a_file_that_cannot_be_read_is_named(files: Files, name: str) -> None:
    path: Path = getattr(files, name)
    path.write_bytes(b"\xff")
    with pytest.raises(InvalidRequestError, match=f"{path} is not UTF-8"):
        files.read()
    path.unlink()
    with pytest.raises(InvalidRequestError, match=f"{path} cannot be read: No such"):
        files.read()
