# SPDX-License-Identifier: Apache-2.0
"""The demo's story: encrypted volumes and a clone, from creation to deletion.

Runs inside the lab against the driver's own sockets.  Every step is checked;
the first that does not hold ends the story with its reason and exit status 1.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import grpc
from cluster import PoolBytes

from csi_driver.rpc.stubs import csi_pb2

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from clones import clone_chapter
from csi_client import Driver
from csi_client import block
from csi_client import mounted
from csi_client import refused
from telling import MARKER
from telling import Story
from telling import read_files
from telling import write_files

GIB = 1 << 30
PASSPHRASE = "correct horse battery staple"  # noqa: S105  # the demo's own
OTHER_PASSPHRASE = "another team, another secret"  # noqa: S105  # the demo's own
XFS_SUPERBLOCK = b"XFSB\x00\x00\x10\x00"
"""Its magic and the block size behind it: four bytes alone are found by chance in
one run of fifty, since so much random ciphertext is searched."""
COLLECTED_WITHIN = 30.0


def filesystem_chapter(story: Story, driver: Driver, pool: PoolBytes, at: Path) -> None:
    """Tell of the mounted volume."""
    staging, target = at / "staging", at / "target"
    capability = mounted("xfs")
    volume = driver.create("demo-files", GIB, capability)
    story.check(volume.capacity_bytes == GIB, "a volume of exactly 1 GiB")
    story.told(f"CreateVolume 1 GiB, encrypted: {volume.volume_id}")
    with driver.tidy(volume, staging, target):
        wrong_secret(story, driver, volume, staging)
        driver.stage(volume, staging, capability)
        driver.publish(volume, staging, target, capability)
        story.told("NodeStage: header loaded, NBD device attached, mkfs.xfs, mounted")

        write_files(target)
        sums = read_files(target)
        ciphertext_only(story, pool, len(sums))

        driver.unpublish(volume, target)
        driver.unstage(volume, staging)
        story.check(not target.exists(), "the target path is gone")
        driver.stage(volume, staging, capability)
        driver.publish(volume, staging, target, capability)
        story.check(read_files(target) == sums, "all files as they were written")
        story.told("unstaged, staged again with the right Secret: data is there")

        grow_online(story, driver, volume, target)
        story.check(read_files(target) == sums, "all files as they were written")

        driver.unpublish(volume, target)
        driver.unstage(volume, staging)
        driver.delete(volume)
    story.told("unpublished, unstaged, deleted")


def wrong_secret(
    story: Story, driver: Driver, volume: csi_pb2.Volume, staging: Path
) -> None:
    """Try to stage with another passphrase."""
    wrong = {"encryptionPassphrase": "a wrong guess"}
    with refused(grpc.StatusCode.UNAUTHENTICATED) as message:
        driver.stage(volume, staging, mounted("xfs"), wrong)
    story.check("fingerprint" in message[0], "the refusal names fingerprints")
    story.check(not staging.is_mount(), "nothing mounted")
    story.told(f"wrong Secret refused before any I/O: {message[0]}")


def ciphertext_only(story: Story, pool: PoolBytes, files: int) -> None:
    """Search all of RADOS for what must not be there."""
    stored = pool.data_bytes()
    story.check(stored > files << 20, "the files' bytes are in RADOS")
    story.told(f"wrote {files} files; RADOS holds {stored >> 20} MiB of data")
    for needle in (MARKER, PASSPHRASE.encode(), XFS_SUPERBLOCK):
        found = pool.find(needle)
        story.check(not found, f"{needle[:16]!r} in no RADOS object, but {found}")
    story.told("searched every RADOS object: no plaintext, no passphrase, no XFS magic")


def grow_online(
    story: Story, driver: Driver, volume: csi_pb2.Volume, target: Path
) -> None:
    """Double the volume while it is mounted."""
    before = os.statvfs(target)
    size = driver.expand(volume, target, 2 * GIB)
    after = os.statvfs(target)
    story.check(size == 2 * GIB, "NodeExpandVolume reports 2 GiB")
    total = after.f_blocks * after.f_frsize
    story.check(
        total > 1.9 * before.f_blocks * before.f_frsize,
        "the mounted filesystem doubled",
    )
    story.told("expanded to 2 GiB while mounted")
    story.check(driver.total_bytes(volume, target) == total, "stats agree with statvfs")
    story.told(f"NodeGetVolumeStats: {total} bytes in the filesystem")


def block_chapter(story: Story, driver: Driver, pool: PoolBytes, at: Path) -> None:
    """Tell of the raw block volume."""
    staging, target = at / "staging", at / "device"
    capability = block()
    volume = driver.create("demo-block", GIB, capability)
    with driver.tidy(volume, staging, target):
        driver.stage(volume, staging, capability)
        driver.publish(volume, staging, target, capability)
        story.check(target.is_block_device(), "a block device at the target path")
        story.check(driver.total_bytes(volume, target) == GIB, "exactly 1 GiB")
        text = (MARKER * (1 << 20))[: 1 << 20]
        with target.open("r+b", buffering=0) as device:
            device.seek(GIB - len(text))
            device.write(text)
            os.fsync(device.fileno())
            device.seek(GIB - len(text))
            story.check(device.read(len(text)) == text, "the last MiB as written")
        story.check(not pool.find(MARKER), "no plaintext in RADOS")
        driver.unpublish(volume, target)
        driver.unstage(volume, staging)
        driver.delete(volume)
    story.told("raw block volume: written to its last byte, read back, deleted")


def nothing_left(story: Story, pool: PoolBytes) -> None:
    """Wait for the collector, then look for remains."""
    deadline = time.monotonic() + COLLECTED_WITHIN
    while time.monotonic() < deadline:
        left = [
            name
            for name in pool.objects()
            if name.startswith(
                ("rbd_data.", "rbd_header.", "rbd_id.", "rbd_object_map.")
            )
        ]
        if not left:
            break
        time.sleep(0.2)
    story.check(not left, f"no image left, but there is {left[:5]}")
    story.told("the collector has run: no image is left in the pool")


def main() -> int:
    """Tell the story; exit status 0 if every check held."""
    story = Story()
    driver = Driver(
        {"clusterID": "lab", "pool": os.environ["CEPH_POOL"]},
        {"encryptionPassphrase": PASSPHRASE},
    )
    other = Driver(driver.parameters, {"encryptionPassphrase": OTHER_PASSPHRASE})
    pool = PoolBytes()
    try:
        with tempfile.TemporaryDirectory(prefix="rbdcrypt-demo-") as directory:
            filesystem_chapter(story, driver, pool, Path(directory) / "files")
            block_chapter(story, driver, pool, Path(directory) / "block")
            clones = Path(directory) / "clones"
            run_dir = Path(os.environ["RBDCRYPT_RUN_DIR"])
            clone_chapter(story, driver, other, clones, run_dir)
        nothing_left(story, pool)
    except (AssertionError, grpc.RpcError) as error:
        details = error.details() if isinstance(error, grpc.Call) else error
        print(f"the demo failed: {details}", file=sys.stderr)
        return 1
    finally:
        pool.close()
        driver.close()
        other.close()
    story.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
