# SPDX-License-Identifier: Apache-2.0
"""Whom a notice is about, from what the sidecars and kubelet say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from csi_driver.domain.notices import Claim
from csi_driver.domain.notices import Happening
from csi_driver.domain.notices import Notice
from csi_driver.domain.notices import Notices
from csi_driver.domain.notices import Pod
from csi_driver.domain.notices import Untold
from csi_driver.domain.notices import claim_of
from csi_driver.domain.notices import pod_of

UID = "8c1a0c3e-5555-4000-8000-0123456789ab"
SAID = {
    "csi.storage.k8s.io/pvc/name": "data",
    "csi.storage.k8s.io/pvc/namespace": "tenant-a",
}


@pytest.mark.parametrize("prefix", ["pvc-", "", "any-other-"])
def test_a_volumes_name_ends_with_the_uid_of_its_claim(prefix: str) -> None:
    assert claim_of(f"{prefix}{UID}", SAID) == Claim("tenant-a", "data", UID)


@pytest.mark.parametrize(
    "name",
    ["", "data", "pvc-8c1a0c3e", f"pvc-{UID.upper()}", f"pvc-{UID.replace('-', '')}"],
)
def test_a_name_without_a_uid_leaves_it_out(name: str) -> None:
    assert claim_of(name, SAID) == Claim("tenant-a", "data")


@pytest.mark.parametrize("key", list(SAID))
@pytest.mark.parametrize("value", [None, ""])
def test_without_the_provisioners_word_no_claim_is_known(
    key: str, value: str | None
) -> None:
    said = {**SAID, key: value or ""}
    if value is None:
        del said[key]
    assert claim_of(f"pvc-{UID}", said) is None


def test_the_pod_is_the_one_that_kubelet_names() -> None:
    said = {
        "csi.storage.k8s.io/pod.name": "web-0",
        "csi.storage.k8s.io/pod.namespace": "tenant-a",
        "csi.storage.k8s.io/pod.uid": UID,
        "encryption": "keyring",
    }
    assert pod_of(said) == Pod("tenant-a", "web-0", UID)
    del said["csi.storage.k8s.io/pod.uid"]
    assert pod_of(said) == Pod("tenant-a", "web-0", "")
    del said["csi.storage.k8s.io/pod.name"]
    assert pod_of(said) is None


def test_nobody_can_be_told_too() -> None:
    """Mypy says whether the class fulfils the protocol."""
    notices: Notices = Untold()
    notices.tell(Notice(Happening.FLATTENED, Pod("tenant-a", "web-0", UID), "flat"))


def test_every_happening_is_documented_as_what_it_is() -> None:
    row = re.compile(r"^\| `(\w+)` \| (Normal|Warning) \|", re.MULTILINE)
    text = (Path(__file__).parents[3] / "docs" / "events.md").read_text()
    assert row.findall(text) == [
        (each.value, "Warning" if each.alarming else "Normal") for each in Happening
    ]


def test_only_what_is_going_well_alarms_nobody() -> None:
    good = [each.value for each in Happening if not each.alarming]
    assert good == ["FlattenStarted", "FlattenProgress", "Flattened", "PoolHasRoom"]
