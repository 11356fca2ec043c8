# SPDX-License-Identifier: Apache-2.0
"""A foreign flatten that is asked for while a worker opens or closes its image."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from csi_driver.datapath import ownership
from csi_driver.datapath.hearing import Hearing
from csi_driver.datapath.holdings import Holdings
from csi_driver.datapath.messages import OpenImage
from csi_driver.datapath.messages import Predecessor
from csi_driver.datapath.session import open_session
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.flattening import FlattenPolicy
from csi_driver.domain.record import EncryptionMode
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import EffectiveSize
from tests.ceph.datapath.clones import Clone
from tests.ceph.datapath.clones import clone_of
from tests.ceph.datapath.clones import require_disk

if TYPE_CHECKING:
    from tests.ceph.datapath.conftest import MakeVolume
    from tests.ceph.datapath.running import Running

SIZE = EffectiveSize(512 * MIB)


@pytest.fixture
def clone(make_volume: MakeVolume) -> Iterator[Clone]:
    parent = make_volume(EncryptionMode.KEYRING, size=SIZE)
    made = clone_of(parent, FlattenPolicy.NEVER, mode=EncryptionMode.KEYRING)
    yield made
    made.remove()


class Flatten:
    """Runs `rbd flatten` once it is asked to, and waits until it is heard of."""

    def __init__(self, clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
        self._name = clone.volume.name
        self._heard = threading.Event()
        self.process: subprocess.Popen[bytes] | None = None
        hear = Hearing._hear

        def heard(hearing: Hearing, payload: bytes) -> None:
            hear(hearing, payload)
            if hearing._staying:
                self._heard.set()

        monkeypatch.setattr(Hearing, "_hear", heard)

    def begin(self) -> None:
        words = ["rbd", "flatten", "--no-progress", f"rbd/{self._name}"]
        self.process = subprocess.Popen(words)
        assert self._heard.wait(20)

    def require_right(self, clone: Clone, datapath: Running) -> None:
        assert self.process is not None
        assert self.process.wait(60) == 0
        assert not clone.has_parent()
        datapath.client.open(clone.flat.request())
        require_disk(datapath, clone)


def request(clone: Clone) -> OpenImage:
    return OpenImage(clone.volume.request(), Predecessor(), "", 0)


def test_one_that_comes_while_closing_is_waited_for(
    clone: Clone, datapath: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = Flatten(clone, monkeypatch)
    session, _ = open_session(request(clone), lambda _: None)
    unregister = Holdings.unregister

    def late(held: Holdings) -> None:
        unregister(held)
        foreign.begin()

    with monkeypatch.context() as patch:
        patch.setattr(Holdings, "unregister", late)
        assert session.close() == []
    foreign.require_right(clone, datapath)


def test_one_that_comes_before_an_opening_fails_is_waited_for(
    clone: Clone, datapath: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = Flatten(clone, monkeypatch)

    def fail(*_: object) -> None:
        foreign.begin()
        raise PreconditionError("after the lock was taken")

    with monkeypatch.context() as patch:
        patch.setattr(ownership, "require_size", fail)
        with pytest.raises(PreconditionError, match="after the lock"):
            open_session(request(clone), lambda _: None)
    foreign.require_right(clone, datapath)


def test_how_long_nothing_is_heard_before_the_close(
    clone: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the last look and librbd's close there is next to nothing."""
    looked: list[float] = []
    let_go = Hearing.let_go

    def timed(hearing: Hearing) -> None:
        let_go(hearing)
        looked.append(time.monotonic())

    monkeypatch.setattr(Hearing, "let_go", timed)
    session, _ = open_session(request(clone), lambda _: None)
    image = session._image
    close = image.close
    closing: list[float] = []

    def noted() -> None:
        closing.append(time.monotonic())
        close()

    monkeypatch.setattr(image, "close", noted)
    assert session.close() == []
    assert closing[0] - looked[0] < 0.05
