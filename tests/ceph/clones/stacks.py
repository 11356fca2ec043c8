# SPDX-License-Identifier: Apache-2.0
"""Chains of images, built from the bottom by the names of their layers.

`plain` and `flat` are the driver's images, plaintext and encrypted; `luks1` is
one that python-rbd formatted; `inherit` and `formatted` are clones.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import random
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import rbd

from csi_driver.domain.chain import HeaderKind
from csi_driver.domain.chain import LayerSpec
from csi_driver.domain.chain import LoadSpecs
from csi_driver.domain.secrets import SecretBytes
from csi_driver.domain.sizes import MIB
from tests.ceph.clones.making import LAYOUT
from tests.ceph.clones.making import SIZE
from tests.ceph.clones.making import Making
from tests.ceph.clones.making import noise
from tests.ceph.clones.raw_tools import RawTools

LUKS1_ROOM: Final = 4 * MIB
"""What librbd's LUKS1 header takes of an image of 4 MiB objects."""

KINDS: Final = {
    "plain": HeaderKind.NONE,
    "flat": HeaderKind.LUKS2,
    "luks1": HeaderKind.LUKS1,
    "formatted": HeaderKind.CLONE_LUKS2,
}


@dataclasses.dataclass(slots=True)
class Stack:
    """The topmost image of a chain, what it shows, and its layers' kinds."""

    image_id: str
    content: bytearray
    kinds: list[HeaderKind]
    reserve: int
    """Raw bytes that are not data, in front or, of plaintext, at the tail."""
    keys: list[SecretBytes]
    """What librbd has to be told, own layer first."""
    below: list[tuple[str, int]] = dataclasses.field(default_factory=list)
    """The images under it with their snapshots, lowest first."""


def build(making: Making, tools: RawTools, *layers: str) -> Stack:
    """Build a chain; each layer but the lowest changes a few bytes of its own.

    The lowest one is full of noise up to its last byte, which nobody changes.
    """
    stack = _bottom(making, tools, layers[0])
    write(making, tools, stack, 0, noise(3, SIZE))
    for number, layer in enumerate(layers[1:]):
        grow_stack(making, stack, layer)
        at = random.Random(number).randrange(SIZE - 10_000)  # noqa: S311  # test data
        write(making, tools, stack, at, noise(number, 9000))
    return stack


def grow_stack(making: Making, stack: Stack, layer: str) -> None:
    """Put a clone on top of a chain."""
    snapshot = making.snapshot(stack.image_id)
    stack.below.append((stack.image_id, snapshot))
    if layer == "inherit":
        stack.image_id = making.inherit(stack.image_id, snapshot)
        stack.kinds.insert(0, stack.kinds[0])
        stack.keys[:0] = stack.keys[:1]
        return
    reserve = stack.reserve
    stack.image_id = making.formatted(stack.image_id, snapshot, reserve=reserve)
    stack.kinds.insert(0, KINDS[layer])
    stack.keys.insert(0, making.newest_key())


def write(making: Making, tools: RawTools, stack: Stack, at: int, data: bytes) -> None:
    """Write to the topmost image, as its users do."""
    stack.content[at : at + len(data)] = data
    if stack.kinds[0] is HeaderKind.NONE:
        with tools.image(stack.image_id) as image:
            image.write(data, at)
        return
    specs = LoadSpecs(tuple(LayerSpec(key) for key in stack.keys))
    with making.pool.open_loaded(stack.image_id, specs) as loaded:
        for start in range(0, len(data), 4 * MIB):
            loaded.write(at + start, data[start : start + 4 * MIB])


def _bottom(making: Making, tools: RawTools, layer: str) -> Stack:
    reserve = LUKS1_ROOM if layer == "luks1" else LAYOUT.reserve
    image_id = making.flat() if layer == "flat" else making.plain(reserve=reserve)
    if layer == "luks1":
        passphrase, header = _luks1_header(tools)
        with tools.image(image_id) as image:
            image.write(header, 0)
        making.learn(image_id, passphrase)
    kind = KINDS[layer]
    keys = [making.newest_key()] if kind.encrypted else []
    return Stack(image_id, bytearray(SIZE), [kind], reserve, keys)


@functools.cache
def _luks1_header(tools: RawTools) -> tuple[SecretBytes, bytes]:
    """Let librbd format an image, and make its passphrase cheap to try.

    librbd asks for some millions of rounds, which every load would pay.
    """
    old, new = os.urandom(20).hex(), os.urandom(20).hex()
    image_id = tools.make(2 * LUKS1_ROOM)
    with tools.image(image_id) as image:
        image.encryption_format(rbd.RBD_ENCRYPTION_FORMAT_LUKS1, old)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        file = Path(folder) / "header"
        file.write_bytes(tools.raw_bytes(image_id))
        subprocess.run(
            [
                *("cryptsetup", "luksChangeKey", "--batch-mode"),
                *("--pbkdf-force-iterations", "1000", str(file)),
            ],
            input=f"{old}\n{new}\n".encode(),
            check=True,
        )
        return SecretBytes(new.encode()), file.read_bytes()[:LUKS1_ROOM]
