# SPDX-License-Identifier: Apache-2.0
"""The cluster list that the chart writes, read by the driver itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from csi_driver.domain.clusters import ClusterConfig
from csi_driver.domain.clusters import OwnedPool
from csi_driver.images.users import own_user
from csi_driver.settings import ClusterSettings
from csi_driver.settings import load
from tests.chart import rendered

MOUNTED = "/etc/rbdcrypt-csi"
CEPH_CSI = json.dumps(
    [
        {"clusterID": "b9127830-b0cc-4e34-aa47-9d1a2e9949a8", "monitors": ["a:6789"]},
        {"clusterID": "rook-ceph", "monitors": ["b:6789", "c:6789"], "rbd": {}},
    ]
)
"""A list as ceph-csi and Rook keep theirs."""


def read_by_driver(case: str, place: Path) -> dict[str, ClusterConfig]:
    """Return the clusters as a container has them, its files below `place`."""
    text = rendered.config(case).replace(MOUNTED, str(place))
    (place / "config.json").write_text(text)
    for entry in json.loads(text):
        own = entry["rbdcrypt"]
        for key, content in (("userIDFile", "rbdcrypt"), ("keyFile", "AQ==\n")):
            path = Path(own[key])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
    flags = {"clusters_file": str(place / "config.json")}
    if case in {"ceph-csi", "rook"}:
        (place / "ceph-csi.json").write_text(CEPH_CSI)
        flags["ceph_csi_file"] = str(place / "ceph-csi.json")
    return dict(load(ClusterSettings, flags).clusters().by_id)


def test_a_cluster_is_written_as_values_say(tmp_path: Path) -> None:
    found = read_by_driver("everything", tmp_path)
    assert sorted(found) == ["east", "west"]
    east = found["east"]
    assert east.monitors == ("192.0.2.1:3300", "192.0.2.2:3300", "192.0.2.3:3300")
    assert east.pools == (OwnedPool("rbd", ("", "tenant")), OwnedPool("fast", ("",)))
    assert east.data_pools == ("rbd-ec",)
    assert found["west"].data_pools == ()


@pytest.mark.parametrize("case", rendered.CASES)
def test_the_driver_s_own_user_is_that_of_the_secret(case: str, tmp_path: Path) -> None:
    for cluster in read_by_driver(case, tmp_path).values():
        user = own_user(cluster)
        assert user.user_id == "rbdcrypt"
        assert user.key.reveal() == b"AQ=="


@pytest.mark.parametrize("case", ["ceph-csi", "rook"])
def test_monitors_are_taken_over(case: str, tmp_path: Path) -> None:
    written = json.loads(rendered.config(case))
    assert all("monitors" not in entry for entry in written)
    (cluster,) = read_by_driver(case, tmp_path).values()
    wanted = {"ceph-csi": ("a:6789",), "rook": ("b:6789", "c:6789")}
    assert cluster.monitors == wanted[case]


@pytest.mark.parametrize("case", rendered.CASES)
def test_the_ceph_user_is_read_from_its_secret_s_files(case: str) -> None:
    written = json.loads(rendered.config(case))
    for name in rendered.COMPONENTS:
        volumes = rendered.pod(case, name)["volumes"]
        sources = rendered.one_named(volumes, "config")["projected"]["sources"]
        files = {
            (item["key"], f"{MOUNTED}/{item['path']}")
            for source in sources
            if "secret" in source
            for item in source["secret"]["items"]
        }
        for entry in written:
            own = entry["rbdcrypt"]
            assert ("userID", own["userIDFile"]) in files
            assert ("userKey", own["keyFile"]) in files


@pytest.mark.parametrize("case", rendered.CASES)
def test_the_chart_writes_no_secret(case: str) -> None:
    assert not rendered.objects(case, "Secret")


def test_a_new_list_restarts_controller_and_node_service_alone() -> None:
    changed = rendered.parsed(
        rendered.rendered_with('clusters[0].monitors=["192.0.2.9:3300"]')
    )
    for name in rendered.COMPONENTS:
        before = rendered.component("minimal", name)
        after = rendered.one(
            [
                each
                for each in changed
                if each["kind"] == before["kind"]
                and each["metadata"]["name"] == before["metadata"]["name"]
            ]
        )
        same = before["spec"]["template"] == after["spec"]["template"]
        assert same is (name == "datapath")
