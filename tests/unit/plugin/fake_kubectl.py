# SPDX-License-Identifier: Apache-2.0
"""A kubectl for tests: objects from a file, commands in pods run here.

    FAKE_KUBECTL=DIRECTORY fake_kubectl.py get pvc data --output=json …

DIRECTORY/cluster.json says what there is:

    objects    what `get` finds, each with kind and metadata
    namespace  of the current context
    refuse     {kind or "exec": text}: kubectl's own words instead of an answer
    pods       {pod: how its commands end}; "*" stands for any other pod

How a command ends is {"answers": {"volume list": {"output", "errors", "status"}}}
for canned ones, or {"run": [words before the command's], "environment": {…}} for
one that is carried out on this machine.  Every call is a line of calls.jsonl.
Texts and exit statuses are those of kubectl 1.36.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from typing import NoReturn

_CLUSTER_SCOPED = (
    "persistentvolumes",
    "volumeattachments",
    "volumesnapshotcontents",
    "csidrivers",
    "csinodes",
    "storageclasses",
    "nodes",
)
_KINDS = {
    "secret": "secrets",
    "pvc": "persistentvolumeclaims",
    "pv": "persistentvolumes",
}


def main() -> None:
    """Answer one call."""
    home = Path(os.environ["FAKE_KUBECTL"])
    cluster = json.loads((home / "cluster.json").read_text())
    words = sys.argv[1:]
    with (home / "calls.jsonl").open("a") as log:
        log.write(json.dumps(words) + "\n")
    words = [each for each in words if not each.startswith(("--context", "--kubec"))]
    if words[0] == "get":
        _get(cluster, words[1:])
    if words[0] == "exec":
        _exec(cluster, words[1:])
    _fail(f'error: unknown command "{words[0]}" for "kubectl"')


def _get(cluster: dict[str, Any], words: list[str]) -> NoReturn:
    flags = [each for each in words if each.startswith("-")]
    kind, *names = [each for each in words if not each.startswith("-")]
    asked = kind.partition(".")[0]
    plural = _KINDS.get(asked, asked)
    _refuse(cluster, plural)
    if plural not in _known(cluster):
        _fail(f'error: the server doesn\'t have a resource type "{asked}"')
    namespace = _namespace(cluster, flags)
    everywhere = "--all-namespaces" in flags or plural in _CLUSTER_SCOPED
    found = [
        each
        for each in cluster["objects"]
        if _plural(each) == plural
        and (everywhere or each["metadata"]["namespace"] == namespace)
        and _selected(each, flags)
    ]
    if not names:
        _answer({"apiVersion": "v1", "items": found, "kind": "List"})
    for each in found:
        if each["metadata"]["name"] == names[0]:
            _answer(each)
    group = "" if "." not in kind else "." + kind.partition(".")[2]
    _fail(f'Error from server (NotFound): {plural}{group} "{names[0]}" not found')


def _exec(cluster: dict[str, Any], words: list[str]) -> NoReturn:
    flags = words[: words.index("--")]
    command = words[words.index("--") + 1 :]
    pod = next(each for each in flags if not each.startswith("-"))
    _refuse(cluster, "exec")
    namespace = _namespace(cluster, flags)
    names = {(e["metadata"].get("namespace"), e["metadata"]["name"]) for e in
             cluster["objects"] if e["kind"] == "Pod"}  # fmt: skip
    if (namespace, pod) not in names:
        _fail(f'Error from server (NotFound): pods "{pod}" not found')
    pods = cluster.get("pods", {})
    ending = pods.get(pod) or pods["*"]
    if "run" in ending:
        status = subprocess.run(
            [*ending["run"], *command[1:]],
            stdin=None if "--stdin" in flags else subprocess.DEVNULL,
            env={**os.environ, **ending.get("environment", {})},
            check=False,
        ).returncode
        _end(status if status >= 0 else 128 - status)
    for prefix, answer in ending["answers"].items():
        if " ".join(command[1:]).startswith(prefix):
            sys.stdout.write(answer.get("output", ""))
            sys.stderr.write(answer.get("errors", ""))
            if "broken" in answer:
                sys.exit(1)
            _end(answer.get("status", 0))
    _fail(f"error: the test has no answer for {command}")


def _end(status: int) -> NoReturn:
    if status:
        sys.stderr.write(f"command terminated with exit code {status}\n")
    sys.exit(status)


def _refuse(cluster: dict[str, Any], what: str) -> None:
    text = cluster.get("refuse", {}).get(what) or cluster.get("refuse", {}).get("*")
    if text:
        _fail(text)


def _known(cluster: dict[str, Any]) -> set[str]:
    core = {"pods", "secrets", "persistentvolumeclaims", *_CLUSTER_SCOPED}
    absent = set(cluster.get("absent", ()))
    return {*core, *map(_plural, cluster["objects"])} - absent


def _plural(found: dict[str, Any]) -> str:
    kind = str(found["kind"]).lower()
    return f"{kind}es" if kind.endswith("s") else f"{kind}s"


def _namespace(cluster: dict[str, Any], flags: list[str]) -> str:
    for each in flags:
        if each.startswith("--namespace="):
            return each.partition("=")[2]
    return str(cluster.get("namespace", "default"))


def _selected(found: dict[str, Any], flags: list[str]) -> bool:
    labels = found["metadata"].get("labels", {})
    for each in flags:
        if each.startswith("--selector="):
            wanted = each.partition("=")[2].split(",")
            return all(labels.get(w.partition("=")[0]) == w.partition("=")[2]
                       for w in wanted)  # fmt: skip
    return True


def _answer(value: object) -> NoReturn:
    sys.stdout.write(json.dumps(value, indent=4) + "\n")
    sys.exit(0)


def _fail(text: str) -> NoReturn:
    sys.stderr.write(text + "\n")
    sys.exit(1)


if __name__ == "__main__":
    main()
