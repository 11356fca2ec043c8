# SPDX-License-Identifier: Apache-2.0
"""The command line of `hack/docs`, outside and inside the lab.

The driver's modules need its packages, which only the lab's namespace has:
outside, the command runs itself inside, where the clone has the same path.  Ceph
is not started for it.
"""

from __future__ import annotations

import argparse
import sys

from labtools import namespace
from labtools import places
from labtools import shell

_PAGES = ("parameters",)


def main() -> int:
    """Write the page that is asked for; 1 if it could not be."""
    parser = argparse.ArgumentParser(
        prog="hack/docs", description="Write a page of docs/ from the code."
    )
    parser.add_argument("page", choices=_PAGES)
    parser.parse_args()
    lab = places.current_lab()
    if lab.inside:
        return _write()
    was_up = namespace.holder(lab) is not None
    try:
        namespace.ensure(lab)
        namespace.use_environment(lab)
        python = str(places.VENV / "bin/python")
        return namespace.call(
            lab, python, str(places.REPO / "hack/docs"), *sys.argv[1:]
        )
    except shell.LabError as error:
        print(f"hack/docs: {error}", file=sys.stderr)
        return 1
    finally:
        if not was_up:
            namespace.end(lab)


def _write() -> int:
    sys.path.insert(0, str(places.REPO))
    # Only inside is there what it imports.
    from docstools import parameters  # noqa: PLC0415

    path = places.REPO / parameters.PAGE
    path.write_text(parameters.page(), encoding="utf-8")
    print(parameters.PAGE)
    return 0
