# SPDX-License-Identifier: Apache-2.0
"""The driver's processes in the lab: start, stop, restart, what clients need.

Runs inside.  Each part is one command of `rbdcrypt-csi`; everything it starts
inherits a variable by which `--kill` finds all of the part.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from labtools import blockdevices
from labtools import places
from labtools import processes
from labtools import sandbox
from labtools import shell
from labtools.processes import Process

if TYPE_CHECKING:
    from labtools.places import Lab

PARTS = ("controller", "node", "datapath")
_COMMAND = places.VENV / "bin/rbdcrypt-csi"
_WAIT = 60.0
_GRACE = 30.0

# All RPCs of csi-sanity that take a Secret.
_SECRETS = (
    "CreateVolumeSecret",
    "DeleteVolumeSecret",
    "ControllerPublishVolumeSecret",
    "ControllerUnpublishVolumeSecret",
    "ControllerValidateVolumeCapabilitiesSecret",
    "ControllerExpandVolumeSecret",
    "ControllerModifyVolumeSecret",
    "NodeStageVolumeSecret",
    "NodePublishVolumeSecret",
    "CreateSnapshotSecret",
    "DeleteSnapshotSecret",
    "ListSnapshotsSecret",
    "GetSnapshotSecret",
)


def _socket(lab: Lab, part: str) -> Path:
    """Return a part's socket; the datapath's is where the driver looks for it."""
    place = _run_dir(lab) if part == "datapath" else lab.run
    return place / f"{part}.sock"


def _run_dir(lab: Lab) -> Path:
    return lab.run / "driver"


def environment(lab: Lab) -> dict[str, str]:
    """Return what tests and csi-sanity have to know."""
    return {
        "CSI_CONTROLLER_ENDPOINT": f"unix://{_socket(lab, 'controller')}",
        "CSI_NODE_ENDPOINT": f"unix://{_socket(lab, 'node')}",
        "CEPH_CONF": str(lab.ceph_conf),
        "CEPH_POOL": "rbd",
        "CSI_SANITY_SECRETS": str(lab.etc / "sanity-secrets.yaml"),
        "CSI_SANITY_PARAMETERS": str(lab.etc / "sanity-parameters.yaml"),
    }


def settings(lab: Lab) -> dict[str, str]:
    """Return the driver's settings, as any process of it needs them here."""
    return {
        "RBDCRYPT_CLUSTERS_FILE": str(lab.etc / "config.json"),
        "RBDCRYPT_NODE_ID": "lab",
        "RBDCRYPT_STATE_DIR": str(lab.run / "state"),
        "RBDCRYPT_RUN_DIR": str(_run_dir(lab)),
        "RBDCRYPT_LOG_FORMAT": "json",
    }


def _part_name(lab: Lab, part: str) -> str:
    return f"{lab.run}:{part}"


def _part_environment(lab: Lab, part: str) -> dict[str, str]:
    """Return the whole environment of a part: little of the caller's."""
    names = ("PATH", "HOME", "LANG", "LC_ALL", "GRPC_ENABLE_FORK_SUPPORT")
    base = sandbox.inner_environment()
    mine = {name: base[name] for name in names}
    chosen = {
        key: text for key, text in os.environ.items() if key.startswith("RBDCRYPT_")
    }
    mine |= {**settings(lab), **chosen}
    mine["CSI_ENDPOINT"] = f"unix://{_socket(lab, part)}"
    mine[processes.PART_VARIABLE] = _part_name(lab, part)
    return mine


def write_sanity_files(lab: Lab) -> None:
    """Write the Secret and the parameters that csi-sanity sends."""
    files = environment(lab)
    if Path(files["CSI_SANITY_SECRETS"]).exists():
        return
    passphrase = json.dumps(secrets.token_urlsafe(24))
    lines = [f"{name}:\n  encryptionPassphrase: {passphrase}\n" for name in _SECRETS]
    parameters = "clusterID: lab\npool: rbd\n"
    for variable, text in (
        ("CSI_SANITY_SECRETS", "".join(lines)),
        ("CSI_SANITY_PARAMETERS", parameters),
    ):
        path = Path(files[variable])
        path.write_text(text)
        path.chmod(0o600)


def _pid_file(lab: Lab, part: str) -> Path:
    return lab.run / "pids" / part


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _log(lab: Lab, part: str) -> Path:
    return lab.log / f"{part}.log"


def _start(lab: Lab, part: str) -> Process:
    for directory in (lab.run / "state", _run_dir(lab)):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    env = _part_environment(lab, part)
    command = (str(_COMMAND), part)
    return processes.start(command, _pid_file(lab, part), _log(lab, part), env)


def _wait_until_serving(lab: Lab, part: str, process: Process) -> None:
    deadline = time.monotonic() + _WAIT
    while not _answers(_socket(lab, part)):
        if not process.alive() or time.monotonic() > deadline:
            lines = _log(lab, part).read_text(errors="replace").splitlines()
            end = "\n".join(lines[-20:])
            raise shell.LabError(
                f"{part} does not serve; end of {_log(lab, part)}:\n{end}"
            )
        time.sleep(0.02)


def available() -> bool:
    """Tell whether the driver in the clone has a command for every part."""
    env = {**sandbox.inner_environment(), "TERM": "dumb", "COLUMNS": "200"}
    words = [str(_COMMAND), "--help"]
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    return done.returncode == 0 and all(part in done.stdout.split() for part in PARTS)


def up(lab: Lab) -> None:
    """Start every part that does not run and wait until it serves."""
    waiting = [part for part in PARTS if not Process.load(_pid_file(lab, part))]
    if not waiting:
        return
    if not available():
        shell.say(
            "the driver has no controller, node and datapath commands: not started"
        )
        return
    started = {part: _start(lab, part) for part in waiting}
    for part, process in started.items():
        _wait_until_serving(lab, part, process)
    shell.say(f"driver: {', '.join(waiting)} serving")


def _main(lab: Lab, part: str) -> list[Process]:
    found = Process.load(_pid_file(lab, part))
    return [found] if found else []


def down(lab: Lab) -> None:
    """Release devices, then stop every part and whatever it left running."""
    blockdevices.release_all(lab.kind)
    for part in ("node", "controller", "datapath"):
        processes.stop(_main(lab, part), _GRACE)
        processes.stop(processes.of_part(_part_name(lab, part)))


def restart(lab: Lab, part: str, *, kill: bool) -> None:
    """Replace the processes of one part, as an upgrade or as a crash would.

    Without `kill` the main process decides what becomes of its workers; with it
    every process of the part ends by SIGKILL before the new one starts.
    """
    if kill:
        victims = processes.of_part(_part_name(lab, part))
        for victim in victims:
            victim.signal(signal.SIGKILL)
        for victim in victims:
            victim.wait(_GRACE)
    else:
        processes.stop(_main(lab, part), _GRACE)
    _wait_until_serving(lab, part, _start(lab, part))
