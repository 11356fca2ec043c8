# SPDX-License-Identifier: Apache-2.0
"""A single-node Ceph for tests: monitor, manager, one OSD, all on one address.

Runs inside a prepared root.  All keys are made beforehand and given to the
monitor at its creation, and everything else goes through librados: the `ceph`
command takes half a second each time, a binding a few milliseconds.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
import uuid
from typing import TYPE_CHECKING
from typing import Any

from labtools import processes
from labtools import shell
from labtools.processes import Process

if TYPE_CHECKING:
    from pathlib import Path

    from labtools.places import Lab

POOLS = {"rbd": ("tenant",), "rbd2": ()}
"""Pools of the driver, each with its RADOS namespaces beside the default one."""
USER = "rbdcrypt"
"""The driver's own Ceph user."""
_DAEMONS = ("mon", "osd", "mgr")
_IDS = {"mon": "a", "osd": "0", "mgr": "x"}
_WAIT = 120.0
_MONITOR_PORT = 3300
"""Where users, and clients that are told no port, expect a monitor."""

_CONF = """\
[global]
fsid = {fsid}
mon host = {monitor}
mon initial members = a
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
auth allow insecure global id reclaim = false
keyring = {etc}/ceph.$name.keyring
log file = {log}/$cluster-$name.log
admin socket = /run/ceph/$cluster-$name.asok
pid file =
run dir = /run/ceph
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon allow pool delete = true
mon warn on pool no redundancy = false
mon data = {data}/mon
mgr data = {data}/mgr
osd data = {data}/osd

[mon]
keyring = {data}/mon.keyring
# Ceph waits 1 s to gather proposals; a lab has nobody else to wait for.
paxos propose interval = {propose}
mon data avail warn = 1
mon data avail crit = 0

[mgr]
keyring = {data}/mgr.keyring
public addr = {address}
mgr initial modules =

[osd]
keyring = {data}/osd.keyring
public addr = {address}
cluster addr = {address}
# Relative in Debian's build, which only works when started in /.
osd class dir = /usr/lib/{machine}-linux-gnu/rados-classes
# Host names of containers are not always valid there.
crush location = root=default host=lab
osd memory target = 1073741824
osd objectstore = {store}
bluestore block size = 34359738368
bluestore fsck on mount = false
memstore device bytes = 8589934592

[client]
# Several clients live in one process and would fight for one path.
admin socket =
log file =
client mount timeout = 30
"""


def _free_port(address: str) -> int:
    """Return the usual port of a monitor, or another one if that is taken."""
    with socket.socket() as probe:
        try:
            probe.bind((address, _MONITOR_PORT))
        except OSError:
            with socket.socket() as other:
                other.bind((address, 0))
                return int(other.getsockname()[1])
    return _MONITOR_PORT


def _keyring(path: Path, entity: str, key: str, **caps: str) -> str:
    lines = [f"[{entity}]", f"\tkey = {key}"]
    lines += [f'\tcaps {service} = "{cap}"' for service, cap in caps.items()]
    text = "\n".join(lines) + "\n"
    path.write_text(text)
    path.chmod(0o600)
    return text


def _make_keys(lab: Lab) -> None:
    """Write every keyring, and one with all of them for the monitor's creation."""
    everything = {"mon": "allow *", "osd": "allow *", "mgr": "allow *"}
    services = {
        "mon": "allow profile osd",
        "osd": "allow *",
        "mgr": "allow profile osd",
    }
    manager = {"mon": "allow profile mgr", "osd": "allow *"}
    data = lab.data / "ceph"
    wanted: tuple[tuple[Path, str, dict[str, str]], ...] = (
        (data / "mon.keyring", "mon.", {"mon": "allow *"}),
        (data / "mgr.keyring", "mgr.x", manager),
        (data / "osd.keyring", "osd.0", services),
        (lab.etc / "ceph.client.admin.keyring", "client.admin", everything),
        (
            lab.etc / f"ceph.client.{USER}.keyring",
            f"client.{USER}",
            dict.fromkeys(("mon", "osd", "mgr"), "profile rbd"),
        ),
    )
    texts = []
    for path, entity, caps in wanted:
        key = shell.run("ceph-authtool", "--gen-print-key").strip()
        texts.append(_keyring(path, entity, key, **caps))
        if entity == f"client.{USER}":
            (lab.etc / f"{USER}.key").write_text(key)
            (lab.etc / f"{USER}.key").chmod(0o600)
    (data / "all.keyring").write_text("\n".join(texts))
    (data / "all.keyring").chmod(0o600)


def _make_cluster(lab: Lab) -> None:
    """Write configuration and keys, create the stores of monitor and OSD."""
    data = lab.data / "ceph"
    shutil.rmtree(data, ignore_errors=True)
    for directory in (lab.etc, lab.log, *(data / name for name in _DAEMONS)):
        directory.mkdir(parents=True, exist_ok=True)
    port = _free_port(lab.address)
    fsid, osd = str(uuid.uuid4()), str(uuid.uuid4())
    store = os.environ.get("LAB_STORE")
    lab.ceph_conf.write_text(
        _CONF.format(
            fsid=fsid,
            monitor=f"[v2:{lab.address}:{port}]",
            address=lab.address,
            etc=lab.etc,
            log=lab.log,
            data=data,
            machine=os.uname().machine,
            propose=os.environ.get("LAB_PAXOS_INTERVAL", "0.05"),
            store=store or ("memstore" if lab.kind == "guest" else "bluestore"),
        )
    )
    usual = port == _MONITOR_PORT
    (lab.etc / "monitor").write_text(f"{'' if usual else 'v2:'}{lab.address}:{port}")
    _make_keys(lab)
    monmap = data / "monmap"
    new_map = ("monmaptool", "--create", "--clobber", "--fsid", fsid)
    shell.run(*new_map, "--addv", "a", f"[v2:{lab.address}:{port}]", monmap)
    common = ("--conf", lab.ceph_conf, "--mkfs", "--monmap", monmap)
    shell.run("ceph-mon", *common, "-i", "a", "--keyring", data / "all.keyring")
    (data / "osd.uuid").write_text(osd)
    shell.run("ceph-osd", *common, "-i", "0", "--osd-uuid", osd, "--no-mon-config")


def _start_daemon(lab: Lab, name: str) -> Process:
    words = (f"ceph-{name}", "-f", "-i", _IDS[name], "--conf", lab.ceph_conf)
    pid_file = lab.run / "pids" / f"ceph-{name}"
    return processes.start(words, pid_file, lab.log / f"ceph-{name}.out")


def _daemons(lab: Lab) -> dict[str, Process]:
    found = (
        (name, Process.load(lab.run / "pids" / f"ceph-{name}")) for name in _DAEMONS
    )
    return {name: process for name, process in found if process}


def _require_port(lab: Lab) -> None:
    """Refuse to start beside another lab that took this one's port meanwhile."""
    port = int(monitor_address(lab).rpartition(":")[2])
    with socket.socket() as probe:
        if probe.connect_ex((lab.address, port)) == 0:
            raise shell.LabError(
                f"port {port}, where this lab's monitor listens, is another"
                " process's by now: end that, or run hack/lab destroy, after"
                " which a new lab takes another port"
            )


def _wait_for_port(lab: Lab, process: Process) -> None:
    """Wait until the monitor listens: librados hunts in steps of seconds."""
    port = int(monitor_address(lab).rpartition(":")[2])
    deadline = time.monotonic() + _WAIT
    while time.monotonic() < deadline:
        if not process.alive():
            raise shell.LabError(f"ceph-mon ended; see {lab.log}/ceph-mon.out")
        with socket.socket() as probe:
            if probe.connect_ex((lab.address, port)) == 0:
                return
        time.sleep(0.05)
    raise shell.LabError(f"ceph-mon does not listen; see {lab.log}")


class _Admin:
    """The administrator's connection, for what has to be asked or told once."""

    def __init__(self, lab: Lab) -> None:
        import rados  # noqa: PLC0415  (exists only inside)

        self.cluster = rados.Rados(conffile=str(lab.ceph_conf), name="client.admin")
        self.cluster.conf_set("client_mount_timeout", "60")
        self.cluster.connect()

    def ask(self, prefix: str, **arguments: Any) -> Any:
        """Run a monitor command; return its JSON, or None if it prints nothing."""
        command = {"prefix": prefix, "format": "json", **arguments}
        code, out, error = self.cluster.mon_command(json.dumps(command), b"")
        if code:
            raise shell.LabError(f"ceph {prefix}: {error} ({code})")
        return json.loads(out) if out.strip() else None

    def wait(self, what: str, prefix: str, done: Any) -> None:
        """Ask again until `done(answer)`."""
        deadline = time.monotonic() + _WAIT
        while not done(self.ask(prefix)):
            if time.monotonic() > deadline:
                raise shell.LabError(f"Ceph: {what} took more than {_WAIT:.0f} s")
            time.sleep(0.05)


def _make_pools(admin: _Admin) -> None:
    import rbd  # noqa: PLC0415  (exists only inside)

    for pool in POOLS:
        admin.ask("osd pool create", pool=pool, pg_num=8)
        admin.ask("osd pool application enable", pool=pool, app="rbd")
    for pool, namespaces in POOLS.items():
        with admin.cluster.open_ioctx(pool) as context:
            rbd.RBD().pool_init(context, force=False)
            for namespace in namespaces:
                rbd.RBD().namespace_create(context, namespace)


def monitor_address(lab: Lab) -> str:
    """Return the monitor's address as a cluster configuration names it."""
    return (lab.etc / "monitor").read_text().strip()


def _write_clusters_file(lab: Lab) -> None:
    """Write the driver's cluster configuration, in ceph-csi's format."""
    pools = [
        {"name": pool, "namespaces": ["", *namespaces]}
        for pool, namespaces in POOLS.items()
    ]
    user = {"userID": USER, "keyFile": f"{lab.etc}/{USER}.key", "pools": pools}
    cluster = {
        "clusterID": "lab",
        "monitors": [monitor_address(lab)],
        "rbdcrypt": user,
    }
    (lab.etc / "config.json").write_text(json.dumps([cluster], indent=2) + "\n")


def up(lab: Lab) -> None:
    """Start Ceph if it does not run, on its old data if there are any."""
    running = _daemons(lab)
    if len(running) == len(_DAEMONS):
        return
    processes.stop(running.values())
    made = lab.data / "ceph/complete"
    fresh = not made.exists()
    if fresh:
        _make_cluster(lab)
    _require_port(lab)
    shell.say("Ceph: starting")
    monitor = _start_daemon(lab, "mon")
    _wait_for_port(lab, monitor)
    _start_daemon(lab, "mgr")
    admin = _Admin(lab)
    try:
        if fresh:
            identity = (lab.data / "ceph/osd.uuid").read_text()
            admin.ask("osd new", uuid=identity, id=0)
        _start_daemon(lab, "osd")
        admin.wait("the OSD", "osd stat", lambda stat: stat["num_up_osds"] == 1)
        if fresh:
            _make_pools(admin)
        for pool in POOLS:
            # Blocks until the OSD serves.  The monitor may remember one that was
            # killed as being up.
            with admin.cluster.open_ioctx(pool) as context:
                context.stat("rbd_info")
        admin.wait("the manager", "mgr stat", lambda stat: stat["available"])
    finally:
        admin.cluster.shutdown()
    _write_clusters_file(lab)
    made.touch()
    shell.say("Ceph: ready")


def down(lab: Lab) -> None:
    """Stop the daemons; clients first is the caller's business."""
    running = _daemons(lab)
    for name in ("mgr", "osd", "mon"):
        if name in running:
            processes.stop([running[name]], seconds=20)
