# SPDX-License-Identifier: Apache-2.0
"""The processes that hold keys and serve I/O: a supervisor and its workers.

One worker per volume opens, loads, locks and serves; it ends with its volume,
and the key with it.  The supervisor starts workers, attaches devices to them,
notices their deaths and answers on a unix socket; `client` is how the rest of
the driver speaks to it.  Keys are derived elsewhere, filesystems and mounts are
made elsewhere.
"""
