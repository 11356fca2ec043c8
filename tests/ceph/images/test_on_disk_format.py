# SPDX-License-Identifier: Apache-2.0
"""The bytes that librbd leaves, judged by two others: our oracle and cryptsetup."""

from __future__ import annotations

import random
import subprocess
import uuid
from pathlib import Path

import pytest

from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import Striping
from csi_driver.images.headers import make_header
from csi_driver.testing.luks import open_header
from tests.ceph.images.conftest import Flat
from tests.ceph.images.conftest import Lab

STRIPINGS = [Striping(), Striping(MIB, MIB), Striping(4 * MIB, 4 * MIB, 3)]
DATA = random.Random(5).randbytes(9 * MIB)  # noqa: S311  # test data


@pytest.mark.parametrize("striping", STRIPINGS, ids=str)
def test_the_oracle_decrypts_what_librbd_wrote(lab: Lab, striping: Striping) -> None:
    with lab.flat(striping) as flat:
        with lab.pool.open_loaded(flat.image_id, flat.specs) as image:
            image.write(0, DATA)
            image.write(20 * MIB + 700, b"inside a sector")
        raw = lab.raw_bytes(flat.name)
    opened = open_header(raw, flat.dek.reveal())
    assert opened.data_offset == flat.layout.reserve
    assert opened.sector_size == 4096
    area = raw[opened.data_offset :]
    assert area[: len(DATA)] != DATA
    assert opened.sectors().decrypt(0, area[: len(DATA)]) == DATA
    sector = opened.sectors().decrypt(20 * MIB, area[20 * MIB : 20 * MIB + 4096])
    assert sector[700:715] == b"inside a sector"


def test_the_oracle_decrypts_an_object_of_rados(lab: Lab, flat: Flat) -> None:
    """Through librados alone: object 4 holds the first 4 MiB behind the header."""
    with lab.pool.open_loaded(flat.image_id, flat.specs) as image:
        image.write(0, DATA)
    header = lab.object(flat.image_id, 0)
    opened = open_header(header, flat.dek.reveal())
    assert set(lab.objects(flat.image_id)) == {0, 4, 5, 6}
    stored = lab.object(flat.image_id, 5)
    assert opened.sectors().decrypt(4 * MIB, stored) == DATA[4 * MIB : 8 * MIB]


def test_librbd_decrypts_what_the_oracle_wrote(lab: Lab, flat: Flat) -> None:
    opened = open_header(flat.header, flat.dek.reveal())
    sealed = opened.sectors().encrypt(MIB, DATA[:65536])
    with lab.rbd.Image(lab.ioctx, flat.name) as image:
        image.write(sealed, opened.data_offset + MIB)
    with lab.pool.open_loaded(flat.image_id, flat.specs) as loaded:
        assert loaded.read(MIB, 65536) == DATA[:65536]


@pytest.fixture
def exported(lab: Lab, flat: Flat, tmp_path: Path) -> Path:
    """Export an image with data to a file, and its DEK beside it."""
    with lab.pool.open_loaded(flat.image_id, flat.specs) as image:
        image.write(0, DATA)
    file = tmp_path / "exported"
    file.write_bytes(lab.raw_bytes(flat.name))
    (tmp_path / "dek").write_bytes(flat.dek.reveal())
    return file


def cryptsetup(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run cryptsetup, which works on plain files without device-mapper."""
    return subprocess.run(
        ["cryptsetup", "--batch-mode", *words],
        capture_output=True,
        text=True,
        check=False,
    )


def test_cryptsetup_opens_the_exported_image(exported: Path) -> None:
    key = exported.parent / "dek"
    test = ("open", "--test-passphrase", "--key-file", key, exported)
    assert cryptsetup(*test).returncode == 0
    key.write_bytes(bytes(32))
    assert cryptsetup(*test).returncode == 2  # wrong passphrase, and nothing else


def test_cryptsetup_decrypts_the_exported_image(exported: Path) -> None:
    """By its own reencryption code, in place and offline: the file becomes plain."""
    size = exported.stat().st_size
    plain = cryptsetup(
        "reencrypt",
        "--decrypt",
        "--force-offline-reencrypt",
        f"--key-file={exported.parent / 'dek'}",
        f"--header={exported.parent / 'detached'}",
        exported,
    )
    assert plain.returncode == 0, plain.stderr
    assert exported.read_bytes()[: len(DATA)] == DATA
    assert exported.stat().st_size == size


def test_the_header_says_what_was_asked_for(exported: Path, flat: Flat) -> None:
    dump = cryptsetup("luksDump", exported).stdout
    for line in (
        "Version:       \t2",
        "offset: 16777216 [bytes]",
        "cipher: aes-xts-plain64",
        "sector: 4096 [bytes]",
        "Key:        512 bits",
        "PBKDF:      pbkdf2",
        "Iterations: 1000",
    ):
        assert line in dump
    assert dump.count("PBKDF:") == 1


def test_a_header_has_the_uuid_we_set(flat: Flat) -> None:
    opened = open_header(flat.header, flat.dek.reveal())
    again = make_header(flat.dek, uuid.UUID(opened.uuid), flat.layout)
    reopened = open_header(again, flat.dek.reveal())
    assert reopened.uuid == opened.uuid
    assert reopened.volume_key != opened.volume_key
