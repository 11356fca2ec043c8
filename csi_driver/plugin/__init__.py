# SPDX-License-Identifier: Apache-2.0
"""`kubectl rbdcrypt`: the driver's volumes by the names of their claims.

Runs on a workstation with kubectl and nothing of Ceph: it asks the API server
through kubectl, with the user's own rights, and the driver by a command in a
controller pod.  What it imports of the driver is pure; pyproject.toml keeps gRPC,
librados and librbd out.
"""
