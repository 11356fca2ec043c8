# SPDX-License-Identifier: Apache-2.0
"""Images that others formatted: their passphrases go to librbd as they are."""

from __future__ import annotations

import time
import uuid

import pytest

from csi_driver.domain.clusters import Clusters
from csi_driver.domain.context import volume_context
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.parameters import DEFAULT_FEATURES
from csi_driver.domain.secrets import SecretBytes
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.domain.sizes import Layout
from csi_driver.domain.sizes import Striping
from csi_driver.images.connections import SharedConnections
from csi_driver.images.headers import make_header
from csi_driver.images.values import NewImage
from csi_driver.provisioning.adopt import Adoption
from csi_driver.provisioning.adopt import adopt
from csi_driver.provisioning.requests import VolumeInfo
from csi_driver.provisioning.volumes import Volumes
from tests.ceph.staging.harness import BLOCK_WRITER
from tests.ceph.staging.harness import SIZE
from tests.ceph.staging.harness import Node
from tests.ceph.staging.harness import read_device
from tests.ceph.staging.harness import write_device

PASSPHRASE = "a passphrase of thirty-two bytes"


@pytest.fixture
def adopted(
    clusters: Clusters,
    connections: SharedConnections,
    volumes: tuple[Volumes, list[VolumeId]],
) -> VolumeInfo:
    """Give an adopted block volume with a LUKS2 header that is not ours."""
    layout = Layout.for_striping(Striping())
    size = EffectiveSize(SIZE)
    name = f"foreign-{time.monotonic_ns()}"
    with connections.pool("lab", "rbd") as pool:
        pool.create_image(
            NewImage(name, layout.raw(size), Striping(), DEFAULT_FEATURES)
        )
        image_id = pool.find_image(name)
        assert image_id is not None
        passphrase = SecretBytes(PASSPHRASE.encode())
        with pool.open_raw(image_id) as image:
            image.write_header(make_header(passphrase, uuid.uuid4(), layout))
        record = adopt(pool, clusters.get("lab"), Adoption(name, block=True))
        volume_id = VolumeId(pool.location, image_id)
    volumes[1].append(volume_id)
    return VolumeInfo(volume_id, record.desired, volume_context(record))


def test_the_passphrase_opens_it(node: Node, adopted: VolumeInfo) -> None:
    secrets = {"encryptionPassphrase": PASSPHRASE}
    node.stage(adopted, BLOCK_WRITER, secrets)
    write_device(node.publish(adopted, BLOCK_WRITER), b"theirs")
    node.unpublish(adopted)
    node.unstage(adopted)
    node.stage(adopted, BLOCK_WRITER, secrets)
    assert read_device(node.publish(adopted, BLOCK_WRITER), 6) == b"theirs"


@pytest.mark.parametrize(
    ("passphrase", "words"),
    [("another", "passphrase"), (f"{PASSPHRASE}\n", "ends in a newline")],
)
def test_a_wrong_passphrase(
    node: Node, adopted: VolumeInfo, passphrase: str, words: str
) -> None:
    with pytest.raises(SecretError, match=words) as caught:
        node.stage(adopted, BLOCK_WRITER, {"encryptionPassphrase": passphrase})
    assert passphrase not in str(caught.value)
    assert node.datapath.status(adopted.volume_id) is None
    assert not node.state_file(adopted).exists()


def test_a_flat_image_takes_its_own_passphrase_alone(
    node: Node, adopted: VolumeInfo
) -> None:
    """As a clone does once it was flattened; librbd would refuse the others."""
    secrets = {"encryptionPassphrase": PASSPHRASE, "encryptionPassphrase.1": "more"}
    node.stage(adopted, BLOCK_WRITER, secrets)
    node.unstage(adopted)


def test_it_is_no_filesystem(node: Node, adopted: VolumeInfo) -> None:
    with pytest.raises(PreconditionError, match="as a block device"):
        node.stage(adopted, secrets={"encryptionPassphrase": PASSPHRASE})
