# SPDX-License-Identifier: Apache-2.0
"""Arguments of mkfs, superblocks, loop structures and tools' output, as bytes."""

from __future__ import annotations

import struct
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_driver.devices import commands
from csi_driver.devices import filesystems
from csi_driver.devices import loop
from csi_driver.devices import mkfs_options
from csi_driver.devices import stats
from csi_driver.devices.commands import Completed
from csi_driver.domain import superblock
from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.errors import UnsupportedError

EXT4_EXTENDED = "nodiscard,lazy_itable_init=1,lazy_journal_init=0"


def test_ext4_without_options() -> None:
    assert mkfs_options.build("ext4", "") == (
        "mkfs.ext4",
        "-q",
        "-m",
        "0",
        "-E",
        EXT4_EXTENDED,
    )


def test_xfs_never_discards() -> None:
    assert mkfs_options.build("xfs", "-K -i size=512 -L ''") == (
        "mkfs.xfs",
        "-q",
        "-K",
        "-i",
        "size=512",
        "-L",
        "",
    )


def test_extended_options_are_merged_since_mke2fs_keeps_only_the_last() -> None:
    built = mkfs_options.build("ext4", "-E stride=8 -m 3 -Estripe_width=16 -L 'a b'")
    assert built.count("-E") == 1
    assert built[-2:] == ("-E", f"{EXT4_EXTENDED},stride=8,stripe_width=16")
    assert built[4:8] == ("-m", "3", "-L", "a b")


@pytest.mark.parametrize(
    ("filesystem", "options"),
    [
        ("ext4", "-E discard"),
        ("ext4", "-E stride=8,discard"),
        ("ext4", "-Ediscard"),
        ("ext4", "-E assume_storage_prezeroed=1"),
        ("ext4", "-J device=/dev/vda"),
        ("ext4", "-J device=LABEL=x"),
        ("ext4", "/dev/vda"),
        ("ext4", "-m 1 vda"),
        ("ext4", "-- -m"),
        ("ext4", "-d /etc"),
        ("ext4", "-z /tmp/undo"),
        ("ext4", "-S"),
        ("ext4", "-n"),
        ("ext4", "-F"),
        ("ext4", "-m"),
        ("ext4", "'unclosed"),
        ("ext4", "-L 'a\nb'"),
        ("xfs", "-N"),
        ("xfs", "-f"),
        ("xfs", "-p proto"),
        ("xfs", "-l logdev=x,size=64m"),
        ("xfs", "-d name=x"),
        ("xfs", "-d file,size=1g"),
        ("xfs", "-d size=1g"),
        ("xfs", "-r rtdev=x"),
    ],
)
def test_options_that_reach_further_are_refused(filesystem: str, options: str) -> None:
    with pytest.raises(InvalidRequestError, match="mkfsOptions"):
        mkfs_options.build(filesystem, options)


@given(st.text(max_size=40), st.sampled_from(["ext4", "xfs"]))
def test_no_text_enables_discard_or_names_a_device(text: str, filesystem: str) -> None:
    try:
        _, *options = mkfs_options.build(filesystem, text)
    except InvalidRequestError:
        return
    assert not any("/" in option for option in options)
    if filesystem == "xfs":
        assert "-K" in options
    else:
        assert "discard" not in options[-1].split(",")
        assert "nodiscard" in options[-1].split(",")


def test_other_filesystems_are_not_offered() -> None:
    with pytest.raises(UnsupportedError, match="btrfs"):
        mkfs_options.build("btrfs", "")
    with pytest.raises(UnsupportedError, match="btrfs"):
        filesystems.check(Path("/dev/null"), "btrfs")


def ext4_head(blocks: int, block_size: int = 4096) -> bytes:
    data = bytearray(4096)
    put = [(4, blocks), (0x18, block_size.bit_length() - 11), (0x20, 32768)]
    put += [(0x28, 8192), (0x60, 0x80)]
    for offset, value in put:
        struct.pack_into("<I", data, 1024 + offset, value & 0xFFFFFFFF)
    struct.pack_into("<I", data, 1024 + 0x150, blocks >> 32)
    for offset, value in [(0x38, 0xEF53), (0x58, 256), (0xCE, 100), (0xFE, 64)]:
        struct.pack_into("<H", data, 1024 + offset, value)
    data[1024 + 0x68 : 1024 + 0x78] = bytes(range(16))
    return bytes(data)


def xfs_head(blocks: int, *, sector: int = 4096, uuid: UUID | None = None) -> bytes:
    uuid = uuid or UUID(int=0)
    head = b"XFSB" + struct.pack(">IQ", 4096, blocks) + bytes(16) + uuid.bytes
    return (head.ljust(102, b"\0") + struct.pack(">H", sector)).ljust(4096, b"\0")


@given(st.integers(1, 2**40))
def test_ext4s_size_and_uuid_are_read(blocks: int) -> None:
    found = superblock.parse(ext4_head(blocks))
    assert found is not None
    assert (found.filesystem, found.size) == ("ext4", blocks * 4096)
    assert found.uuid == UUID(bytes=bytes(range(16)))
    assert found.fills(found.size)


def test_ext4_that_ends_inside_a_group_can_always_grow() -> None:
    found = superblock.parse(ext4_head(32768 + 5))
    assert found is not None
    assert not found.fills(found.size + 4096)
    whole = superblock.parse(ext4_head(2 * 32768))
    assert whole is not None
    assert whole.fills(whole.size + 4096)
    assert not whole.fills(whole.size + 32768 * 4096)


@given(st.integers(1, 2**40))
def test_xfss_size_and_uuid_are_read(blocks: int) -> None:
    uuid = UUID(int=7)
    found = superblock.parse(xfs_head(blocks, uuid=uuid))
    assert found is not None
    assert (found.filesystem, found.size, found.uuid) == ("xfs", blocks * 4096, uuid)


@pytest.mark.parametrize(
    ("head", "smallest"),
    [
        (ext4_head(32768), 4096),
        (ext4_head(32768, block_size=1024), 1024),
        (xfs_head(32768), 4096),
        (xfs_head(32768, sector=512), 512),
    ],
)
def test_the_smallest_piece_is_ext4s_block_and_xfss_sector(
    head: bytes, smallest: int
) -> None:
    found = superblock.parse(head)
    assert found is not None
    assert found.smallest == smallest


@pytest.mark.parametrize(
    ("block_size", "sector", "told"),
    [(1024, 4096, True), (4096, 4096, False), (1024, 512, False)],
)
def test_a_filesystem_too_fine_for_its_device_is_told_with_both_sizes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    block_size: int,
    sector: int,
    told: bool,
) -> None:
    device = tmp_path / "device"
    device.write_bytes(ext4_head(32768, block_size=block_size))
    monkeypatch.setattr(stats, "sector_size", lambda _: sector)
    reason = filesystems.too_fine(device)
    assert (reason is not None) is told
    if reason:
        assert "1024 bytes" in reason
        assert "4096" in reason
        assert "copy the files" in reason


def test_what_is_no_filesystem_is_not_called_too_fine(tmp_path: Path) -> None:
    assert filesystems.too_fine(tmp_path / "absent") is None
    (tmp_path / "zeros").write_bytes(bytes(4096))
    assert filesystems.too_fine(tmp_path / "zeros") is None


@given(st.binary(max_size=5000))
def test_arbitrary_bytes_are_no_filesystem(head: bytes) -> None:
    found = superblock.parse(head)
    assert found is None or head[:4] == b"XFSB" or head[1080:1082] == b"\x53\xef"


def test_blkids_export_format_is_unescaped() -> None:
    text = "DEVNAME=/dev/loop0\nLABEL=a\\ b\\\\c=d\nTYPE=ext4\n\n"
    assert filesystems.parse_export(text) == {
        "DEVNAME": "/dev/loop0",
        "LABEL": "a b\\c=d",
        "TYPE": "ext4",
    }


@given(st.integers(0, 2**63 - 1))
def test_only_the_size_limit_of_a_loop_changes(limit: int) -> None:
    config = loop.pack_config(5, 1 << 30, 17, "/run/x" * 40)
    assert len(config) == 304
    assert struct.unpack_from("=II", config) == (5, 4096)
    info = config[8:240]
    changed = loop.with_size_limit(info, limit)
    assert struct.unpack_from("=Q", changed, 32) == (limit,)
    assert changed[:32] + changed[40:] == info[:32] + info[40:]


def test_a_tools_complaint_is_one_line_without_flooding() -> None:
    flood = Completed(("mkfs.xfs", "x"), 1, "", "first words\n" + "y " * 5000 + "last")
    text = flood.complaint()
    assert text.startswith("mkfs.xfs failed with exit code 1: first words y")
    assert text.endswith("last")
    assert "\n" not in text
    assert len(text) < 1100
    killed = Completed(("fsck",), -9, "", "")
    assert killed.complaint() == "fsck was ended by SIGKILL: no message"


def test_a_tool_gets_no_input_no_secrets_and_no_descriptors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CANARY", "leaked")
    with Path("/dev/null").open("rb"):
        seen = commands.check(["sh", "-c", "env; ls /proc/self/fd; cat"])
    assert "leaked" not in seen.output
    assert "LC_ALL=C" in seen.output
    assert seen.output.split()[-4:] == ["0", "1", "2", "3"]  # 3 is ls's own


def test_a_missing_a_failing_and_a_hanging_tool() -> None:
    with pytest.raises(UnsupportedError, match="not installed"):
        commands.run(["no-such-tool"])
    with pytest.raises(InternalError, match="exit code 3: sorry"):
        commands.check(["sh", "-c", "echo sorry >&2; exit 3"])
    with pytest.raises(UnavailableError, match=r"did not end within 0\.1 s"):
        commands.run(["sleep", "60"], timeout=0.1)


def test_usage_and_size_of_what_is_no_device(tmp_path: Path) -> None:
    usage = stats.filesystem_usage(tmp_path)
    assert usage.total_bytes >= usage.used_bytes > 0
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(PreconditionError, match="not a block device"):
        stats.device_size(file)
