# SPDX-License-Identifier: Apache-2.0
"""Loading encryption: what opens, and how everything else fails."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable

import pytest

from csi_driver.domain.chain import LayerSpec
from csi_driver.domain.chain import LoadSpecs
from csi_driver.domain.chain import LuksFormat
from csi_driver.domain.errors import AlreadyLoadedError
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import HeaderError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.errors import UnsupportedError
from csi_driver.domain.secrets import SecretBytes
from csi_driver.domain.sizes import KIB
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.domain.sizes import Layout
from csi_driver.domain.sizes import Striping
from csi_driver.images.headers import make_header
from csi_driver.images.port import Pool
from csi_driver.testing.luks import open_header
from tests.contract.images.worlds import MakeImage
from tests.contract.images.worlds import World
from tests.contract.images.worlds import id_of

WRONG = SecretBytes(b"not the key of this header, but 32")

type Change = Callable[[bytes], bytes]


def altered(*places: int) -> Change:
    """Flip the lowest bit of these bytes."""

    def change(header: bytes) -> bytes:
        changed = bytearray(header)
        for place in places:
            changed[place] ^= 1
        return bytes(changed)

    return change


def cut(length: int) -> Change:
    """Keep only the beginning."""
    return lambda header: header[:length]


def clone_magic(header: bytes) -> bytes:
    """Make the header that of a formatted clone."""
    return b"RBDL" + header[4:16384] + b"LDBR" + header[16388:]


# The second copy of the metadata begins at 16384, the keyslot at 32768.
BOTH = 16384
DAMAGE: dict[str, tuple[Change, type[DriverError] | None]] = {
    "no header": (lambda _: bytes(4096), HeaderError),
    "junk": (lambda _: b"\x00" + os.urandom(4095), HeaderError),
    "magic altered": (altered(0), HeaderError),
    "version altered": (altered(7), HeaderError),
    "magic alone": (cut(8), HeaderError),
    "binary header alone": (cut(4096), HeaderError),
    "metadata junk": (lambda h: h[:4096] + os.urandom(28 * KIB), HeaderError),
    "clone magic without parent": (clone_magic, HeaderError),
    "both metadata copies altered": (altered(4100, BOTH + 4100), HeaderError),
    "both paddings altered": (altered(16000, BOTH + 16000), HeaderError),
    "both uuids altered": (altered(170, BOTH + 170), HeaderError),
    "both salts altered": (altered(110, BOTH + 110), HeaderError),
    "first metadata altered": (altered(4100), None),
    "first checksum altered": (altered(450), None),
    "first size altered": (altered(14), None),
    "first offset altered": (altered(256 + 7), None),
    "second metadata altered": (altered(BOTH + 4100), None),
    "second magic altered": (altered(BOTH), None),
    "second copy missing": (lambda h: h[:BOTH] + bytes(16384) + h[32768:], None),
    "keyslot altered": (altered(33000), SecretError),
    "keyslot missing": (cut(32768), SecretError),
    "keyslot half there": (cut(40960), SecretError),
    "keyslot nearly there": (cut(280 * KIB), SecretError),
    "random filling missing": (cut(286 * KIB), None),
}


@pytest.fixture
def damaged(
    request: pytest.FixtureRequest,
    world: World,
    pool: Pool,
    make_image: MakeImage,
    header: bytes,
) -> tuple[str, type[DriverError] | None]:
    """Make an image whose header is damaged; return its name and what to expect."""
    change, error = DAMAGE[request.param]
    name = make_image()
    world.write_raw(pool, name, change(header))
    return name, error


@pytest.mark.parametrize("damaged", DAMAGE, indirect=True)
def test_a_damaged_header(
    damaged: tuple[str, type[DriverError] | None],
    pool: Pool,
    specs: LoadSpecs,
) -> None:
    name, error = damaged
    image_id = id_of(pool, name)
    if error is None:
        with pool.open_loaded(image_id, specs) as image:
            assert image.size() == EffectiveSize(48 * MIB)
    else:
        with pytest.raises(error):
            pool.open_loaded(image_id, specs)
        pool.remove_image(name)  # the failed load left no handle behind


@pytest.mark.parametrize(
    "change",
    [altered(), altered(4100), clone_magic],
    ids=["whole", "second copy", "clone"],
)
def test_the_oracle_opens_what_librbd_opens(
    header: bytes,
    dek: SecretBytes,
    change: Change,
) -> None:
    opened = open_header(change(header), dek.reveal())
    assert (opened.data_offset, opened.sector_size) == (16 * MIB, 4096)
    assert opened.uuid.encode() == header[168:204]


def test_wrong_and_empty_passphrases(pool: Pool, flat: str) -> None:
    for passphrase in (WRONG, SecretBytes(b"")):
        with pytest.raises(SecretError) as caught:
            pool.open_loaded(flat, LoadSpecs((LayerSpec(passphrase),)))
        assert "not the key" not in str(caught.value)


def test_a_passphrase_is_its_bytes(
    pool: Pool,
    flat: str,
    dek: SecretBytes,
    make_image: MakeImage,
) -> None:
    for near in (dek.reveal() + b"\n", b"\0" + dek.reveal(), dek.reveal()[:-1]):
        with pytest.raises(SecretError):
            pool.open_loaded(flat, LoadSpecs((LayerSpec(SecretBytes(near)),)))
    # HMAC fills a short key up with NULs, and so PBKDF2 does not tell these two.
    padded = SecretBytes(dek.reveal() + b"\0")
    pool.open_loaded(flat, LoadSpecs((LayerSpec(padded),))).close()
    odd = SecretBytes(b"\0\n\xff" + bytes(29))
    name = make_image(header=make_header(odd, uuid.uuid4(), Layout(16 * MIB)))
    pool.open_loaded(id_of(pool, name), LoadSpecs((LayerSpec(odd),))).close()


def test_formats_and_numbers_of_layers(
    pool: Pool,
    flat: str,
    dek: SecretBytes,
) -> None:
    right, wrong = LayerSpec(dek), LayerSpec(WRONG)
    pool.open_loaded(flat, LoadSpecs((LayerSpec(dek, LuksFormat.LUKS2),))).close()
    for layers, error in (
        ((LayerSpec(dek, LuksFormat.LUKS1),), HeaderError),
        ((right, right), HeaderError),
        ((right, wrong), HeaderError),
        ((wrong, right), SecretError),
    ):
        with pytest.raises(error):
            pool.open_loaded(flat, LoadSpecs(layers))


def test_an_absent_image_is_not_found(pool: Pool, specs: LoadSpecs) -> None:
    with pytest.raises(NotFoundError):
        pool.open_loaded("abcdef0123", specs)


@pytest.mark.parametrize(
    ("striping", "reserve", "loads"),
    [
        (Striping(), 16 * MIB, True),
        (Striping(MIB, MIB), 16 * MIB, True),
        (Striping(4 * MIB, 4 * MIB, 4), 16 * MIB, True),
        (Striping(32 * MIB, 32 * MIB), 32 * MIB, True),
        (Striping(32 * MIB, 32 * MIB), 16 * MIB, False),
        (Striping(32 * MIB, 32 * MIB, 1), 64 * MIB, True),
    ],
)
def test_data_begins_on_a_stripe_period(
    pool: Pool,
    make_image: MakeImage,
    striping: Striping,
    reserve: int,
    loads: bool,
) -> None:
    dek = SecretBytes(os.urandom(32))
    header = make_header(dek, uuid.uuid4(), Layout(reserve))
    name = make_image(size=96 * MIB, header=header, striping=striping)
    specs = LoadSpecs((LayerSpec(dek),))
    if not loads:
        with pytest.raises(HeaderError):
            pool.open_loaded(id_of(pool, name), specs)
        return
    with pool.open_loaded(id_of(pool, name), specs) as image:
        assert image.size() == EffectiveSize(96 * MIB - reserve)


def test_a_striping_that_librbd_mixes_up_is_not_opened(
    pool: Pool,
    make_image: MakeImage,
    header: bytes,
    specs: LoadSpecs,
) -> None:
    name = make_image(header=header, striping=Striping(4 * MIB, MIB, 4))
    with pytest.raises(UnsupportedError, match="mix"):
        pool.open_loaded(id_of(pool, name), specs)
    pool.remove_image(name)


def test_an_image_that_is_all_header_is_empty(
    pool: Pool,
    make_image: MakeImage,
    header: bytes,
    specs: LoadSpecs,
) -> None:
    whole = make_image(size=16 * MIB, header=header)
    with pool.open_loaded(id_of(pool, whole), specs) as image:
        assert image.size() == EffectiveSize(0)
    short = make_image(size=8 * MIB, header=header)
    with pytest.raises(HeaderError):
        pool.open_loaded(id_of(pool, short), specs)


def test_a_loaded_image_takes_no_second_load_and_no_format(
    pool: Pool,
    flat: str,
    specs: LoadSpecs,
    header: bytes,
) -> None:
    with pool.open_loaded(flat, specs) as image:
        image.write(0, b"kept")
        with pytest.raises(AlreadyLoadedError, match=flat):
            image.load(specs)
        with pytest.raises(AlreadyLoadedError, match=flat):
            image.write_header(header)
        assert image.read(0, 4) == b"kept"
