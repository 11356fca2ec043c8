# SPDX-License-Identifier: Apache-2.0
"""Clusters, their monitors, the driver's Ceph user and what it may do there.

Whether the user may write is asked without writing: a compare-and-set that cannot
succeed is refused for lack of rights, or else because it cannot succeed.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import re
import socket
import time
import uuid
from collections.abc import Callable
from collections.abc import Iterator
from typing import Final

from csi_driver.doctor.check import Check
from csi_driver.doctor.check import Examination
from csi_driver.doctor.check import Topic
from csi_driver.domain.clusters import CephUser
from csi_driver.domain.clusters import ClusterConfig
from csi_driver.domain.clusters import Clusters
from csi_driver.domain.errors import ConflictError
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import ForbiddenError
from csi_driver.domain.quantities import show_size
from csi_driver.images.directory import DIRECTORY
from csi_driver.images.directory import Directory
from csi_driver.images.port import Ceph
from csi_driver.images.port import Connector
from csi_driver.images.port import Pool
from csi_driver.images.users import own_user

MONITOR_SECONDS: Final = 2.0
"""For one TCP connection to one monitor."""
_V1_PORT: Final = 6789
_PROBE: Final = "t.doctor"
"""A key that the directory has no use for: it reads by other prefixes."""

_ADDRESS: Final = re.compile(
    r"(?:v[12]:)?(?P<host>\[[0-9a-fA-F:.]+\]|[^\s,:\[\]]+)(?::(?P<port>[0-9]{1,5}))?"
    r"(?:/[0-9]+)?"
)
_CAPS: Final = "caps `profile rbd` for mon, mgr and osd (`ceph auth get client.{user}`)"
_SILENT: Final = (
    "the monitors answer and the OSDs do not: they are down, a placement group is not"
    " active (`ceph health detail`), or the Ceph user has no osd caps at all"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Storage:
    """What is to be looked at; `write` allows one key in each directory."""

    clusters: Clusters
    connector: Connector
    write: bool = False
    user_of: Callable[[ClusterConfig], CephUser] = own_user

    def examinations(self) -> Iterator[Examination]:
        """Go through the looks at every cluster."""
        for config in self.clusters.by_id.values():
            yield Examination(
                Topic("ceph-monitors", config.cluster),
                functools.partial(monitors, config),
            )
            yield Examination(
                Topic("ceph-cluster", config.cluster),
                functools.partial(self._cluster, config),
                late=_SILENT,
            )

    def _cluster(self, config: ClusterConfig) -> Iterator[Check]:
        user = self.user_of(config)
        begin = time.monotonic()
        with contextlib.closing(self.connector.connect(config.cluster, user)) as ceph:
            seconds = time.monotonic() - begin
            yield Topic("ceph-cluster", config.cluster).ok(
                f"answers client.{user.user_id} in {seconds:.2f} s"
            )
            for owned in config.pools:
                for namespace in owned.namespaces:
                    where = f"{owned.name}/{namespace}" if namespace else owned.name
                    topic = Topic("ceph-pool", f"{config.cluster}:{where}")
                    pool = functools.partial(ceph.pool, owned.name, namespace)
                    yield self._place(topic, pool, user.user_id)
            for name in config.data_pools:
                yield from _data_pool(config, ceph, name)

    def _place(self, topic: Topic, opened: Callable[[], Pool], user: str) -> Check:
        try:
            return self._rights(topic, opened(), user)
        except ForbiddenError as error:
            return topic.failed(str(error), _caps(user))
        except DriverError as error:
            return topic.failed(
                str(error), "compare rbdcrypt.pools with `ceph osd lspools`"
            )

    def _rights(self, topic: Topic, pool: Pool, user: str) -> Check:
        Directory(pool).volumes("", 1)
        if not pool.namespace_exists():
            name = pool.location.namespace
            return topic.failed(
                f"there is no RADOS namespace {name!r}",
                f"run `rbd namespace create {pool.pool_name}/{name}`",
            )
        written = ""
        if self.write:
            _write(pool)
            written = ", a key was written and removed"
        elif not _may_write(pool):
            return topic.failed(f"client.{user} may read and not write", _caps(user))
        return _room(topic, pool, f"may be read and written{written}")


def monitors(config: ClusterConfig) -> Iterator[Check]:
    """Look whether each monitor accepts a connection."""
    topic = Topic("ceph-monitors", config.cluster)
    addresses = [each for text in config.monitors for each in parse_addresses(text)]
    if not addresses:
        yield topic.warning(
            f"no address is read from {', '.join(config.monitors)}",
            "write them as host:port, or as [v2:host:port,v1:host:port]",
        )
        return
    with concurrent.futures.ThreadPoolExecutor(len(addresses)) as threads:
        faults = list(threads.map(_unreachable, addresses))
    silent = [
        f"{_spelt(address)} ({fault})"
        for address, fault in zip(addresses, faults, strict=True)
        if fault
    ]
    count = f"{len(addresses) - len(silent)} of {len(addresses)} addresses"
    if not silent:
        yield topic.ok(f"{count} accept connections")
    elif len(silent) < len(addresses):
        yield topic.warning(
            f"{count} accept connections; not {', '.join(silent)}",
            "a monitor is down, or its address has changed (`ceph mon dump`)",
        )
    else:
        yield topic.failed(
            f"no monitor accepts a connection: {', '.join(silent)}",
            "compare the addresses with `ceph mon dump`, and look at routes and"
            " NetworkPolicies between this pod and them",
        )


def parse_addresses(text: str) -> list[tuple[str, int]]:
    """Return host and port of each address in one entry of `monitors`.

    Of the forms that librados takes: host, host:port, v1:host:port, and several
    of them in brackets or with commas.  What is not understood is left out.
    """
    inner = re.sub(r"\[(v[12]:[^\[\]]*(?:\[[^\]]*\][^\[\]]*)*)\]", r"\1", text)
    found = []
    for part in inner.split(","):
        match = _ADDRESS.fullmatch(part.strip())
        if match is not None:
            host = match["host"].removeprefix("[").removesuffix("]")
            found.append((host, int(match["port"] or _V1_PORT)))
    return found


def _unreachable(address: tuple[str, int]) -> str:
    """Return why an address accepts no connection, "" if it does."""
    try:
        with socket.create_connection(address, MONITOR_SECONDS):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def _spelt(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _data_pool(config: ClusterConfig, ceph: Ceph, name: str) -> Iterator[Check]:
    topic = Topic("ceph-data-pool", f"{config.cluster}:{name}")
    try:
        pool = ceph.pool(name)
        yield _room(topic, pool, "exists")
    except DriverError as error:
        yield topic.failed(
            str(error), "compare rbdcrypt.dataPools with `ceph osd lspools`"
        )


def _room(topic: Topic, pool: Pool, found: str) -> Check:
    free = pool.free_bytes()
    text = f"{found}; room for {show_size(free)}"
    if free > 0:
        return topic.ok(text)
    return topic.warning(
        text, "the pool or its quota is full: no volume can be made or written"
    )


def _may_write(pool: Pool) -> bool:
    try:
        pool.swap_entries(DIRECTORY, expect={_PROBE: "never"}, put={_PROBE: "never"})
    except ConflictError:
        return True
    except ForbiddenError:
        return False
    return True


def _write(pool: Pool) -> None:
    key = f"{_PROBE}-{uuid.uuid4()}"
    pool.swap_entries(DIRECTORY, expect={key: None}, put={key: "written"})
    pool.swap_entries(DIRECTORY, expect={key: "written"}, remove=(key,))


def _caps(user: str) -> str:
    return f"give it {_CAPS.format(user=user)}"
