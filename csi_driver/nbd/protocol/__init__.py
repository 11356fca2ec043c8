# SPDX-License-Identifier: Apache-2.0
"""The server's side of the NBD protocol, without any I/O.

The state machine, after the protocol text of the NBD project (proto.md):

* A client that connects meets `Handshake` (fixed newstyle).  We greet, it
  answers with its flags, then it haggles over options one at a time: LIST,
  INFO, GO, EXPORT_NAME, ABORT; everything else is refused by name, with its
  data skipped, so that both sides stay in step.  GO or EXPORT_NAME ends the
  haggling; what the client sent behind it stays in the inbox.
* `Transmission` takes over the same inbox.  A kernel socket starts here, for
  its handshake is done by netlink.  Each request is judged by `export.verdict`
  before anybody else sees it; a refused one comes out as `Rejected`, with its
  payload already skipped.  The payload of an accepted write is not part of the
  event: the caller moves it to where it belongs with `take_payload`, or
  receives it there directly and reports that with `payload_received`.
* Bytes that cannot be NBD raise `PeerProtocolError`; the connection ends.  A
  caller that breaks the rules above gets `LocalProtocolError`: a bug of ours.

Bytes go in through the `Inbox`, events come out of `next_event`, which returns
None when it needs more bytes.  The events do not depend on how the bytes were
split on the way.
"""
