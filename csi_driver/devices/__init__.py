# SPDX-License-Identifier: Apache-2.0
"""From an NBD export to a block device, and the filesystems and mounts on it.

Two ways lead to a device: the kernel's NBD client, driven by netlink, and
nbdfuse with a loop device where the kernel has no NBD.  `attach.choose` picks
one; the code above sees only `Device` and `AttachMethod`.

Serving the export is left to `nbd` and `datapath`; when to make, check or grow
a filesystem is decided in `staging`.  Nothing here holds a key or speaks Ceph.
"""
