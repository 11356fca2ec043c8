# SPDX-License-Identifier: Apache-2.0
"""What is wrong with headers, chains and keys, and what of the data is left."""

from __future__ import annotations

from collections.abc import Iterator

from csi_driver.domain.record import EncryptionMode
from csi_driver.domain.snapshots import SnapshotState
from csi_driver.provisioning.finding import Finding
from csi_driver.provisioning.inspection import Chain
from csi_driver.provisioning.inspection import FoundSnapshot
from csi_driver.provisioning.inspection import Inspection


def about(seen: Inspection) -> list[Finding]:
    """Return the findings about head and snapshots."""
    found = list(_breaks(seen.chain, "its head"))
    if seen.record.mode.encrypted:
        found += _head(seen)
        found += _lost_snapshots(seen)
    for each in seen.snapshots:
        found += _breaks(each.chain, f"snapshot {title(seen, each)!r}")
    if seen.record.mode is EncryptionMode.KEYRING:
        found += _layers(seen)
        found += _keys(seen)
    return found


def title(seen: Inspection, snapshot: FoundSnapshot) -> str:
    """Return what people call a snapshot: the CO's name, or RBD's."""
    known = seen.record.snapshot_numbered(snapshot.found.number)
    return (known.name if known else "") or snapshot.found.name


def intact(seen: Inspection) -> list[str]:
    """Return the snapshots whose chains can be loaded, newest first."""
    return [
        title(seen, each)
        for each in reversed(seen.snapshots)
        if _loads(each.chain)
        and not each.found.lingering
        and (
            (known := seen.record.snapshot_numbered(each.found.number)) is None
            or known.state is SnapshotState.READY
        )
    ]


def _loads(chain: Chain) -> bool:
    header = chain.own.header
    return (
        header.kind.encrypted
        and not header.damage
        and not chain.broken
        and not chain.orphaned
    )


def _snapshots_left(seen: Inspection) -> str:
    left = intact(seen)
    if not left:
        return "no snapshot of it is intact"
    return f"intact snapshots, newest first: {', '.join(left)}"


def _head(seen: Inspection) -> Iterator[Finding]:
    own = seen.chain.own
    header = own.header
    copy = (
        f"; the second metadata copy, {header.second_copy} bytes behind the start,"
        " is intact, and the first can be restored from it (`cryptsetup repair` on"
        " a copy of the first 16 MiB in which the clone magics are turned back)"
        if header.second_copy is not None
        else "; its second metadata copy is not intact either, so a backup of the"
        " header is needed"
    )
    if not header.kind.encrypted:
        yield Finding(
            "header-missing",
            f"no LUKS header stands on the image, whose mode is"
            f" {seen.record.mode.value}: it was overwritten, or the image was"
            " rolled back to a snapshot from before it was formatted",
            f"the data are still encrypted under the volume key, which the header"
            f" alone holds{copy}; {_snapshots_left(seen)}",
        )
        return
    if header.damage:
        yield Finding(
            "header-damaged",
            f"the LUKS header of the image is damaged: {header.damage}",
            f"the data are not concerned{copy}; {_snapshots_left(seen)}",
        )
    if header.kind.formatted_clone and own.parent is None:
        yield Finding(
            "raw-flattened",
            "the image has the header of a clone (magic RBDL) and no parent: it was"
            " flattened without its encryption loaded (`rbd flatten`, `rbd task add"
            " flatten`), or rolled back to a snapshot from before its flatten;"
            " librbd cannot load it any more",
            "what the clone itself wrote is still under its own key, and readable"
            " once the magic of a copy is turned back to LUKS (RBDL to LUKS at byte"
            " 0, LDBR to SKUL in the second copy); all other blocks were copied as"
            f" the parent's ciphertext, and are readable in {_origin(seen)} while"
            f" that exists; {_snapshots_left(seen)}",
        )


def _origin(seen: Inspection) -> str:
    origin = seen.record.origin
    return f"its source {origin.source}" if origin else "the parent's snapshot"


def _lost_snapshots(seen: Inspection) -> Iterator[Finding]:
    for each in seen.snapshots:
        if each.chain.orphaned:
            yield Finding(
                "snapshot-orphaned",
                f"snapshot {title(seen, each)!r} has the header of a clone and no"
                " parent: the image was flattened raw, or with the feature"
                " deep-flatten; librbd cannot load the snapshot any more",
                "what the clone itself had written is under its own key still; the"
                f" rest is readable in {_origin(seen)} while that exists",
            )


def _breaks(chain: Chain, what: str) -> Iterator[Finding]:
    if chain.broken:
        yield Finding(
            "ancestor-unreadable",
            f"the images below {what} cannot be read beyond"
            f" {chain.layers[-1].name!r}: {chain.broken}",
            "blocks that were never written in the images above it are lost with"
            " it, unless it comes back",
        )


def _layers(seen: Inspection) -> Iterator[Finding]:
    record, real = seen.record, seen.chain.headers
    # A chain that is torn has a finding of its own.
    if not real or not record.layers or seen.chain.broken or seen.chain.orphaned:
        return
    depth = len(seen.chain.layers) - 1
    if real[0] != record.layers[0]:
        yield Finding(
            "header-replaced",
            f"the header on the image has the UUID {real[0]}, the record knows"
            f" {record.layers[0]}: somebody formatted the image anew",
            "the old volume key is gone with the old header, and the data with it,"
            f" unless there is a backup of the header; {_snapshots_left(seen)}",
        )
    elif depth == 0 and record.ancestors:
        yield Finding(
            "flatten-unrecorded",
            "the image reads no parent any more, and the record still counts"
            f" {record.ancestors} images below it: its flatten was interrupted at"
            " the very end",
            "nothing is lost; run `rbdcrypt-csi volume flatten` again",
            wrong=False,
        )
    elif real != tuple(dict.fromkeys(record.layers)) or depth != record.ancestors:
        yield Finding(
            "layers-differ",
            f"the image consists of {depth + 1} images with the headers"
            f" {', '.join(real)}; the record says {record.ancestors + 1} with"
            f" {', '.join(record.layers)}: an ancestor was flattened or replaced",
            "the volume loads by the chain that is there; only a missing key would"
            " be a loss",
            wrong=set(real) - set(record.layers) != set(),
        )


def _keys(seen: Inspection) -> Iterator[Finding]:
    ring = seen.record.ring
    known = {entry.header_uuid for entry in ring.entries} if ring else set()
    chains = {"its head": seen.chain}
    for each in seen.snapshots:
        chains[f"snapshot {title(seen, each)!r}"] = each.chain
    for what, chain in chains.items():
        missing = [each for each in chain.headers if each not in known]
        if missing:
            yield Finding(
                "key-missing",
                f"the key ring holds no key for the headers {', '.join(missing)},"
                f" which {what} needs",
                "without it that cannot be loaded; a volume below or above in the"
                " same family may have the key in its ring: nothing is lost while"
                " one of them exists",
            )
