# SPDX-License-Identifier: Apache-2.0
"""One client: its socket, its unfinished request, its replies that wait.

A connection never blocks the loop.  What the socket does not take at once stays
in its queue until the loop says that there is room; while that queue, the
operations in flight or the memory held grow beyond their bounds, requests are
left unread and the client waits.  Registering with epoll is the server's.
"""

from __future__ import annotations

import select
import socket
from dataclasses import dataclass
from typing import Final
from typing import assert_never

from csi_driver.nbd.buffers import HEADER_AT
from csi_driver.nbd.buffers import PAGE
from csi_driver.nbd.buffers import Slot
from csi_driver.nbd.outbox import Outbox
from csi_driver.nbd.protocol import constants as c
from csi_driver.nbd.protocol.errors import PeerProtocolError
from csi_driver.nbd.protocol.events import Disconnect
from csi_driver.nbd.protocol.events import Flush
from csi_driver.nbd.protocol.events import HandshakeAborted
from csi_driver.nbd.protocol.events import Read
from csi_driver.nbd.protocol.events import Rejected
from csi_driver.nbd.protocol.events import Send
from csi_driver.nbd.protocol.events import TransmissionBegins
from csi_driver.nbd.protocol.events import TransmissionEvent
from csi_driver.nbd.protocol.events import Write
from csi_driver.nbd.protocol.events import WriteZeroes
from csi_driver.nbd.protocol.export import Export
from csi_driver.nbd.protocol.handshake import Handshake
from csi_driver.nbd.protocol.replies import error_of
from csi_driver.nbd.protocol.replies import simple_reply
from csi_driver.nbd.protocol.replies import write_header
from csi_driver.nbd.protocol.transmission import Transmission
from csi_driver.nbd.shared import Shared
from csi_driver.nbd.shared import State

MAXIMUM_IN_FLIGHT: Final = 1024
MAXIMUM_QUEUED_REPLIES: Final = 1024
MAXIMUM_QUEUED_BYTES: Final = 4 * 1024 * 1024
ZEROES_AT_ONCE: Final = 4 * 1024 * 1024
"""Bytes that one write of a WRITE_ZEROES carries; they follow one another."""


@dataclass(slots=True, eq=False)
class Operation:
    """A request that the backend works on; the token of the contract.

    `zeroed` counts the bytes of a WRITE_ZEROES that are done.
    """

    connection: Connection
    event: Read | Write | WriteZeroes | Flush
    slot: Slot | None
    started: int
    zeroed: int = 0


class Connection:
    """One client of one export.

    `number` names it for its owner; `reason` says why it ended.
    """

    def __init__(
        self,
        number: int,
        sock: socket.socket,
        shared: Shared,
        protocol: Handshake | Transmission,
    ) -> None:
        sock.setblocking(False)
        self.number = number
        self.sock = sock
        self.fd = sock.fileno()
        self.mask = 0
        self.state = State.OPEN
        self.reason = ""
        self.held = 0
        self.in_flight = 0
        self._shared = shared
        self._protocol = protocol
        self._pending: Read | Write | WriteZeroes | None = None
        self._receiving: Operation | None = None
        self._filled = 0
        self._outbox = Outbox(self._release)

    def interest(self) -> int:
        """Return the epoll mask that fits the present state."""
        mask = select.EPOLLOUT if self._outbox else 0
        if self.may_read():
            mask |= select.EPOLLIN
        return mask

    def may_read(self) -> bool:
        """Whether another request may be received now."""
        return self.state is State.OPEN and self._pending is None and not self.crowded()

    def crowded(self) -> bool:
        """Whether too much is outstanding to begin another request."""
        return (
            self.in_flight >= MAXIMUM_IN_FLIGHT
            or self._outbox.size >= MAXIMUM_QUEUED_BYTES
            or len(self._outbox) >= MAXIMUM_QUEUED_REPLIES
        )

    def readable(self) -> None:
        """Take what the socket has, and do what it says."""
        if not self.may_read():
            return
        try:
            count = self._receive()
        except BlockingIOError:
            return
        except OSError as error:
            self.abort(f"receive failed: {error.strerror}")
            return
        if count == 0:
            self.finish("the client hung up")
            return
        self.proceed()

    def _receive(self) -> int:
        """Receive once; payload goes straight into its slot."""
        inbox = self._protocol.inbox
        operation = self._receiving
        if operation is None:
            count = self.sock.recv_into(inbox.space())
            inbox.commit(count)
            return count
        slot, event, protocol = operation.slot, operation.event, self._protocol
        if slot is None or type(event) is not Write or isinstance(protocol, Handshake):
            raise AssertionError(operation)
        rest = slot.memory[PAGE + self._filled : PAGE + event.length]
        count = self.sock.recvmsg_into([rest, inbox.space()])[0]
        payload = min(count, len(rest))
        protocol.payload_received(payload)
        inbox.commit(count - payload)
        self._filled += payload
        return count

    def proceed(self) -> None:
        """Act on everything that was received, as far as the bounds allow."""
        while self._advance():
            pass
        self._settle()

    def _advance(self) -> bool:
        """Act on what was received and send; True if that made room to go on.

        Sending frees memory and empties the queue after the requests were
        looked at.  Nothing else might ever happen that would wake them.
        """
        try:
            if type(self._protocol) is Handshake:
                self._shake_hands(self._protocol)
            if type(self._protocol) is Transmission:
                self._transmit(self._protocol)
        except PeerProtocolError as error:
            self.finish(f"not NBD: {error}")
        before = self._outbox.size
        if before:
            self._send()
        return self._outbox.size < before and self._held_up()

    def _held_up(self) -> bool:
        """Whether requests were received and not yet begun."""
        if self.state is not State.OPEN:
            return False
        return self._pending is not None or len(self._protocol.inbox) > 0

    def _shake_hands(self, handshake: Handshake) -> None:
        while self.state is State.OPEN:
            event = handshake.next_event()
            match event:
                case None:
                    return
                case Send(data):
                    self._outbox.put(data)
                case TransmissionBegins():
                    self._protocol = Transmission(self._shared.export, handshake.inbox)
                    return
                case HandshakeAborted():
                    self.finish("the client chose no export")
                case _:
                    assert_never(event)

    def _transmit(self, protocol: Transmission) -> None:
        if self._receiving is not None and not self._payload(protocol):
            return
        while self.state is State.OPEN and not self.crowded():
            event: TransmissionEvent | None = self._pending
            if event is None:
                event = protocol.next_event()
                if event is None:
                    return
            if not self._handle(protocol, event):
                return

    def _handle(self, protocol: Transmission, event: TransmissionEvent) -> bool:
        """Act on one event; False when it has to wait for memory or bytes."""
        if isinstance(event, (Read, Write, WriteZeroes)):
            slot = self._acquire(event)
            if slot is None:
                return False
            operation = Operation(self, event, slot, self._shared.now)
            if type(event) is WriteZeroes:
                room = min(event.length, ZEROES_AT_ONCE)
                slot.memory[PAGE : PAGE + room] = bytes(room)
            if type(event) is not Write:
                self._submit(operation)
                return True
            self._receiving, self._filled = operation, 0
            return self._payload(protocol)
        if isinstance(event, Flush):
            self._submit(Operation(self, event, None, self._shared.now))
        elif isinstance(event, Rejected):
            self._shared.counters.rejected += 1
            self._outbox.put(simple_reply(event.cookie, event.error))
        elif isinstance(event, Disconnect):
            self.finish("the client disconnected")
        return True

    def _payload(self, protocol: Transmission) -> bool:
        """Move buffered payload on; True when the write is complete and submitted."""
        operation = self._receiving
        if operation is None or operation.slot is None:
            raise AssertionError(operation)
        if protocol.payload_left:
            target = operation.slot.memory[PAGE + self._filled :]
            self._filled += protocol.take_payload(target)
            if protocol.payload_left:
                return False
        self._receiving = None
        self._submit(operation)
        return True

    def _acquire(self, event: Read | Write | WriteZeroes) -> Slot | None:
        """Return memory for a request; else remember it and stand in line."""
        shared = self._shared
        length = event.length
        if type(event) is WriteZeroes:
            length = min(length, ZEROES_AT_ONCE)
        cost = shared.pool.cost_of(length)
        if self.held == 0 or self.held + cost <= shared.quota:
            queue = shared.waiting
            if not queue or queue[0] is self:
                slot = shared.pool.acquire(length)
                if slot is not None:
                    if queue:
                        queue.popleft()
                    self.held += cost
                    self._pending = None
                    return slot
            if self not in queue:
                queue.append(self)
        self._pending = event
        return None

    def _submit(self, operation: Operation) -> None:
        shared = self._shared
        self.in_flight += 1
        shared.counters.in_flight += 1
        if shared.fenced:
            self.complete(operation, -shared.fenced)
            return
        event, slot = operation.event, operation.slot
        backend = shared.backend
        if slot is None:
            backend.submit_flush(operation)
        elif type(event) is Read:
            backend.submit_read(operation, event.offset, event.length, slot)
        elif type(event) is Write:
            backend.submit_write(
                operation, event.offset, event.length, slot, fua=event.fua
            )
        elif type(event) is WriteZeroes:
            offset = event.offset + operation.zeroed
            length = min(event.length - operation.zeroed, ZEROES_AT_ONCE)
            backend.submit_write(operation, offset, length, slot, fua=event.fua)

    def _zeroes_on(self, operation: Operation, result: int) -> bool:
        """Write the next zeros of a WRITE_ZEROES; False when it is finished."""
        event = operation.event
        if type(event) is not WriteZeroes or result < 0 or self.state is State.DEAD:
            return False
        operation.zeroed += min(event.length - operation.zeroed, ZEROES_AT_ONCE)
        if operation.zeroed == event.length:
            return False
        self.in_flight -= 1
        self._shared.counters.in_flight -= 1
        self._submit(operation)
        return True

    def complete(self, operation: Operation, result: int) -> None:
        """Queue the reply to a finished operation.

        A failure is passed on, never masked, and a read that came back short
        is a failure: the rest of its buffer holds somebody else's old data.
        """
        if self._zeroes_on(operation, result):
            return
        shared, event, slot = self._shared, operation.event, operation.slot
        self.in_flight -= 1
        shared.counters.in_flight -= 1
        elapsed = shared.now - operation.started
        if type(event) is Read:
            failed = result != event.length
            shared.counters.reads.add(event.length, elapsed, failed=failed)
        elif isinstance(event, (Write, WriteZeroes)):
            failed = result < 0
            shared.counters.writes.add(event.length, elapsed, failed=failed)
        else:
            failed = result < 0
            shared.counters.flushes.add(0, elapsed, failed=failed)
        if self.state is State.DEAD:
            self._release_if(slot)
        elif failed:
            error = error_of(-result) if result < 0 else c.EIO
            self._release_if(slot)
            self._outbox.put(simple_reply(event.cookie, error))
        elif type(event) is Read and slot is not None:
            write_header(slot.memory, HEADER_AT, event.cookie)
            self._outbox.put(slot.memory[HEADER_AT : PAGE + event.length], slot)
        else:
            self._release_if(slot)
            self._outbox.put(simple_reply(event.cookie))

    def _release(self, slot: Slot) -> None:
        self.held -= slot.cost
        self._shared.pool.release(slot)

    def _release_if(self, slot: Slot | None) -> None:
        if slot is not None:
            self._release(slot)

    def _send(self) -> None:
        try:
            self._outbox.send(self.sock)
        except OSError as error:
            self.abort(f"send failed: {error.strerror}")

    def resume(self) -> None:
        """Send what has gathered, then go on with what was held up."""
        if self._outbox:
            self._send()
        if self._held_up():
            self.proceed()
        else:
            self._settle()

    def update_export(self, export: Export) -> None:
        """Judge the next requests by `export`."""
        self._protocol.export = export

    def finish(self, reason: str) -> None:
        """Read nothing more; close once what is outstanding has been answered.

        A request that was not completely received, or that waits for memory,
        is dropped without an answer: a kernel sends it again to a successor.
        """
        if self.state is not State.OPEN:
            return
        self.state = State.CLOSING
        self.reason = reason
        self._drop_unfinished()
        self._settle()

    def abort(self, reason: str) -> None:
        """Close at once; results that are still to come are thrown away."""
        if self.state is State.DEAD:
            return
        self.state = State.DEAD
        self.reason = self.reason or reason
        self._drop_unfinished()
        self._outbox.clear()
        self.sock.close()

    def _drop_unfinished(self) -> None:
        self._pending = None
        if self in self._shared.waiting:
            self._shared.waiting.remove(self)
        if self._receiving is not None:
            slot, self._receiving = self._receiving.slot, None
            self._release_if(slot)

    def _settle(self) -> None:
        """Close a connection that has nothing left to do."""
        if self.state is State.CLOSING and not (self.in_flight or self._outbox):
            self.abort(self.reason)
