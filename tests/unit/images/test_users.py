# SPDX-License-Identifier: Apache-2.0
"""The driver's own Ceph user, out of files that change."""

from __future__ import annotations

from pathlib import Path

import pytest

from csi_driver.domain.clusters import ClusterConfig
from csi_driver.domain.errors import UnavailableError
from csi_driver.images import users
from csi_driver.images.users import own_user
from csi_driver.images.users import stamp


class Mounted:
    """A Secret mounted as kubelet does it: one link leads to all its files."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._count = 0
        self.replace("rbdcrypt", "key-1")
        for name in ("userID", "userKey"):
            (directory / name).symlink_to(f"..data/{name}")

    def replace(self, user_id: str, key: str) -> None:
        self._count += 1
        new = self._directory / f"..{self._count}"
        new.mkdir()
        (new / "userID").write_text(user_id)
        (new / "userKey").write_text(key)
        link = self._directory / "..data.new"
        link.symlink_to(new.name)
        link.replace(self._directory / "..data")

    @property
    def config(self) -> ClusterConfig:
        files = (self._directory / "userID", str(self._directory / "userKey"))
        return ClusterConfig("rook", ("m",), *files, ())


@pytest.fixture
def mounted(tmp_path: Path) -> Mounted:
    return Mounted(tmp_path)


def found(config: ClusterConfig) -> tuple[str, bytes]:
    user = own_user(config)
    return user.user_id, bytes(user.key.reveal())


def test_id_and_key_are_read_each_time(mounted: Mounted) -> None:
    assert found(mounted.config) == ("rbdcrypt", b"key-1")
    mounted.replace("rbdcrypt.1\n", "key-2\n")
    assert found(mounted.config) == ("rbdcrypt.1", b"key-2")


def test_an_id_in_the_config_needs_no_file(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("key\n")
    config = ClusterConfig("lab", ("m",), "rbdcrypt", str(key), ())
    assert found(config) == ("rbdcrypt", b"key")


def test_id_and_key_are_of_the_same_moment(
    mounted: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Secret is replaced between the reading of the two."""
    read = users._read
    replaced: list[str] = []

    def interrupted(config: ClusterConfig, what: str, path: str | Path) -> bytes:
        if what == "key" and not replaced:
            replaced.append(what)
            mounted.replace("rbdcrypt.1", "key-2")
        return read(config, what, path)

    monkeypatch.setattr(users, "_read", interrupted)
    assert found(mounted.config) == ("rbdcrypt.1", b"key-2")


@pytest.mark.parametrize("text", ["", "\n", "two words", "a\0b", "\N{SNOWMAN}"])
def test_a_file_without_an_id_is_named(mounted: Mounted, text: str) -> None:
    mounted.replace(text, "the key itself")
    with pytest.raises(UnavailableError, match=r"userID holds no.*'rook'") as caught:
        own_user(mounted.config)
    assert "the key itself" not in str(caught.value)


def test_missing_files_are_named(tmp_path: Path) -> None:
    config = ClusterConfig("lab", ("m",), tmp_path / "id", str(tmp_path / "key"), ())
    with pytest.raises(UnavailableError, match=r"user id for cluster 'lab'.*/id: No"):
        own_user(config)
    assert stamp(config) is None
    (tmp_path / "id").write_text("u")
    with pytest.raises(UnavailableError, match=r"key for cluster 'lab'.*/key: No"):
        own_user(config)
    assert stamp(config) is None


def test_the_stamp_differs_once_the_secret_was_replaced(mounted: Mounted) -> None:
    first = stamp(mounted.config)
    assert first is not None
    assert stamp(mounted.config) == first
    mounted.replace("rbdcrypt", "key-2")
    assert stamp(mounted.config) not in {None, first}
