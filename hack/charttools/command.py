# SPDX-License-Identifier: Apache-2.0
"""The command line of hack/chart."""

from __future__ import annotations

import argparse
import sys

from charttools import readme
from charttools import rendering
from charttools import values


def docs_wanted() -> str:
    """Return the chart's README as it should be."""
    found = values.parse((rendering.CHART / "values.yaml").read_text())
    return readme.with_values((rendering.CHART / "README.md").read_text(), found)


def _docs() -> int:
    (rendering.CHART / "README.md").write_text(docs_wanted())
    return 0


def _golden() -> int:
    rendering.GOLDEN.mkdir(parents=True, exist_ok=True)
    wanted = {
        rendering.golden(case): rendering.template(path)
        for case, path in rendering.cases().items()
    }
    for path in rendering.GOLDEN.glob("*.yaml"):
        if path not in wanted:
            path.unlink()
    for path, text in wanted.items():
        path.write_text(text)
    return 0


def _check() -> int:
    faults = []
    if (rendering.CHART / "README.md").read_text() != docs_wanted():
        faults.append(
            "the chart's README is not what values.yaml says: hack/chart docs"
        )
    for case, path in rendering.cases().items():
        kept = rendering.golden(case)
        if not kept.exists() or kept.read_text() != rendering.template(path):
            faults.append(f"{kept.name} is not what the chart makes: hack/chart golden")
    print("\n".join(faults) or "README and renders are fresh")
    return 1 if faults else 0


_COMMANDS = {"docs": _docs, "golden": _golden, "check": _check}


def main() -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="hack/chart",
        description="docs: write the README's tables of values; golden: renew the"
        " renders of tests/chart; check: say whether both are fresh",
    )
    parser.add_argument("command", choices=sorted(_COMMANDS))
    try:
        return _COMMANDS[parser.parse_args().command]()
    except rendering.HelmError as error:
        print(f"hack/chart: {error}", file=sys.stderr)
        return 1
