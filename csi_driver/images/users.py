# SPDX-License-Identifier: Apache-2.0
"""The driver's own Ceph user.

Apart from `ceph`, so that a process which only passes the key on, such as the
datapath's supervisor, does not load librados for it.
"""

from __future__ import annotations

from pathlib import Path

from csi_driver.domain.clusters import CephUser
from csi_driver.domain.clusters import ClusterConfig
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.secrets import SecretBytes


def own_user(config: ClusterConfig) -> CephUser:
    """Return the driver's own Ceph user, its key read from its file.

    UnavailableError if the file cannot be read.
    """
    try:
        key = SecretBytes(Path(config.key_file).read_bytes().strip())
    except OSError as error:
        message = (
            f"the cephx key of client.{config.user_id} for cluster"
            f" {config.cluster!r} cannot be read from {config.key_file}:"
            f" {error.strerror}"
        )
        raise UnavailableError(message) from error
    return CephUser(config.user_id, key)
