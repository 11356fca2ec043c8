# SPDX-License-Identifier: Apache-2.0
"""The model's own rules, each in its simplest case."""

from __future__ import annotations

from csi_driver.domain.sizes import BLOCK_SIZE
from tests.unit.model.model import Model

OBJECT = 4 * BLOCK_SIZE
BLOCK = b"x" * BLOCK_SIZE


def known_blocks(model: Model, name: str) -> str:
    """Show each block: `.` zeros, `x` data, `?` unknown, `-` known in part."""
    view = model.source(name).view
    shown = ""
    for at in range(0, view.size, BLOCK_SIZE):
        known = view.known[at : at + BLOCK_SIZE]
        if all(known):
            shown += "x" if any(view.data[at : at + BLOCK_SIZE]) else "."
        else:
            shown += "-" if any(known) else "?"
    return shown


def made(secret: str, blocks: int = 8) -> Model:
    model = Model()
    model.create("a", secret, blocks * BLOCK_SIZE, OBJECT)
    return model


def test_a_hole_of_an_encrypted_volume_is_unknown() -> None:
    model = made("key")
    model.write("a", 2 * BLOCK_SIZE, BLOCK)
    assert known_blocks(model, "a") == "??x....."
    model.write("a", 0, bytes(BLOCK_SIZE))
    assert known_blocks(model, "a") == ".?x....."
    model.write("a", 5 * BLOCK_SIZE + 1, b"x")
    assert known_blocks(model, "a") == ".?x.?x.."
    model.write("a", BLOCK_SIZE + 1, b"x")
    assert known_blocks(model, "a") == ".-x.?x.."


def test_a_plaintext_volume_is_known() -> None:
    model = made("")
    model.write("a", 2 * BLOCK_SIZE, BLOCK)
    assert known_blocks(model, "a") == "..x....."


def test_an_encrypted_clone_makes_holes_of_its_plaintext_parents_zeros() -> None:
    model = made("", 12)
    for object_number in range(3):
        model.write("a", object_number * OBJECT + BLOCK_SIZE, BLOCK)
    model.snapshot("s", "a")
    model.clone("b", "key", "s", 12 * BLOCK_SIZE)
    model.snapshot("t", "b")
    model.clone("c", "key", "t", 12 * BLOCK_SIZE)
    model.write("b", 3 * BLOCK_SIZE, BLOCK)
    assert known_blocks(model, "b") == "?x?x.x...x.."
    # What was copied went into the snapshot, and under its clone.
    assert known_blocks(model, "t") == "?x...x...x.."
    assert known_blocks(model, "c") == "?x...x...x.."
    model.flatten("b")
    assert known_blocks(model, "b") == "?x?x?x..?x.."
    assert known_blocks(model, "c") == "?x..?x..?x.."
    assert known_blocks(model, "s") == ".x...x...x.."
    assert model.volumes["b"].ancestors == 0
    assert model.volumes["c"].ancestors == 2


def test_what_is_read_is_compared_where_it_is_known() -> None:
    model = made("key")
    model.write("a", 2 * BLOCK_SIZE, BLOCK)
    view = model.volumes["a"].view
    good = b"?" * (2 * BLOCK_SIZE) + BLOCK + bytes(5 * BLOCK_SIZE)
    assert not view.difference(0, good)
    assert "in block 7" in view.difference(0, good[:-1] + b"x")
    assert not view.difference(2 * BLOCK_SIZE, BLOCK)
    assert "in block 2" in view.difference(2 * BLOCK_SIZE, BLOCK[:-1] + b"y")
