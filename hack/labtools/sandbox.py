# SPDX-License-Identifier: Apache-2.0
"""A prepared root: mount namespace, overlay over the root filesystem, binds.

Nothing done inside reaches the cached root filesystem: writes land in a tmpfs
that goes with the namespace.  Run as a program, this module makes the root and
replaces itself by a command in it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

if __name__ == "__main__":  # started by path: let the imports below work
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from labtools import places
from labtools import shell

_TRUST = (
    "CURL_CA_BUNDLE",
    "PIP_CERT",
    "PIP_FIND_LINKS",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
)
"""Variables whose values are paths that have to exist inside as well."""


@dataclass(slots=True)
class Root:
    """What a prepared root is made of."""

    lower: str
    """The root filesystem below the overlay."""
    scratch: str
    """An empty directory on which the namespace mounts its own tmpfs."""
    binds: list[tuple[str, str]] = field(default_factory=list)
    """(source, destination); what does not exist is left out."""
    links: list[tuple[str, str]] = field(default_factory=list)
    """(path, target) of symbolic links; what is at `path` makes room."""
    marker: dict[str, str] = field(default_factory=dict)
    """Content of `places.MARKER`; empty for none."""
    own_network: bool = False
    """A network of its own, with nothing in it yet."""
    own_processes: bool = False
    """Process ids of its own; all that was started ends with the first process."""

    def command(self, *words: str | Path) -> list[str]:
        """Return the command line that runs `words` in this root."""
        network = ("--net",) if self.own_network else ()
        processes = ("--pid", "--fork", "--kill-child") if self.own_processes else ()
        return [
            *("unshare", "--mount", "--propagation", "private"),
            *(*network, *processes, "--"),
            *(sys.executable, __file__, json.dumps(asdict(self))),
            *(str(word) for word in words),
        ]


def machine_binds() -> list[tuple[str, str]]:
    """Return what a root has to share with the machine to reach registries."""
    paths = [
        "/etc/resolv.conf",
        "/etc/hosts",
        "/etc/ssl/certs",
        "/etc/pip.conf",
        "/etc/xdg/pip/pip.conf",
        str(Path.home() / ".config/pip/pip.conf"),
        str(Path.home() / ".pip/pip.conf"),
    ]
    for name in _TRUST:
        words = os.environ.get(name, "").replace(":", " ").split()
        paths += [word for word in words if word.startswith("/")]
    # What lies in /etc/ssl/certs has come with it.
    apart = [path for path in paths if not path.startswith("/etc/ssl/certs/")]
    return [(path, path) for path in dict.fromkeys(apart)]


def inner_environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """Return the caller's environment made fit for the inside of a root."""
    foreign = ("PYTHON", "LD_", "VIRTUAL_ENV", "PYENV", "CONDA", "MYPY", "RUFF")
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(foreign) and name != "TMPDIR"
    }
    env["PATH"] = f"{places.VENV}/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    env["HOME"] = "/root"
    env["LANG"] = env["LC_ALL"] = "C.UTF-8"
    env["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    return {**env, **(extra or {})}


def _mount(*words: str | Path) -> None:
    subprocess.run(["mount", *(str(word) for word in words)], check=True)


def _bind(root: Path, source: Path, destination: str) -> None:
    target = root / destination.lstrip("/")
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_symlink():
            target.unlink()
        target.touch()
    _mount("--rbind", source, target)


def prepare(spec: Root) -> Path:
    """Mount everything; return the new root.  Needs its own mount namespace."""
    scratch = Path(spec.scratch)
    _mount("-t", "tmpfs", "-o", "mode=755", "rbdcrypt", scratch)
    upper, work, root = (scratch / name for name in ("upper", "work", "root"))
    for directory in (upper, work, root):
        directory.mkdir()
    layers = f"lowerdir={spec.lower},upperdir={upper},workdir={work}"
    _mount("-t", "overlay", "-o", layers, "overlay", root)
    _mount("-t", "proc", "proc", root / "proc")
    _mount("--rbind", "/sys", root / "sys")
    _mount("--rbind", "/dev", root / "dev")
    # Its own, and without noexec: the memory of a guest lives there.
    _mount("-t", "tmpfs", "-o", "mode=1777", "shm", root / "dev/shm")
    _mount("-t", "tmpfs", "-o", "mode=755", "run", root / "run")
    (root / "run/ceph").mkdir()
    (root / "run/lock").mkdir()
    for source, destination in spec.binds:
        if Path(source).exists():
            _bind(root, Path(source), destination)
    for path, target in spec.links:
        link = root / path.lstrip("/")
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_dir():
            shutil.rmtree(link)
        link.symlink_to(target)
    if spec.marker:
        marker = root / str(places.MARKER).lstrip("/")
        marker.write_text(json.dumps(spec.marker) + "\n")
    return root


def run(spec: Root, script: str, log: Path) -> None:
    """Run a shell script in a root of its own that goes away with it."""
    words = ("/bin/bash", "-euo", "pipefail", "-c", script)
    os.environ.update(inner_environment())
    shell.run_logged(spec.command(*words), log)


def _main() -> None:
    spec = Root(**json.loads(sys.argv[1]))
    root = prepare(spec)
    old = root / ".outside"
    old.mkdir()
    os.chdir(root)
    subprocess.run(["pivot_root", ".", old.name], check=True)
    os.chroot(".")
    os.chdir("/")
    subprocess.run(["/bin/umount", "-l", f"/{old.name}"], check=True)
    Path("/", old.name).rmdir()
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606


if __name__ == "__main__":
    _main()
