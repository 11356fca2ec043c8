# SPDX-License-Identifier: Apache-2.0
"""Requests that cannot be carried out: each has its error and changes nothing."""

from __future__ import annotations

import pytest

from csi_driver.domain.access import AccessMode
from csi_driver.domain.access import Capability
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.ids import Location
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.sizes import CapacityRange
from csi_driver.provisioning.requests import CreateRequest
from tests.unit.provisioning.worlds import SECRET
from tests.unit.provisioning.worlds import World

KEY = SECRET["encryptionKey"]
UNIQUE = "canary-7c1f"


def refused(world: World, request: CreateRequest, kind: type[DriverError]) -> str:
    """Check that a create fails and changes nothing; return the message."""
    before = world.content()
    with pytest.raises(kind) as caught:
        world.volumes.create(request)
    assert caught.type is kind
    assert world.content() == before
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "name",
    ["", "x" * 129, "ä" * 65, "bad\ud800name", "tab\there", "line\nbreak", "nul\0"],
)
def test_names_that_csi_does_not_allow(world: World, name: str) -> None:
    refused(world, world.request(name), InvalidRequestError)


@pytest.mark.parametrize(
    "name",
    [
        "../../x",
        "/",
        ".",
        "ä" * 64,
        "x" * 128,
        "a b",
        "rbdcrypt.directory",
        "日本" * 21,
    ],
)
def test_odd_names_are_names_like_others(world: World, name: str) -> None:
    made = world.volumes.create(world.plaintext(name))
    assert world.names() == [name]
    assert world.record(made.volume_id).name == name
    assert len(str(made.volume_id)) <= 128
    assert world.volumes.create(world.plaintext(name)) == made
    world.volumes.delete(made.volume_id)
    world.collect_all()
    assert world.content() == {}


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"encyrpted": "false"}, "unknown parameter 'encyrpted'"),
        ({"encrypted": "yes"}, "encrypted"),
        ({"clusterID": ""}, "clusterID is missing"),
        ({"pool": ""}, "pool is missing"),
        ({"clusterID": "elsewhere"}, "not configured"),
        ({"pool": "no-such-pool"}, "not among those configured"),
        ({"radosNamespace": "not-owned"}, "not among those configured"),
        ({"imageFeatures": "layering,exclusive-lock,deep-flatten"}, "deep-flatten"),
        ({"imageFeatures": "layering"}, "exclusive-lock"),
        ({"objectSize": "12345"}, "objectSize"),
        ({"objectSize": "-1"}, "objectSize"),
        ({"stripeUnit": "65536"}, "stripeUnit"),
        ({"stripeCount": "0"}, "stripeCount"),
        ({"csi.storage.k8s.io/fstype": "btrfs"}, "btrfs"),
        ({"passphraseSecretName": "alone"}, "passphraseSecretNamespace"),
    ],
)
def test_wrong_parameters(world: World, parameters: dict[str, str], said: str) -> None:
    request = world.request("one", **parameters)  # type: ignore[arg-type]
    message = refused(world, request, InvalidRequestError)
    assert said in message


def test_a_data_pool_that_is_not_the_drivers(world: World) -> None:
    request = world.request("one", dataPool="no-such-pool")
    assert "no-such-pool" in refused(world, request, InvalidRequestError)


@pytest.mark.parametrize(
    ("secrets", "said"),
    [
        ({}, "no Secret came"),
        ({"encryptionPassphrase": ""}, "empty"),
        ({"encryptionPassphrase": f"{UNIQUE}\0"}, "NUL"),
        ({"encryptionPassphrase": f"{UNIQUE}\n"}, "newline"),
        ({"encryptionPassphrase": f"{UNIQUE}\r\n"}, "newline"),
        ({"encryptionPassphrase": f"{UNIQUE}\ud800"}, "UTF-8"),
        ({"encryptionPassphrase": UNIQUE, "encryptionKey": KEY}, "both"),
        ({"encryptionKey": KEY + "\n"}, "newline"),
        ({"encryptionKey": UNIQUE}, "base64"),
        ({"encryptionKey": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MA=="}, "32 bytes"),
        ({**SECRET, "userID": "somebody"}, "userKey"),
        ({**SECRET, "userKey": UNIQUE}, "userID"),
    ],
)
def test_wrong_secrets(world: World, secrets: dict[str, str], said: str) -> None:
    message = refused(world, world.request("one", secrets=secrets), SecretError)
    assert said in message
    assert UNIQUE not in message


@pytest.mark.parametrize(
    "mode", [AccessMode.MULTI_NODE_MULTI_WRITER, AccessMode.MULTI_NODE_SINGLE_WRITER]
)
def test_access_modes_that_are_not_offered(world: World, mode: AccessMode) -> None:
    request = world.request("one", capability=Capability(mode))
    refused(world, request, InvalidRequestError)


def test_ids_of_volumes_that_do_not_exist(world: World) -> None:
    known = world.create("one").volume_id
    before = world.content()
    gone = VolumeId(known.location, "123abc456def")
    world.volumes.delete(gone)
    no_pool = VolumeId(Location(world.cluster, 999_999), known.image_id)
    world.volumes.delete(no_pool)
    for each in (gone, no_pool):
        with pytest.raises(NotFoundError):
            world.volumes.get(each)
        with pytest.raises(NotFoundError):
            world.volumes.expand(each, CapacityRange(1 << 31))
    elsewhere = VolumeId(Location("elsewhere", 1), known.image_id)
    for call in (world.volumes.delete, world.volumes.get):
        with pytest.raises(PreconditionError, match="not configured"):
            call(elsewhere)
    assert world.content() == before
