# SPDX-License-Identifier: Apache-2.0
"""The driver's own Ceph user, as its files say now.

They are read at each connect: mounted from a Secret, they change under a running
process when the key is rotated, and Rook then makes a user of another name, too.

Apart from `ceph`, so that a process which only passes the key on, such as the
datapath's supervisor, does not load librados for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from csi_driver.domain.clusters import CephUser
from csi_driver.domain.clusters import ClusterConfig
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.secrets import SecretBytes

_ATTEMPTS: Final = 3


def own_user(config: ClusterConfig) -> CephUser:
    """Return the driver's own Ceph user, id and key of the same moment.

    UnavailableError if a file cannot be read, or holds no user id.
    """
    user_id = _user_id(config)
    for _ in range(_ATTEMPTS):
        key = _read(config, "key", config.key_file)
        before, user_id = user_id, _user_id(config)
        # kubelet replaces all files of a Secret in one step.
        if before == user_id:
            return CephUser(user_id, SecretBytes(key.strip()))
    message = (
        f"the Ceph user of cluster {config.cluster!r} in {config.user_id} and"
        f" {config.key_file} changes all the time"
    )
    raise UnavailableError(message)


def stamp(config: ClusterConfig) -> tuple[tuple[int, int, int], ...] | None:
    """Return what differs once another user or key is in the files.

    None while one of them is missing.
    """
    paths = [Path(config.key_file)]
    if isinstance(config.user_id, Path):
        paths.append(config.user_id)
    try:
        found = [path.stat() for path in paths]
    except OSError:
        return None
    return tuple((each.st_ino, each.st_mtime_ns, each.st_size) for each in found)


def _user_id(config: ClusterConfig) -> str:
    if isinstance(config.user_id, str):
        return config.user_id
    content = _read(config, "user id", config.user_id).strip()
    text = content.decode("utf-8", "replace")
    if not text.isascii() or not text.isprintable() or len(text.split()) != 1:
        message = (
            f"{config.user_id} holds no Ceph user id for cluster {config.cluster!r}:"
            f" expected one word without 'client.', found {len(content)} bytes"
        )
        raise UnavailableError(message)
    return text


def _read(config: ClusterConfig, what: str, path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        whose = (
            f" of client.{config.user_id}" if isinstance(config.user_id, str) else ""
        )
        message = (
            f"the cephx {what}{whose} for cluster {config.cluster!r} cannot be read"
            f" from {path}: {error.strerror}"
        )
        raise UnavailableError(message) from error
