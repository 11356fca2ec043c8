# SPDX-License-Identifier: Apache-2.0
"""Run a datapath on the directories of the command line, until SIGTERM.

run_datapath.py SOCKET RUN_DIR STATE_DIR METHOD
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from csi_driver.datapath.supervisor import serve
from csi_driver.datapath.worker_log import configure
from csi_driver.domain.clusters import parse_clusters


def main() -> None:
    configure()
    socket_path, run_dir, state_dir = map(Path, sys.argv[1:4])
    clusters = parse_clusters(Path(os.environ["RBDCRYPT_CLUSTERS_FILE"]).read_text())
    serve(
        socket_path=socket_path,
        run_dir=run_dir,
        state_dir=state_dir,
        method=sys.argv[4],
        clusters=clusters,
    )


if __name__ == "__main__":
    main()
