# SPDX-License-Identifier: Apache-2.0
"""Serving one image as a network block device.

`protocol` is the wire format without any I/O, `backend` the contract of what
stores the blocks, `server` the one epoll loop between the two, and `librbd_*`
the backend that production uses.  Attaching an export as a device, supervising
processes, and the image's life outside of an export are left to others.
"""
