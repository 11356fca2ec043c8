# SPDX-License-Identifier: Apache-2.0
"""The arguments of mkfs: ours, and what a storage class adds.  Pure.

Why ours are what they are:

* No discard: librbd turns a discard on an encrypted image into written zeros,
  a write to the whole volume.
* Blocks never written may read as garbage (ciphertext holes decrypt to noise),
  so nothing may take them for zeros.  ext4's inode tables may be left for the
  kernel to initialise (`lazy_itable_init=1`): the group descriptors, which have
  checksums, say how much of each table is valid, and neither kernel nor e2fsck
  reads further; writing them would cost 1.6 % of the volume at its first
  stage.  The journal is written in full (`lazy_journal_init=0`), because old
  content in it could pass for transactions.  A test makes and uses both
  filesystems on a device full of noise.
"""

from __future__ import annotations

import getopt
import shlex
from dataclasses import dataclass
from typing import Final

from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import UnsupportedError

EXT4_EXTENDED: Final = ("nodiscard", "lazy_itable_init=1", "lazy_journal_init=0")

# mke2fs and mkfs.xfs, each with the options whose effect stays within the
# volume and its filesystem; a colon means that the option has a value.
_EXT4_SYNTAX: Final = "b:C:e:E:g:G:i:I:J:L:m:M:N:O:qr:T:U:v"
_XFS_SYNTAX: Final = "b:d:i:Kl:L:m:n:qs:"
_REFUSED_EXTENDED: Final = frozenset({"discard", "assume_storage_prezeroed"})
_REFUSED_SUBOPTIONS: Final = frozenset(
    {"device", "file", "name", "logdev", "rtdev", "location", "size"}
)


@dataclass(frozen=True, slots=True)
class _Option:
    name: str
    value: str | None


def build(filesystem: str, user_options: str) -> tuple[str, ...]:
    """Return the tool and its options for a filesystem, without the device.

    `user_options` is split as a shell would.  Raises InvalidRequestError for
    options that are unknown, name another device or enable discard, and
    UnsupportedError for another filesystem than ext4 and xfs.
    """
    match filesystem:
        case "ext4":
            return _ext4(_parse(user_options, _EXT4_SYNTAX))
        case "xfs":
            return _xfs(_parse(user_options, _XFS_SYNTAX))
        case _:
            raise UnsupportedError(
                f"filesystem {filesystem!r} is not offered: use ext4 or xfs"
            )


def _parse(text: str, syntax: str) -> tuple[_Option, ...]:
    try:
        tokens = shlex.split(text)
        pairs, rest = getopt.gnu_getopt(tokens, syntax)
    except (ValueError, getopt.GetoptError) as error:
        raise InvalidRequestError(f"mkfsOptions {text!r}: {error}") from error
    if rest:
        raise InvalidRequestError(
            f"mkfsOptions {text!r}: {rest[0]!r} is not an option; the device is given "
            "by the driver"
        )
    options = tuple(
        _Option(name, value if f"{name[1]}:" in syntax else None)
        for name, value in pairs
    )
    for option in options:
        _check(option, text)
    return options


def _check(option: _Option, text: str) -> None:
    if option.value is None:
        return
    if "/" in option.value or not option.value.isprintable():
        raise InvalidRequestError(
            f"mkfsOptions {text!r}: {option.name} {option.value!r} holds a path or an "
            "unprintable character"
        )
    names = {part.partition("=")[0] for part in option.value.split(",")}
    refused = _REFUSED_EXTENDED if option.name == "-E" else frozenset()
    if option.name in {"-d", "-l", "-J"}:
        # An external log or another size than the device's; -J size is harmless.
        refused = _REFUSED_SUBOPTIONS
        refused -= {"size", "location"} if option.name == "-J" else set()
        refused -= {"size"} if option.name == "-l" else set()
    found = sorted(names & refused)
    if found:
        raise InvalidRequestError(
            f"mkfsOptions {text!r}: {option.name} {found[0]} is not allowed on an "
            "encrypted volume"
        )


def _flatten(options: tuple[_Option, ...]) -> tuple[str, ...]:
    flat: list[str] = []
    for option in options:
        flat.append(option.name)
        if option.value is not None:
            flat.append(option.value)
    return tuple(flat)


def _ext4(options: tuple[_Option, ...]) -> tuple[str, ...]:
    """Merge all -E values into one: mke2fs keeps only the last -E it sees."""
    theirs = [
        option.value for option in options if option.name == "-E" and option.value
    ]
    others = tuple(option for option in options if option.name != "-E")
    extended = ",".join([*EXT4_EXTENDED, *theirs])
    return ("mkfs.ext4", "-q", "-m", "0", *_flatten(others), "-E", extended)


def _xfs(options: tuple[_Option, ...]) -> tuple[str, ...]:
    others = tuple(option for option in options if option.name != "-K")
    return ("mkfs.xfs", "-q", "-K", *_flatten(others))
