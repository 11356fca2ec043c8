# SPDX-License-Identifier: Apache-2.0
"""The cluster config read from its files, and ceph-csi's followed as it changes.

The driver's own file is read once.  Where monitors come from ceph-csi's or Rook's
file, that one is looked at whenever a cluster is asked for: Rook replaces failed
monitors, under other addresses, within the life of a process.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path

import structlog

from csi_driver.domain.clusters import ClusterConfig
from csi_driver.domain.clusters import Clusters
from csi_driver.domain.clusters import Monitors
from csi_driver.domain.clusters import parse_clusters
from csi_driver.domain.clusters import parse_monitors
from csi_driver.domain.errors import InvalidRequestError

_log = structlog.get_logger(__name__)


def read_clusters(own: Path, ceph_csi: Path | None = None) -> Clusters:
    """Read the clusters; InvalidRequestError names the file and what is wrong."""
    followed = None if ceph_csi is None else _Followed(ceph_csi)
    text = _text(own, "the cluster config")
    try:
        clusters = parse_clusters(text, followed.monitors if followed else None)
    except InvalidRequestError as error:
        files = f"{own}" if ceph_csi is None else f"{own}, {ceph_csi}"
        raise InvalidRequestError(f"{error} ({files})") from error
    if followed is None:
        return clusters
    return Clusters(_Current(clusters.by_id, followed))


class _Current(Mapping[str, ClusterConfig]):
    """The configured clusters with the monitors that they have now."""

    def __init__(self, by_id: Mapping[str, ClusterConfig], followed: _Followed) -> None:
        self._by_id = by_id
        self._followed = followed

    def __getitem__(self, cluster: str) -> ClusterConfig:
        config = self._by_id[cluster]
        if not config.borrowed:
            return config
        monitors = self._followed.current().get(cluster) or config.monitors
        return dataclasses.replace(config, monitors=monitors)

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_id)

    def __len__(self) -> int:
        return len(self._by_id)


class _Followed:
    """The monitors in a file that others change; for any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._stamp = _stamp(path)
        self.monitors = self._read()

    def current(self) -> Monitors:
        """Return them as the file says now, or as it last said something sound.

        A cluster that has lost its monitors keeps those it had.
        """
        with self._lock:
            found = _stamp(self._path)
            if found == self._stamp:
                return self.monitors
            self._stamp = found
            try:
                self.monitors = {**self.monitors, **_known(self._read())}
            except InvalidRequestError as error:
                _log.error("monitors stay as they were", reason=str(error))
            else:
                _log.info("monitors read again", file=str(self._path))
            return self.monitors

    def _read(self) -> Monitors:
        text = _text(self._path, "ceph-csi's config")
        try:
            return parse_monitors(text)
        except InvalidRequestError as error:
            raise InvalidRequestError(f"{error} ({self._path})") from error


def _known(monitors: Monitors) -> Monitors:
    return {cluster: each for cluster, each in monitors.items() if each}


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _text(path: Path, title: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        message = f"{title} {path} cannot be read: {error.strerror}"
        raise InvalidRequestError(message) from error
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"{title} {path} is not UTF-8") from error
