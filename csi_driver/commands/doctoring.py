# SPDX-License-Identifier: Apache-2.0
"""`rbdcrypt-csi doctor`: which looks a role of the driver needs, and their results."""

from __future__ import annotations

import enum
import functools
import os
import sys
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from typing import NoReturn

import stamina

from csi_driver.commands import composition
from csi_driver.commands import output
from csi_driver.commands import service
from csi_driver.commands.output import Output
from csi_driver.commands.version import version
from csi_driver.doctor import machine
from csi_driver.doctor.check import Check
from csi_driver.doctor.check import Examination
from csi_driver.doctor.check import Topic
from csi_driver.doctor.check import examine
from csi_driver.doctor.kubernetes import Cluster
from csi_driver.doctor.storage import Storage
from csi_driver.domain.clusters import Clusters
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.images.ceph import CephConnector
from csi_driver.kube import tokens
from csi_driver.rpc.endpoint import parse_endpoint
from csi_driver.settings import DoctorSettings
from csi_driver.settings import split_address


class Role(enum.StrEnum):
    """Which process of the driver is meant."""

    CONTROLLER = "controller"
    NODE = "node"
    DATAPATH = "datapath"


def run(settings: DoctorSettings, form: Output, *, role: str, write: bool) -> NoReturn:
    """Look at everything, print it, and end with status 1 if something failed."""
    service.start_logging(settings)
    # A check's own line says how often something was tried.
    stamina.instrumentation.set_on_retry_hooks(())
    chosen = _role(settings, role)
    report = examine(_examinations(settings, chosen, write=write))
    if form is Output.JSON:
        output.show_json(
            {
                "role": chosen.value,
                "version": version(),
                "ok": report.ok,
                "checks": [each.to_json_object() for each in report.checks],
            }
        )
    else:
        output.show(*as_lines(report.checks))
    status = 0 if report.ok else 1
    if not report.all_ended:
        # What hangs in librados would keep the interpreter from ending.
        sys.stdout.flush()
        os._exit(status)
    sys.exit(status)


def as_lines(checks: Iterable[Check]) -> Iterator[str]:
    """Return one line for each check."""
    for each in checks:
        subject = f"{each.subject}: " if each.subject else ""
        remedy = f"; {each.remedy}" if each.remedy else ""
        yield f"{each.status:<8} {each.name:<18} {subject}{each.found}{remedy}"


def _role(settings: DoctorSettings, given: str) -> Role:
    """Return the role that is asked for, or that the settings are made for."""
    if given:
        try:
            return Role(given)
        except ValueError:
            message = f"--role {given!r} is not one of {', '.join(Role)}"
            raise InvalidRequestError(message) from None
    if settings.node_id:
        return Role.NODE
    if settings.endpoint:
        return Role.CONTROLLER
    # A datapath serves no CSI and has no name; its directory is there.
    return Role.DATAPATH if settings.run_dir.is_dir() else Role.CONTROLLER


def _examinations(
    settings: DoctorSettings, role: Role, *, write: bool
) -> Iterator[Examination]:
    yield _here("version", lambda: [Topic("version").ok(f"{version()}, as {role}")])
    clusters, fault = _clusters(settings)
    yield _here("cluster-config", lambda: [_config(settings, clusters, fault)])
    yield _here("librbd", machine.library)
    yield _here("key-protection", machine.secrecy)
    match role:
        case Role.CONTROLLER:
            yield _here("cryptsetup", machine.cryptsetup)
        case Role.NODE:
            yield from _node(settings)
        case Role.DATAPATH:
            yield from _datapath(settings)
    yield from _serving(settings, role)
    if clusters is not None:
        yield from Storage(clusters, CephConnector(clusters), write).examinations()
    yield from _kubernetes(settings, role, clusters)


def _serving(settings: DoctorSettings, role: Role) -> Iterator[Examination]:
    """Look at what the process beside this one serves."""
    sockets = {}
    if settings.endpoint and role is not Role.DATAPATH:
        sockets["csi-socket"] = parse_endpoint(settings.endpoint)
    if settings.registration_socket is not None and role is Role.NODE:
        sockets["registration"] = settings.registration_socket
    for name, path in sockets.items():
        look = functools.partial(machine.served, name, path)
        yield Examination(Topic(name, str(path)), look)
    if settings.http_address:
        host, port = split_address(settings.http_address)
        yield _here("readiness", functools.partial(machine.readiness, host, port))


def _node(settings: DoctorSettings) -> Iterator[Examination]:
    yield _here("tools", machine.node_tools)
    yield _here("ext4-growth", machine.ext4_growth)
    yield _here(
        "mount-propagation",
        functools.partial(
            machine.propagation,
            settings.kubelet_dir,
            needed=settings.has_kubernetes,
        ),
    )
    yield from _directories(settings)
    path = settings.datapath_path
    yield Examination(Topic("datapath", str(path)), lambda: machine.datapath(path))


def _datapath(settings: DoctorSettings) -> Iterator[Examination]:
    method = settings.device_method
    yield Examination(
        Topic("device-method", method),
        lambda: machine.devices(method, settings.run_dir),
    )
    yield from _directories(settings)
    path = settings.datapath_path
    yield Examination(Topic("datapath", str(path)), lambda: machine.datapath(path))


def _directories(settings: DoctorSettings) -> Iterator[Examination]:
    for name, path in (
        ("state-dir", settings.state_dir),
        ("run-dir", settings.run_dir),
    ):
        yield Examination(
            Topic(name, str(path)),
            functools.partial(machine.directory, name, path),
        )


def _kubernetes(
    settings: DoctorSettings, role: Role, clusters: Clusters | None
) -> Iterator[Examination]:
    api = composition.kubernetes_api(settings)
    if api is None:
        if role is not Role.DATAPATH:
            yield _here("api-server", lambda: [_no_api_server()])
        return
    cluster = Cluster(
        api=api,
        driver=settings.driver_name,
        clusters=clusters,
        namespace=tokens.own_namespace(),
        # A kubeconfig has credentials of its own, which need not be a token.
        token_ends=tokens.own_ending if settings.kubeconfig is None else lambda: None,
    )
    match role:
        case Role.CONTROLLER:
            yield from cluster.for_controller()
        case Role.NODE:
            yield from cluster.for_node(settings.node_id)


def _no_api_server() -> Check:
    return Topic("api-server").warning(
        "no API server is known here: nothing of Kubernetes is looked at",
        "run this in a pod of the driver, or give --kubeconfig",
    )


def _clusters(settings: DoctorSettings) -> tuple[Clusters | None, str]:
    try:
        return settings.clusters(), ""
    except InvalidRequestError as error:
        return None, str(error)


def _config(settings: DoctorSettings, clusters: Clusters | None, fault: str) -> Check:
    topic = Topic("cluster-config", str(settings.clusters_file))
    if clusters is None:
        return topic.failed(fault)
    places = sum(
        len(pool.namespaces)
        for config in clusters.by_id.values()
        for pool in config.pools
    )
    names = ", ".join(sorted(clusters.by_id))
    return topic.ok(f"clusters {names}, with {places} pools and namespaces")


def _here(name: str, look: Callable[[], Iterable[Check]]) -> Examination:
    return Examination(Topic(name), look)
