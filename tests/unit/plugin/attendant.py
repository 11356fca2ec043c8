# SPDX-License-Identifier: Apache-2.0
"""`volume flatten --attended` without Ceph: what the plugin says to it and hears.

    ATTENDANT=DIRECTORY attendant.py [HOW] volume flatten ID --attended …

Its words are those of `csi_driver.commands.attended`; HOW says how it ends.  The
line that it was given goes to DIRECTORY/line, its end to DIRECTORY/end.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from csi_driver.commands import attended


def main() -> None:
    """Play one flatten."""
    how, *words = sys.argv[1:]
    home = Path(os.environ["ATTENDANT"])
    line = attended.first_line() if "--secret-file=-" in words else ""
    (home / "line").write_text(line)
    if how == "refuse":
        sys.exit("rbdcrypt-csi: volume 'pvc-1' is staged on node worker-1")
    if how == "deaf":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    attended.heed_stdin()
    sys.stderr.write("waiting for 127.0.0.1:0/7 to end\n")
    sys.stderr.flush()
    attended.show_line({"progress": {"done": 1, "total": 4}})
    (home / "begun").touch()
    try:
        time.sleep(0 if how == "quick" else 60)
    except KeyboardInterrupt:
        (home / "end").write_text("let go")
        sys.exit("Aborted!")
    attended.show_line({"id": words[2], "ancestors": 0})


if __name__ == "__main__":
    main()
