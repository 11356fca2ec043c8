# SPDX-License-Identifier: Apache-2.0
"""A worker without Ceph: keeps to the conversation, and misbehaves on request.

The user's name in what it is asked to open says how it behaves.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time

from csi_driver.datapath import wire
from csi_driver.datapath.messages import CloseImage
from csi_driver.datapath.messages import ConfirmSize
from csi_driver.datapath.messages import Connected
from csi_driver.datapath.messages import Count
from csi_driver.datapath.messages import Counters
from csi_driver.datapath.messages import Done
from csi_driver.datapath.messages import Failed
from csi_driver.datapath.messages import Fenced
from csi_driver.datapath.messages import FlattenImage
from csi_driver.datapath.messages import GrowImage
from csi_driver.datapath.messages import Message
from csi_driver.datapath.messages import OpenImage
from csi_driver.datapath.messages import Ready
from csi_driver.datapath.messages import Release
from csi_driver.datapath.messages import Serving
from csi_driver.datapath.messages import Sized
from csi_driver.datapath.messages import Staying
from csi_driver.datapath.messages import TakeSocket
from csi_driver.datapath.staying import show_staying
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.sizes import EffectiveSize

SIZE = EffectiveSize(1 << 20)
SLOW_SECONDS = 0.6


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def answer(control: socket.socket, request: Message) -> Message:
    match request:
        case TakeSocket():
            wire.receive_socket(control).close()
            return Done()
        case GrowImage():
            return Sized(EffectiveSize(2 * SIZE.count))
        case ConfirmSize() | CloseImage() | FlattenImage():
            return Done()
        case Count():
            return Counters(1, 2, 3, 4, 5, 6, 7, 8, 9, fenced=False)
        case _:
            return Failed.of(InUseError(f"unexpected {request!r}"))


def serve(control: socket.socket, request: OpenImage) -> None:
    user = request.volume.user_id
    if user == "dies-before-connecting":
        die()
    if user == "wrong-key":
        return wire.send(control, Failed.of(SecretError("the key opens nothing")))
    addresses = "/".join(request.predecessor.addresses)
    wire.send(control, Connected(f"client-{os.getpid()}"))
    wire.receive(control)
    if user == "dies-with-the-lock":
        die()
    if user == "tells-predecessor":
        text = f"gone={request.predecessor.gone} addresses={addresses}"
        return wire.send(control, Failed.of(InUseError(text)))
    fenced = Fenced("node-b", "192.0.2.1:0/5") if user == "fences" else None
    wire.send(control, Serving(SIZE, 13, fenced))
    stays = 2 if user == "stays" else 0
    show_staying(staying=bool(stays))
    while True:
        message = wire.receive(control)
        if stays and isinstance(message, CloseImage):
            stays -= 1
            show_staying(staying=bool(stays))
            wire.send(control, Staying("somebody else is at work in here"))
            continue
        if user == "hangs":
            time.sleep(60)
        if user == "is-slow" and not isinstance(message, TakeSocket | CloseImage):
            time.sleep(SLOW_SECONDS)
        wire.send(control, answer(control, message))
        if isinstance(message, CloseImage):
            return None


def main() -> None:
    with socket.socket(fileno=int(sys.argv[1])) as control:
        wire.send(control, Ready(()))
        try:
            request = wire.receive(control)
        except wire.ClosedError:
            return
        if isinstance(request, OpenImage):
            serve(control, request)
        elif isinstance(request, Release):
            told = request.predecessor
            if not told.gone or request.user_id != "driver":
                wire.send(control, Failed.of(UnavailableError("no proof")))
            else:
                wire.send(control, Done())


if __name__ == "__main__":
    main()
