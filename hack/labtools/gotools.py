# SPDX-License-Identifier: Apache-2.0
"""What the tests need from the Go world: csi-sanity and published interfaces.

Made with the machine's Go, or without one with Debian 13's in a root that goes
away again; an older Go fetches the newer toolchain it needs as a module.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from labtools import places
from labtools import rootfs
from labtools import sandbox
from labtools import shell

if TYPE_CHECKING:
    from collections.abc import Callable

_SANITY = "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity@v5.6.0"
_SPEC = "github.com/container-storage-interface/spec@v1.13.0"
_KUBELET = "k8s.io/kubelet@v0.36.3"
# The first that can fetch another toolchain.
_OLDEST = (1, 21)


def _machine_go() -> str | None:
    """Return the path of the machine's Go, if it is new enough."""
    go = shutil.which("go") or shutil.which(
        "go", path="/usr/local/go/bin:/usr/lib/go/bin"
    )
    if go is None:
        return None
    command = [go, "env", "GOVERSION"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    words = done.stdout.strip().removeprefix("go").split(".")[:2]
    if len(words) < len(_OLDEST) or not all(word.isdigit() for word in words):
        return None
    return go if tuple(int(word) for word in words) >= _OLDEST else None


def run(command: str, log: Path) -> None:
    """Run a shell command in which `go` is a Go with its caches in our cache."""
    go = _machine_go()
    cache = places.cache_dir() / "go"
    cache.mkdir(parents=True, exist_ok=True)
    settings = {
        "GOPATH": f"{cache}/path",
        "GOCACHE": f"{cache}/build",
        "GOTOOLCHAIN": "auto",
        "GOFLAGS": "-modcacherw",
        "CGO_ENABLED": "0",
    }
    exports = "".join(
        f"export {key}={shlex.quote(text)}\n" for key, text in settings.items()
    )
    if go:
        script = (
            f"{exports}export PATH={shlex.quote(str(Path(go).parent))}:$PATH\ncd /\n"
        )
        shell.run_logged(("bash", "-euo", "pipefail", "-c", script + command), log)
        return
    shell.say("this machine has no Go: using Debian 13's")
    lower = rootfs.ensure()
    with tempfile.TemporaryDirectory(prefix="rbdcrypt-build-") as scratch:
        same = (str(cache), str(places.REPO))
        shared = [*sandbox.machine_binds(), *((path, path) for path in same)]
        install = (
            "apt-get update -q\napt-get install -qy --no-install-recommends golang-go\n"
        )
        root = sandbox.Root(lower=str(lower), scratch=scratch, binds=shared)
        sandbox.run(root, f"{install}{exports}cd /\n{command}", log)


def _ensure(target: Path, command: Callable[[Path], str]) -> Path:
    """Return `target`, made by `command` into the directory that it is given."""
    with places.locked(places.cache_dir() / "locks" / "go"):
        if not target.exists():
            shell.say(f"fetching {target.name}")
            with places.fresh_dir(target) as directory:
                run(
                    command(directory),
                    places.cache_dir() / "log" / f"{target.name}.log",
                )
    return target


def csi_sanity() -> Path:
    """Return the csi-sanity program."""
    target = places.cache_dir() / "go" / f"csi-sanity-{places.digest(_SANITY)}"
    return _ensure(
        target, lambda directory: f"GOBIN={directory} go install {_SANITY}"
    ) / ("csi-sanity")


def _published(name: str, module: str) -> Path:
    """Return the directory of a published module's sources."""
    target = places.cache_dir() / "go" / f"{name}-{places.digest(module)}"
    fetch = f"go mod download -json {module}\ncp -r $(go env GOMODCACHE)/{module}/. "
    return _ensure(target, lambda directory: f"{fetch}{directory}")


def csi_spec() -> Path:
    """Return the directory of the published CSI specification module."""
    return _published("csi-spec", _SPEC)


def kubelet_api() -> Path:
    """Return the directory of the published module with kubelet's interfaces."""
    return _published("kubelet-api", _KUBELET)


_TOOLS = {"csi-sanity": csi_sanity, "csi-spec": csi_spec, "kubelet-api": kubelet_api}


def environment() -> dict[str, str]:
    """Return where tests find them."""
    return {
        "CSI_SANITY": str(csi_sanity()),
        "CSI_SPEC_DIR": str(csi_spec()),
        "KUBELET_API_DIR": str(kubelet_api()),
    }


def main() -> int:
    """Run the command line: print where a tool is, fetched if needed."""
    parser = argparse.ArgumentParser(prog="hack/gotool", description=__doc__)
    parser.add_argument("tool", choices=sorted(_TOOLS))
    options = parser.parse_args()
    try:
        print(_TOOLS[options.tool]())
    except shell.LabError as error:
        print(f"hack/gotool: {error}", file=sys.stderr)
        return 1
    return 0
