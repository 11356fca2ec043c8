# SPDX-License-Identifier: Apache-2.0
"""Where things are: the clone, the cache, one lab's directories.

The same code runs outside the lab, inside it and inside a guest; this module
tells the three apart and gives each the paths that hold there.  It makes no
decision about what goes into the directories.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

REPO = Path(__file__).resolve().parents[2]
"""The clone these tools belong to."""

MARKER = Path("/etc/rbdcrypt-lab.json")
"""Written into every prepared root; its presence means: we are inside."""

CLUSTER = "cluster"
"""Labs of this name, or with it before a hyphen, are isolated."""

NODE_ADDRESS = "10.123.0.1"
"""Of an isolated lab, on its own loopback device: kubelet takes none of 127/8."""

VENV = Path("/opt/rbdcrypt/venv")
"""Where a prepared root shows the project's virtual environment."""


def cache_dir() -> Path:
    """Return the directory for big things that outlive a clone."""
    return Path(os.environ.get("RBDCRYPT_CACHE", "/var/cache/rbdcrypt-csi")).resolve()


def digest(*parts: str | bytes | Path) -> str:
    """Return a short key over texts and the contents of files."""
    state = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            data = part.read_bytes() if part.exists() else b"-"
        else:
            data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "big") + data)
    return state.hexdigest()[:12]


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path` (a file made when missing)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def fresh_dir(target: Path) -> Iterator[Path]:
    """Build `target` under a temporary name; it appears whole or not at all."""
    temporary = target.with_name(f"{target.name}.new-{os.getpid()}")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@dataclass(frozen=True, slots=True)
class Lab:
    """The directories of one lab; every path is the same inside and outside."""

    repo: Path
    data: Path
    """Ceph's data, configuration and logs; survives `down`."""
    run: Path
    """Unix sockets, process ids, node state."""
    kind: str
    """`outside`, `lab` (inside the namespace) or `guest` (user-mode-linux)."""
    isolated: bool = False
    """Has network and process ids of its own too: a Kubernetes cluster."""

    @property
    def inside(self) -> bool:
        """Tell whether this process already runs inside."""
        return self.kind != "outside"

    @property
    def address(self) -> str:
        """Return the address that Ceph listens on; pods cannot reach loopback."""
        return NODE_ADDRESS if self.isolated else "127.0.0.1"

    @property
    def etc(self) -> Path:
        """Return the directory that is also seen as /etc/ceph inside."""
        return self.data / "etc"

    @property
    def log(self) -> Path:
        """Return the directory of all logs."""
        return self.data / "log"

    @property
    def ceph_conf(self) -> Path:
        """Return the Ceph configuration of this lab."""
        return self.etc / "ceph.conf"


def current_lab(default: str = "") -> Lab:
    """Return the lab of this clone, or the one this process runs in.

    `LAB_NAME` names another lab of the same clone, with Ceph and driver of its
    own; `default` is its name where the variable is not set.
    """
    if MARKER.exists():
        found = json.loads(MARKER.read_text())
        repo, data, run = (Path(found[name]) for name in ("repo", "data", "run"))
        return Lab(repo, data, run, found["kind"], found.get("isolated") == "yes")
    name = hashlib.sha256(str(REPO).encode()).hexdigest()[:8]
    other = os.environ.get("LAB_NAME", default)
    if other:
        name = f"{name}-{other}"
    return Lab(
        repo=REPO,
        data=cache_dir() / "labs" / name,
        run=Path(f"/tmp/rbdcrypt-lab-{name}"),  # noqa: S108  (short: socket paths)
        kind="outside",
        isolated=other.partition("-")[0] == CLUSTER,
    )
