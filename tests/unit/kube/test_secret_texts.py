# SPDX-License-Identifier: Apache-2.0
"""Secrets in files: the forms that are read, and messages that show no value."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_driver.domain.errors import SecretError
from csi_driver.kube.secret_texts import LONGEST
from csi_driver.kube.secret_texts import parse_secret

VALUES = {"encryptionPassphrase": "hunter2 ☂", "userID": "tenant"}
ENCODED = {
    name: base64.b64encode(value.encode()).decode() for name, value in VALUES.items()
}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"apiVersion": "v1", "kind": "Secret", "data": ENCODED}),
        json.dumps({"kind": "Secret", "stringData": VALUES}),
        json.dumps({"stringData": VALUES}),
        json.dumps({"data": ENCODED, "metadata": {"name": "x"}}),
        json.dumps(VALUES),
        "stringData:\n  encryptionPassphrase: hunter2 ☂\n  userID: tenant",
        "encryptionPassphrase: 'hunter2 ☂'\nuserID: tenant\n",
    ],
)
def test_the_forms_that_are_read(text: str) -> None:
    assert parse_secret(text, "file") == VALUES


def test_string_data_wins_as_in_kubernetes() -> None:
    text = json.dumps({"data": ENCODED, "stringData": {"userID": "other"}})
    assert parse_secret(text, "file")["userID"] == "other"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hunter2",
        "[hunter2]",
        "a: hunter2\n  b: [",
        "encryptionPassphrase: 12345",
        "encryptionPassphrase: [hunter2]",
        '{"kind": "Secret", "data": {"a": "hunter2"}}',
        '{"kind": "Secret", "data": {"a": "/////w=="}}',
        '{"kind": "Secret", "data": ["hunter2"]}',
        "!!python/object/apply:os.system ['hunter2']",
        "a: " + "x" * LONGEST,
    ],
)
def test_anything_else_is_refused_without_a_value(text: str) -> None:
    with pytest.raises(SecretError) as caught:
        parse_secret(text, "the file")
    error: BaseException | None = caught.value
    while error is not None:
        assert "hunter2" not in str(error)
        error = error.__cause__ or error.__context__


@given(st.dictionaries(st.text(min_size=1), st.text(min_size=1), min_size=1))
def test_every_flat_mapping_is_read_as_json(values: dict[str, str]) -> None:
    if {"data", "stringData"} & values.keys() or values.get("kind") == "Secret":
        return
    assert parse_secret(json.dumps(values), "file") == values
