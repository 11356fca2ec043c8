# SPDX-License-Identifier: Apache-2.0
"""Load specs: the order and number that librbd was measured to take."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_driver.domain.chain import DEEPEST_CHAIN
from csi_driver.domain.chain import HeaderKind
from csi_driver.domain.chain import Layer
from csi_driver.domain.chain import LayerSpec
from csi_driver.domain.chain import LoadSpecs
from csi_driver.domain.chain import LuksFormat
from csi_driver.domain.chain import header_kind
from csi_driver.domain.chain import specs_for
from csi_driver.domain.errors import HeaderError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.secrets import SecretBytes

PA, PB, PD = (SecretBytes(word) for word in (b"pa", b"pb", b"pd"))
KEYS = {"a": PA, "b": PB, "p": PD}

A = Layer("A", HeaderKind.LUKS2, "a")
B = Layer("B", HeaderKind.CLONE_LUKS1, "b")
C = Layer("C", HeaderKind.CLONE_LUKS1, "b")  # never formatted: shows B's header
D = Layer("D", HeaderKind.LUKS2, "a")  # never formatted: shows A's header
P = Layer("P", HeaderKind.CLONE_LUKS2, "p")
PLAIN = Layer("plain", HeaderKind.NONE)


@pytest.mark.parametrize(
    ("chain", "passphrases"),
    [
        pytest.param([A], [PA], id="A: a flat image"),
        pytest.param([B, A], [PB, PA], id="B: a formatted clone of A"),
        pytest.param([C, B, A], [PB, PB, PA], id="C: an unformatted clone of B"),
        pytest.param([D, A], [PA, PA], id="D: an unformatted clone of A"),
        pytest.param([P, PLAIN], [PD], id="P: a formatted clone of plaintext"),
        pytest.param([P, PLAIN, A], [PD], id="nothing above plaintext"),
        pytest.param([D, D, A], [PA, PA, PA], id="two unformatted clones"),
    ],
)
def test_one_spec_for_each_layer_own_first(
    chain: list[Layer],
    passphrases: list[SecretBytes],
) -> None:
    specs = specs_for(chain, KEYS)
    assert [layer.passphrase for layer in specs.layers] == passphrases
    # Any format: then an error is about the passphrase, not about the version.
    assert {layer.format for layer in specs.layers} == {LuksFormat.ANY}


@given(st.lists(st.booleans(), max_size=DEEPEST_CHAIN - 1), st.booleans())
def test_every_encrypted_layer_has_the_key_of_the_header_it_shows(
    formatted: list[bool],
    plain_base: bool,
) -> None:
    """`formatted` tells each clone's own header, own image first."""
    base = PLAIN if plain_base else Layer("base", HeaderKind.LUKS2, "base")
    names = ["" if plain_base else "base"]
    for index, own in reversed(list(enumerate(formatted))):
        names.insert(0, f"k{index}" if own else names[0])
    keys = {name: SecretBytes(name.encode()) for name in names if name}
    chain = [
        Layer(
            f"i{index}",
            HeaderKind.CLONE_LUKS2 if name else HeaderKind.NONE,
            name or None,
        )
        for index, name in enumerate(names[:-1])
    ]
    if not names[0]:
        with pytest.raises(HeaderError):
            specs_for([*chain, base], keys)
        return
    expected = [keys[name] for name in names if name]
    specs = specs_for([*chain, base], keys)
    assert [layer.passphrase for layer in specs.layers] == expected


def test_a_missing_key_names_its_layer() -> None:
    with pytest.raises(SecretError, match=r"image A .* header a"):
        specs_for([B, A], {"b": PB})


def test_a_key_nobody_needs_is_not_used() -> None:
    assert len(specs_for([A], KEYS).layers) == 1


@pytest.mark.parametrize("chain", [[], [PLAIN], [PLAIN, A]])
def test_plaintext_has_nothing_to_load(chain: list[Layer]) -> None:
    with pytest.raises(HeaderError, match="nothing to load"):
        specs_for(chain, KEYS)


def test_a_layer_without_a_named_key_opens_nothing() -> None:
    with pytest.raises(SecretError, match="image X"):
        specs_for([Layer("X", HeaderKind.LUKS2)], KEYS)


@pytest.mark.parametrize("count", [0, DEEPEST_CHAIN + 1])
def test_a_load_has_a_bounded_number_of_layers(count: int) -> None:
    with pytest.raises(HeaderError):
        LoadSpecs((LayerSpec(PA),) * count)


def test_specs_show_no_passphrase() -> None:
    specs = LoadSpecs((LayerSpec(SecretBytes(b"canary")),))
    assert "canary" not in f"{specs!r} {specs} {specs.layers}"


@pytest.mark.parametrize(
    ("first", "kind", "encrypted", "clone"),
    [
        (b"LUKS\xba\xbe\x00\x01", HeaderKind.LUKS1, True, False),
        (b"LUKS\xba\xbe\x00\x02", HeaderKind.LUKS2, True, False),
        (b"RBDL\xba\xbe\x00\x01", HeaderKind.CLONE_LUKS1, True, True),
        (b"RBDL\xba\xbe\x00\x02", HeaderKind.CLONE_LUKS2, True, True),
        (b"LUKS\xba\xbe\x00\x03", HeaderKind.NONE, False, False),
        (b"SKUL\xba\xbe\x00\x02", HeaderKind.NONE, False, False),
        (b"LUKS\xba\xbe\x00", HeaderKind.NONE, False, False),
        (b"", HeaderKind.NONE, False, False),
        (bytes(512), HeaderKind.NONE, False, False),
    ],
)
def test_the_first_bytes_say_what_an_image_is(
    first: bytes,
    kind: HeaderKind,
    encrypted: bool,
    clone: bool,
) -> None:
    for more in (b"", b"whatever"):
        found = header_kind(first + more) if len(first) == 8 else header_kind(first)
        assert found is kind
    assert (kind.encrypted, kind.formatted_clone) == (encrypted, clone)
