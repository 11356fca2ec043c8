# SPDX-License-Identifier: Apache-2.0
"""What the controller does with volumes: create, list, grow, delete, collect.

Everything here works on domain values and on the port of `images`; translating
CSI messages is left to `rpc`, everything on a node to `staging`.
"""
