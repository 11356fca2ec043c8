# SPDX-License-Identifier: Apache-2.0
"""Arbitrary records, for the property tests."""

from __future__ import annotations

import uuid

from hypothesis import strategies as st

from csi_driver.domain.access import Filesystem
from csi_driver.domain.chain import LuksFormat
from csi_driver.domain.exports import ExportEntry
from csi_driver.domain.filesystem_state import FilesystemState
from csi_driver.domain.flattening import FlattenPolicy
from csi_driver.domain.flattening import FlattenWork
from csi_driver.domain.keyring import DEK_BYTES
from csi_driver.domain.keyring import TAG_BYTES
from csi_driver.domain.keyring import KdfKind
from csi_driver.domain.keyring import KdfParameters
from csi_driver.domain.keyring import KeyRing
from csi_driver.domain.keyring import Purpose
from csi_driver.domain.keyring import WrappedKey
from csi_driver.domain.limits import IoLimits
from csi_driver.domain.lineage import ChildIntent
from csi_driver.domain.lineage import Origin
from csi_driver.domain.parameters import DEFAULT_FEATURES
from csi_driver.domain.parameters import SecretRef
from csi_driver.domain.parameters import VolumeParameters
from csi_driver.domain.record import EncryptionMode
from csi_driver.domain.record import Record
from csi_driver.domain.record import VolumeState
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.domain.sizes import Layout
from csi_driver.domain.sizes import Striping
from csi_driver.domain.snapshots import Snapshot
from csi_driver.domain.snapshots import SnapshotState

TEXTS = st.text(alphabet=st.characters(), max_size=20)
COUNTS = st.integers(0, 1 << 60)
SIZES = COUNTS.map(EffectiveSize)
STRIPINGS = st.integers(12, 25).flatmap(
    lambda order: st.builds(
        Striping,
        st.just(1 << order),
        st.just(1 << order),
        st.integers(1, 1024),
    ),
)
PARAMETERS = st.builds(
    VolumeParameters,
    cluster=TEXTS,
    pool=TEXTS,
    data_pool=TEXTS,
    namespace=TEXTS,
    features=st.lists(st.sampled_from(DEFAULT_FEATURES), max_size=4).map(tuple),
    striping=STRIPINGS,
    mkfs_options=TEXTS,
    filesystem=st.none() | st.sampled_from(Filesystem),
    encrypted=st.booleans(),
    secret=st.none() | st.builds(SecretRef, TEXTS, TEXTS),
    pv_name=TEXTS,
    flatten_policy=st.sampled_from(FlattenPolicy),
)
KDFS = st.builds(
    KdfParameters,
    kind=st.just(KdfKind.HKDF_SHA256),
    salt=st.binary(min_size=16, max_size=16),
) | st.builds(
    KdfParameters,
    kind=st.just(KdfKind.ARGON2ID),
    salt=st.binary(min_size=16, max_size=16),
    memory_kib=st.integers(19 * 1024, 100 * 1024),
    passes=st.integers(2, 10),
    lanes=st.integers(1, 4),
)
NONCES = st.binary(min_size=12, max_size=12)
KEYS = st.builds(
    WrappedKey,
    purpose=st.just(Purpose.DEK),
    header_uuid=st.uuids().map(str),
    nonce=NONCES,
    ciphertext=st.binary(
        min_size=DEK_BYTES + TAG_BYTES, max_size=DEK_BYTES + TAG_BYTES
    ),
) | st.builds(
    WrappedKey,
    purpose=st.just(Purpose.PASSPHRASE),
    header_uuid=st.uuids().map(str),
    nonce=NONCES,
    ciphertext=st.binary(min_size=1 + TAG_BYTES, max_size=40 + TAG_BYTES),
    layer_format=st.sampled_from(LuksFormat),
)
RINGS = st.builds(
    KeyRing,
    kdf=KDFS,
    fingerprint=st.from_regex(r"[0-9a-f]{4}(-[0-9a-f]{4}){3}", fullmatch=True),
    entries=st.lists(KEYS, max_size=3, unique_by=lambda key: key.header_uuid).map(
        tuple
    ),
)
EXPORTS = st.builds(ExportEntry, TEXTS, TEXTS, TEXTS, st.booleans(), TEXTS)
LAYERS = st.lists(st.uuids().map(str), max_size=3).map(tuple)
SNAPSHOTS = st.builds(
    Snapshot,
    name=TEXTS,
    rbd_name=TEXTS,
    state=st.sampled_from(SnapshotState),
    filesystem=st.sampled_from(FilesystemState),
    number=COUNTS,
    size=SIZES,
    created=COUNTS,
    layers=LAYERS,
    ancestors=COUNTS,
)
CHILDREN = st.builds(ChildIntent, TEXTS, TEXTS, TEXTS, COUNTS, TEXTS)
FLATTENS = st.builds(FlattenWork, TEXTS, COUNTS, COUNTS, st.booleans())
LIMITS = st.builds(IoLimits, COUNTS, COUNTS)
RECORDS = st.builds(
    Record,
    name=TEXTS,
    image_id=TEXTS,
    state=st.sampled_from(VolumeState),
    mode=st.sampled_from(EncryptionMode),
    parameters=PARAMETERS,
    layout=COUNTS.map(Layout),
    desired=SIZES,
    actual=SIZES,
    block=st.booleans(),
    filesystem=st.sampled_from(FilesystemState),
    ring=st.none() | RINGS,
    layers=LAYERS,
    ancestors=COUNTS,
    exports=st.lists(EXPORTS, max_size=3).map(tuple),
    origin=st.none() | st.builds(Origin, TEXTS),
    recovered=st.booleans(),
    snapshots=st.lists(SNAPSHOTS, max_size=3).map(tuple),
    children=st.lists(CHILDREN, max_size=3).map(tuple),
    flatten=st.none() | FLATTENS,
    limits=LIMITS,
    node_secret=st.none() | st.builds(SecretRef, TEXTS, TEXTS),
)


def a_record() -> Record:
    """Return one record in which every field says something."""
    own, parent = (str(uuid.UUID(int=number)) for number in (7, 8))
    keys = tuple(
        WrappedKey(
            Purpose.DEK,
            header_uuid,
            bytes(range(12)),
            bytes(range(DEK_BYTES + TAG_BYTES)),
        )
        for header_uuid in (own, parent)
    )
    ready = Snapshot(
        name="snapshot-1",
        rbd_name="csi-snap-1",
        state=SnapshotState.READY,
        filesystem=FilesystemState.XFS,
        number=4,
        size=EffectiveSize(1 << 30),
        created=1_700_000_000_000_000_000,
        layers=(own, parent),
        ancestors=2,
    )
    kdf = KdfParameters(KdfKind.ARGON2ID, bytes(range(16)), 65536, 3, 1)
    return Record(
        name="pvc-ä",
        image_id="10ab",
        state=VolumeState.READY,
        mode=EncryptionMode.KEYRING,
        parameters=VolumeParameters(
            cluster="lab",
            pool="rbd",
            data_pool="ec",
            namespace="tenant",
            filesystem=Filesystem.XFS,
            secret=SecretRef("ns", "secret"),
            pv_name="pv",
            flatten_policy=FlattenPolicy.DEPTH,
        ),
        layout=Layout(16 << 20),
        desired=EffectiveSize(2 << 30),
        actual=EffectiveSize(1 << 30),
        filesystem=FilesystemState.XFS,
        ring=KeyRing(kdf, "0123-4567-89ab-cdef", keys),
        layers=(own, parent),
        ancestors=2,
        exports=(ExportEntry("node", "boot", "127.0.0.1:0/1", read_only=False),),
        origin=Origin("v1:lab:1::10aa"),
        recovered=False,
        snapshots=(ready, Snapshot("", "csi-snap-2")),
        children=(ChildIntent("csi-vol-1", "csi-snap-2", "pvc-2", 3, "other"),),
        flatten=FlattenWork("127.0.0.1:0/2", 3, 16),
        limits=IoLimits(100, 1 << 20),
        node_secret=SecretRef("ns", "node"),
    )
