# SPDX-License-Identifier: Apache-2.0
"""Every setting of the driver, once: its variable, its flag, its default.

A setting `node_id` is the variable RBDCRYPT_NODE_ID and the flag --node-id; the
flag wins.  Only CSI_ENDPOINT keeps the name that CSI gives it.  Secrets are no
settings: keys are read from the files that the cluster config names.
"""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from typing import Any
from typing import Final

import pydantic
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings
from pydantic_settings import SettingsConfigDict

from csi_driver.domain.clusters import Clusters
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.rpc.endpoint import LONGEST_HIDDEN_PATH
from csi_driver.rpc.endpoint import parse_endpoint

PREFIX: Final = "RBDCRYPT_"
ENDPOINT: Final = "CSI_ENDPOINT"

KUBELET_DIR: Final = Path("/var/lib/kubelet")

DRIVER_NAME: Final = "csi.rbdcrypt.io"
"""What CSIDriver objects, storage classes and volumes call this driver."""

_DRIVER_NAME: Final = re.compile(r"[a-zA-Z]([a-zA-Z0-9.-]{0,61}[a-zA-Z0-9])?")
_ADDRESS: Final = re.compile(
    r"(?:\[(?P<v6>[0-9a-fA-F:.%\w]+)\]|(?P<host>[^:\[\]/\s]*)):(?P<port>[0-9]{1,5})"
)
_LONGEST_NODE_ID: Final = 256
_LARGEST_PORT: Final = 65535


class LogFormat(enum.StrEnum):
    """How a log line looks."""

    JSON = "json"
    CONSOLE = "console"


class LogLevel(enum.StrEnum):
    """From which level on lines are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class DeviceMethod(enum.StrEnum):
    """How an export becomes a block device; auto takes kernel where it can."""

    AUTO = "auto"
    KERNEL = "kernel"
    FUSE = "fuse"


def _absolute(value: Path) -> Path:
    if not value.is_absolute():
        message = f"{str(value)!r} is not an absolute path"
        raise ValueError(message)
    return value


type AbsolutePath = Annotated[Path, pydantic.AfterValidator(_absolute)]


class Settings(BaseSettings):
    """What every command takes."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        populate_by_name=True,
    )

    log_format: LogFormat = pydantic.Field(
        LogFormat.JSON,
        description="log lines as json, or readable as console",
    )
    log_level: LogLevel = pydantic.Field(
        LogLevel.INFO,
        description="debug, info, warning or error",
    )


class ClusterSettings(Settings):
    """What commands take that reach Ceph."""

    clusters_file: AbsolutePath = pydantic.Field(
        Path("/etc/rbdcrypt-csi/config.json"),
        description="the clusters, pools and namespaces the driver owns",
    )
    ceph_csi_file: AbsolutePath | None = pydantic.Field(
        None,
        description="ceph-csi's or Rook's config.json, for the monitors of clusters"
        " that have none in clusters_file",
    )
    driver_name: str = pydantic.Field(
        DRIVER_NAME,
        description="the driver's name in Kubernetes",
    )
    kubeconfig: AbsolutePath | None = pydantic.Field(
        None,
        description="path of a kubeconfig; the pod's service account without it",
    )

    @pydantic.field_validator("driver_name")
    @classmethod
    def _check_driver_name(cls, value: str) -> str:
        if not _DRIVER_NAME.fullmatch(value):
            message = f"{value!r} is no domain name of up to 63 letters"
            raise ValueError(message)
        return value

    def clusters(self) -> Clusters:
        """Read the cluster config; InvalidRequestError says what is wrong."""
        # Only when a command needs it: it brings the library for logs.
        from csi_driver.images.cluster_files import read_clusters  # noqa: PLC0415

        try:
            return read_clusters(self.clusters_file, self.ceph_csi_file)
        except InvalidRequestError as error:
            names = map(variable, ("clusters_file", "ceph_csi_file"))
            message = f"{error}; see {' and '.join(names)}"
            raise InvalidRequestError(message) from error

    @property
    def has_kubernetes(self) -> bool:
        """True where an API server can be asked: in a pod, or by a kubeconfig."""
        return self.kubeconfig is not None or "KUBERNETES_SERVICE_HOST" in os.environ


class ProcessSettings(ClusterSettings):
    """What every long-lived process takes."""

    http_address: str = pydantic.Field(
        "",
        description="host:port or :port for /healthz, /readyz and /metrics; no HTTP"
        " without it",
    )

    @pydantic.field_validator("http_address")
    @classmethod
    def _check_http_address(cls, value: str) -> str:
        if value:
            split_address(value)
        return value


class ServiceSettings(ProcessSettings):
    """What the two CSI services take."""

    endpoint: str = pydantic.Field(
        validation_alias=ENDPOINT,
        description="the socket to serve on, unix:///path/csi.sock",
    )

    @pydantic.field_validator("endpoint")
    @classmethod
    def _check_endpoint(cls, value: str) -> str:
        try:
            parse_endpoint(value)
        except InvalidRequestError as error:
            raise ValueError(str(error)) from None
        return value

    @property
    def socket_path(self) -> Path:
        """The path of `endpoint`."""
        return parse_endpoint(self.endpoint)


class ControllerSettings(ServiceSettings):
    """What `rbdcrypt-csi controller` takes."""


class _NodePlaces(Settings):
    """Where a node keeps its things; shared by the service and the datapath."""

    state_dir: AbsolutePath = pydantic.Field(
        Path("/var/lib/rbdcrypt-csi"),
        description="what the node remembers across restarts of its processes",
    )
    run_dir: AbsolutePath = pydantic.Field(
        Path("/run/rbdcrypt-csi"),
        description="sockets and what need not survive a reboot",
    )
    datapath_socket: AbsolutePath | None = pydantic.Field(
        None,
        description="the datapath's control socket; datapath.sock in run_dir",
    )
    device_method: DeviceMethod = pydantic.Field(
        DeviceMethod.AUTO,
        description="auto, kernel (nbd.ko) or fuse (nbdfuse and a loop device)",
    )

    @property
    def datapath_path(self) -> Path:
        """The path of the datapath's control socket."""
        return self.datapath_socket or self.run_dir / "datapath.sock"


class NodeSettings(_NodePlaces, ServiceSettings):
    """What `rbdcrypt-csi node` takes."""

    node_id: str = pydantic.Field(
        description="the name of this node, as Kubernetes has it",
    )

    registration_socket: AbsolutePath | None = pydantic.Field(
        None,
        description="the socket to make in kubelet's plugins_registry; no registration"
        " without it",
    )
    kubelet_endpoint: AbsolutePath | None = pydantic.Field(
        None,
        description="path of the CSI socket as kubelet sees it; that of the endpoint"
        " without it",
    )

    @pydantic.field_validator("registration_socket", "kubelet_endpoint")
    @classmethod
    def _check_socket(cls, value: Path | None) -> Path | None:
        length = len(os.fsencode(value or ""))
        if length > LONGEST_HIDDEN_PATH:
            message = (
                f"{str(value)!r} has {length} bytes, {LONGEST_HIDDEN_PATH} are possible"
            )
            raise ValueError(message)
        return value

    @pydantic.field_validator("registration_socket")
    @classmethod
    def _check_name(cls, value: Path | None) -> Path | None:
        if value is not None and value.name.startswith("."):
            message = f"kubelet passes over {value.name!r}, which begins with a dot"
            raise ValueError(message)
        return value

    @pydantic.field_validator("node_id")
    @classmethod
    def _check_node_id(cls, value: str) -> str:
        size = len(value.encode())
        if not value or size > _LONGEST_NODE_ID or not value.isprintable():
            message = f"a node id has 1 to {_LONGEST_NODE_ID} printable bytes"
            raise ValueError(message)
        return value


class DatapathSettings(_NodePlaces, ProcessSettings):
    """What `rbdcrypt-csi datapath` takes."""


class DoctorSettings(_NodePlaces, ProcessSettings):
    """What `rbdcrypt-csi doctor` takes: what its neighbours in the pod are told."""

    endpoint: str = pydantic.Field(
        "",
        validation_alias=ENDPOINT,
        description="the socket that the controller or node service serves on",
    )
    node_id: str = pydantic.Field(
        "",
        description="the name of this node, as Kubernetes has it",
    )
    registration_socket: AbsolutePath | None = pydantic.Field(
        None,
        description="the socket in kubelet's plugins_registry, if the node makes one",
    )
    kubelet_endpoint: AbsolutePath | None = pydantic.Field(
        None,
        description="path of the CSI socket as kubelet sees it",
    )

    @property
    def kubelet_dir(self) -> Path:
        """Kubelet's own directory, which `kubelet_endpoint` lies in."""
        endpoint = self.kubelet_endpoint
        # /var/lib/kubelet/plugins/NAME/csi.sock
        if endpoint is None or endpoint.parent.parent.name != "plugins":
            return KUBELET_DIR
        return endpoint.parent.parent.parent


def load[S: Settings](kind: type[S], flags: Mapping[str, Any]) -> S:
    """Read settings from flags, then variables, then defaults.

    InvalidRequestError is one line that names every wrong setting.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return kind(**given)
    except pydantic.ValidationError as error:
        faults = "; ".join(map(_fault, error.errors()))
        raise InvalidRequestError(faults) from None


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return ENDPOINT if name == "endpoint" else f"{PREFIX}{name.upper()}"


def split_address(text: str) -> tuple[str, int]:
    """Split host:port, or :port for all addresses; IPv6 addresses are in brackets."""
    found = _ADDRESS.fullmatch(text)
    if found is None or not 0 < int(found["port"]) <= _LARGEST_PORT:
        message = f"{text!r} is not host:port, [address]:port or :port"
        raise ValueError(message)
    return found["v6"] or found["host"] or "", int(found["port"])


def _fault(detail: ErrorDetails) -> str:
    place = detail["loc"]
    name = str(place[0]) if place else "settings"
    setting = "endpoint" if name == ENDPOINT else name
    if detail["type"] == "missing":
        return f"set {variable(setting)} or give --{setting.replace('_', '-')}"
    return f"{variable(setting)}: {detail['msg'].removeprefix('Value error, ')}"
