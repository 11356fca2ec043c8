# SPDX-License-Identifier: Apache-2.0
"""Settings: where they come from, and what a wrong one says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from csi_driver import settings
from csi_driver.domain.errors import InvalidRequestError

ENDPOINT = "unix:///run/csi/csi.sock"
KINDS = (
    settings.ClusterSettings,
    settings.ControllerSettings,
    settings.NodeSettings,
    settings.DatapathSettings,
)


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {name for kind in KINDS for name in kind.model_fields}
    for name in (*map(settings.variable, names), "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)


def test_a_node_with_the_least_it_needs() -> None:
    found = settings.load(
        settings.NodeSettings, {"endpoint": ENDPOINT, "node_id": "node-1"}
    )
    assert found.socket_path == Path("/run/csi/csi.sock")
    assert found.node_id == "node-1"
    assert found.state_dir == Path("/var/lib/rbdcrypt-csi")
    assert found.datapath_path == Path("/run/rbdcrypt-csi/datapath.sock")
    assert found.device_method == "auto"
    assert found.driver_name == settings.DRIVER_NAME
    assert found.log_format == "json"
    assert not found.http_address
    assert found.registration_socket is None
    assert found.kubelet_endpoint is None
    assert not found.has_kubernetes


def test_variables_are_read_and_flags_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CSI_ENDPOINT", ENDPOINT)
    monkeypatch.setenv("RBDCRYPT_NODE_ID", "from-variable")
    monkeypatch.setenv("RBDCRYPT_RUN_DIR", "/run/elsewhere")
    monkeypatch.setenv("RBDCRYPT_LOG_LEVEL", "debug")
    found = settings.load(
        settings.NodeSettings,
        {"node_id": "from-flag", "run_dir": None, "endpoint": None},
    )
    assert found.endpoint == ENDPOINT
    assert found.node_id == "from-flag"
    assert found.datapath_path == Path("/run/elsewhere/datapath.sock")
    assert found.log_level == "debug"


def test_an_unprefixed_endpoint_variable_is_not_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ENDPOINT", ENDPOINT)
    with pytest.raises(
        InvalidRequestError, match="set CSI_ENDPOINT or give --endpoint"
    ):
        settings.load(settings.ControllerSettings, {})


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RBDCRYPT_KUBECONFIG", "")
    assert settings.load(settings.ClusterSettings, {}).kubeconfig is None


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ({"log_level": "loud"}, "RBDCRYPT_LOG_LEVEL: .*'debug'"),
        ({"log_format": "xml"}, "RBDCRYPT_LOG_FORMAT"),
        ({"device_method": "usb"}, "RBDCRYPT_DEVICE_METHOD: .*'kernel'"),
        ({"endpoint": "tcp://0.0.0.0:1"}, "CSI_ENDPOINT: .*no unix socket"),
        ({"endpoint": "unix:///run/csi"}, "CSI_ENDPOINT: .*[.]sock"),
        ({"state_dir": "relative"}, "RBDCRYPT_STATE_DIR: .*absolute"),
        ({"node_id": ""}, "RBDCRYPT_NODE_ID"),
        ({"node_id": "x" * 257}, "RBDCRYPT_NODE_ID"),
        ({"node_id": "a\nb"}, "RBDCRYPT_NODE_ID"),
        ({"driver_name": "no spaces"}, "RBDCRYPT_DRIVER_NAME"),
        ({"driver_name": "a" * 64}, "RBDCRYPT_DRIVER_NAME"),
        ({"http_address": "9090"}, "RBDCRYPT_HTTP_ADDRESS: .*host:port"),
        ({"http_address": "localhost:70000"}, "RBDCRYPT_HTTP_ADDRESS"),
        ({"http_address": "http://localhost:1"}, "RBDCRYPT_HTTP_ADDRESS"),
        ({"http_address": "fd00::1:9090"}, r"RBDCRYPT_HTTP_ADDRESS: .*\[address\]"),
        ({"registration_socket": "r.sock"}, "RBDCRYPT_REGISTRATION_SOCKET: .*absolute"),
        ({"registration_socket": "/r/.sock"}, "RBDCRYPT_REGISTRATION_SOCKET: .*dot"),
        ({"registration_socket": f"/{'x' * 99}"}, "RBDCRYPT_REGISTRATION_SOCKET: .*99"),
        ({"kubelet_endpoint": "csi.sock"}, "RBDCRYPT_KUBELET_ENDPOINT: .*absolute"),
    ],
    ids=lambda value: value if isinstance(value, str) else repr(value)[:40],
)
def test_a_wrong_setting_is_named_in_one_line(flags: dict[str, str], text: str) -> None:
    given = {"endpoint": ENDPOINT, "node_id": "node-1"} | flags
    with pytest.raises(InvalidRequestError, match=text) as caught:
        settings.load(settings.NodeSettings, given)
    assert "\n" not in str(caught.value)


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        settings.load(settings.NodeSettings, {"log_level": "loud"})
    for name in ("RBDCRYPT_LOG_LEVEL", "CSI_ENDPOINT", "RBDCRYPT_NODE_ID"):
        assert name in str(caught.value)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("127.0.0.1:9090", ("127.0.0.1", 9090)),
        ("[::1]:9090", ("::1", 9090)),
        ("localhost:1", ("localhost", 1)),
        ("[::]:9680", ("::", 9680)),
        (":9680", ("", 9680)),
    ],
)
def test_http_addresses(text: str, found: tuple[str, int]) -> None:
    assert settings.split_address(text) == found


def test_every_setting_says_what_it_is_for() -> None:
    for kind in KINDS:
        for name, field in kind.model_fields.items():
            assert field.description, f"{kind.__name__}.{name}"


def test_only_csi_s_own_variable_has_csi_s_prefix() -> None:
    names = {settings.variable(name) for kind in KINDS for name in kind.model_fields}
    assert {name for name in names if not name.startswith("RBDCRYPT_")} == {
        "CSI_ENDPOINT"
    }


def _clusters(path: Path) -> settings.ClusterSettings:
    return settings.load(settings.ClusterSettings, {"clusters_file": path})


def test_the_cluster_config_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    entry = {
        "clusterID": "c",
        "monitors": ["10.0.0.1"],
        "rbdcrypt": {"userID": "u", "keyFile": "/k", "pools": [{"name": "rbd"}]},
    }
    path.write_text(json.dumps([entry]))
    assert set(_clusters(path).clusters().by_id) == {"c"}


def test_a_cluster_config_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with pytest.raises(InvalidRequestError, match="see RBDCRYPT_CLUSTERS_FILE"):
        _clusters(path).clusters()
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidRequestError, match="UTF-8"):
        _clusters(path).clusters()
    path.write_text("{}")
    with pytest.raises(InvalidRequestError, match="array"):
        _clusters(path).clusters()


def test_monitors_of_ceph_csi_s_config_are_used(tmp_path: Path) -> None:
    own, theirs = tmp_path / "config.json", tmp_path / "ceph-csi.json"
    user = {"userIDFile": "/i", "keyFile": "/k", "pools": [{"name": "rbd"}]}
    own.write_text(json.dumps([{"clusterID": "c", "rbdcrypt": user}]))
    theirs.write_text(json.dumps([{"clusterID": "c", "monitors": ["10.0.0.1"]}]))
    flags = {"clusters_file": own, "ceph_csi_file": theirs}
    found = settings.load(settings.ClusterSettings, flags).clusters().get("c")
    assert found.monitors == ("10.0.0.1",)
    with pytest.raises(
        InvalidRequestError, match=r"'c'.*'monitors'.*RBDCRYPT_CEPH_CSI_FILE"
    ):
        _clusters(own).clusters()


def test_kubernetes_is_there_in_a_pod_or_by_a_kubeconfig(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = settings.load(
        settings.ClusterSettings, {"kubeconfig": "/root/.kube/config"}
    )
    assert given.has_kubernetes
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert settings.load(settings.ClusterSettings, {}).has_kubernetes
