# SPDX-License-Identifier: Apache-2.0
"""Class parameters: every one is read, and nothing is guessed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_driver.domain.access import Filesystem
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.flattening import FlattenPolicy
from csi_driver.domain.parameters import DEFAULT_FEATURES
from csi_driver.domain.parameters import KNOWN
from csi_driver.domain.parameters import SecretRef
from csi_driver.domain.parameters import VolumeParameters
from csi_driver.domain.parameters import check_snapshot_parameters
from csi_driver.domain.parameters import parse_parameters
from csi_driver.domain.parameters import parse_secret_ref
from csi_driver.domain.parameters import without_claim
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import Striping

LEAST = {"clusterID": "lab", "pool": "rbd"}
METADATA = {
    "csi.storage.k8s.io/pvc/name": "claim",
    "csi.storage.k8s.io/pvc/namespace": "team",
    "csi.storage.k8s.io/pv/name": "pvc-1",
}


def test_the_least_that_is_needed() -> None:
    found = parse_parameters(LEAST)
    assert found == VolumeParameters("lab", "rbd")
    assert found.encrypted
    assert found.features == DEFAULT_FEATURES
    assert found.striping == Striping()


def test_everything_that_can_be_said() -> None:
    given_all = {
        "clusterID": "lab",
        "pool": "rbd",
        "dataPool": "ec",
        "radosNamespace": "tenant",
        "imageFeatures": "exclusive-lock, layering",
        "objectSize": "8388608",
        "stripeUnit": "8388608",
        "stripeCount": "4",
        "mkfsOptions": "-m 0",
        "encrypted": "true",
        "flattenPolicy": "depth",
        "passphraseSecretName": "s",
        "passphraseSecretNamespace": "n",
        "csi.storage.k8s.io/fstype": "xfs",
    }
    assert set(given_all) == set(KNOWN)
    assert parse_parameters({**given_all, **METADATA}) == VolumeParameters(
        cluster="lab",
        pool="rbd",
        data_pool="ec",
        namespace="tenant",
        features=("layering", "exclusive-lock"),
        striping=Striping(8 * MIB, 8 * MIB, 4),
        mkfs_options="-m 0",
        filesystem=Filesystem.XFS,
        encrypted=True,
        secret=SecretRef("n", "s"),
        pv_name="pvc-1",
        flatten_policy=FlattenPolicy.DEPTH,
    )


def test_an_unknown_flatten_policy_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidRequestError, match="never, depth, always"):
        parse_parameters({**LEAST, "flattenPolicy": "sometimes"})


@given(st.text().filter(lambda name: name not in {*KNOWN, *METADATA}))
def test_an_unknown_name_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_parameters({**LEAST, name: "true"})
    assert repr(name) in str(caught.value)
    for known in KNOWN:
        assert known in str(caught.value)


@pytest.mark.parametrize("name", ["Encrypted", "encrypted ", "encryption", "poolID"])
def test_a_misspelt_name_is_no_plaintext_volume(name: str) -> None:
    with pytest.raises(InvalidRequestError, match="unknown parameter"):
        parse_parameters({**LEAST, name: "true"})


@pytest.mark.parametrize("name", ["clusterID", "pool"])
@pytest.mark.parametrize("empty", [True, False])
def test_what_is_needed_is_named(name: str, empty: bool) -> None:
    rest = {key: value for key, value in LEAST.items() if key != name}
    with pytest.raises(InvalidRequestError, match=f"{name} is missing"):
        parse_parameters({**rest, name: ""} if empty else rest)


@pytest.mark.parametrize("value", ["", "True", "yes", "1", "false ", "no"])
def test_encrypted_is_true_or_false(value: str) -> None:
    with pytest.raises(InvalidRequestError, match="encrypted"):
        parse_parameters({**LEAST, "encrypted": value})


def test_plaintext_has_to_be_asked_for() -> None:
    assert not parse_parameters({**LEAST, "encrypted": "false"}).encrypted


@pytest.mark.parametrize("name", ["objectSize", "stripeUnit", "stripeCount"])
@pytest.mark.parametrize("value", ["4M", "-1", "1.5", "0x10", "\u0661", " 1", "9" * 99])
def test_numbers_are_digits(name: str, value: str) -> None:
    with pytest.raises(InvalidRequestError, match=name):
        parse_parameters({**LEAST, name: value})


def test_the_stripe_unit_follows_the_object_size() -> None:
    found = parse_parameters({**LEAST, "objectSize": "1048576"})
    assert found.striping == Striping(MIB, MIB)


def test_a_striping_that_librbd_mixes_up_is_for_plaintext_alone() -> None:
    striped = {**LEAST, "stripeUnit": "1048576", "stripeCount": "4"}
    with pytest.raises(InvalidRequestError, match="mix up"):
        parse_parameters(striped)
    found = parse_parameters({**striped, "encrypted": "false"})
    assert found.striping == Striping(4 * MIB, MIB, 4)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("layering,exclusive-lock,deep-flatten", "unreadable"),
        ("layering,exclusive-lock,journaling", "journaled"),
        ("layering,exclusive-lock,teleport", "known are layering"),
        ("layering", "exclusive-lock cannot be left out"),
        ("exclusive-lock", "layering cannot be left out"),
        ("layering,exclusive-lock,fast-diff", "needs object-map"),
        (",", "unknown image feature"),
    ],
)
def test_features_that_do_not_work(text: str, why: str) -> None:
    with pytest.raises(InvalidRequestError, match=why):
        parse_parameters({**LEAST, "imageFeatures": text})


@pytest.mark.parametrize(
    ("namespace", "name", "found"),
    [
        ("n", "s", SecretRef("n", "s")),
        ("${pvc.namespace}", "${pvc.name}-key", SecretRef("team", "claim-key")),
        ("n", "${pv.name}", SecretRef("n", "pvc-1")),
        ("n", "$name}", SecretRef("n", "$name}")),
    ],
)
def test_a_secret_named_by_template(namespace: str, name: str, found: object) -> None:
    given_all = {
        **LEAST,
        **METADATA,
        "passphraseSecretNamespace": namespace,
        "passphraseSecretName": name,
    }
    assert parse_parameters(given_all).secret == found


@pytest.mark.parametrize("word", ["pvc.annotations", "", "pvc.name", "__class__"])
def test_a_template_that_cannot_be_filled_in(word: str) -> None:
    with pytest.raises(InvalidRequestError, match="extra-create-metadata"):
        parse_parameters(
            {
                **LEAST,
                "passphraseSecretNamespace": "n",
                "passphraseSecretName": f"${{{word}}}",
            },
        )


def test_a_value_is_not_filled_in_twice() -> None:
    values = {**METADATA, "csi.storage.k8s.io/pvc/name": "${pv.name}"}
    ref = {"passphraseSecretNamespace": "n", "passphraseSecretName": "${pvc.name}"}
    found = parse_parameters({**LEAST, **values, **ref}).secret
    assert found == SecretRef("n", "${pv.name}")


def test_a_secret_is_named_whole_or_not_at_all() -> None:
    assert parse_secret_ref({}) is None
    for half in ("passphraseSecretName", "passphraseSecretNamespace"):
        with pytest.raises(InvalidRequestError, match="together"):
            parse_secret_ref({half: "x"})


def test_a_class_is_understood_without_the_secrets_that_it_names() -> None:
    kinds = (
        "",
        "provisioner-",
        "controller-publish-",
        "node-stage-",
        "node-publish-",
        "controller-expand-",
        "node-expand-",
        "controller-modify-",
    )
    references = {
        f"csi.storage.k8s.io/{kind}secret-{part}": "${pvc.name}"
        for kind in kinds
        for part in ("name", "namespace")
    }
    passphrase = {
        "passphraseSecretName": "${pvc.name}",
        "passphraseSecretNamespace": "${pvc.namespace}",
    }
    rest = {**LEAST, "csi.storage.k8s.io/fstype": "xfs"}
    assert without_claim({**rest, **references, **passphrase}) == rest


@pytest.mark.parametrize(
    "name",
    [
        "csi.storage.k8s.io/secret",
        "csi.storage.k8s.io/provisioner-secret-nam",
        "example.com/provisioner-secret-name",
        "secret-name",
    ],
)
def test_what_is_no_reference_to_a_secret_stays_an_error(name: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"'{name}'"):
        parse_parameters(without_claim({**LEAST, name: "x"}))


def test_a_snapshot_class_may_carry_the_snapshotter_s_metadata() -> None:
    check_snapshot_parameters({})
    check_snapshot_parameters(
        {
            "csi.storage.k8s.io/volumesnapshot/name": "mine",
            "csi.storage.k8s.io/volumesnapshot/namespace": "team",
            "csi.storage.k8s.io/volumesnapshotcontent/name": "snapcontent-1",
        }
    )


@pytest.mark.parametrize(
    "name", ["clusterID", "encrypted", "csi.storage.k8s.io/pv/name", ""]
)
def test_a_snapshot_class_has_no_parameters(name: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"'{name}'"):
        check_snapshot_parameters({name: "x"})
