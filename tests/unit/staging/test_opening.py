# SPDX-License-Identifier: Apache-2.0
"""From secrets to an open volume: what opens it, what is refused, what stays."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pytest

from csi_driver.datapath.client import Datapath
from csi_driver.datapath.messages import OpenedVolume
from csi_driver.datapath.messages import OpenVolume
from csi_driver.devices.device import Device
from csi_driver.devices.device import DeviceKind
from csi_driver.domain.chain import HeaderKind
from csi_driver.domain.errors import HeaderError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import RecordError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.errors import UnsupportedError
from csi_driver.domain.parameters import SecretRef
from csi_driver.domain.record import EncryptionMode
from csi_driver.domain.record import Record
from csi_driver.domain.sizes import RawSize
from csi_driver.domain.sizes import Striping
from csi_driver.images.chains import read_chain
from csi_driver.images.connections import SharedConnections
from csi_driver.images.records import change_record
from csi_driver.images.values import NewImage
from csi_driver.provisioning.requests import VolumeInfo
from csi_driver.staging.opening import Credentials
from csi_driver.staging.opening import Opener

type CreateVolume = Callable[..., VolumeInfo]

KEY = {"encryptionKey": "q83vEjRWeJq83vEjRWeJq83vEjRWeJq83vEjRWeJq80="}
PASSPHRASE = {"encryptionPassphrase": "open sesame"}
USER = {"userID": "tenant", "userKey": "AQAA8VNlAAAAABAAAAECAwQFBgcICQoLDA0ODw=="}


@pytest.mark.parametrize("secrets", [KEY, PASSPHRASE], ids=["key", "passphrase"])
def test_the_specs_open_the_image(
    opener: Opener,
    create: CreateVolume,
    connections: SharedConnections,
    secrets: dict[str, str],
) -> None:
    volume = create(secrets=secrets)
    credentials = Credentials(volume.context, secrets)
    with opener.prepared(volume.volume_id, credentials, read_only=False) as prepared:
        ready = prepared.volume
        assert ready.mode is EncryptionMode.KEYRING
        assert ready.specs is not None
        with (
            connections.pool_at(volume.volume_id.location) as pool,
            pool.open_loaded(volume.volume_id.image_id, ready.specs) as image,
        ):
            assert image.size() == volume.size
        assert ready.pool_name == "rbd"
        assert (ready.user_id, ready.node_id) == ("driver", "node-1")
        assert len(ready.key) == 40
    assert not len(ready.key)
    assert not any(len(layer.passphrase) for layer in ready.specs.layers)


def test_a_ceph_user_of_the_secret(opener: Opener, create: CreateVolume) -> None:
    volume = create(secrets=KEY)
    credentials = Credentials(volume.context, {**KEY, **USER})
    with opener.prepared(volume.volume_id, credentials, read_only=True) as prepared:
        ready = prepared.volume
        assert ready.user_id == "tenant"
        assert ready.key.reveal() == USER["userKey"].encode()
        assert ready.read_only


def test_keys_are_wiped_after_a_failure(opener: Opener, create: CreateVolume) -> None:
    volume = create(secrets=KEY)
    credentials = Credentials(volume.context, KEY)
    seen: list[OpenVolume] = []

    def attach() -> None:
        with opener.prepared(
            volume.volume_id, credentials, read_only=False
        ) as prepared:
            seen.append(prepared.volume)
            message = "attaching"
            raise OSError(message)

    with pytest.raises(OSError, match="attaching"):
        attach()
    (ready,) = seen
    assert ready.specs is not None
    assert not any(len(layer.passphrase) for layer in ready.specs.layers)


class NamedSecrets:
    """Stands in for the Kubernetes API."""

    def read_secret(self, reference: SecretRef) -> dict[str, str]:
        assert str(reference) == "ns/name"
        return dict(KEY)


NAMED = {"passphraseSecretName": "name", "passphraseSecretNamespace": "ns"}


def test_a_secret_that_the_context_names(opener: Opener, create: CreateVolume) -> None:
    volume = create(secrets=KEY)
    credentials = Credentials({**volume.context, **NAMED}, {})
    with (
        pytest.raises(PreconditionError, match="kubeconfig"),
        opener.prepared(volume.volume_id, credentials, read_only=False),
    ):
        pass
    with dataclasses.replace(opener, secrets=NamedSecrets()).prepared(
        volume.volume_id, credentials, read_only=False
    ) as prepared:
        ready = prepared.volume
        assert ready.specs is not None


def test_a_plaintext_volume(opener: Opener, create: CreateVolume) -> None:
    volume = create(secrets={}, parameters={"encrypted": "false"})
    credentials = Credentials(volume.context, {})
    with opener.prepared(volume.volume_id, credentials, read_only=False) as prepared:
        ready = prepared.volume
        assert ready.specs is None
        assert ready.mode is EncryptionMode.NONE


def refused(
    opener: Opener,
    volume: VolumeInfo,
    error: type[Exception],
    words: str,
    secrets: Mapping[str, str] = KEY,
) -> str:
    credentials = Credentials(volume.context, secrets)
    with (
        pytest.raises(error, match=words) as caught,
        opener.prepared(volume.volume_id, credentials, read_only=False),
    ):
        pass
    return str(caught.value)


def change(
    connections: SharedConnections, volume: VolumeInfo, how: Callable[[Record], Record]
) -> Record:
    with connections.pool_at(volume.volume_id.location) as pool:
        return change_record(pool, volume.volume_id.image_id, how)


def test_another_secret(opener: Opener, create: CreateVolume) -> None:
    volume = create(secrets=PASSPHRASE)
    other = {"encryptionPassphrase": "another one"}
    message = refused(opener, volume, SecretError, "fingerprint", other)
    assert "'volume'" in message
    assert "another one" not in message
    message = refused(opener, volume, SecretError, "made with a passphrase", KEY)
    assert KEY["encryptionKey"] not in message


def test_another_mode(
    opener: Opener, create: CreateVolume, connections: SharedConnections
) -> None:
    volume = create(secrets=KEY)
    change(
        connections,
        volume,
        lambda record: dataclasses.replace(record, mode=EncryptionMode.NONE),
    )
    refused(opener, volume, PreconditionError, "altered")


def test_no_mode_at_all(opener: Opener, create: CreateVolume) -> None:
    volume = dataclasses.replace(create(secrets=KEY), context={})
    refused(opener, volume, InvalidRequestError, "volume adopt")


def test_no_ring(
    opener: Opener, create: CreateVolume, connections: SharedConnections
) -> None:
    volume = create(secrets=KEY)
    change(connections, volume, lambda record: dataclasses.replace(record, ring=None))
    refused(opener, volume, RecordError, "no key ring")


@pytest.mark.parametrize("mode", [EncryptionMode.KEYRING, EncryptionMode.PASSPHRASE])
def test_no_header(
    opener: Opener,
    create: CreateVolume,
    connections: SharedConnections,
    mode: EncryptionMode,
) -> None:
    volume = create(secrets=KEY)
    change(connections, volume, lambda record: dataclasses.replace(record, mode=mode))
    with (
        connections.pool_at(volume.volume_id.location) as pool,
        pool.open_raw(volume.volume_id.image_id) as image,
    ):
        image.erase_header(4096)
    credentials = Credentials(
        {"encryption": mode.value},
        KEY if mode is EncryptionMode.KEYRING else PASSPHRASE,
    )
    with (
        pytest.raises(HeaderError, match="not served as plaintext"),
        opener.prepared(volume.volume_id, credentials, read_only=False),
    ):
        pass


def test_the_header_of_another_volume(
    opener: Opener, create: CreateVolume, connections: SharedConnections
) -> None:
    volume, other = create(secrets=KEY), create("other", secrets=KEY)
    with (
        connections.pool_at(volume.volume_id.location) as pool,
        pool.open_raw(other.volume_id.image_id, read_only=True) as source,
        pool.open_raw(volume.volume_id.image_id) as image,
    ):
        image.erase_header(4096)
        image.write_header(source.read_header(4 * 65536))
    refused(opener, volume, HeaderError, "does not know")


def test_a_volume_that_is_gone(opener: Opener, create: CreateVolume) -> None:
    volume = create(secrets=KEY)
    gone = dataclasses.replace(volume.volume_id, image_id="0")
    refused(opener, dataclasses.replace(volume, volume_id=gone), NotFoundError, "0")


class LoadingDatapath:
    """Loads what it is told to open, and notes how many layers that were."""

    def __init__(self, connections: SharedConnections) -> None:
        self._connections = connections
        self.layers: list[int] = []

    def open(self, volume: OpenVolume) -> OpenedVolume:
        assert volume.specs is not None
        self.layers.append(len(volume.specs.layers))
        with (
            self._connections.pool_at(volume.volume_id.location) as pool,
            pool.open_loaded(volume.volume_id.image_id, volume.specs) as image,
        ):
            size = image.size()
        kind = DeviceKind.FUSE
        device = Device(Path("/dev/null"), kind, "", read_only=volume.read_only)
        return OpenedVolume(device, size, "")


@pytest.fixture
def datapath(connections: SharedConnections) -> LoadingDatapath:
    return LoadingDatapath(connections)


@pytest.fixture
def chain(create: CreateVolume) -> list[VolumeInfo]:
    """Give a volume, a clone of it, and a clone of that."""
    made = [create(secrets=KEY)]
    for name in ("clone", "grandchild"):
        made.append(create(name, secrets=KEY, source=made[-1].volume_id))
    return made


def open_by(opener: Opener, volume: VolumeInfo, datapath: LoadingDatapath) -> None:
    credentials = Credentials(volume.context, KEY)
    with opener.prepared(volume.volume_id, credentials, read_only=False) as prepared:
        opened = prepared.open_by(cast("Datapath", datapath), read_only=True)
    assert opened.device.read_only
    assert opened.size == volume.size


def test_a_clone_opens_at_once(
    opener: Opener, chain: list[VolumeInfo], datapath: LoadingDatapath
) -> None:
    for each in chain:
        open_by(opener, each, datapath)
    assert datapath.layers == [1, 2, 3]


@pytest.mark.parametrize(
    ("wrong", "tried"),
    [((), [3]), ((0,), [1, 3]), ((0, 2, 1), [3, 3]), ((0, 1, 2, 2), [4, 3])],
)
def test_a_wrong_record_of_the_layers(
    opener: Opener,
    chain: list[VolumeInfo],
    connections: SharedConnections,
    datapath: LoadingDatapath,
    *,
    wrong: tuple[int, ...],
    tried: list[int],
) -> None:
    change(
        connections,
        chain[-1],
        lambda record: dataclasses.replace(
            record, layers=tuple(record.layers[each] for each in wrong)
        ),
    )
    open_by(opener, chain[-1], datapath)
    assert datapath.layers == tried


def test_what_the_real_chain_does_not_mend(
    opener: Opener, chain: list[VolumeInfo]
) -> None:
    """The error of the load is the one that is told, and nothing is tried twice."""
    tried = []

    class Refusing:
        def open(self, volume: OpenVolume) -> OpenedVolume:
            tried.append(volume)
            message = "the header is damaged"
            raise HeaderError(message)

    volume = chain[-1]
    credentials = Credentials(volume.context, KEY)
    with (
        pytest.raises(HeaderError, match="is damaged"),
        opener.prepared(volume.volume_id, credentials, read_only=False) as prepared,
    ):
        prepared.open_by(cast("Datapath", Refusing()), read_only=False)
    assert len(tried) == 1


def test_a_key_that_the_ring_lacks(
    opener: Opener, chain: list[VolumeInfo], connections: SharedConnections
) -> None:
    source, _, volume = chain

    def without(record: Record) -> Record:
        assert record.ring is not None
        ring = record.ring.without({record.layers[-1]})
        return dataclasses.replace(record, ring=ring)

    unknown = change(connections, volume, without).layers[-1]
    message = refused(opener, volume, SecretError, unknown)
    assert source.volume_id.image_id in message
    assert "volume check" in message


def test_an_encrypted_image_with_small_stripe_units(
    create: CreateVolume, connections: SharedConnections
) -> None:
    """Librbd would garble it (18.2.7), so it is not even loaded."""
    volume = create(secrets=KEY)
    striping = Striping(object_size=1 << 20, stripe_unit=1 << 16, stripe_count=2)
    with connections.pool_at(volume.volume_id.location) as pool:
        with pool.open_raw(volume.volume_id.image_id) as source:
            header = source.read_header(4 * 65536)
        features = ("layering", "exclusive-lock")
        pool.create_image(NewImage("striped", RawSize(1 << 26), striping, features))
        image_id = str(pool.find_image("striped"))
        assert read_chain(pool, image_id)[0].kind is HeaderKind.NONE
        with pool.open_raw(image_id) as image:
            image.write_header(header)
        with pytest.raises(UnsupportedError, match="mixes up the blocks"):
            read_chain(pool, image_id)


@pytest.mark.parametrize(
    ("context", "secrets", "enough"),
    [
        ({"encryption": "keyring"}, {}, False),
        ({"encryption": "keyring"}, KEY, True),
        ({"encryption": "keyring", **NAMED}, {}, True),
        ({"encryption": "none"}, {}, True),
    ],
)
def test_whether_credentials_suffice(
    context: dict[str, str], secrets: dict[str, str], enough: bool
) -> None:
    assert Credentials(context, secrets).suffice() is enough


def test_credentials_do_not_print() -> None:
    assert KEY["encryptionKey"] not in repr(Credentials({}, KEY))
