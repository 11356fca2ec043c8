# SPDX-License-Identifier: Apache-2.0
"""`rbdcrypt-csi doctor` on real Ceph: in order, and each way of being not."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rados

from csi_driver.images.directory import DIRECTORY
from tests.ceph.provisioning.real import CLUSTER
from tests.ceph.provisioning.real import CephWorld
from tests.unit.cli.test_commands import ROOT

type Found = dict[str, dict[str, Any]]
type MakeUser = Callable[..., tuple[str, str]]


@pytest.fixture
def world() -> Iterator[CephWorld]:
    made = CephWorld()
    made.begin()
    yield made
    made.end()


@pytest.fixture
def make_user(tmp_path: Path) -> Iterator[MakeUser]:
    """Give a function that makes a Ceph user; it returns name and key file."""
    made: list[str] = []
    with rados.Rados(conffile=os.environ["CEPH_CONF"]) as ceph:

        def make(**caps: str) -> tuple[str, str]:
            name = f"doctor-{uuid.uuid4().hex[:8]}"
            pairs = [word for pair in caps.items() for word in pair]
            fields = {"prefix": "auth get-or-create-key", "entity": f"client.{name}"}
            command = json.dumps({**fields, "caps": pairs})
            status, key, text = ceph.mon_command(command, b"")
            assert status == 0, text
            made.append(name)
            path = tmp_path / f"{name}.key"
            path.write_bytes(key)
            return name, str(path)

        yield make
        for name in made:
            command = {"prefix": "auth del", "entity": f"client.{name}"}
            ceph.mon_command(json.dumps(command), b"")


def config(world: CephWorld, **own: Any) -> list[dict[str, Any]]:
    (entry,) = json.loads(world.config_text)
    entry["rbdcrypt"] |= own
    return [entry]


def doctor(
    tmp_path: Path, clusters: object, *words: str, role: str = "controller"
) -> tuple[Found, subprocess.CompletedProcess[str]]:
    """Run it; return its checks by name, the last of each, with the process."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(clusters))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "csi_driver", "doctor", "--role", role, *words),
            *("--clusters-file", str(path), "--output", "json"),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    found = json.loads(done.stdout)
    assert done.returncode == (0 if found["ok"] else 1), done.stderr
    return {each["check"]: each for each in found["checks"]}, done


def directory(world: CephWorld) -> dict[str, str]:
    """Return the directory's omap as it is in RADOS."""
    with world.ioctx() as ioctx, rados.ReadOpCtx() as op:
        entries, _ = ioctx.get_omap_vals(op, "", "", 100)
        try:
            ioctx.operate_read_op(op, DIRECTORY)
        except rados.ObjectNotFound:
            return {}
        return {key: value.decode() for key, value in entries}


def test_a_cluster_in_order_and_nothing_written(
    world: CephWorld, tmp_path: Path
) -> None:
    found, _ = doctor(tmp_path, config(world))
    for name in ("librbd", "cryptsetup", "ceph-monitors", "ceph-cluster", "ceph-pool"):
        assert found[name]["status"] == "ok", found[name]
    assert found["ceph-pool"]["subject"] == f"{CLUSTER}:rbd/{world.namespace}"
    assert world.content() == {}
    with world.ioctx() as ioctx, pytest.raises(rados.ObjectNotFound):
        ioctx.stat(DIRECTORY)


def test_with_write_a_key_comes_and_goes(world: CephWorld, tmp_path: Path) -> None:
    found, _ = doctor(tmp_path, config(world), "--write")
    assert found["ceph-pool"]["status"] == "ok"
    assert "was written and removed" in found["ceph-pool"]["found"]
    assert directory(world) == {}


def test_a_user_who_may_only_read(
    world: CephWorld, tmp_path: Path, make_user: MakeUser
) -> None:
    name, key = make_user(mon="profile rbd", osd="profile rbd-read-only")
    found, _ = doctor(tmp_path, config(world, userID=name, keyFile=key))
    assert found["ceph-cluster"]["status"] == "ok"
    assert found["ceph-pool"]["status"] == "failed"
    assert f"client.{name} may read and not write" in found["ceph-pool"]["found"]
    assert "profile rbd" in found["ceph-pool"]["remedy"]


def test_a_user_of_another_pool(
    world: CephWorld, tmp_path: Path, make_user: MakeUser
) -> None:
    name, key = make_user(mon="profile rbd", osd="profile rbd pool=rbd2")
    found, _ = doctor(tmp_path, config(world, userID=name, keyFile=key))
    assert found["ceph-pool"]["status"] == "failed"
    assert "not permitted" in found["ceph-pool"]["found"]
    assert f"ceph auth get client.{name}" in found["ceph-pool"]["remedy"]


def test_a_user_whom_no_osd_knows_does_not_hang_it(
    world: CephWorld, tmp_path: Path, make_user: MakeUser
) -> None:
    name, key = make_user(mon="profile rbd")
    begin = time.monotonic()
    found, _ = doctor(tmp_path, config(world, userID=name, keyFile=key))
    assert time.monotonic() - begin < 60
    assert found["ceph-cluster"]["status"] == "failed"
    assert "no answer within" in found["ceph-cluster"]["found"]
    assert "no osd caps" in found["ceph-cluster"]["remedy"]
    # What comes after it is looked at all the same.
    assert "api-server" in found


@pytest.mark.parametrize(
    ("change", "name", "text"),
    [
        ({"userID": "nobody"}, "ceph-cluster", "refused the key of client.nobody"),
        ({"keyFile": "/none/such"}, "ceph-cluster", "cannot be read from /none/such"),
        ({"pools": [{"name": "gone"}]}, "ceph-pool", "has no pool 'gone'"),
        (
            {"pools": [{"name": "rbd", "namespaces": ["gone"]}]},
            "ceph-pool",
            "there is no RADOS namespace 'gone'",
        ),
        ({"dataPools": ["gone"]}, "ceph-data-pool", "has no pool 'gone'"),
    ],
)
def test_a_config_that_does_not_fit_the_cluster(
    world: CephWorld, tmp_path: Path, change: dict[str, Any], name: str, text: str
) -> None:
    found, _ = doctor(tmp_path, config(world, **change))
    assert found[name]["status"] == "failed"
    assert text in found[name]["found"]


def test_a_key_that_is_none_is_not_shown(world: CephWorld, tmp_path: Path) -> None:
    key = base64.b64encode(b"canary key").decode()
    path = tmp_path / "bad.key"
    path.write_text(key)
    found, done = doctor(tmp_path, config(world, keyFile=str(path)))
    assert "is not a cephx key" in found["ceph-cluster"]["found"]
    assert key not in done.stdout + done.stderr


def test_monitors_that_do_not_answer_take_seconds(
    world: CephWorld, tmp_path: Path
) -> None:
    (entry,) = config(world)
    entry["monitors"] = ["127.0.0.1:1", "127.0.0.1:2"]
    begin = time.monotonic()
    found, _ = doctor(tmp_path, [entry])
    assert time.monotonic() - begin < 30
    assert found["ceph-monitors"]["status"] == "failed"
    assert "127.0.0.1:1 (Connection refused)" in found["ceph-monitors"]["found"]
    assert found["ceph-cluster"]["status"] == "failed"
    assert "did not answer within 8 s" in found["ceph-cluster"]["found"]


def test_one_dead_monitor_of_two_is_a_warning(world: CephWorld, tmp_path: Path) -> None:
    (entry,) = config(world)
    entry["monitors"] += ["127.0.0.1:1"]
    found, _ = doctor(tmp_path, [entry])
    assert found["ceph-monitors"]["status"] == "warning"
    assert found["ceph-cluster"]["status"] == "ok"
    assert found["ceph-pool"]["status"] == "ok"
