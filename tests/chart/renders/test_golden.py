# SPDX-License-Identifier: Apache-2.0
"""What helm makes of the chart, against renders that people have read.

After a change that is meant, `hack/chart golden` renews them; the difference
belongs into the review.
"""

from __future__ import annotations

import difflib

import pytest
from charttools import rendering

from tests.chart import rendered


@pytest.mark.parametrize("case", rendered.CASES)
def test_a_render_is_the_one_that_was_read(case: str) -> None:
    path = rendering.golden(case)
    kept = path.read_text() if path.exists() else ""
    found = rendered.text(case)
    difference = difflib.unified_diff(
        kept.splitlines(), found.splitlines(), "read", "rendered", lineterm="", n=5
    )
    assert kept == found, "\n".join(difference) + "\nif meant: hack/chart golden"


def test_every_kept_render_has_its_case() -> None:
    kept = {path.stem for path in rendering.GOLDEN.glob("*.yaml")}
    assert kept == set(rendered.CASES)


@pytest.mark.parametrize("case", rendered.CASES)
def test_helm_lint_has_nothing_to_say(case: str) -> None:
    values = str(rendering.cases()[case])
    version = ("--kube-version", rendering.KUBERNETES)
    words = (rendering.helm(), "lint", "--strict", *version, "--values", values)
    found = rendering.run(*words, str(rendering.CHART))
    lines = {line for line in found.splitlines() if line.startswith("[")}
    assert lines <= {"[INFO] Chart.yaml: icon is recommended"}


def test_helm_lint_takes_the_chart_without_values_too() -> None:
    words = (rendering.helm(), "lint", "--kube-version", rendering.KUBERNETES)
    assert "0 chart(s) failed" in rendering.run(*words, str(rendering.CHART))


@pytest.mark.parametrize("case", rendered.CASES)
def test_renders_hold_no_empty_values(case: str) -> None:
    """A line of spaces, or a null, is a template that went wrong unnoticed."""
    assert not [line for line in rendered.text(case).splitlines() if line.isspace()]

    def nulls(value: object, path: str) -> list[str]:
        match value:
            case None:
                return [path]
            case dict():
                return [
                    each for key in value for each in nulls(value[key], f"{path}.{key}")
                ]
            case list():
                return [
                    each
                    for index, item in enumerate(value)
                    for each in nulls(item, f"{path}.{index}")
                ]
            case _:
                return []

    for each in rendered.objects(case):
        assert not nulls(each, each["metadata"]["name"])
