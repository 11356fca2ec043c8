# SPDX-License-Identifier: Apache-2.0
"""The commands, settings and probes of pods, against what the driver takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from csi_driver import settings
from csi_driver.observability.conditions import LOOK_SECONDS
from csi_driver.settings import ControllerSettings
from csi_driver.settings import DatapathSettings
from csi_driver.settings import NodeSettings
from csi_driver.settings import Settings
from csi_driver.settings import variable
from tests.chart import rendered
from tests.chart.rendered import Object

KINDS: dict[str, type[Settings]] = {
    "controller": ControllerSettings,
    "node": NodeSettings,
    "datapath": DatapathSettings,
}
NOT_SETTINGS = {"POD_IP", "TZ"}
"""POD_IP is put into other variables by Kubernetes, TZ is a case's own."""

FILLED_IN = {"POD_IP": "192.0.2.7", "RBDCRYPT_NODE_ID": "worker-1"}


def environment(case: str, name: str) -> dict[str, str]:
    """Return a driver container's variables as kubelet fills them in."""
    found: dict[str, str] = {}
    for each in rendered.driver(case, name)["env"]:
        text = each["value"] if "value" in each else FILLED_IN[each["name"]]
        for known, value in found.items():
            text = text.replace(f"$({known})", value)
        found[each["name"]] = text
    return found


def given(case: str, name: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return the settings that a container starts with."""
    for kind in KINDS.values():
        for field in kind.model_fields:
            monkeypatch.delenv(variable(field), raising=False)
    for key, value in environment(case, name).items():
        monkeypatch.setenv(key, value)
    return settings.load(KINDS[name], {})


@pytest.mark.parametrize("case", rendered.CASES)
@pytest.mark.parametrize("name", rendered.COMPONENTS)
def test_every_variable_is_a_setting_of_its_command(case: str, name: str) -> None:
    known = {variable(field) for field in KINDS[name].model_fields}
    assert set(environment(case, name)) - NOT_SETTINGS <= known


@pytest.mark.parametrize("case", rendered.CASES)
@pytest.mark.parametrize("name", rendered.COMPONENTS)
def test_the_driver_takes_its_settings(
    case: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(case, name, monkeypatch)


@pytest.mark.parametrize("case", rendered.CASES)
@pytest.mark.parametrize("name", rendered.COMPONENTS)
def test_the_image_s_entry_point_is_given_the_command(case: str, name: str) -> None:
    container = rendered.driver(case, name)
    assert "command" not in container
    assert container["args"][0] == name


@pytest.mark.parametrize("case", rendered.CASES)
@pytest.mark.parametrize("name", rendered.COMPONENTS)
def test_files_that_settings_name_are_there(
    case: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    projected = rendered.one_named(rendered.pod(case, name)["volumes"], "config")
    files = {
        f"/etc/rbdcrypt-csi/{item['path']}"
        for source in projected["projected"]["sources"]
        for item in next(iter(source.values()))["items"]
    }
    mount = rendered.one_named(rendered.driver(case, name)["volumeMounts"], "config")
    assert mount["mountPath"] == "/etc/rbdcrypt-csi"
    found = given(case, name, monkeypatch)
    assert isinstance(found, settings.ClusterSettings)
    assert str(found.clusters_file) in files
    if case in {"ceph-csi", "rook"}:
        assert str(found.ceph_csi_file) in files
    else:
        assert found.ceph_csi_file is None


@pytest.mark.parametrize("case", rendered.CASES)
def test_node_service_and_datapath_meet_at_the_same_socket(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = given(case, "node", monkeypatch)
    datapath = given(case, "datapath", monkeypatch)
    assert isinstance(node, NodeSettings)
    assert isinstance(datapath, DatapathSettings)
    assert node.datapath_path == datapath.datapath_path
    assert node.state_dir == datapath.state_dir
    for name, found in (("node", node), ("datapath", datapath)):
        mounts = rendered.driver(case, name)["volumeMounts"]
        paths = {mount["mountPath"] for mount in mounts}
        assert {str(found.state_dir), str(found.run_dir)} <= paths


@pytest.mark.parametrize("case", rendered.CASES)
def test_kubelet_finds_the_driver_s_socket(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = given(case, "node", monkeypatch)
    assert isinstance(found, NodeSettings)
    spec = rendered.pod(case, "node")
    outside = {
        mount["mountPath"]: rendered.one_named(spec["volumes"], mount["name"])
        for mount in rendered.driver(case, "node")["volumeMounts"]
    }
    volume = outside[str(found.socket_path.parent)]
    wanted = Path(volume["hostPath"]["path"]) / found.socket_path.name
    if case == "upstream-sidecars":
        registrar = rendered.one_named(spec["containers"], "node-driver-registrar")
        assert f"--kubelet-registration-path={wanted}" in registrar["args"]
        assert found.registration_socket is None
        return
    assert found.kubelet_endpoint == wanted
    assert found.registration_socket is not None
    registry = outside[str(found.registration_socket.parent)]["hostPath"]["path"]
    assert registry.endswith("/plugins_registry")
    assert found.registration_socket.name == f"{found.driver_name}-reg.sock"


@pytest.mark.parametrize("case", rendered.CASES)
def test_sidecars_share_the_driver_s_socket(case: str) -> None:
    for component, spec, container in rendered.containers(case):
        if container["name"] in rendered.COMPONENTS:
            continue
        own = rendered.driver(case, component)
        endpoint = environment(case, component)["CSI_ENDPOINT"]
        path = endpoint.removeprefix("unix://")
        assert f"--csi-address={path}" in container["args"]
        mine = rendered.one_named(container["volumeMounts"], "socket")
        assert mine == rendered.one_named(own["volumeMounts"], "socket")
        assert rendered.one_named(spec["volumes"], "socket")


def _sidecars(case: str) -> list[Object]:
    spec = rendered.pod(case, "controller")
    return [each for each in spec["containers"] if each["name"].startswith("csi-")]


@pytest.mark.parametrize("case", rendered.CASES)
def test_each_sidecar_elects_its_leader_and_waits_long_enough(case: str) -> None:
    names = {each["name"] for each in _sidecars(case)}
    wanted = {"csi-provisioner", "csi-attacher", "csi-resizer"}
    assert names == wanted | (set() if case == "no-snapshots" else {"csi-snapshotter"})
    for each in _sidecars(case):
        assert "--leader-election" in each["args"]
        assert "--leader-election-namespace=$(NAMESPACE)" in each["args"]
        (timeout,) = [a for a in each["args"] if a.startswith("--timeout=")]
        assert timeout in {"--timeout=60s", "--timeout=2m"}
        # Their own 5 requests in a second would be what 30 claims wait for.
        assert {"--kube-api-qps=20", "--kube-api-burst=40"} <= set(each["args"])


def test_claims_and_snapshots_are_named_to_the_driver() -> None:
    for each in _sidecars("minimal"):
        told = "--extra-create-metadata" in each["args"]
        assert told is (each["name"] in {"csi-provisioner", "csi-snapshotter"})


def test_sidecars_serve_http_only_for_those_who_want_metrics() -> None:
    for each in _sidecars("minimal"):
        assert not [a for a in each["args"] if a.startswith("--http-endpoint")]
        assert "livenessProbe" not in each
    ports = set()
    for each in _sidecars("everything"):
        (port,) = each["ports"]
        assert f"--http-endpoint=:{port['containerPort']}" in each["args"]
        assert each["livenessProbe"]["httpGet"]["port"] == port["containerPort"]
        ports.add(port["containerPort"])
    assert len(ports) == 4


@pytest.mark.parametrize("case", rendered.CASES)
@pytest.mark.parametrize("name", rendered.COMPONENTS)
def test_probes_ask_where_the_driver_answers_and_long_enough(
    case: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = given(case, name, monkeypatch)
    assert isinstance(found, settings.ProcessSettings)
    host, port = settings.split_address(found.http_address)
    assert host == FILLED_IN["POD_IP"]
    container = rendered.driver(case, name)
    assert container["ports"] == [{"name": "http", "containerPort": port}]
    ready = container["readinessProbe"]
    assert ready["httpGet"] == {"path": "/readyz", "port": port}
    assert ready["timeoutSeconds"] > LOOK_SECONDS
    for kind in ("livenessProbe", "startupProbe"):
        if kind not in container:
            continue
        probe = container[kind]
        assert probe["httpGet"]["path"] == "/healthz"
        upstream = case == "upstream-sidecars" and name != "datapath"
        assert (probe["httpGet"]["port"] == port) is not upstream
        assert probe["timeoutSeconds"] > LOOK_SECONDS


def test_an_address_of_ipv6_is_told_from_its_port(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(FILLED_IN, "POD_IP", "2001:db8::7")
    found = given("minimal", "node", monkeypatch)
    assert isinstance(found, settings.ProcessSettings)
    assert settings.split_address(found.http_address) == ("2001:db8::7", 9681)


def test_a_datapath_that_does_not_answer_is_not_started_anew() -> None:
    """Its end is the end of all I/O of its node; a probe must not bring that about."""
    container = rendered.driver("minimal", "datapath")
    assert "livenessProbe" not in container
    assert "startupProbe" not in container
    assert "livenessProbe" in rendered.driver("everything", "datapath")


def test_the_upstream_livenessprobe_answers_where_it_is_asked() -> None:
    for name in ("controller", "node"):
        spec = rendered.pod("upstream-sidecars", name)
        sidecar = rendered.one_named(spec["containers"], "liveness-probe")
        probe = rendered.driver("upstream-sidecars", name)["livenessProbe"]
        port = probe["httpGet"]["port"]
        assert f"--http-endpoint=:{port}" in sidecar["args"]
