# SPDX-License-Identifier: Apache-2.0
"""rbdcrypt-csi: Kubernetes volumes on Ceph RBD, encrypted by librbd itself."""
