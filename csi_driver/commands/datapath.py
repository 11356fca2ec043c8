# SPDX-License-Identifier: Apache-2.0
"""`rbdcrypt-csi datapath`: the processes that hold keys and serve I/O."""

from __future__ import annotations

from csi_driver.commands import service
from csi_driver.commands import watching
from csi_driver.datapath import supervisor
from csi_driver.settings import DatapathSettings


def run(settings: DatapathSettings) -> None:
    """Serve the node service until told to stop; then every volume is closed."""
    service.start_logging(settings)
    supervisor.serve(
        socket_path=settings.datapath_path,
        run_dir=settings.run_dir,
        state_dir=settings.state_dir / "datapath",
        method=settings.device_method,
        clusters=settings.clusters(),
        watched=lambda exports: watching.datapath(settings, exports),
    )
