# SPDX-License-Identifier: Apache-2.0
"""Make the gRPC stubs and their type stubs from proto/*.proto.

hatchling runs the hook for every wheel, sdist and editable install; by hand,
`python hatch_build.py` (dependency group "proto") does the same in place.  The
results live in csi_driver/rpc/stubs, are ignored by git and shipped in the wheel.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from typing import Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

STUBS: Final = Path("csi_driver/rpc/stubs")
"""Where the stubs go, relative to the project; also their Python package."""

PROTOS: Final = ("csi", "pluginregistration")
"""The sources in proto/: CSI's, and that of kubelet's plugin registration."""

NAMES: Final = tuple(
    f"{proto}_{kind}"
    for proto in PROTOS
    for kind in ("pb2.py", "pb2.pyi", "pb2_grpc.py", "pb2_grpc.pyi")
)
"""What is made of them."""

_PLUGINS: Final = {"mypy": "main", "mypy_grpc": "grpc"}


class StubsHook(BuildHookInterface[Any]):
    """Bring the stubs up to date before hatchling collects the files."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Generate, whatever is built; `version` is "standard" or "editable"."""
        del version, build_data
        refresh(Path(self.root))


def refresh(root: Path) -> None:
    """Make the stubs in the tree `root`; files that would not change stay."""
    with tempfile.TemporaryDirectory(prefix="rbdcrypt-stubs-") as scratch:
        for name, content in generate(root, Path(scratch)).items():
            target = root / STUBS / name
            if not target.exists() or target.read_bytes() != content:
                target.write_bytes(content)


def generate(root: Path, scratch: Path) -> dict[str, bytes]:
    """Compile root/proto/*.proto below `scratch`; file name -> content.

    Raises subprocess.CalledProcessError; protoc's reasons stand on stderr.
    """
    # A virtual path makes protoc write imports relative to the package, which
    # it otherwise writes for a top-level module.
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{STUBS}={root / 'proto'}"]
    command += [f"--{kind}_out={scratch}" for kind in ("python", "grpc_python")]
    for plugin, function in _PLUGINS.items():
        program = _plugin(scratch / f"protoc-gen-{plugin}", function)
        command += [f"--plugin={program}", f"--{plugin}_out={scratch}"]
    # google/protobuf/*.proto come with grpcio-tools.
    subprocess.run(
        [*command, *(f"{STUBS}/{each}.proto" for each in PROTOS)], check=True
    )
    return {name: (scratch / STUBS / name).read_bytes() for name in NAMES}


def _plugin(program: Path, function: str) -> Path:
    """Write a protoc plugin that runs mypy-protobuf in this very environment.

    The console script found by PATH may belong to another one.
    """
    program.write_text(
        f"#!{sys.executable}\n"
        f"from mypy_protobuf.main import {function}\n"
        f"{function}()\n",
        encoding="utf-8",
    )
    program.chmod(0o700)
    return program


if __name__ == "__main__":
    refresh(Path(__file__).resolve().parent)
