# SPDX-License-Identifier: Apache-2.0
"""The port to RADOS and librbd: images, headers, locks, records.

`port` says what the rest of the driver may ask for; `ceph` answers through
python-rados and python-rbd, `csi_driver.testing` from memory, and one contract
suite holds both to the same behaviour.  Data I/O is left to `nbd`.
"""
